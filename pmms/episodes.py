"""Episodes: which images are drawn, and the tensors made of them.

An episode of class c holds S support images with their masks of c, and one query image with its
mask of c, which is what a model must find. (seed, index) alone decides an episode: not the order
of the calls, the number of workers, or the versions of the libraries.
"""

import hashlib
import random
import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple, Protocol, Self

import torch
from torch import Tensor
from torch.utils.data import Dataset

from pmms.checks import whole
from pmms.datasets.base import SegmentationDataset, images_of_class
from pmms.folds import VOID


class EpisodeIndex(NamedTuple):
    """What is drawn for one episode, as indices into the data set.

    Attributes:
        class_id: the class to be segmented.
        query: index of the query image.
        support: indices of the support images, all different and none the query.
    """

    class_id: int
    query: int
    support: tuple[int, ...]


class Transform(Protocol):
    """What ``EpisodeDataset`` needs of a transform; see ``pmms.transforms``."""

    def __call__(self, image: Tensor, mask: Tensor, *, seed: int) -> tuple[Tensor, Tensor]: ...


def mix(*numbers: int) -> int:
    """One seed from several integers, in 0 to 2**63 - 1; neighbours give unrelated seeds.

    The first 8 bytes, little-endian, of the BLAKE2b hash of the numbers, each as 8 bytes
    little-endian signed, without the topmost bit (PyTorch takes seeds up to 2**63 - 1 on every
    system).

    Raises:
        ValueError: a number outside -2**63 to 2**63 - 1.
    """
    try:
        data = struct.pack(f"<{len(numbers)}q", *numbers)
    except struct.error as error:
        raise ValueError(f"seeds must be integers of 64 bits, got {numbers}") from error
    digest = hashlib.blake2b(data, digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class EpisodeSampler:
    """A list of ``length`` episodes; item i follows from (seed, i) alone.

    The class is drawn uniformly from ``classes``, the query uniformly from the class's images, the
    support uniformly from the rest of them without repetition.

    Args:
        dataset: images; ``classes_in`` says which of them show a class well enough.
        classes: ids of the classes to draw from; their order has no effect.
        shots: support images per episode, S.
        length: number of episodes.
        seed: any integer of 64 bits.

    Raises:
        ValueError: no classes, a class twice or unknown to the data set, ``shots`` or ``length``
            below 1, or a class with fewer than ``shots`` + 1 images.
    """

    def __init__(
        self,
        dataset: SegmentationDataset,
        classes: Collection[int],
        *,
        shots: int = 1,
        length: int = 1000,
        seed: int = 0,
    ) -> None:
        for name, value in (("shots", shots), ("length", length)):
            if not whole(value, least=1):
                raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
        mix(seed)  # refuses a seed that cannot be mixed
        self.dataset = dataset
        self.classes = _checked_classes(dataset, classes)
        self.shots = shots
        self.length = length
        self.seed = seed
        images = images_of_class(dataset)
        self._images = {class_id: images[class_id] for class_id in self.classes}
        self._refuse_impossible()

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> EpisodeIndex:
        """Episode ``index``; negative counts from the end. IndexError past the end."""
        position = index + self.length if index < 0 else index
        if not 0 <= position < self.length:
            raise IndexError(f"the sampler has {self.length} episodes, {index} is not among them")
        # Python promises that random() repeats for an integer seed in every version; it does not
        # promise so for sample() and randrange(), nor NumPy or PyTorch for theirs.
        generator = random.Random(mix(self.seed, position))
        class_id = self.classes[int(generator.random() * len(self.classes))]
        images = self._images[class_id]
        drawn: list[int] = []
        while len(drawn) <= self.shots:
            image = images[int(generator.random() * len(images))]
            if image not in drawn:
                drawn.append(image)
        return EpisodeIndex(class_id, drawn[0], tuple(drawn[1:]))

    def __iter__(self) -> Iterator[EpisodeIndex]:
        return (self[index] for index in range(self.length))

    def _refuse_impossible(self) -> None:
        needed = self.shots + 1
        short = {c: len(i) for c, i in self._images.items() if len(i) < needed}
        if short:
            listed = ", ".join(
                f"{self.dataset.class_name(c)} (class {c}) has {n}" for c, n in short.items()
            )
            raise ValueError(
                f"an episode with {self.shots} shot(s) needs {needed} images of its class, but in "
                f"{self.dataset.name} {listed}; use more images, fewer shots or a smaller "
                "min_area, or leave the class out"
            )


@dataclass(frozen=True)
class Episode:
    """The tensors of one episode, S support images at one size.

    Attributes:
        support: float32 (S, 3, H, W) in [0, 1].
        support_mask: float32 (S, 1, H, W), 1 on the class, 0 elsewhere. Void counts as 0: pixels
            of which nobody knows whether they are the object must not enter its prototypes.
        query: float32 (3, H, W) in [0, 1].
        query_mask: int64 (H, W), 1 on the class, 0 elsewhere, 255 void.
        class_id: the class.
        query_id: ``image_id`` of the query.
        support_ids: ``image_id`` of each support image.
    """

    support: Tensor
    support_mask: Tensor
    query: Tensor
    query_mask: Tensor
    class_id: int
    query_id: str
    support_ids: tuple[str, ...]


@dataclass(frozen=True)
class EpisodeBatch:
    """B episodes stacked; the tensors of ``Episode`` with a leading B.

    Attributes:
        support: float32 (B, S, 3, H, W).
        support_mask: float32 (B, S, 1, H, W).
        query: float32 (B, 3, H, W).
        query_mask: int64 (B, H, W).
        class_id: int64 (B,).
        query_ids: one id per episode.
        support_ids: S ids per episode.
    """

    support: Tensor
    support_mask: Tensor
    query: Tensor
    query_mask: Tensor
    class_id: Tensor
    query_ids: tuple[str, ...]
    support_ids: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.query)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        """The batch with all tensors on ``device``."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """The batch in page-locked memory; the ``DataLoader`` calls it with ``pin_memory=True``."""
        return self._map(Tensor.pin_memory)

    def _map(self, function: Callable[[Tensor], Tensor]) -> Self:
        tensors: dict[str, Any] = {
            field.name: function(value)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        return replace(self, **tensors)


class EpisodeDataset(Dataset[Episode]):
    """The episodes of a sampler as tensors, for a ``DataLoader`` with ``collate_fn=collate``.

    Image p of episode i (0 the query, 1 to S the support) is transformed with the seed
    ``mix(sampler.seed, i, p)``, so an episode is the same in every process and in every order.

    Args:
        sampler: the episodes.
        transform: ``EvalTransform`` or ``TrainTransform``; it sees each image with its mask of the
            episode's class, 0, 1 and 255.
    """

    def __init__(self, sampler: EpisodeSampler, transform: Transform) -> None:
        self.sampler = sampler
        self.transform = transform

    def __len__(self) -> int:
        return len(self.sampler)

    def __getitem__(self, index: int) -> Episode:
        class_id, query, support = self.sampler[index]
        position = index % len(self)
        images, masks = [], []
        for place, image_index in enumerate((query, *support)):
            image, labels = self.sampler.dataset[image_index]
            image, mask = self.transform(
                image,
                class_mask(labels, class_id),
                seed=mix(self.sampler.seed, position, place),
            )
            images.append(image)
            masks.append(mask)
        image_id = self.sampler.dataset.image_id
        return Episode(
            support=torch.stack(images[1:]),
            support_mask=(torch.stack(masks[1:]) == 1).float()[:, None],
            query=images[0],
            query_mask=masks[0].long(),
            class_id=class_id,
            query_id=image_id(query),
            support_ids=tuple(image_id(i) for i in support),
        )


def class_mask(labels: Tensor, class_id: int) -> Tensor:
    """A label map reduced to one class: 1 on the class, 255 on void, 0 on everything else.

    Args:
        labels: uint8 (..., H, W), 0 background, class ids, 255 void.
        class_id: 1 to 254.

    Returns:
        uint8, same shape.
    """
    mask = (labels == class_id).to(torch.uint8)
    return mask.masked_fill_(labels == VOID, VOID)


def collate(episodes: Sequence[Episode]) -> EpisodeBatch:
    """Stack episodes of equal shots and size.

    Raises:
        ValueError: no episodes.
        RuntimeError: shapes differ (PyTorch's message).
    """
    if not episodes:
        raise ValueError("expected at least one episode to stack, got none")
    return EpisodeBatch(
        support=torch.stack([e.support for e in episodes]),
        support_mask=torch.stack([e.support_mask for e in episodes]),
        query=torch.stack([e.query for e in episodes]),
        query_mask=torch.stack([e.query_mask for e in episodes]),
        class_id=torch.tensor([e.class_id for e in episodes]),
        query_ids=tuple(e.query_id for e in episodes),
        support_ids=tuple(e.support_ids for e in episodes),
    )


def check_no_leak(dataset: SegmentationDataset, held_out: Iterable[int]) -> None:
    """Make sure that no image of a training set shows a held-out class, in a single pixel even.

    Raises:
        ValueError: an image does; names the first one, its classes and how many there are.
    """
    hidden = frozenset(held_out)
    leaks = [i for i in range(len(dataset)) if dataset.classes_shown(i) & hidden]
    if leaks:
        shown = sorted(dataset.classes_shown(leaks[0]) & hidden)
        names = ", ".join(dataset.class_name(c) for c in shown)
        raise ValueError(
            f"{len(leaks)} of {len(dataset)} training images of {dataset.name} show a held-out "
            f"class; the first is {dataset.image_id(leaks[0])} with {names}. "
            "Train on without_classes(dataset, held_out)"
        )


def _checked_classes(dataset: SegmentationDataset, classes: Collection[int]) -> tuple[int, ...]:
    ids = sorted(classes)
    if not ids:
        raise ValueError("expected at least one class to draw episodes from, got none")
    for class_id in ids:
        dataset.class_name(class_id)
        if ids.count(class_id) > 1:
            raise ValueError(f"classes must not repeat, class {class_id} is there twice")
    return tuple(ids)
