"""Test episodes in batches of kept features, with the label maps they are scored on. What a
protocol does to a label map before it is scored stands here too."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from pmms.datasets.base import SegmentationDataset
from pmms.episodes import EpisodeSampler
from pmms.features import FeatureBank
from pmms.folds import VOID
from pmms.protocol_episodes import ListedEpisodes
from pmms.protocols import Protocol
from pmms.transforms import EvalTransform

BATCH = 20

Sampler = EpisodeSampler | ListedEpisodes


class ScoredBatch(NamedTuple):
    """B episodes as features, with the label map of each query.

    Attributes:
        support: (B, S, C, h, w).
        support_mask: (B, S, 1, H, W).
        query: (B, C, h, w).
        labels: label maps uint8 (H, W) with all classes, each at its image's own size, on the CPU.
        class_id: int64 (B,), on the CPU.
        are: what ``support`` and ``query`` are: the backbone's "features" or the model's
            "embeddings".
    """

    support: Tensor
    support_mask: Tensor
    query: Tensor
    labels: tuple[Tensor, ...]
    class_id: Tensor
    are: Literal["features", "embeddings"]


def source_transform(
    images: FeatureBank | SegmentationDataset, protocol: Protocol, size: int | None
) -> EvalTransform:
    """How images are brought to the network's size.

    Raises:
        ValueError: size or aspect of ``images`` or ``size`` contradict the protocol, or nothing
            says the size.
    """
    pad = protocol.aspect == "pad"
    if isinstance(images, FeatureBank):
        if size is not None and size != images.size:
            raise ValueError(f"size is {size}, but the bank's images have {images.size} pixels")
        if images.keep_aspect != pad:
            raise ValueError(
                f"the protocol {protocol.label!r} has aspect={protocol.aspect!r}, so the bank must "
                f"be made with keep_aspect={pad}"
            )
        size = images.size
    size = protocol.size if size is None else size
    if size is None:
        raise ValueError("evaluating on images needs size, the side they are brought to")
    if protocol.size is not None and size != protocol.size:
        raise ValueError(
            f"the protocol {protocol.label!r} has size {protocol.size}, got images of {size} "
            "pixels; replace(protocol, size=...) makes one with another label"
        )
    return EvalTransform(size, keep_aspect=pad)


def scored_labels(labels: Tensor, protocol: Protocol, transform: EvalTransform) -> Tensor:
    """The label map that a prediction is scored on, from the annotated one, uint8 (H, W).

    With ``query_mask="resized"`` it goes to the network's size. At resolution "network" it stays
    there, by PyTorch's "nearest" as in HSNet, with void as padding. At "original" it comes back: by
    Pillow's nearest pixel one way and by PyTorch's "nearest" the other, as in the authors' code.
    """
    if protocol.query_mask == "exact":
        return labels
    height, width = labels.shape
    small = transform.content(height, width)
    if protocol.resolution == "network":
        resized = _nearest(labels, small)
        padding = (0, transform.size - small[1], 0, transform.size - small[0])
        return F.pad(resized, padding, value=VOID)
    there = Image.fromarray(labels.numpy()).resize(small[::-1], Image.Resampling.NEAREST)
    return _nearest(torch.from_numpy(np.array(there)), (height, width))


def batch_indices(samplers: Sequence[Sampler]) -> list[tuple[int, Sampler, range]]:
    """All episodes, ``BATCH`` at a time; no batch is of two samplers.

    Returns:
        For each batch the place of its first episode among all of them, its sampler, and the
        indices there.
    """
    batches, first = [], 0
    for sampler in samplers:
        for start in range(0, len(sampler), BATCH):
            indices = range(start, min(start + BATCH, len(sampler)))
            batches.append((first + start, sampler, indices))
        first += len(sampler)
    return batches


def bank_batch(
    bank: FeatureBank,
    sampler: Sampler,
    indices: Sequence[int],
    *,
    wrong_support: bool,
    device: torch.device,
    unseen: bool = False,
) -> ScoredBatch:
    """Some episodes as kept features; ``unseen`` where no model will look: without values."""
    episodes = [sampler[i] for i in indices]
    if unseen:
        query = support = support_mask = torch.empty(0)
    else:
        shown = [sampler[another_class(sampler, i)] for i in indices] if wrong_support else episodes
        query = bank.query(episodes)
        support, support_mask = bank.support(shown)
    return ScoredBatch(
        support.to(device, non_blocking=True),
        support_mask.to(device, non_blocking=True),
        query.to(device, non_blocking=True),
        tuple(bank.label_map(episode.query) for episode in episodes),
        torch.tensor([episode.class_id for episode in episodes]), are="features",
    )  # fmt: skip


def another_class(sampler: Sampler, index: int) -> int:
    """Index of the next episode, going round, that is of another class than episode ``index``."""
    n = len(sampler)
    class_id = sampler[index].class_id
    for other in range(index + 1, index + n):
        if sampler[other % n].class_id != class_id:
            return other % n
    raise ValueError(
        f"wrong_support needs episodes of at least two classes, but all {n} of seed {sampler.seed} "
        f"are of class {class_id}"
    )


def _nearest(labels: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(labels[None, None], size=size, mode="nearest")[0, 0]
