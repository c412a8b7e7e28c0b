"""Pascal-5i by lists of pairs: the authors' files, or pairs derived from the label maps.

The authors' files ``split<fold>_train.txt`` and ``split<fold>_val.txt`` hold one ``IMAGEID__CC`` a
line, CC the class from 01 to 20 (``Yang-Bob/PMMs``, ``data_list``; as sets they are OSLSM's and
HSNet's too). No threshold on the label maps gives these pairs, so they are read and not made.
"""

import hashlib
import re
from collections.abc import Collection
from pathlib import Path
from typing import Literal

import numpy as np

from pmms.datasets.base import SegmentationDataset
from pmms.datasets.label_index import LabelIndex
from pmms.datasets.pascal import PascalVOC
from pmms.folds import FOLDS

PAIR_LISTS = Path("ImageSets") / "Pascal5i"
"""Where ``python -m pmms prepare pascal`` puts the authors' files, below the folder VOC2012."""

AUTHORS_SHA256: dict[str, str] = {
    "split0_train": "40fded8be6afbc4b70953277f2a178af8055cddd4e73fb4646b7bf19704b9da2",
    "split1_train": "558167c3c6fea0cda1bb7c7a275e66d5de7bc13cbc97e00c5872ac84d5f0954e",
    "split2_train": "d07e35f4a4ae95774c619bafb57d65d682dbd5b9f33c7f71a4f5cef8e3f99609",
    "split3_train": "ffe09100c0c4d9c19d074a33b0f29fe5a89a730579ba39a9f9e908186298ac17",
    "split0_val": "748e2f4732ac502cb3aa1f3768936b394bd7ba4e611ac5bf959291a268e249df",
    "split1_val": "afce1929e4dacbc13c07f9a26d4ce7738d415e1b18443fe173e58303836f5c14",
    "split2_val": "50b1f5218e8f882ca65d85da5be230b978a70067e9b3e0e9fca1528f546bd7fb",
    "split3_val": "c3825d7c52d1608d4c62c5b85d6ef3f74cf5898032bc068a94c971df17bdf71a",
}
"""SHA-256 of the authors' files."""


class PairVOC(PascalVOC):
    """The images of one or more lists of pairs, each once, in the order of the lists.

    An image counts for the classes of its pairs, whatever else it shows: ``classes_in`` follows the
    lists, ``classes_shown`` the label maps. So ``without_classes(PairVOC(root, others, "train"),
    held_out)`` is the authors' training set: their code drops each image that shows a held-out
    class (``data/voc_train.py``), and the lists themselves do not.

    Args:
        root: as for :class:`pmms.datasets.pascal.PascalVOC`.
        folds: the fold, or several: the pairs of their lists one after the other.
        split: "train" or "val", which file of each fold.
        lists: folder of the files; None takes ``ImageSets/Pascal5i`` of the VOC tree.
        checked: whether the files must be the authors', by their SHA-256.
        labels: folder of the label maps; the lists name images of the merge with SBD.
        cache: as for :class:`pmms.datasets.pascal.PascalVOC`; None puts the index beside the lists.
        name: name of the data set in records.

    Attributes:
        pairs: (index of the image, class id) in the order of the files, for whoever draws episodes
            from them; see :mod:`pmms.protocol_episodes`.

    Raises:
        FileNotFoundError: a list, an image or a label map is missing.
        ValueError: an unknown fold or split, or a list that is changed, malformed or empty.
    """

    def __init__(
        self,
        root: str | Path,
        folds: int | Collection[int],
        split: Literal["train", "val"] = "val",
        *,
        lists: str | Path | None = None,
        checked: bool = True,
        labels: str = "SegmentationClassAug",
        cache: str | Path | None = None,
        name: str = "pascal",
    ) -> None:
        self.folds = (folds,) if isinstance(folds, int) else tuple(folds)
        if not self.folds or not set(self.folds) <= set(range(FOLDS)):
            raise ValueError(f"folds must be one or more of 0 to {FOLDS - 1}, got {folds!r}")
        if split not in ("train", "val"):
            raise ValueError(f"split must be 'train' or 'val', got {split!r}")
        self._files = [f"split{fold}_{split}" for fold in self.folds]
        self._lists = None if lists is None else Path(lists)
        self._checked = checked
        super().__init__(root, "+".join(self._files), labels=labels, cache=cache, name=name)
        if cache is None:
            self._cache = self._folder

    def _read_ids(self) -> tuple[str, ...]:
        of_file = {
            file: read_pairs(
                self._folder / f"{file}.txt", sha256=AUTHORS_SHA256[file] if self._checked else None
            )
            for file in self._files
        }
        self._ids_of_file = {
            file: tuple(dict.fromkeys(image_id for image_id, _ in pairs))
            for file, pairs in of_file.items()
        }
        named = [pair for pairs in of_file.values() for pair in pairs]
        position = {image_id: i for i, image_id in enumerate(dict.fromkeys(i for i, _ in named))}
        self.pairs = tuple((position[image_id], class_id) for image_id, class_id in named)
        of_image: list[set[int]] = [set() for _ in position]
        for index, class_id in self.pairs:
            of_image[index].add(class_id)
        self._listed = [frozenset(classes) for classes in of_image]
        return tuple(position)

    def _read_index(self) -> LabelIndex:
        """One kept index for each file, so that four folds of training read each map once."""
        parts = [self._index_of(file, ids) for file, ids in self._ids_of_file.items()]
        every = [image_id for ids in self._ids_of_file.values() for image_id in ids]
        row = {image_id: i for i, image_id in enumerate(every)}
        rows = [row[image_id] for image_id in self._ids]
        return LabelIndex(*(np.concatenate(arrays)[rows] for arrays in zip(*parts, strict=True)))

    @property
    def _folder(self) -> Path:
        return self.root / PAIR_LISTS if self._lists is None else self._lists

    def classes_in(self, index: int) -> frozenset[int]:
        return self._listed[self._position(index)]

    def fingerprint(self) -> str:
        """As for ``PascalVOC``, with a hash of the pairs."""
        digest = hashlib.sha256(repr(self.pairs).encode()).hexdigest()[:12]
        return f"{super().fingerprint()}-pairs{len(self.pairs)}-{digest}"

    def __repr__(self) -> str:
        return f"PairVOC({self.name!r}, {self.split!r}, {len(self.pairs)} pairs)"


