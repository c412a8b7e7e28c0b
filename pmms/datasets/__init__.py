"""Data sets of images with a label map each; ``base`` says what every one of them offers."""

from pmms.datasets.base import (
    KeptImages,
    Sample,
    SegmentationDataset,
    images_of_class,
    keep_images,
    without_classes,
)

__all__ = [
    "KeptImages",
    "Sample",
    "SegmentationDataset",
    "images_of_class",
    "keep_images",
    "without_classes",
]
