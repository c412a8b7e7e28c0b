"""Evaluation: a model, episodes and a protocol to integer counts, and from these to scores."""

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from pmms.datasets.base import SegmentationDataset
from pmms.device_checks import require
from pmms.distributed import Team, share
from pmms.embeddings import Embed, embedded_batches
from pmms.episode_batches import (
    Sampler,
    ScoredBatch,
    bank_batch,
    batch_indices,
    scored_labels,
    source_transform,
)
from pmms.episodes import class_mask
from pmms.features import FeatureBank
from pmms.folds import VOID
from pmms.metrics import Scores, episode_counts, scores
from pmms.models import FewShotSegmenter, foreground
from pmms.progress import progress_bar
from pmms.protocol_episodes import protocol_sampler
from pmms.protocols import PROTOCOLS, Protocol
from pmms.transforms import EvalTransform

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Control = Literal["wrong_support", "everything", "all_objects"]
NO_MODEL = ("everything", "all_objects")  # controls that answer without looking at an image


class Result(NamedTuple):
    """What an evaluation gives.

    Attributes:
        class_ids: int64 (N,), the class of each episode; N = seeds x episodes, seed after seed.
        counts: int64 (N, 4), see :func:`pmms.metrics.episode_counts`.
        scores: over all N episodes.
        by_seed: mIoU in percent of each episode seed, over the classes that it has drawn.
        class_names: class id -> name, for every class that was scored.
        protocol: under which all of it holds.
    """

    class_ids: Tensor
    counts: Tensor
    scores: Scores
    by_seed: tuple[float, ...]
    class_names: dict[int, str]
    protocol: Protocol

    def summary(self) -> dict[str, Any]:
        """JSON values for a run record, percentages. FB-IoU only where the protocol has it."""
        values = {**asdict(self.scores), "by_seed": list(self.by_seed)}
        values["class_names"] = self.class_names
        if not self.protocol.fb_iou:
            del values["fb_iou"]
        return values

    def table(self) -> str:
        """IoU of every class by id and name, mean, interval and FB-IoU, as a Markdown table."""
        low, high = self.scores.interval
        rows = ["| class | name | episodes | IoU |", "|---:|---|---:|---:|"]
        for class_id, iou in self.scores.class_iou.items():
            episodes = int((self.class_ids == class_id).sum())
            rows.append(f"| {class_id} | {self.class_names[class_id]} | {episodes} | {iou:.2f} |")
        rows.append(f"| | mean (95 %: {low:.2f} to {high:.2f}) | {self.scores.episodes} | "
                    f"{self.scores.miou:.2f} |")  # fmt: skip
        if self.protocol.fb_iou:
            rows.append(f"| | FB-IoU | {self.scores.episodes} | {self.scores.fb_iou:.2f} |")
        return "\n".join(rows)