def read_pairs(path: str | Path, *, sha256: str | None = None) -> tuple[tuple[str, int], ...]:
    """The pairs (image id, class id) of a list file, in its order.

    Args:
        path: a file with one ``IMAGEID__CC`` a line.
        sha256: what the file's content must hash to; None accepts any.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: another content than expected, a malformed line, a class outside 1 to 20, a
            pair twice, or no pair at all.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no list {path}; `python -m pmms prepare pascal` gets the authors' lists, or "
            "give the folder that holds split0_train.txt to split3_val.txt"
        )
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if sha256 is not None and found != sha256:
        raise ValueError(
            f"{path} is not the authors' list: SHA-256 {found}, expected {sha256}; delete it and "
            "run `python -m pmms prepare pascal`, or read lists of your own with checked=False"
        )
    pairs: dict[tuple[str, int], None] = {}
    for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), start=1):
        parts = re.fullmatch(r"([A-Za-z0-9_-]+?)__([0-9]{2})", line.strip())
        if parts is None or not 1 <= int(parts[2]) <= 20:
            raise ValueError(
                f"{path}, line {number}: expected an image id and a class from 01 to 20, e.g. "
                f"2007_000033__01, got {line!r}"
            )
        pair = parts[1], int(parts[2])
        if pair in pairs:
            raise ValueError(f"{path}, line {number}: the pair {line.strip()} is there twice")
        pairs[pair] = None
    if not pairs:
        raise ValueError(f"the list {path} is empty; expected one IMAGEID__CC a line")
    return tuple(pairs)


def derived_pairs(
    dataset: SegmentationDataset, classes: Collection[int]
) -> tuple[tuple[int, int], ...]:
    """The pairs (index, class id) that the label maps give, by image, then by class.

    PFENet's rule (``util/dataset.py``): an image is listed for each class of the fold of which it
    has at least 2 x 32 x 32 pixels; make ``dataset`` with ``min_area=PFENET_AREA``. Test lists take
    the classes of the fold, training lists those of the other three, from the images of one file
    list each. PFENet's training keeps images that show classes of the fold, as background; for
    training here, take ``without_classes`` of the data set first.
    """
    wanted = frozenset(classes)
    return tuple(
        (index, class_id)
        for index in range(len(dataset))
        for class_id in sorted(dataset.classes_in(index) & wanted)
    )
