"""Reader of COCO instance annotations, and of any data in the same JSON format.

The layout (Lin et al., Microsoft COCO: Common Objects in Context, ECCV 2014):

    annotations/instances_<split>.json       polygons and run-length codes of every instance
    <split>/ or images/<split>/ or images/   the photos

COCO has no label maps: an image here is painted from its instances, which may overlap. A smaller
instance lies on a larger one, so that a cup is not lost under the table whose outline runs around
it, nor a tie under its person; of equal ones the later in the file is on top. Crowds, outlines of
many objects at once, are void (255), and lie below the instances that are outlined singly.
"""

import hashlib
import os
import re
from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch

from pmms.datasets.base import Sample, SegmentationDataset
from pmms.datasets.coco_index import CocoIndex, coco_index, kept_coco_index, split_names
from pmms.datasets.label_index import as_rgb, open_image
from pmms.datasets.polygons import rle_mask
from pmms.folds import COCO_CLASSES, MAX_CLASSES, VOID

Masks = Literal["all", "first_polygon"]

_ORIENTATION = 274  # the EXIF tag


class CocoInstances(SegmentationDataset):
    """Images of one COCO annotation file, in ascending image id, with their label maps.

    A class id is the position of the category's NAME in ``class_names`` + 1: COCO's own ids run to
    90 and have gaps. The annotations are read once and kept in one file, see ``coco_index``: which
    classes an image shows is known without decoding or painting anything.

    ``classes_in`` counts the pixels of the painted label map, void left out. ``classes_shown`` is
    stricter than the label map: it names every annotated class, also one that shows as a crowd only
    or is covered, since a network sees those too.

    Photos are taken as they are stored: COCO's outlines are drawn on the pixels of the file, so a
    rotation noted in EXIF is not applied. Grey and CMYK photos become RGB.

    Args:
        root: folder with ``annotations`` and the photos.
        split: name of the annotation file and of the folder of photos, e.g. "val2017".
        annotations: path of the annotation file, absolute or below ``root``; None takes
            ``annotations/instances_<split>.json``.
        images: folder of the photos, absolute or below ``root``; None takes the first of
            ``<split>``, ``images/<split>``, ``images`` and ``root`` that holds the first photo.
        class_names: names of the classes 1, 2, ...; None takes the 80 of COCO.
        masks: "all" draws every polygon and every RLE of an instance. "first_polygon" draws what
            the authors of PMMs do: the first polygon of each instance, scan-converted as if it were
            convex, and no crowd (github.com/Yang-Bob/PMMs, ``data/coco_val.py``). Their masks of
            two classes may share pixels; here the order of painting decides.
        min_area: pixels that a class needs for the image to count as an image of the class, at
            least 1, at the original size.
        cache: folder for the index file; None puts it beside the annotation file.
        name: name of the data set in records; for a person's own data.

    Raises:
        FileNotFoundError: a folder, the annotation file or a photo is missing.
        ValueError: the file is no COCO instances file, an annotation cannot be drawn (no mask, far
            outside its image, an RLE of another size), a category is not in ``class_names``, two
            photos share a name, or a setting does not fit. Reading an image raises it as well,
            naming the file, when a photo is damaged or has another size than its annotations say.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "val2017",
        *,
        annotations: str | Path | None = None,
        images: str | Path | None = None,
        class_names: tuple[str, ...] | None = None,
        masks: Masks = "all",
        min_area: int = 1,
        cache: str | Path | None = None,
        name: str = "coco",
    ) -> None:
        if masks not in get_args(Masks):
            raise ValueError(f"masks must be one of {', '.join(get_args(Masks))}, got {masks!r}")
        if min_area < 1:
            raise ValueError(f"min_area must be at least 1 pixel, got {min_area}")
        self.name = name
        self.class_names = tuple(COCO_CLASSES if class_names is None else class_names)
        if not 1 <= len(self.class_names) <= MAX_CLASSES:
            raise ValueError(
                f"expected 1 to {MAX_CLASSES} class names, got {len(self.class_names)}"
            )
        self.split = split
        self.masks = masks
        self.min_area = min_area
        self.root = Path(root)
        self.annotations = _annotation_file(self.root, split, annotations)
        folder = self.annotations.parent if cache is None else Path(cache)
        self._cache = folder / f"{self.annotations.stem}.{masks}.index.npz"
        self._set_index(coco_index(self.annotations, self._cache, masks=masks))
        self.photos = _photo_folder(self.root, split, images, self._files[0])
        self._check_photos()

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Sample:
        position = self._position(index)
        path = self.photos / self._files[position]
        photo = open_image(path)
        height, width = self._index.sizes[position].tolist()
        if photo.size != (width, height):
            turned = photo.getexif().get(_ORIENTATION, 1) > 4
            raise ValueError(
                f"{path} has {photo.width} x {photo.height} pixels, but {self.annotations.name} "
                f"says {width} x {height}; they must match"
                + (" (its EXIF entry turns it: annotate the pixels as stored)" if turned else "")
            )
        image = torch.from_numpy(np.array(as_rgb(photo, path))).permute(2, 0, 1).contiguous()
        return Sample(image, torch.from_numpy(self._paint(position)))

    def image_id(self, index: int) -> str:
        return self._ids[self._position(index)]

    def classes_in(self, index: int) -> frozenset[int]:
        rows = self._rows(index)
        pixels = np.bincount(self._labels[rows], weights=self._index.visible[rows], minlength=1)
        return frozenset((np.flatnonzero(pixels >= self.min_area)).tolist()) - {VOID}

    def classes_shown(self, index: int) -> frozenset[int]:
        return frozenset(self._classes[self._rows(index)].tolist())

    def fingerprint(self) -> str:
        """Name, split, masks and ``min_area``, with a hash of annotations, classes and photos."""
        return _plain(f"{self.name}-{self.split}-{self.masks}-{self.min_area}-{self._digest}")

    def __repr__(self) -> str:
        return f"CocoInstances({self.name!r}, {self.split!r}, {len(self)} images)"

    def __getstate__(self) -> dict[str, Any]:
        """Without the index where a file has it: a process that is started anew reads that."""
        state = self.__dict__.copy()
        if self._cache.is_file():
            for derived in ("_index", "_files", "_ids", "_classes", "_labels"):
                del state[derived]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if "_index" not in state:
            index = kept_coco_index(self.annotations, self._cache, masks=self.masks)
            if index is None:
                index = coco_index(self.annotations, self._cache, masks=self.masks)
            self._set_index(index)

    def _set_index(self, index: CocoIndex) -> None:
        """Take over an index, with its categories turned into class ids."""
        class_ids = {name: i + 1 for i, name in enumerate(self.class_names)}
        names = split_names(index.category_names)
        used = np.unique(index.categories).tolist()
        unknown = [names[i] for i in used if names[i] not in class_ids]
        if unknown:
            raise ValueError(
                f"{self.annotations} has annotations of {len(unknown)} categories that are no "
                f"class: {', '.join(unknown[:5])}; the classes are {', '.join(self.class_names)}"
            )
        table = np.array([class_ids.get(name, 0) for name in names], dtype=np.uint8)
        self._index = index
        self._classes = table[index.categories]
        self._labels = np.where(index.crowd, np.uint8(VOID), self._classes)
        self._files = split_names(index.file_names)
        self._ids = [_plain(str(Path(file).with_suffix(""))) for file in self._files]
        repeated, count = Counter(self._files).most_common(1)[0]
        if count > 1:
            raise ValueError(f"{self.annotations} lists two photos by the name {repeated}")
        times = Counter(self._ids)  # different names may be one when they are made plain
        self._ids = [
            f"{one}-{number}" if times[one] > 1 else one for number, one in enumerate(self._ids)
        ]

    def _rows(self, index: int) -> slice:
        position = self._position(index)
        return slice(int(self._index.first[position]), int(self._index.first[position + 1]))

    def _paint(self, position: int) -> np.ndarray:
        """The label map of an image, uint8 (H, W)."""
        height, width = self._index.sizes[position].tolist()
        # Column by column, as the masks are.
        labels = np.zeros((height, width), dtype=np.uint8, order="F")
        own = self._labels[self._rows(position)]
        for label, code in zip(own, self._index.codes(position), strict=True):
            np.copyto(labels, label, where=rle_mask(code))
        return np.ascontiguousarray(labels)

    @cached_property
    def _digest(self) -> str:
        """Hash of annotations, class names and the photos' file sizes."""
        digest = hashlib.sha256(str(self._index.digest).encode())
        digest.update("\n".join(self.class_names).encode())
        sizes = [(self.photos / file).stat().st_size for file in self._files]
        digest.update(np.array(sizes, dtype="<i8").tobytes())
        return digest.hexdigest()[:12]

    def _check_photos(self) -> None:
        """One listing per folder tells missing photos at the start, not at step 10,000."""
        present: dict[str, set[str]] = {}
        missing = []
        for file in self._files:
            folder, _, photo = file.rpartition("/")
            if folder not in present:
                place = self.photos / folder
                present[folder] = set(os.listdir(place)) if place.is_dir() else set()
            if photo not in present[folder]:
                missing.append(file)
        if missing:
            raise FileNotFoundError(
                f"{len(missing)} of the {len(self)} photos of {self.annotations.name} are not in "
                f"{self.photos}, the first is {missing[0]}; unpack the whole archive"
            )


def _annotation_file(root: Path, split: str, annotations: str | Path | None) -> Path:
    if not root.is_dir():
        raise FileNotFoundError(
            f"the folder {root} does not exist; give the one that holds annotations/ and the photos"
        )
    path = root / (annotations or Path("annotations") / f"instances_{split}.json")
    if not path.is_file():
        found = sorted(p.name for p in path.parent.glob("*.json"))
        raise FileNotFoundError(
            f"there is no annotation file {path}; found there: {', '.join(found) or 'none'}. Give "
            "split the name that stands in instances_<split>.json, or annotations the path"
        )
    return path


def _photo_folder(root: Path, split: str, images: str | Path | None, first: str) -> Path:
    if images is not None:
        tried = [root / images]
    else:
        tried = [root / split, root / "images" / split, root / "images", root]
    for folder in tried:
        if (folder / first).is_file():
            return folder
    raise FileNotFoundError(
        f"the photo {first} is in none of {', '.join(map(str, tried))}; unpack the photos, or give "
        "the folder (images=...)"
    )


def _plain(text: str) -> str:
    """``text`` as it may stand in a file name."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", text)
