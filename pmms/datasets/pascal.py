"""Reader of Pascal VOC 2012 and of any data in the same folders.

The layout (Everingham et al., The Pascal Visual Object Classes Challenge, IJCV 2010):

    JPEGImages/<id>.jpg                      the photo
    SegmentationClass/<id>.png               label map: palette PNG, 0 background, 255 void
    SegmentationClassAug/<id>.png            the same for more images, merged with SBD
    ImageSets/Segmentation/<split>.txt       one <id> a line
"""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pmms.datasets.base import Sample, SegmentationDataset
from pmms.datasets.label_index import LabelIndex, as_rgb, label_index, open_image, open_labels
from pmms.folds import PASCAL_CLASSES, VOID

IMAGES = "JPEGImages"
LISTS = Path("ImageSets") / "Segmentation"


class PascalVOC(SegmentationDataset):
    """Images of one list of a VOC tree, with their label maps.

    Which classes an image shows comes from an index of all label maps of the list. It is made at
    the first question (a few seconds for VOC) and kept in one small file, see ``label_index``.

    Args:
        root: the folder ``VOCdevkit``, the folder ``VOC2012`` in it, or one of the same layout.
        split: name of the list, the file ``ImageSets/Segmentation/<split>.txt``.
        labels: folder of the label maps, "SegmentationClass" or "SegmentationClassAug".
        class_names: names of the classes 1, 2, ...
        min_area: pixels that a class needs for the image to count as an image of the class, at
            least 1, at the original size.
        cache: folder for the index file; None puts it beside the list.
        name: name of the data set in records; for a person's own data.

    Raises:
        FileNotFoundError: a folder, the list, an image or a label map is missing.
        ValueError: an empty or malformed list, an id twice, no class names, or ``min_area`` < 1.
            Reading an image raises it as well, naming the file, when a file is damaged, a label map
            holds a label beyond ``class_names``, or the image and its label map differ in size.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "val",
        *,
        labels: str = "SegmentationClass",
        class_names: tuple[str, ...] = PASCAL_CLASSES,
        min_area: int = 1,
        cache: str | Path | None = None,
        name: str = "pascal",
    ) -> None:
        if min_area < 1:
            raise ValueError(f"min_area must be at least 1 pixel, got {min_area}")
        if not 1 <= len(class_names) < VOID:
            raise ValueError(f"expected 1 to {VOID - 1} class names, got {len(class_names)}")
        self.name = name
        self.class_names = tuple(class_names)
        self.split = split
        self.labels = labels
        self.min_area = min_area
        self.root = _voc_folder(Path(root), labels)
        self._ids = self._read_ids()
        self._cache = Path(cache) if cache is not None else self.root / LISTS
        self._check_files()

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> Sample:
        position = self._position(index)
        photo = as_rgb(open_image(self._image_path(position)), self._image_path(position))
        label_map = open_labels(self._label_path(position))
        if photo.size != label_map.size:
            raise ValueError(
                f"{self._image_path(position)} has {photo.width} x {photo.height} pixels, but its "
                f"label map {self._label_path(position)} has {label_map.width} x "
                f"{label_map.height}; they must match (an EXIF entry that turns a photo is not "
                "applied: draw on the pixels as stored, or save the photo upright)"
            )
        image = torch.from_numpy(np.array(photo)).permute(2, 0, 1).contiguous()
        return Sample(image, self._checked_labels(position, label_map))

    def label_map(self, index: int) -> torch.Tensor:
        position = self._position(index)
        return self._checked_labels(position, open_labels(self._label_path(position)))

    def image_id(self, index: int) -> str:
        return self._ids[self._position(index)]

    def classes_in(self, index: int) -> frozenset[int]:
        return self._classes(index, self.min_area)

    def classes_shown(self, index: int) -> frozenset[int]:
        return self._classes(index, 1)

    def fingerprint(self) -> str:
        """Name, list, label folder and ``min_area``, with a hash of ids, label maps and photos."""
        return _plain(f"{self.name}-{self.split}-{self.labels}-{self.min_area}-{self._digest}")

    def __repr__(self) -> str:
        return f"PascalVOC({self.name!r}, {self.split!r}, {len(self)} images)"

    def _read_ids(self) -> tuple[str, ...]:
        return _read_list(self.root / LISTS, self.split)

    def _checked_labels(self, position: int, label_map: Image.Image) -> torch.Tensor:
        values = torch.from_numpy(np.array(label_map))
        beyond = values[(values > len(self.class_names)) & (values != VOID)]
        if len(beyond):
            raise self._unknown_label(position, int(beyond[0]))
        return values

    @cached_property
    def _digest(self) -> str:
        """Hash of ids, label maps and the photos' file sizes; photos themselves take too long."""
        digest = hashlib.sha256("\n".join(self._ids).encode())
        digest.update(self._index.sizes.astype("<i4").tobytes())
        digest.update(self._index.checksums.astype("<u4").tobytes())
        sizes = [self._image_path(i).stat().st_size for i in range(len(self))]
        digest.update(np.array(sizes, dtype="<i8").tobytes())
        return digest.hexdigest()[:12]

    @cached_property
    def _index(self) -> LabelIndex:
        """Index of the list's label maps, with every label checked against ``class_names``."""
        index = self._read_index()
        beyond = np.argwhere(index.pixels[:, len(self.class_names) + 1 : VOID] > 0)
        if len(beyond):
            position, offset = beyond[0]
            raise self._unknown_label(int(position), len(self.class_names) + 1 + int(offset))
        return index

    def _read_index(self) -> LabelIndex:
        return self._index_of(self.split, self._ids)

    def _index_of(self, name: str, ids: Sequence[str]) -> LabelIndex:
        """Index of some label maps, kept under a name of their list."""
        paths = [self.root / self.labels / f"{image_id}.png" for image_id in ids]
        return label_index(paths, self._cache / _plain(f"{name}.{self.labels}.index.npz"))

    def _classes(self, index: int, area: int) -> frozenset[int]:
        pixels = self._index.pixels[self._position(index), 1 : len(self.class_names) + 1]
        return frozenset((np.flatnonzero(pixels >= area) + 1).tolist())

    def _image_path(self, position: int) -> Path:
        return self.root / IMAGES / f"{self._ids[position]}.jpg"

    def _label_path(self, position: int) -> Path:
        return self.root / self.labels / f"{self._ids[position]}.png"

    def _unknown_label(self, position: int, label: int) -> ValueError:
        return ValueError(
            f"{self._label_path(position)} holds the label {label}, but there are "
            f"{len(self.class_names)} classes; expected 0 to {len(self.class_names)} and {VOID}"
        )

    def _check_files(self) -> None:
        """One listing per folder tells missing files at the start instead of at step 10,000."""
        for folder, suffix in ((IMAGES, ".jpg"), (self.labels, ".png")):
            present = set(os.listdir(self.root / folder))
            missing = [i for i in self._ids if f"{i}{suffix}" not in present]
            if missing:
                raise FileNotFoundError(
                    f"{len(missing)} of the {len(self)} images of list {self.split!r} have no file "
                    f"in {self.root / folder}, the first is {missing[0]}{suffix}; unpack the whole "
                    f"archive, or let list and label folder fit (labels={self.labels!r})"
                )


