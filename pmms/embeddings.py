"""Embeddings of test images, each computed once for all the episodes that show the image.

1,000 episodes of 346 images show each image six times in 1-shot and 17 times in 5-shot. What is
done to an image alone, decoding, resizing, the backbone, need not be repeated; what is left of an
episode is the comparison. Which image is needed when is known before the first is read, so that
worker processes load exactly those, in this order.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pmms.datasets.base import SegmentationDataset
from pmms.episode_batches import Sampler, ScoredBatch, another_class
from pmms.features import kept_mask
from pmms.transforms import EvalTransform

KEPT = 512
"""Images whose embedding is kept: at 481 pixels and 256 channels 3.8 MB each, 2 GB in all.

Without training an embedding is the backbone's features, with ResNet-50 six times as much.
"""

Embed = Callable[[Tensor], Tensor]
"""Images (1, 3, S, S) to embeddings (1, C, h, w)."""


class Kept(NamedTuple):
    """One image: ``embedding`` (C, h, w), label map ``small`` (S, S), and at its own size."""

    embedding: Tensor
    small: Tensor
    labels: Tensor

    def mask(self, class_id: int, transform: EvalTransform) -> Tensor:
        """Mask (S, S) of one class, uint8."""
        return kept_mask(self.small, class_id, transform, whole=lambda: self.labels)


def embedded_batches(
    samplers: Sequence[Sampler],
    transform: EvalTransform,
    embed: Embed,
    *,
    wrong_support: bool = False,
    workers: int = 0,
    device: torch.device | str = "cpu",
    keep: int = KEPT,
    take: Sequence[int] | None = None,
) -> Iterator[ScoredBatch]:
    """Episodes as embeddings, one at a time.

    Args:
        samplers: the episodes of each seed, all of one data set.
        transform: brings images to the network's size.
        embed: called with one image at a time, so that its result depends on no other.
        wrong_support: show the support of the next episode that is of another class.
        workers: processes that load images.
        device: where embeddings are kept.
        keep: images whose embedding is kept; the least recently used one leaves first.
        take: which episodes, counted through all samplers, in this order; None takes all.
    """
    places = [(sampler, i) for sampler in samplers for i in range(len(sampler))]
    episodes = [
        (sampler[i], sampler[another_class(sampler, i)] if wrong_support else sampler[i])
        for sampler, i in (places if take is None else [places[place] for place in take])
    ]
    if not episodes:
        return
    needed = [(episode.query, *shown.support) for episode, shown in episodes]
    keep = max(keep, max(map(len, needed)))
    loads = [image for image, new, _ in _walk(needed, keep) if new]
    # A generator of its own, or the loader would draw from the caller's.
    loaded = iter(
        DataLoader(
            _Images(samplers[0].dataset, transform), sampler=loads, batch_size=None,
            num_workers=workers, generator=torch.Generator(),
        )
    )  # fmt: skip
    kept: dict[int, Kept] = {}
    steps = _walk(needed, keep)
    for (episode, shown), images in zip(episodes, needed, strict=True):
        for _ in images:
            image, new, dropped = next(steps)
            if dropped is not None:
                del kept[dropped]
            if new:
                pixels, small, labels = next(loaded)
                # Copies: what a worker made is shared memory, which takes an open file each, and
                # an embedding may be a view of its image.
                embedding = embed(pixels[None].to(device))[0].clone()
                kept[image] = Kept(embedding, small.clone(), labels.clone())
        query, support = kept[episode.query], [kept[i] for i in shown.support]
        masks = torch.stack([one.mask(shown.class_id, transform) for one in support])
        yield ScoredBatch(
            support=torch.stack([one.embedding for one in support])[None],
            support_mask=(masks == 1).float()[None, :, None].to(device),
            query=query.embedding[None],
            labels=(query.labels,),
            class_id=torch.tensor([episode.class_id]),
            are="embeddings",
        )


def _walk(needed: Iterable[Sequence[int]], keep: int) -> Iterator[tuple[int, bool, int | None]]:
    """Each image in the order of need, whether it must be loaded, and which one leaves for it."""
    recent: OrderedDict[int, None] = OrderedDict()
    for image in (image for images in needed for image in images):
        new = image not in recent
        recent[image] = None
        recent.move_to_end(image)
        dropped = recent.popitem(last=False)[0] if len(recent) > keep else None
        yield image, new, dropped


class _Images(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Item i: image float32 (3, S, S), label map (S, S), and the label map at its own size."""

    def __init__(self, dataset: SegmentationDataset, transform: EvalTransform) -> None:
        self.dataset = dataset
        self.transform = transform

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        image, labels = self.dataset[index]
        return *self.transform(image, labels), labels
