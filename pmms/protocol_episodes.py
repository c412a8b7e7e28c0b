"""Episodes as other code draws them, so that a number can be compared with published ones.

All of them are sequences that run on: episode i follows from the i before it, unlike those of
:class:`pmms.episodes.EpisodeSampler`. They are drawn at once when a sampler is made. A sampler's
random numbers are its own; no global generator is read or moved.
"""

import random
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch

from pmms.datasets.base import KeptImages, SegmentationDataset, images_of_class
from pmms.episodes import EpisodeIndex, EpisodeSampler
from pmms.protocols import Protocol

Pairs = Sequence[tuple[int, int]]
"""(index of the image, class id), in the order of a list file."""


class ListedEpisodes(Sequence[EpisodeIndex]):
    """Episodes that were drawn already; offers what ``EpisodeSampler`` does.

    Attributes:
        dataset: the images.
        classes: ids of the classes that were drawn from, ascending.
        shots: support images an episode.
        seed: of the generator that drew.
    """

    def __init__(
        self,
        dataset: SegmentationDataset,
        classes: Collection[int],
        episodes: Iterator[EpisodeIndex],
        *,
        shots: int,
        length: int,
        seed: int,
    ) -> None:
        self.dataset = dataset
        self.classes = tuple(sorted(classes))
        self.shots = shots
        self.seed = seed
        self._episodes = tuple(islice(episodes, length))

    def __len__(self) -> int:
        return len(self._episodes)

    def __getitem__(self, index: Any) -> Any:
        return self._episodes[index]


def protocol_sampler(
    protocol: Protocol, dataset: SegmentationDataset, classes: Collection[int], *, seed: int
) -> EpisodeSampler | ListedEpisodes:
    """The episodes of one seed of a protocol.

    Args:
        protocol: whose rule, form, shots and number of episodes.
        dataset: the images; with ``lists="authors"`` a :class:`pmms.datasets.pascal_lists.PairVOC`.
        classes: ids of the classes to draw from.
        seed: one of the protocol's, or another.

    Raises:
        ValueError: a class with too few images, or a data set without the pairs, the classes or
            the ``min_area`` that the protocol asks for.
    """
    if protocol.sampler == "ours":
        return EpisodeSampler(
            dataset, classes, shots=protocol.shots, length=protocol.episodes, seed=seed
        )
    shots = protocol.shots
    needed = 2 if protocol.sampler == "hsnet" else shots + 1  # HSNet's supports may repeat
    if protocol.sampler == "pfenet":
        workers = PFENET_WORKERS[protocol.form]
        episodes = pfenet_episodes(dataset, classes, shots=shots, seed=seed, workers=workers)
    elif protocol.form == "coco":
        by_class = _enough(dataset, images_of_class(dataset), classes, needed)
        of_coco = authors_coco_episodes if protocol.sampler == "authors" else hsnet_coco_episodes
        episodes = of_coco(by_class, shots=shots, seed=seed)
    else:
        pairs = _pairs(dataset, classes, protocol)
        _enough(dataset, _by_class(pairs), classes, needed)
        rule = authors_episodes if protocol.sampler == "authors" else hsnet_episodes
        episodes = rule(pairs, shots=shots, seed=seed)
    return ListedEpisodes(
        dataset, classes, episodes, shots=shots, length=protocol.episodes, seed=seed
    )


def authors_episodes(pairs: Pairs, *, shots: int, seed: int = 1385) -> Iterator[EpisodeIndex]:
    """The authors' test episodes on Pascal-5i, without end (``data/voc_val.py``).

    Queries go through the list in file order, then through the list shuffled, then shuffled again.
    The support comes from the same class: in 1-shot one image is drawn until it is not the query,
    in K-shot K are drawn at once from the others, without repetition. One generator of Python's
    ``random`` does all; their single worker process starts from it in every fold.
    """
    generator = random.Random(seed)
    order = list(pairs)
    images = _by_class(pairs)
    while True:
        for query, class_id in order:
            of_class = images[class_id]
            if shots == 1:
                support = query
                while support == query:
                    support = of_class[generator.randint(0, len(of_class) - 1)]
                yield EpisodeIndex(class_id, query, (support,))
            else:
                others = [image for image in of_class if image != query]
                yield EpisodeIndex(class_id, query, tuple(generator.sample(others, shots)))
        generator.shuffle(order)


