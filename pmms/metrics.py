"""From predicted masks to mIoU and FB-IoU: integer counts per episode, one division at the end.

The field's figure is the intersection over union (IoU) of the foreground, with both areas summed
over all episodes of a class before they are divided, then averaged over the classes (mIoU). It
weighs an episode by its area; the mean of each episode's own IoU is another number. FB-IoU forgets
the classes: it averages the IoU of foreground and of background over all episodes.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pmms.folds import VOID

COLUMNS = (
    "foreground_intersection",
    "foreground_union",
    "background_intersection",
    "background_union",
)
"""What the four columns of ``episode_counts`` hold, in pixels."""


@dataclass(frozen=True)
class Scores:
    """Result over many episodes. All figures in percent, 0 to 100.

    Attributes:
        class_iou: class id -> IoU of the foreground over that class's episodes; ids ascending.
        miou: mean of ``class_iou``, each class with the same weight.
        fb_iou: mean of foreground IoU and background IoU, both over all episodes.
        episodes: number of episodes.
        interval: confidence interval of ``miou``, low and high (see ``scores``).
    """

    class_iou: dict[int, float]
    miou: float
    fb_iou: float
    episodes: int
    interval: tuple[float, float]


def episode_counts(prediction: Tensor, target: Tensor, *, void: int | None = VOID) -> Tensor:
    """Pixels in intersection and union, for foreground and background of each episode.

    Args:
        prediction: (B, H, W), bool or integer, 0 background or 1 foreground.
        target: (B, H, W), integer, 0 background, 1 foreground, 255 void.
        void: pixels with this label in ``target`` are left out of all four counts; None counts
            the pixels labelled 255 as background instead, as the paper's authors do.

    Returns:
        int64 (B, 4) on the device of ``prediction``; the columns are named in ``COLUMNS``. An
        episode without foreground in target and prediction has 0 in its first two columns.

    Raises:
        TypeError: floating-point masks (threshold or argmax them first).
        ValueError: shapes differ or are not (B, H, W), a label other than the above, or a void
            label that is 0 or 1.
    """
    if prediction.ndim != 3 or prediction.shape != target.shape:
        raise ValueError(
            "prediction and target must have the same shape (B, H, W), "
            f"got {tuple(prediction.shape)} and {tuple(target.shape)}"
        )
    for name, mask in (("prediction", prediction), ("target", target)):
        if mask.is_floating_point() or mask.is_complex():
            raise TypeError(f"{name} must hold integers or booleans, got {mask.dtype}")
    ignored = VOID if void is None else void
    if ignored in (0, 1):
        raise ValueError(f"void must differ from background (0) and foreground (1), got {void}")
    foreground, true_foreground = prediction == 1, target == 1
    background, true_background = prediction == 0, target == 0
    left_out = target == ignored
    if not (foreground | background).all():
        raise ValueError("prediction must hold 0 and 1 only")
    if not (true_foreground | true_background | left_out).all():
        raise ValueError(
            f"target must hold 0, 1 and the void label {ignored} only; "
            "a label map must be reduced to one class first"
        )
    if void is None:
        true_background = ~true_foreground
    valid = true_foreground | true_background
    both = foreground & true_foreground
    neither = background & true_background
    return torch.stack(
        [
            area.flatten(1).sum(1)
            for area in (
                both,
                (foreground | true_foreground) & valid,
                neither,
                (background | true_background) & valid,
            )
        ],
        dim=1,
    )


def scores(
    class_ids: Tensor,
    counts: Tensor,
    *,
    classes: Iterable[int] | None = None,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Scores:
    """IoU per class, mIoU with its interval, and FB-IoU from the counts of all episodes.

    The interval is the percentile bootstrap over episodes (Efron and Tibshirani, An Introduction to
    the Bootstrap, 1993): within each class its episodes are drawn with replacement, as many as
    there are, and mIoU is computed anew. It tells how far mIoU would lie with other episodes of the
    same images, classes and network; it does not cover other seeds of training. Episodes share
    images, so it is somewhat narrow where a class has few images.

    Args:
        class_ids: (N,), integer, the class of each episode.
        counts: (N, 4), integer, from ``episode_counts``.
        classes: the classes that must be scored; None takes those in ``class_ids``. Give it where
            a missing class must not go unnoticed.
        confidence: coverage of the interval, in (0, 1).
        resamples: number of bootstrap resamples, at least 1.
        seed: seed of the resampling.

    Raises:
        TypeError: ``class_ids`` or ``counts`` are not integers.
        ValueError: shapes do not fit, there are no episodes, a class of ``classes`` has none, an
            episode's class is not in ``classes``, a class has no foreground pixel in any target
            or prediction (its IoU is 0 / 0), or ``confidence`` or ``resamples`` is out of range.
    """
    class_iou, resampled = _bootstrapped(class_ids, counts, classes, resamples, seed)
    total = counts.sum(dim=0).tolist()
    foreground_iou, background_iou = total[0] / total[1], _ratio(total[2], total[3])
    return Scores(
        class_iou=class_iou,
        miou=float(np.mean(list(class_iou.values()))),
        fb_iou=float(50 * (foreground_iou + background_iou)),
        episodes=len(class_ids),
        interval=_percentiles(resampled, confidence),
    )


def paired_gain(
    class_ids: Tensor,
    counts: Tensor,
    than: Tensor,
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, tuple[float, float]]:
    """How much larger one mIoU is than another of the same episodes, in points, and its interval.

    An easy episode is easy for both, so the difference varies less than either score: two
    intervals of ``scores`` that overlap do not say that the difference may be zero. Its own
    interval is the percentile bootstrap with the same resamples on both sides.

    Args:
        class_ids, confidence, resamples, seed: as in ``scores``.
        counts: (N, 4), integer, from ``episode_counts``.
        than: the same for what it is compared with, one row for the same episode.

    Raises:
        TypeError, ValueError: as in ``scores``.
    """
    (iou, drawn), (other_iou, other_drawn) = (
        _bootstrapped(class_ids, side, None, resamples, seed) for side in (counts, than)
    )
    gain = np.mean(list(iou.values())) - np.mean(list(other_iou.values()))
    return float(gain), _percentiles(drawn - other_drawn, confidence)


def _bootstrapped(
    class_ids: Tensor,
    counts: Tensor,
    classes: Iterable[int] | None,
    resamples: int,
    seed: int,
) -> tuple[dict[int, float], np.ndarray]:
    """IoU of each class, ids ascending, and the mIoU of each resample, in percent."""
    if class_ids.ndim != 1 or counts.shape != (len(class_ids), 4):
        raise ValueError(
            f"expected class_ids (N,) and counts (N, 4), got {tuple(class_ids.shape)} "
            f"and {tuple(counts.shape)}"
        )
    if class_ids.is_floating_point() or counts.is_floating_point():
        raise TypeError(f"expected integers, got {class_ids.dtype} and {counts.dtype}")
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")
    ids = class_ids.cpu().numpy()
    # float64 holds integers up to 2**53 exactly, and its matrix product is fast.
    table = counts.cpu().numpy().astype(np.float64)
    wanted = _wanted_classes(ids, classes)

    generator = np.random.default_rng(seed)
    class_iou: dict[int, float] = {}
    resampled = np.zeros(resamples)
    for class_id in wanted:
        rows = table[ids == class_id, :2]
        intersection, union = rows.sum(axis=0)
        if union == 0:
            raise ValueError(
                f"class {class_id} has no foreground pixel in the targets and predictions of its "
                f"{len(rows)} episodes, so its IoU is undefined; draw episodes that show it"
            )
        class_iou[class_id] = float(100 * intersection / union)
        resampled += _resampled_iou(rows, resamples=resamples, generator=generator)
    return class_iou, resampled / len(wanted)


def _percentiles(resampled: np.ndarray, confidence: float) -> tuple[float, float]:
    """The middle of some values that holds this share of them."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
    tail = 100 * (1 - confidence) / 2
    low, high = np.nanpercentile(resampled, [tail, 100 - tail])
    return float(low), float(high)


