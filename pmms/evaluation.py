"""Evaluation: a model, episodes and a protocol to integer counts, and from these to scores.

A number without its protocol says little: void pixels, image size, episode count and seeds move
mIoU by points. So a :class:`Protocol` is a frozen object with a name, and stands in every record.
"""

from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pmms.datasets.base import SegmentationDataset
from pmms.episodes import Episode, EpisodeDataset, EpisodeSampler, class_mask, collate
from pmms.features import FeatureBank
from pmms.folds import VOID
from pmms.metrics import Scores, episode_counts, scores
from pmms.models import FewShotSegmenter
from pmms.progress import progress_bar
from pmms.transforms import EvalTransform

BATCH = 20

Control = Literal["wrong_support", "everything", "all_objects"]


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How a model is tested. The defaults are the protocol ``ours``.

    Attributes:
        name: stands beside every number.
        shots: support images an episode.
        episodes: episodes for each seed.
        seeds: episode seeds; the spread over them is the luck of the draw of episodes.
        void: "ignore" leaves void pixels out of the counts; "background" counts them as 0.
        resolution: "original": predictions are scored at the size of the query image.
        checkpoint: which weights are tested; "last", chosen without any test class.
    """

    name: str = "ours"
    shots: int = 1
    episodes: int = 1000
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    void: Literal["ignore", "background"] = "ignore"
    resolution: Literal["original"] = "original"
    checkpoint: Literal["last"] = "last"

    def __post_init__(self) -> None:
        for name in ("shots", "episodes"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        seeds = tuple(self.seeds) if isinstance(self.seeds, list | tuple) else (self.seeds,)
        object.__setattr__(self, "seeds", seeds)
        whole = all(isinstance(seed, int) and not isinstance(seed, bool) for seed in seeds)
        if not seeds or not whole or len(set(seeds)) != len(seeds):
            raise ValueError(f"seeds must be one or more different whole numbers, got {seeds}")
        for name, choices in (
            ("void", ("ignore", "background")),
            ("resolution", ("original",)),
            ("checkpoint", ("last",)),
        ):
            if getattr(self, name) not in choices:
                listed = " or ".join(map(repr, choices))
                raise ValueError(f"{name} must be {listed}, got {getattr(self, name)!r}")
        if self.name == "ours" and self.void != "ignore":
            raise ValueError("the protocol 'ours' ignores void; give another protocol its own name")


class Result(NamedTuple):
    """What an evaluation gives.

    Attributes:
        class_ids: int64 (N,), the class of each episode; N = seeds x episodes, seed after seed.
        counts: int64 (N, 4), see :func:`pmms.metrics.episode_counts`.
        scores: over all N episodes.
        by_seed: mIoU in percent of each episode seed.
    """

    class_ids: Tensor
    counts: Tensor
    scores: Scores
    by_seed: tuple[float, ...]

    def summary(self) -> dict[str, Any]:
        """JSON values for a run record, percentages."""
        return {**asdict(self.scores), "by_seed": list(self.by_seed)}


def evaluate(
    model: FewShotSegmenter,
    images: FeatureBank | SegmentationDataset,
    classes: Collection[int],
    *,
    protocol: Protocol = Protocol(),
    size: int | None = None,
    control: Control | None = None,
    device: torch.device | str = "cpu",
    precision: Literal["float32", "bfloat16"] = "float32",
    workers: int = 0,
    description: str = "evaluate",
) -> Result:
    """Test a model on episodes of some classes.

    Controls tell what a number would be without the thing that it is to measure. "wrong_support"
    shows the model the support of the next episode that is of another class; "everything" predicts
    foreground everywhere; "all_objects" predicts the true mask of all labelled objects, as a model
    would that finds objects but cannot tell them apart.

    Args:
        model: put in eval mode and moved to ``device``.
        images: a feature bank of the test images (of one size), or the images themselves.
        classes: class ids; every one must be scored.
        protocol: shots, episodes, seeds, void.
        size: side in pixels that images are squashed to; only needed where ``images`` are images.
        control: None for the model itself.
        device: where the model runs.
        precision: "bfloat16" for automatic mixed precision.
        workers: processes that load images; no effect on the result.
        description: title of the progress bar.

    Raises:
        ValueError: impossible episodes (see :class:`pmms.episodes.EpisodeSampler`), or images
            without ``size``; an unknown ``control`` or ``precision``; "wrong_support" with one
            class only.
    """
    if control is not None and control not in get_args(Control):
        raise ValueError(f"control must be None or one of {get_args(Control)}, got {control!r}")
    if precision not in ("float32", "bfloat16"):
        raise ValueError(f"precision must be 'float32' or 'bfloat16', got {precision!r}")
    device = torch.device(device)
    model.eval().to(device)
    class_ids: list[Tensor] = []
    counts: list[Tensor] = []
    total = protocol.episodes * len(protocol.seeds)
    with torch.inference_mode(), progress_bar(total, description, unit="episode") as progress:
        for batch in _batches(images, classes, protocol, size, control, workers, device):
            with torch.autocast(device.type, torch.bfloat16, precision == "bfloat16"):
                predicted = _predict(model, batch, control)
            void = VOID if protocol.void == "ignore" else None
            counts.append(episode_counts(predicted, batch.target, void=void).cpu())
            class_ids.append(batch.class_id.cpu())
            progress.update(len(predicted))
    return _result(torch.cat(class_ids), torch.cat(counts), classes, protocol)


class _TestBatch(NamedTuple):
    """Episodes as features (or images) with what they are scored on."""

    support: Tensor
    support_mask: Tensor
    query: Tensor
    target: Tensor  # (B, H, W) at the query's original size
    labels: Tensor  # (B, H, W) all classes
    class_id: Tensor
    are_features: bool


def _predict(model: FewShotSegmenter, batch: _TestBatch, control: Control | None) -> Tensor:
    if control == "everything":
        return torch.ones_like(batch.target)
    if control == "all_objects":
        return ((batch.labels != 0) & (batch.labels != VOID)).long()
    forward = model.segment if batch.are_features else model
    prediction = forward(batch.support, batch.support_mask, batch.query)
    return prediction.masks((batch.target.shape[1], batch.target.shape[2]))


def _another_class(sampler: EpisodeSampler, index: int) -> int:
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


def _batches(
    images: FeatureBank | SegmentationDataset,
    classes: Collection[int],
    protocol: Protocol,
    size: int | None,
    control: Control | None,
    workers: int,
    device: torch.device,
) -> Iterator[_TestBatch]:
    wrong = control == "wrong_support"
    dataset = images.dataset if isinstance(images, FeatureBank) else images
    for seed in protocol.seeds:
        sampler = EpisodeSampler(
            dataset, classes, shots=protocol.shots, length=protocol.episodes, seed=seed
        )
        if isinstance(images, FeatureBank):
            yield from _from_bank(images, sampler, wrong, device)
        elif size is None:
            raise ValueError("evaluating on images needs size, the side they are squashed to")
        else:
            yield from _from_images(sampler, EvalTransform(size), wrong, workers, device)


def _from_bank(
    bank: FeatureBank, sampler: EpisodeSampler, wrong_support: bool, device: torch.device
) -> Iterator[_TestBatch]:
    for start in range(0, len(sampler), BATCH):
        indices = range(start, min(start + BATCH, len(sampler)))
        episodes = [sampler[i] for i in indices]
        batch = bank.batch(episodes, device=device)
        if wrong_support:
            shown = bank.batch(
                [sampler[_another_class(sampler, i)] for i in indices], device=device
            )
            batch = batch._replace(support=shown.support, support_mask=shown.support_mask)
        labels = bank.labels[[episode.query for episode in episodes], 0].to(device)
        yield _TestBatch(
            batch.support, batch.support_mask, batch.query, batch.query_mask, labels,
            batch.class_id, are_features=True,
        )  # fmt: skip


class _WithOriginal(Dataset[tuple[Episode, Tensor]]):
    """An episode at the network's size, and the query's label map at its own."""

    def __init__(
        self, sampler: EpisodeSampler, transform: EvalTransform, wrong_support: bool
    ) -> None:
        self.sampler = sampler
        self.episodes = EpisodeDataset(sampler, transform)
        self.wrong_support = wrong_support

    def __len__(self) -> int:
        return len(self.sampler)

    def __getitem__(self, index: int) -> tuple[Episode, Tensor]:
        labels = self.sampler.dataset[self.sampler[index].query].labels
        episode = self.episodes[index]
        if self.wrong_support:
            shown = self.episodes[_another_class(self.sampler, index)]
            episode = replace(episode, support=shown.support, support_mask=shown.support_mask)
        return episode, labels


def _from_images(
    sampler: EpisodeSampler,
    transform: EvalTransform,
    wrong_support: bool,
    workers: int,
    device: torch.device,
) -> Iterator[_TestBatch]:
    """One episode a batch: queries keep their own sizes."""
    episodes = _WithOriginal(sampler, transform, wrong_support)
    # A generator of its own, or the loader would draw from the caller's.
    loader = DataLoader(episodes, batch_size=None, num_workers=workers, generator=torch.Generator())
    for episode, labels in loader:
        batch = collate([episode]).to(device)
        labels = labels[None].to(device)
        target = class_mask(labels, episode.class_id).long()
        yield _TestBatch(
            batch.support, batch.support_mask, batch.query, target, labels, batch.class_id,
            are_features=False,
        )  # fmt: skip


def _result(
    class_ids: Tensor, counts: Tensor, classes: Collection[int], protocol: Protocol
) -> Result:
    by_seed = [
        scores(ids, rows, resamples=1).miou
        for ids, rows in zip(
            class_ids.split(protocol.episodes), counts.split(protocol.episodes), strict=True
        )
    ]
    return Result(class_ids, counts, scores(class_ids, counts, classes=classes), tuple(by_seed))