def evaluate(
    model: FewShotSegmenter,
    images: FeatureBank | SegmentationDataset,
    classes: Collection[int],
    *,
    protocol: Protocol = PROTOCOLS["ours"],
    size: int | None = None,
    control: Control | None = None,
    device: torch.device | str = "cpu",
    precision: Literal["float32", "bfloat16"] = "float32",
    workers: int = 0,
    description: str = "evaluate",
    fabric: "Fabric | None" = None,
) -> Result:
    """Test a model on episodes of some classes.

    Controls tell what a number would be without the thing that it is to measure. "wrong_support"
    shows the model the support of the next episode that is of another class; "everything" predicts
    foreground everywhere; "all_objects" predicts the true mask of all labelled objects, as a model
    would that finds objects but cannot tell them apart.

    Args:
        model: put in eval mode and moved to ``device``.
        images: a feature bank of the test images, or the images themselves. The bank gives the
            same result but for the rounding of its features. Either way the features of an image
            are computed once, as long as memory lasts: see :mod:`pmms.embeddings`.
        classes: class ids; every one must be scored.
        protocol: how it is tested.
        size: side in pixels that images are brought to; needed where ``images`` are images and the
            protocol leaves it open.
        control: None for the model itself.
        device: where the model runs.
        precision: "bfloat16" for automatic mixed precision.
        workers: processes that load images; no effect on the result.
        description: title of the progress bar.
        fabric: of :func:`pmms.distributed.start`, where several processes test together: each of
            them makes this call, takes a share of the episodes, and returns the result of all. It
            is, on CPUs, that of one process with as many threads, to the bit. ``device`` is then
            Fabric's.

    Raises:
        ValueError: impossible episodes (see :func:`pmms.protocol_episodes.protocol_sampler`); a
            size or a bank that contradicts the protocol, or no size at all; an unknown ``control``
            or ``precision``; "wrong_support" with one class only; NaN or infinite logits (on an
            accelerator an asynchronous assertion).
    """
    if control is not None and control not in get_args(Control):
        raise ValueError(f"control must be None or one of {get_args(Control)}, got {control!r}")
    if precision not in ("float32", "bfloat16"):
        raise ValueError(f"precision must be 'float32' or 'bfloat16', got {precision!r}")
    team = Team(fabric)
    device = torch.device(device) if fabric is None else fabric.device
    transform = source_transform(images, protocol, size)
    model.eval().to(device)
    dataset = images.dataset if isinstance(images, FeatureBank) else images
    samplers = [protocol_sampler(protocol, dataset, classes, seed=s) for s in protocol.seeds]
    total = sum(map(len, samplers))
    # Of the episodes that other processes take the rows stay zero, until all are added up.
    class_ids = torch.zeros(total, dtype=torch.int64)
    counts = torch.zeros(total, 4, dtype=torch.int64)
    autocast = torch.autocast(device.type, torch.bfloat16, precision == "bfloat16")

    def embed(pixels: Tensor) -> Tensor:
        if control in NO_MODEL:
            return pixels[..., :1, :1]  # nobody looks at it
        with autocast:
            return model.embed(pixels)

    batches = _batches(images, samplers, transform, embed, control, workers, device, team)
    here = math.ceil(total / team.size)
    with torch.inference_mode(), progress_bar(here, description, unit="episode") as progress:
        for rows, batch in batches:
            with autocast:
                logits = _logits(model, batch, protocol, control)
            counts[rows] = _count(batch, logits, protocol, transform, control)
            class_ids[rows] = batch.class_id
            progress.update(len(rows))
    return _result(team.total(class_ids), team.total(counts), dataset, classes, protocol)


def _batches(
    images: FeatureBank | SegmentationDataset,
    samplers: Sequence[Sampler],
    transform: EvalTransform,
    embed: Embed,
    control: Control | None,
    workers: int,
    device: torch.device,
    team: Team,
) -> Iterator[tuple[list[int], ScoredBatch]]:
    """This process's share of the episodes, with their places among all of them."""
    wrong = control == "wrong_support"
    if isinstance(images, FeatureBank):
        unseen = control in NO_MODEL
        # Whole batches: which episodes are computed together does not depend on who does it.
        for first, sampler, indices in share(batch_indices(samplers), team):
            batch = bank_batch(
                images, sampler, indices, wrong_support=wrong, unseen=unseen, device=device
            )
            yield list(range(first, first + len(indices))), batch
        return
    places = list(range(sum(map(len, samplers))))
    if team.size > 1:
        # Episodes of a class share images: together they need fewer embeddings.
        of_class = [episode.class_id for sampler in samplers for episode in sampler]
        places = share(sorted(places, key=of_class.__getitem__), team)
    batches = embedded_batches(
        samplers, transform, embed, take=places, wrong_support=wrong, workers=workers, device=device
    )
    for place, batch in zip(places, batches, strict=True):
        yield [place], batch


