"""What every data set offers: index -> image and label map, and class -> images.

A data set is map-style (``len`` and ``[index]``) and answers two questions about an image without
decoding it: for which classes a mask can be built (``classes_in``), and which classes it shows at
all (``classes_shown``). Episodes are drawn by the first; leaks are judged by the second, since an
object too small to be a target is still seen by a network in training.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

import numpy as np
from torch import Tensor

from pmms.folds import VOID


class Sample(NamedTuple):
    """One image with its label map.

    Attributes:
        image: uint8 (3, H, W), RGB.
        labels: uint8 (H, W); 0 background, class ids from 1, 255 void.
    """

    image: Tensor
    labels: Tensor


class SegmentationDataset(ABC):
    """Images with label maps, indexed 0 to ``len(self) - 1``.

    Attributes:
        name: short name of the data set, e.g. "parts" or "pascal".
        class_names: names of the classes; the class id is the position + 1.
    """

    name: str
    class_names: tuple[str, ...]

    @abstractmethod
    def __len__(self) -> int:
        """Number of images."""

    @abstractmethod
    def __getitem__(self, index: int) -> Sample:
        """Image and label map; the index alone decides them. IndexError past the end."""

    @abstractmethod
    def image_id(self, index: int) -> str:
        """Name of the image, unique in the data set and usable as a file stem."""

    @abstractmethod
    def classes_in(self, index: int) -> frozenset[int]:
        """Classes of which this image can be a support or a query: enough pixels, void left out.

        Cheap: it does not decode the image.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """Short string that names the content (settings, seed, list): a key for caches.

        Equal strings promise equal images at equal indices, on any machine and in any process.
        Made of letters, digits, ".", "_" and "-" only, so that it can stand in a file name.
        """

    def label_map(self, index: int) -> Tensor:
        """The label map alone, uint8 (H, W) at its own size.

        This default makes the whole sample. Override it where the image can be left unread.
        """
        return self[index].labels

    def classes_shown(self, index: int) -> frozenset[int]:
        """Classes with at least one pixel, however small: a superset of ``classes_in``.

        This default reads the label map. Override it where an index knows the answer.
        """
        return frozenset(int(i) for i in np.unique(self.label_map(index).numpy())) - {0, VOID}

    def __iter__(self) -> Iterator[Sample]:
        """All samples in order."""
        return (self[index] for index in range(len(self)))

    def class_name(self, class_id: int) -> str:
        """Name of a class.

        Raises:
            ValueError: ``class_id`` is not in 1 to ``len(self.class_names)``.
        """
        if not 1 <= class_id <= len(self.class_names):
            raise ValueError(
                f"{self.name} has the class ids 1 to {len(self.class_names)}, got {class_id}"
            )
        return self.class_names[class_id - 1]

    def _position(self, index: int) -> int:
        """``index`` as a position from 0, counted from the end where negative; else IndexError."""
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(f"{self.name} has {len(self)} images, index {index} is not among them")
        return int(position)


class KeptImages(SegmentationDataset):
    """Some images of a data set, in a given order; itself a data set. See ``keep_images``.

    Attributes:
        base: the data set that the images come from; never a view itself.
        indices: for each image of the view its index in ``base``. What a data set offers beyond
            the common interface is reached through both: ``view.base.parts(view.indices[i])``.
    """

    def __init__(self, dataset: SegmentationDataset, indices: Iterable[int]) -> None:
        kept = tuple(dataset._position(int(i)) for i in indices)
        if len(set(kept)) != len(kept):
            raise ValueError("indices must not repeat: an image would be its own support")
        if isinstance(dataset, KeptImages):
            kept = tuple(dataset.indices[i] for i in kept)
            dataset = dataset.base
        self.base: SegmentationDataset = dataset
        self.indices: tuple[int, ...] = kept
        self.name = dataset.name
        self.class_names = dataset.class_names

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self.base[self.indices[self._position(index)]]

    def label_map(self, index: int) -> Tensor:
        return self.base.label_map(self.indices[self._position(index)])

    def image_id(self, index: int) -> str:
        return self.base.image_id(self.indices[self._position(index)])

    def classes_in(self, index: int) -> frozenset[int]:
        return self.base.classes_in(self.indices[self._position(index)])

    def classes_shown(self, index: int) -> frozenset[int]:
        return self.base.classes_shown(self.indices[self._position(index)])

    def fingerprint(self) -> str:
        """The fingerprint of ``base`` with a hash of the kept indices and their order."""
        digest = hashlib.sha256(np.asarray(self.indices, dtype="<i8").tobytes()).hexdigest()
        return f"{self.base.fingerprint()}-kept{len(self)}-{digest[:12]}"

    def __repr__(self) -> str:
        return f"KeptImages({len(self)} of {len(self.base)} images of {self.base!r})"


def keep_images(dataset: SegmentationDataset, indices: Iterable[int]) -> KeptImages:
    """View of ``dataset`` with the images at ``indices``, in that order. Nothing is copied.

    Raises:
        IndexError: an index outside the data set.
        ValueError: an index that occurs twice.
    """
    return KeptImages(dataset, indices)


def without_classes(dataset: SegmentationDataset, classes: Collection[int]) -> KeptImages:
    """View of ``dataset`` without the images that show one of ``classes``, in a single pixel even.

    Training uses it, so that a network never sees a held-out class, neither as a target nor as
    background (the authors' lists drop these images too).

    Raises:
        ValueError: a class id that the data set does not have.
    """
    dropped = frozenset(classes)
    for class_id in dropped:
        dataset.class_name(class_id)
    return keep_images(
        dataset, (i for i in range(len(dataset)) if not dropped & dataset.classes_shown(i))
    )


def images_of_class(dataset: SegmentationDataset) -> dict[int, tuple[int, ...]]:
    """For each class id of the data set the indices of its images, ascending; maybe none.

    An image counts for each class in ``classes_in``.

    Raises:
        ValueError: an image reports a class that ``class_names`` does not have.
    """
    images: dict[int, list[int]] = {i: [] for i in range(1, len(dataset.class_names) + 1)}
    for index in range(len(dataset)):
        for class_id in dataset.classes_in(index):
            if class_id not in images:
                raise ValueError(
                    f"image {dataset.image_id(index)} of {dataset.name} reports class {class_id}, "
                    f"but class_names has {len(images)} names"
                )
            images[class_id].append(index)
    return {class_id: tuple(indices) for class_id, indices in images.items()}
