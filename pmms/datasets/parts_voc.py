"""Writing a data set as a VOCdevkit tree, which readers of PASCAL VOC 2012 open unchanged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from pmms.datasets.base import SegmentationDataset
from pmms.files import replacing, write_atomically

_FOLDERS = ("JPEGImages", "SegmentationClass", "SegmentationPart")


def voc_colour_map() -> NDArray[np.uint8]:
    """The palette of PASCAL VOC label images, uint8 (256, 3): index -> RGB.

    The bits of the index are dealt to red, green and blue in turn, lowest bits first, and fill
    each channel from its highest bit (VOC development kit, VOClabelcolormap.m).
    """
    index = np.arange(256)
    colours = np.zeros((256, 3), dtype=np.uint8)
    for level in range(8):
        for channel in range(3):
            bit = (index >> (3 * level + channel)) & 1
            colours[:, channel] |= (bit << (7 - level)).astype(np.uint8)
    return colours


def write_tree(
    dataset: SegmentationDataset,
    root: Path,
    *,
    split: str,
    parts: Callable[[int], Tensor],
    content: str,
    progress: bool = True,
) -> Path:
    """Write images, label maps, part maps and the list of `split` under `root`; return `root`.

    `content` names what an image id stands for; it is kept beside the list, so that a later call
    continues the same images and refuses others.

    Raises:
        ValueError: `root` holds `split` with another `content`.
    """
    lists = root / "ImageSets" / "Segmentation"
    for folder in (lists, *(root / name for name in _FOLDERS)):
        folder.mkdir(parents=True, exist_ok=True)
    stamp = lists / f"{split}.content"
    if stamp.exists() and stamp.read_text(encoding="utf-8").strip() != content:
        raise ValueError(
            f"{root} holds the {split} images of {stamp.read_text(encoding='utf-8').strip()}, not "
            f"of {content}: choose another folder or remove this one"
        )
    write_atomically(stamp, f"{content}\n".encode())
    palette = voc_colour_map().ravel().tolist()
    names = [dataset.image_id(index) for index in range(len(dataset))]
    for index, name in enumerate(tqdm(names, desc=f"writing {split}", disable=not progress)):
        image, labels, part = (
            root / folder / f"{name}{suffix}"
            for folder, suffix in zip(_FOLDERS, (".jpg", ".png", ".png"), strict=True)
        )
        if not (image.exists() and labels.exists()):
            sample = dataset[index]
            picture = Image.fromarray(sample.image.permute(1, 2, 0).numpy())
            with replacing(image) as target:
                picture.save(target, format="JPEG", quality=95)
            _save_labels(labels, sample.labels, palette)
        if not part.exists():
            _save_labels(part, parts(index), palette)
    write_atomically(lists / f"{split}.txt", ("\n".join(names) + "\n").encode())
    return root


def _save_labels(path: Path, labels: Tensor, palette: list[int]) -> None:
    picture = Image.fromarray(labels.numpy())
    picture.putpalette(palette)
    with replacing(path) as target:
        picture.save(target, format="PNG")