def authors_coco_episodes(
    images: dict[int, tuple[int, ...]], *, shots: int, seed: int = 1385
) -> Iterator[EpisodeIndex]:
    """Episodes by the authors' rule for COCO-20i (``data/coco_val.py``), without end.

    A class is drawn uniformly, then query and support together, without repetition, by NumPy's old
    global generator. The authors do not seed it, so their episodes cannot be had again.
    """
    generator = np.random.RandomState(seed)
    classes = sorted(images)
    while True:
        class_id = int(generator.choice(classes, 1, replace=False)[0])
        drawn = generator.choice(len(images[class_id]), shots + 1, replace=False)
        query, *support = (images[class_id][i] for i in drawn)
        yield EpisodeIndex(class_id, query, tuple(support))


def hsnet_episodes(pairs: Pairs, *, shots: int, seed: int = 0) -> Iterator[EpisodeIndex]:
    """HSNet's test episodes on Pascal-5i, without end (``data/pascal.py``).

    Query i is pair i modulo the length of the list. Support images are drawn one by one by NumPy's
    old global generator, each time from the whole class; the query is drawn again, an image that is
    in the support already is not, so a support may hold an image twice. HSNet tests without worker
    processes. Its lists hold the authors' pairs; that they come in the same order is assumed.
    """
    generator = np.random.RandomState(seed)
    images = _by_class(pairs)
    while True:
        for query, class_id in pairs:
            yield EpisodeIndex(
                class_id, query, _hsnet_support(generator, images[class_id], query, shots)
            )


def hsnet_coco_episodes(
    images: dict[int, tuple[int, ...]], *, shots: int, seed: int = 0
) -> Iterator[EpisodeIndex]:
    """Episodes by HSNet's rule for COCO-20i (``data/coco.py``), without end.

    A class is drawn uniformly, then the query, then the support as in :func:`hsnet_episodes`. The
    order of images within a class is that of a pickled list there and of the data set here, so
    rule and seed are HSNet's, but not the episodes.
    """
    generator = np.random.RandomState(seed)
    classes = sorted(images)
    while True:
        class_id = int(generator.choice(classes, 1, replace=False)[0])
        query = images[class_id][int(generator.choice(len(images[class_id]), 1, replace=False)[0])]
        yield EpisodeIndex(
            class_id, query, _hsnet_support(generator, images[class_id], query, shots)
        )


PFENET_AREA = 2 * 32 * 32
"""Pixels of a class from which on PFENet lists an image for it (``util/dataset.py``). The number
goes back to Shaban et al.: more than two positions of a map at 1/32 of the size."""

PFENET_WORKERS = {"pascal": 8, "coco": 16}
"""Worker processes in PFENet's settings."""