def _wanted_classes(ids: np.ndarray, classes: Iterable[int] | None) -> list[int]:
    """The classes to score, ascending; refuses classes without episodes and the reverse."""
    present = {int(i) for i in np.unique(ids)}
    if not present:
        raise ValueError("there are no episodes to score")
    wanted = present if classes is None else {int(i) for i in classes}
    if wanted - present:
        raise ValueError(
            f"no episode of class {sorted(wanted - present)} among {len(ids)}; "
            "evaluate more episodes or leave the class out"
        )
    if present - wanted:
        raise ValueError(f"episodes of class {sorted(present - wanted)}, which is not in classes")
    return sorted(wanted)


def _resampled_iou(
    rows: np.ndarray, *, resamples: int, generator: np.random.Generator
) -> np.ndarray:
    """IoU in percent of each bootstrap resample of one class, float64 (resamples,).

    NaN where a resample holds only episodes without foreground; the percentiles leave it out.
    """
    n = len(rows)
    drawn = generator.integers(n, size=(resamples, n))
    # How often each episode is drawn; sums over the resample are then one matrix product.
    offsets = np.arange(resamples)[:, None] * n
    times = np.bincount((drawn + offsets).ravel(), minlength=resamples * n)
    sums = times.reshape(resamples, n).astype(np.float64) @ rows
    share = np.full(resamples, np.nan)
    np.divide(sums[:, 0], sums[:, 1], out=share, where=sums[:, 1] > 0)
    return 100 * share


def _ratio(numerator: float, denominator: float) -> float:
    """IoU with an empty union as 1: no background was there and none was predicted."""
    return float(numerator / denominator) if denominator else 1.0
