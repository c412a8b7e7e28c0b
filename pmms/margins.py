"""Margins of the training-free model over pairs of images: what it decides by, pixel by pixel.

A mixture is fitted to the support alone. So each object is fitted once and compared with many
queries, and a pair of images costs next to nothing. What is kept of a pair is not a mask but the
MARGIN of every pixel, the difference that the model's decision hangs on, in units of the cosine::

    margin = (log sum_k exp(kappa <mu+_k, q>) - log sum_k exp(kappa <mu-_k, q>)) / kappa

The model (:class:`pmms.models.TrainingFreeSegmenter`) calls a pixel foreground where the margin is
above zero. A histogram of margins tells what any other threshold would have given, so that better
prototypes and a better threshold can be told apart.
"""

import random
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pmms.features import FeatureBank
from pmms.folds import VOID
from pmms.heads import PConv
from pmms.progress import progress_bar
from pmms.prototypes import PrototypeMixture, Samples, partition_samples

THRESHOLDS = np.linspace(-0.4, 0.4, 81).round(2)
"""Thresholds on the margin, in units of the cosine."""
ZERO = int(np.flatnonzero(THRESHOLDS == 0)[0])
FITTED_AT_ONCE = 8


class Pair(NamedTuple):
    """A support image and a query image of one class; ``view`` is the support's in the bank."""

    class_id: int
    support: int
    query: int
    view: int = 0


def object_share(bank: FeatureBank, image: int, class_id: int, *, view: int = 0) -> float:
    """Share of the picture that the class covers, in [0, 1]."""
    return float((bank.labels[image, view] == class_id).float().mean())


def other_image_pairs(bank: FeatureBank, *, per_class: int, seed: int = 0) -> list[Pair]:
    """Ordered pairs of two images of a class, of every class with two images.

    Args:
        bank: the images; a class counts where it has a pixel at the bank's size.
        per_class: of a class with more pairs than this, as many are drawn.
        seed: of the draw.

    Raises:
        ValueError: no class has two images.
    """
    rng = random.Random(seed)
    pairs: list[Pair] = []
    for class_id, images in _images_of_class(bank).items():
        of_class = [Pair(class_id, s, q) for s in images for q in images if s != q]
        pairs += of_class if len(of_class) <= per_class else rng.sample(of_class, per_class)
    if not pairs:
        raise ValueError("no class has two images: there is no pair to compare")
    return sorted(pairs)


def same_image_pairs(
    bank: FeatureBank, *, least_share: float, at_most: int, view: int = 0, seed: int = 0
) -> list[Pair]:
    """Pairs whose support is the query itself (``view=0``) or a random view of it.

    Args:
        bank: the images, in ``view + 1`` views at least.
        least_share: of the picture, that the object covers in both views.
        at_most: drawn from all there are; equal seeds draw the same objects for every view.
        view: of the support.
        seed: of the draw.
    """
    if view >= bank.labels.shape[1]:
        raise ValueError(f"the bank has {bank.labels.shape[1]} view(s), there is no view {view}")
    objects = [(c, i) for c, images in _images_of_class(bank).items() for i in images]
    objects = [o for o in objects if object_share(bank, o[1], o[0]) >= least_share]
    random.Random(seed).shuffle(objects)
    kept = [(c, i) for c, i in objects if object_share(bank, i, c, view=view) >= least_share]
    return sorted(Pair(c, i, i, view) for c, i in kept[:at_most])


def margin_histograms(
    bank: FeatureBank,
    pairs: Sequence[Pair],
    *,
    k: tuple[int, int],
    kappa: float = 20.0,
    seed: int = 0,
    description: str = "pairs",
) -> np.ndarray:
    """Histograms of the margins of all query pixels, void left out.

    Args:
        bank: features and label maps.
        pairs: what is compared.
        k: prototypes of the foreground and of the background.
        kappa: concentration, of EM and of the margin.
        seed: of EM's start.
        description: title of the progress bar.

    Returns:
        int64 (pairs, 2, T + 1): pixels of the object, pixels of the rest; bin t holds the margins
        above threshold t - 1 and up to threshold t.
    """
    foreground, background = fitted(bank, pairs, k=k, kappa=kappa, seed=seed)
    p_conv = PConv(kappa=kappa)
    edges = torch.from_numpy(THRESHOLDS).float()
    bins = len(edges) + 1
    histograms = []
    with torch.inference_mode(), progress_bar(len(pairs), description, unit="pair") as progress:
        for pair in pairs:
            key = pair.class_id, pair.support, pair.view
            query = bank.features[pair.query, :1].float()
            logits = p_conv.logits(query, foreground[key][None], background[key][None])
            of_object, of_rest = logits.split(k, dim=1)
            margin = (of_object.logsumexp(dim=1) - of_rest.logsumexp(dim=1)) / kappa
            labels = bank.labels[pair.query, 0]
            margin = F.interpolate(margin[None], labels.shape, mode="bilinear")[0, 0]
            bin_of = torch.bucketize(margin, edges)
            inside = labels == pair.class_id
            histograms.append([
                torch.bincount(bin_of[mask], minlength=bins).numpy()
                for mask in (inside, ~inside & (labels != VOID))
            ])  # fmt: skip
            progress.update()
    return np.array(histograms)


Objects = dict[tuple[int, int, int], Tensor]
"""(class, image, view) -> prototypes (K, C)."""


