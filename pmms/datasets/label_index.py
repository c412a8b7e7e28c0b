"""What each label map of a folder contains, read once with a few threads and kept in a small file.

An episode asks for images of a class, and a class's images are known only after all label maps were
decoded. 12,031 maps of VOC take seconds; the index file makes the next start immediate.
"""

import io
import os
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from pmms.datasets.kept_arrays import file_stamp, kept_arrays


class LabelIndex(NamedTuple):
    """One row per label map, in the order of the list it was made from.

    Attributes:
        sizes: int32 (N, 2), height and width in pixels.
        pixels: int32 (N, 256), number of pixels of each label.
        checksums: uint32 (N,), CRC-32 of the decoded labels, row by row.
    """

    sizes: np.ndarray
    pixels: np.ndarray
    checksums: np.ndarray


def as_rgb(image: Image.Image, path: Path | str) -> Image.Image:
    """A photo with three channels of 8 bits.

    Raises:
        ValueError: 32 bits a pixel, whose range nobody knows.
    """
    if image.mode.startswith("I;16"):  # Pillow would cut all values above 255
        image = Image.fromarray((np.array(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError(f"{path} has 32 bits a pixel, of unknown range; save it with 8 bits")
    return image.convert("RGB")


def open_image(path: Path) -> Image.Image:
    """The decoded picture in the file's own mode.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or no picture; names the file.
    """
    data = path.read_bytes()
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
    # Pillow reports a damaged PNG as SyntaxError, a truncated JPEG as OSError.
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"cannot decode {path} ({len(data)} bytes): {error}; "
            "copy it or unpack its archive again"
        ) from error
    return image


def open_labels(path: Path) -> Image.Image:
    """A label map whose pixel VALUES are labels: a palette or grey PNG with 8 bits.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or has colours instead of labels; names the file.
    """
    image = open_image(path)
    if image.mode not in ("P", "L"):
        raise ValueError(
            f"{path} is no label map: expected a palette or 8-bit grey PNG (mode P or L), got mode "
            f"{image.mode}; save the labels themselves, not their colours"
        )
    return image


def label_index(paths: Sequence[Path], cache: Path) -> LabelIndex:
    """Index of the label maps at ``paths``, taken from the file ``cache`` while that is current.

    It is current while names, sizes and modification times of all maps are as they were; otherwise,
    or if it cannot be read, the maps are decoded and the file is replaced in one step. A folder
    that cannot be written is reported by a UserWarning, and the index is used all the same.

    Raises:
        FileNotFoundError: a map is missing.
        ValueError: a map is damaged or no label map; names the file.
    """
    arrays = kept_arrays(
        cache,
        file_stamp(paths),
        lambda: _build(paths)._asdict(),
        content=f"the index of {len(paths)} label maps",
    )
    return LabelIndex(**arrays)


def _build(paths: Sequence[Path]) -> LabelIndex:
    # Pillow decodes without the interpreter lock, so threads serve as well as processes.
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        rows = list(pool.map(_row, paths))
    sizes, pixels, checksums = zip(*rows, strict=True)
    return LabelIndex(
        np.array(sizes, dtype=np.int32),
        np.array(pixels, dtype=np.int32),
        np.array(checksums, dtype=np.uint32),
    )


def _row(path: Path) -> tuple[tuple[int, int], list[int], int]:
    labels = open_labels(path)
    return (labels.height, labels.width), labels.histogram(), zlib.crc32(labels.tobytes())