def _plain(text: str) -> str:
    """``text`` as it may stand in a file name."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", text)


def _voc_folder(root: Path, labels: str) -> Path:
    """The folder that holds JPEGImages, the label maps and the lists."""
    if not root.is_dir():
        raise FileNotFoundError(
            f"the folder {root} does not exist; give the VOCdevkit folder that comes out of the "
            "archive VOCtrainval_11-May-2012.tar"
        )
    needed = (IMAGES, labels, str(LISTS))
    candidates = (root, root / "VOC2012", root / "VOCdevkit" / "VOC2012")
    folder = max(candidates, key=lambda one: sum((one / part).is_dir() for part in needed))
    missing = [str(folder / part) for part in needed if not (folder / part).is_dir()]
    if missing:
        raise FileNotFoundError(
            f"{root} is no complete VOC tree, missing: {', '.join(missing)}; give the VOCdevkit "
            "folder that comes out of the archive VOCtrainval_11-May-2012.tar "
            "(SegmentationClassAug is not in it: that merge with SBD goes beside SegmentationClass)"
        )
    return folder


def _read_list(folder: Path, split: str) -> tuple[str, ...]:
    """Image ids of a list, in its order."""
    path = folder / f"{split}.txt"
    if not path.is_file():
        found = sorted(p.stem for p in folder.glob("*.txt"))
        raise FileNotFoundError(
            f"there is no list {path}; split must be one of: {', '.join(found) or 'none is there'}"
        )
    try:
        text = path.read_text(encoding="utf-8-sig")  # Windows puts a mark before
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no UTF-8 text ({error}); save it as UTF-8") from error
    ids = [line.strip() for line in text.splitlines() if line.strip()]
    if not ids:
        raise ValueError(f"the list {path} is empty; expected one image id a line")
    malformed = next((i for i in ids if re.search(r"[\s/\\]", i)), None)
    if malformed is not None:
        raise ValueError(
            f"{path}: expected one image id a line, e.g. 2007_000033, got {malformed!r}"
        )
    repeated = next((i for i, count in Counter(ids).items() if count > 1), None)
    if repeated is not None:
        raise ValueError(f"{path} lists {repeated} twice; an image would be its own support")
    return tuple(ids)