def fitted(
    bank: FeatureBank,
    pairs: Sequence[Pair],
    *,
    k: tuple[int, int],
    kappa: float = 20.0,
    seed: int = 0,
) -> tuple[Objects, Objects]:
    """Prototypes of the foreground and the background of each support, as the model fits them."""
    supports = sorted({(pair.class_id, pair.support, pair.view) for pair in pairs})
    channels = bank.features.shape[2]
    mixtures = [PrototypeMixture(channels, one, kappa=kappa, seed=seed) for one in k]
    result: tuple[Objects, Objects] = ({}, {})
    with torch.inference_mode():
        for start in range(0, len(supports), FITTED_AT_ONCE):
            chunk = supports[start : start + FITTED_AT_ONCE]
            for of_side, mixture, samples in zip(
                result, mixtures, unit_samples(bank, chunk), strict=True
            ):
                of_side.update(zip(chunk, mixture(samples), strict=True))
    return result


def class_ious(pairs: Sequence[Pair], histograms: np.ndarray, threshold: int) -> dict[int, float]:
    """IoU in percent of each class at ``THRESHOLDS[threshold]``, areas summed over its pairs."""
    both, union = _areas(histograms, threshold)
    classes = np.array([pair.class_id for pair in pairs])
    return {
        int(c): float(100 * both[classes == c].sum() / union[classes == c].sum())
        for c in np.unique(classes)
    }


def pair_ious(histograms: np.ndarray, threshold: int) -> np.ndarray:
    """IoU in percent of each pair at ``THRESHOLDS[threshold]``, (pairs,)."""
    both, union = _areas(histograms, threshold)
    ious: np.ndarray = 100 * both / union
    return ious


def _areas(histograms: np.ndarray, threshold: int) -> tuple[np.ndarray, np.ndarray]:
    """Intersection and union of object and decision of each pair, in pixels."""
    found = histograms[:, :, threshold + 1 :].sum(axis=2)
    return found[:, 0], histograms[:, 0].sum(axis=1) + found[:, 1]


def threshold_curve(pairs: Sequence[Pair], histograms: np.ndarray) -> np.ndarray:
    """mIoU in percent at each threshold, (T,)."""
    return np.array(
        [np.mean(list(class_ious(pairs, histograms, t).values())) for t in range(len(THRESHOLDS))]
    )


def calibrated_ious(pairs: Sequence[Pair], histograms: np.ndarray) -> dict[int, float]:
    """IoU of each class at the threshold that is best for the OTHER half of the classes.

    The halves are classes of even and of odd rank. So no class has a say in its own threshold.

    Raises:
        ValueError: fewer than two classes.
    """
    classes = sorted({pair.class_id for pair in pairs})
    if len(classes) < 2:
        raise ValueError("calibration needs two classes at least: one half chooses for the other")
    odd = set(classes[1::2])
    in_odd = np.array([pair.class_id in odd for pair in pairs])
    ious: dict[int, float] = {}
    for half in (in_odd, ~in_odd):
        chosen = int(threshold_curve(_where(pairs, ~half), histograms[~half]).argmax())
        ious |= class_ious(_where(pairs, half), histograms[half], chosen)
    return dict(sorted(ious.items()))


def separation(histograms: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of each pair, in [0, 1]: the share of (object, rest) pixel pairs
    that the margin ranks rightly. It has no threshold. NaN where a side has no pixel."""
    of_object, of_rest = histograms[:, 0].astype(float), histograms[:, 1].astype(float)
    below = of_rest.cumsum(axis=1) - of_rest / 2
    total = of_object.sum(axis=1) * of_rest.sum(axis=1)
    right = (of_object * below).sum(axis=1)
    share = np.full(len(total), np.nan)
    np.divide(right, total, out=share, where=total > 0)
    return share


def mean_and_interval(
    values: Sequence[float] | np.ndarray, *, resamples: int = 2000, seed: int = 0
) -> dict[str, float]:
    """Mean with its 95 % percentile bootstrap interval: {"mean", "low", "high", "n"}.

    Give it one value a class: the classes are what is drawn anew.
    """
    array = np.asarray(values, dtype=float)
    drawn = np.random.default_rng(seed).integers(len(array), size=(resamples, len(array)))
    low, high = np.percentile(array[drawn].mean(axis=1), [2.5, 97.5])
    return {"mean": float(array.mean()), "low": float(low), "high": float(high), "n": len(array)}


def _images_of_class(bank: FeatureBank) -> dict[int, list[int]]:
    """Class -> images that show it at the bank's size, both ascending."""
    found: dict[int, list[int]] = {}
    for image in range(len(bank.labels)):
        for class_id in bank.labels[image, 0].unique().tolist():
            if class_id not in (0, VOID):
                found.setdefault(class_id, []).append(image)
    return dict(sorted(found.items()))


def unit_samples(
    bank: FeatureBank, supports: Sequence[tuple[int, int, int]]
) -> tuple[Samples, Samples]:
    """Unit features of some supports with their weights, as the training-free model sees them."""
    features = torch.stack([bank.features[i, v] for _, i, v in supports]).float()
    masks = torch.stack([bank.labels[i, v] == c for c, i, v in supports]).float()
    features = F.normalize(features, dim=1, eps=1e-6)
    return partition_samples(features[:, None], masks[:, None, None])


def _where(pairs: Sequence[Pair], wanted: np.ndarray) -> list[Pair]:
    return [pair for pair, take in zip(pairs, wanted, strict=True) if take]