def _logits(
    model: FewShotSegmenter, batch: ScoredBatch, protocol: Protocol, control: Control | None
) -> list[Tensor]:
    """Logits (B, 2, h, w) for each prediction that is fused: one, or one for each support image."""
    if control in NO_MODEL:
        return []
    forward = model.segment if batch.are == "features" else model.compare
    shots = batch.support.shape[1]
    groups = [slice(0, shots)]
    if protocol.fusion == "vote":
        groups = [slice(shot, shot + 1) for shot in range(shots)]
    all_logits = [
        forward(batch.support[:, group], batch.support_mask[:, group], batch.query).logits
        for group in groups
    ]
    for logits in all_logits:
        # They would count as background.
        require(
            logits.isfinite().all(),
            "the model answers NaN or infinite values; look at its weights, and at the images",
        )
    return all_logits


def _count(
    batch: ScoredBatch,
    logits: list[Tensor],
    protocol: Protocol,
    transform: EvalTransform,
    control: Control | None,
) -> Tensor:
    """Counts int64 (B, 4) of a batch; queries of one size are counted together."""
    void = VOID if protocol.void == "ignore" else None
    scored = [scored_labels(labels, protocol, transform) for labels in batch.labels]
    counts = torch.empty(len(scored), 4, dtype=torch.int64)
    for rows in _equal_sizes(scored):
        labels = torch.stack([scored[i] for i in rows]).to(batch.query.device)
        target = torch.stack(
            [class_mask(one, int(batch.class_id[i])) for one, i in zip(labels, rows, strict=True)]
        )
        if control == "everything":
            predicted = torch.ones_like(target)
        elif control == "all_objects":
            predicted = ((labels != 0) & (labels != VOID)).long()
        else:
            shape = (labels.shape[1], labels.shape[2])
            of_rows = [one[rows] for one in logits]
            predicted = fuse([_decide(one, shape, protocol, transform) for one in of_rows])
        counts[rows] = episode_counts(predicted, target, void=void).cpu()
    return counts


def _decide(
    logits: Tensor, shape: tuple[int, int], protocol: Protocol, transform: EvalTransform
) -> Tensor:
    """Logits (b, 2, h, w) to masks (b, H, W) in {0, 1} at the size that is scored."""
    if protocol.resolution == "network":
        transform = EvalTransform(transform.size)  # padding is void in the target
    return foreground(transform.restore(logits.float(), height=shape[0], width=shape[1]))


def fuse(masks: Sequence[Tensor]) -> Tensor:
    """Masks of K predictions to one: votes divided by the largest vote, foreground from 0.5 on.

    HSNet's rule (``model/hsnet.py``); a single mask stays as it is. The largest vote is that of
    each image, so that one vote of five makes foreground where no pixel has three.

    Args:
        masks: K of (B, H, W), integer, 0 or 1.

    Returns:
        int64 (B, H, W), 0 or 1.
    """
    votes = torch.stack(list(masks)).sum(dim=0)
    largest = votes.flatten(1).amax(dim=1).clamp(min=1)
    return (2 * votes >= largest[:, None, None]).long()


def _equal_sizes(label_maps: Sequence[Tensor]) -> list[list[int]]:
    """Positions of label maps, grouped by their size."""
    groups: dict[torch.Size, list[int]] = {}
    for position, labels in enumerate(label_maps):
        groups.setdefault(labels.shape, []).append(position)
    return list(groups.values())


def _result(
    class_ids: Tensor,
    counts: Tensor,
    dataset: SegmentationDataset,
    classes: Collection[int],
    protocol: Protocol,
) -> Result:
    by_seed = [
        scores(ids, rows, resamples=1).miou
        for ids, rows in zip(
            class_ids.split(protocol.episodes), counts.split(protocol.episodes), strict=True
        )
    ]
    total = scores(class_ids, counts, classes=classes)
    names = {class_id: dataset.class_name(class_id) for class_id in total.class_iou}
    return Result(class_ids, counts, total, tuple(by_seed), names, protocol)
