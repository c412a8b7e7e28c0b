"""Tables of bad input: what is given, how it is refused, and that nothing is half-written."""

import struct
import zlib
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

Deed = Callable[[], object]


class Case(NamedTuple):
    """One case of a table.

    Attributes:
        name: what is bad.
        error: the type that is raised.
        words: what the message holds: what was expected or found, and what to do.
        prepare: takes an empty folder, makes in it what the case needs, and returns the deed that
            is to be refused.
    """

    name: str
    error: type[Exception]
    words: tuple[str, ...]
    prepare: Callable[[Path], Deed]


class Table:
    """Cases, collected by a decorator."""

    def __init__(self) -> None:
        self.cases: list[Case] = []

    def __call__(
        self, name: str, error: type[Exception], *words: str
    ) -> Callable[[Callable[[Path], Deed]], Callable[[Path], Deed]]:
        """Add a case; the function below the decorator is its ``prepare``."""
        assert words, "a message that says nothing helps nobody"

        def add(prepare: Callable[[Path], Deed]) -> Callable[[Path], Deed]:
            self.cases.append(Case(name, error, words, prepare))
            return prepare

        return add

    def parametrize(self) -> pytest.MarkDecorator:
        """One test for each case."""
        names = [case.name for case in self.cases]
        assert len(set(names)) == len(names), "two cases have one name"
        return pytest.mark.parametrize("case", self.cases, ids=names)


def check(case: Case, folder: Path) -> None:
    """The deed is refused as the table says, and the folder is what it was before."""
    deed = case.prepare(folder)
    before = listing(folder)
    with pytest.raises(case.error) as raised:
        deed()
    message = str(raised.value)
    assert [word for word in case.words if word not in message] == [], message
    assert listing(folder) == before


def listing(folder: Path) -> dict[str, str]:
    """Every file below a folder, hidden ones too, by its content; folders by their name."""
    return {
        str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else "folder"
        for path in sorted(folder.rglob("*"))
    }


# a small VOC tree

IDS = ("2007_000001", "2007_000002", "2007_000003")


def voc_tree(folder: Path) -> Path:
    """A VOCdevkit folder of three images; class 1 in the first two, 2 in the last two."""
    voc = folder / "VOCdevkit" / "VOC2012"
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (voc / name).mkdir(parents=True)
    for place, image_id in enumerate(IDS):
        save_photo(photo_of(folder, image_id))
        labels = np.zeros((30, 40), dtype=np.uint8)
        labels[:8, :10] = 1 if place < 2 else 0
        labels[15:25, :10] = 2 if place > 0 else 0
        save_labels(labels_of(folder, image_id), labels)
    list_of(folder).write_text("\n".join(IDS) + "\n")
    return voc.parent


def photo_of(folder: Path, image_id: str = IDS[0]) -> Path:
    return folder / "VOCdevkit" / "VOC2012" / "JPEGImages" / f"{image_id}.jpg"


def labels_of(folder: Path, image_id: str = IDS[0]) -> Path:
    return folder / "VOCdevkit" / "VOC2012" / "SegmentationClass" / f"{image_id}.png"


def list_of(folder: Path) -> Path:
    return folder / "VOCdevkit" / "VOC2012" / "ImageSets" / "Segmentation" / "val.txt"


def save_photo(path: Path, *, height: int = 30, width: int = 40) -> Path:
    """A photo of noise."""
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def save_labels(path: Path, labels: np.ndarray) -> Path:
    """A palette PNG."""
    image = Image.fromarray(labels)
    image.putpalette(np.random.default_rng(1).integers(0, 256, 768, dtype=np.uint8).tobytes())
    image.save(path)
    return path


def png_header(width: int, height: int) -> bytes:
    """A PNG that says it has that size, and holds next to no pixels."""
    pixels = zlib.compress(bytes(100))
    chunks = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT" + pixels
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in chunks
    )


def cut(path: Path, share: float = 0.5) -> Path:
    """Leave the first part of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path
