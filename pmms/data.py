"""Which images a run uses: settings, and training and test sets made from them."""

from dataclasses import dataclass
from typing import NamedTuple

from pmms.datasets.base import SegmentationDataset, images_of_class, keep_images, without_classes
from pmms.episodes import check_no_leak
from pmms.folds import split_classes

DATASETS = ("parts", "pascal")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which images.

    Attributes:
        dataset: "parts" (drawn by code) or "pascal" (a VOC folder tree under ``root``).
        fold: 0 to 3; its classes are novel.
        validation: hold the classes of the next fold out of training too and test on them instead
            of the novel ones: for choosing settings.
        root: folder of the VOC tree; not used by "parts".
        train_split, test_split: names of the image lists of the VOC tree.
        labels: folder of its label maps, "SegmentationClass" or "SegmentationClassAug".
        train_images, test_images: how many images of "parts" there are.
        extra_classes: training-only classes of "parts", drawn by a random part grammar.
        train_size, test_size: side that images are squashed to, in pixels; "parts" is drawn at it.
        views: kept views of a training image, the plain one included (frozen backbones only).
    """

    dataset: str = "parts"
    fold: int = 0
    validation: bool = False
    root: str = ""
    train_split: str = "train"
    test_split: str = "val"
    labels: str = "SegmentationClassAug"
    train_images: int = 500
    test_images: int = 300
    extra_classes: int = 60
    train_size: int = 160
    test_size: int = 160
    views: int = 2

    def __post_init__(self) -> None:
        if self.dataset not in DATASETS:
            raise ValueError(f"dataset must be one of {', '.join(DATASETS)}; got {self.dataset!r}")
        split_classes(self.dataset, self.fold)  # refuses a fold that does not exist
        if self.dataset == "pascal" and not self.root:
            raise ValueError("dataset='pascal' needs root, the folder that holds VOCdevkit")
        for name in ("train_images", "test_images", "views", "train_size", "test_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.extra_classes < 0:
            raise ValueError(f"extra_classes must be at least 0, got {self.extra_classes}")


class Data(NamedTuple):
    """Images of a run.

    Attributes:
        train: training images; none shows a held-out class.
        test: test images.
        train_classes: classes that training episodes are drawn from.
        test_classes: classes that are scored: the novel ones, or the validation classes.
    """

    train: SegmentationDataset
    test: SegmentationDataset
    train_classes: tuple[int, ...]
    test_classes: tuple[int, ...]


def load_data(config: DataConfig) -> Data:
    """Training and test images, with every image that shows a held-out class taken out of training.

    Raises:
        FileNotFoundError: if a VOC tree is not where ``root`` says.
        ValueError: if too few images are left.
    """
    split = split_classes(config.dataset, config.fold, validation=config.validation)
    train: SegmentationDataset
    test: SegmentationDataset
    if config.dataset == "parts":
        from pmms.datasets.parts import PartsVOC

        # Planned, not drawn; an image in five at least shows no held-out class.
        drawn = 8 * config.train_images
        every = PartsVOC(
            "train", length=drawn, size=config.train_size, extra_classes=config.extra_classes
        )
        train = without_classes(every, split.held_out)
        train = keep_images(train, range(min(config.train_images, len(train))))
        test = PartsVOC("val", length=config.test_images, size=config.test_size)
        candidates = (*split.train, *range(21, 21 + config.extra_classes))
    else:
        from pmms.datasets.pascal import PascalVOC

        every = PascalVOC(config.root, config.train_split, labels=config.labels)
        train = without_classes(every, split.held_out)
        test = PascalVOC(config.root, config.test_split, labels=config.labels)
        candidates = split.train
    check_no_leak(train, split.held_out)
    images = images_of_class(train)
    classes = tuple(c for c in candidates if len(images[c]) >= 2)
    return Data(train, test, classes, split.validation if config.validation else split.novel)