def pfenet_episodes(
    dataset: SegmentationDataset,
    classes: Collection[int],
    *,
    shots: int,
    seed: int = 321,
    workers: int = 8,
) -> Iterator[EpisodeIndex]:
    """PFENet's test episodes, without end (``util/dataset.py``, ``test.py``).

    Queries are the images with at least ``PFENET_AREA`` pixels of one of the classes, in order,
    again and again. The class of a query is drawn from all ``classes`` that it shows, the support
    from the images of that class without repetition.

    There is no generator of its own: each worker process of the ``DataLoader`` starts Python's
    ``random`` at a number drawn by PyTorch's global generator at the start of each pass, plus the
    worker's number, and serves every ``workers``-th query. So the episodes are PFENet's for its
    number of workers, for PyTorch's present way of seeding them, and for a list file in the order
    of ``dataset``; with anything else changed they are others.

    Raises:
        ValueError: ``dataset`` counts images with fewer pixels than ``PFENET_AREA``, or a class has
            too few images.
    """
    whole = dataset.base if isinstance(dataset, KeptImages) else dataset
    if getattr(whole, "min_area", None) != PFENET_AREA:
        raise ValueError(
            f"the protocol 'pfenet' lists images with at least {PFENET_AREA} pixels of a class; "
            f"make the data set {dataset.name} with min_area={PFENET_AREA}"
        )
    wanted = frozenset(classes)
    images = _enough(dataset, images_of_class(dataset), classes, shots + 1)
    queries = sorted({image for of_class in images.values() for image in of_class})
    shown = {query: sorted(dataset.classes_shown(query) & wanted) for query in queries}
    generator = torch.Generator().manual_seed(seed)
    while True:
        base = int(torch.empty((), dtype=torch.int64).random_(generator=generator))
        of_worker = [random.Random(base + worker) for worker in range(workers)]
        for place, query in enumerate(queries):
            draw = of_worker[place % workers]
            class_id = shown[query][draw.randint(1, len(shown[query])) - 1]
            yield EpisodeIndex(
                class_id, query, _pfenet_support(draw, images[class_id], query, shots)
            )


def _hsnet_support(
    generator: np.random.RandomState, images: Sequence[int], query: int, shots: int
) -> tuple[int, ...]:
    support: list[int] = []
    while len(support) < shots:
        image = images[int(generator.choice(len(images), 1, replace=False)[0])]
        if image != query:
            support.append(image)
    return tuple(support)


def _pfenet_support(
    draw: random.Random, images: Sequence[int], query: int, shots: int
) -> tuple[int, ...]:
    support: list[int] = []
    while len(support) < shots:
        draw.randint(1, len(images))  # drawn by their code and not looked at
        image = query
        while image == query or image in support:
            image = images[draw.randint(1, len(images)) - 1]
        support.append(image)
    return tuple(support)


def _by_class(pairs: Pairs) -> dict[int, tuple[int, ...]]:
    """The images of each class, in the order of the pairs."""
    images: dict[int, list[int]] = {}
    for image, class_id in pairs:
        images.setdefault(class_id, []).append(image)
    return {class_id: tuple(of_class) for class_id, of_class in images.items()}


def _pairs(dataset: SegmentationDataset, classes: Collection[int], protocol: Protocol) -> Pairs:
    pairs: Pairs | None = getattr(dataset, "pairs", None)
    if pairs is None:
        raise ValueError(
            f"the protocol {protocol.name!r} draws from a list of pairs (image, class), and "
            f"{dataset.name} has none; use PairVOC from pmms.datasets.pascal_lists"
        )
    listed = {class_id for _, class_id in pairs}
    if listed != set(classes):
        raise ValueError(
            f"the list of {dataset.name} has pairs of the classes {sorted(listed)}, but the "
            f"classes to test are {sorted(classes)}; use the list of their fold"
        )
    return pairs


def _enough(
    dataset: SegmentationDataset,
    images: dict[int, tuple[int, ...]],
    classes: Collection[int],
    needed: int,
) -> dict[int, tuple[int, ...]]:
    """The images of ``classes``; refuses a class with fewer than ``needed``."""
    if not classes:
        raise ValueError("expected at least one class to draw episodes from, got none")
    for class_id in sorted(classes):
        if len(images.get(class_id, ())) < needed:
            fewer = " or fewer shots" * (needed > 2)
            raise ValueError(
                f"an episode needs {needed} images of its class, but in {dataset.name} "
                f"{dataset.class_name(class_id)} (class {class_id}) has "
                f"{len(images.get(class_id, ()))}; use more images{fewer}"
            )
    return {class_id: images[class_id] for class_id in sorted(classes)}
