"""Where do K prototypes help, and why? The same measurements on any set of images.

Every comparison is paired: the same pairs of images for every setting. The unit of most intervals
is the class, since pairs of a class share images.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from pmms.features import FeatureBank
from pmms.likelihoods import likelihood_gains
from pmms.margins import (
    THRESHOLDS,
    ZERO,
    Pair,
    calibrated_ious,
    class_ious,
    margin_histograms,
    mean_and_interval,
    object_share,
    other_image_pairs,
    pair_ious,
    same_image_pairs,
    separation,
    threshold_curve,
)
from pmms.results import RunRecord, environment, peak_memory_mb, record_name

AREAS = (0.0, 1 / 64, 0.05, 0.1, 0.25, 1.0)
"""Borders of the groups by the share of the query that the object covers."""


@dataclass(frozen=True, kw_only=True)
class StudySettings:
    """What :func:`prototype_study` compares.

    Attributes:
        per_class: pairs of a class at most.
        least_share: of the picture, that "large" objects cover in support and query. PartsVOC has
            no smaller ones: 400 of 160 x 160 pixels.
        ks: numbers of prototypes; the first is what the others are compared with.
        kappa: concentration; ``kappas`` are tried beside it.
        same_images: objects for the comparison of an image with itself, at most.
        seed: of the pairs.
    """

    per_class: int = 60
    least_share: float = 1 / 64
    ks: tuple[int, ...] = (1, 3, 5)
    kappa: float = 20.0
    kappas: tuple[float, ...] = (10.0, 40.0)
    same_images: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.ks) < 2 or min(self.ks) < 1:
            raise ValueError(f"ks must be two or more numbers of prototypes, got {self.ks}")
        if min(self.per_class, self.same_images) < 1:
            raise ValueError("per_class and same_images must be at least 1")


def prototype_study(bank: FeatureBank, settings: StudySettings = StudySettings()) -> dict[str, Any]:
    """All measurements on one set of images.

    Args:
        bank: features and label maps, in two views at least; the second is the random crop that
            "a crop of it" compares with.
        settings: what is compared.

    Returns:
        JSON values. "pairs": how many. "curves": mIoU at each of "thresholds", by K. "grid": by
        "K+ x K-" prototypes, for all pairs and for those of "large" objects. "areas": gain by the
        share of the query that the object covers. "closeness": gain where the support is the query
        itself, a crop of it, or another image. "kappas": gain at other concentrations.
        "likelihood": see :func:`likelihood_gains`.
    """
    s, first = settings, settings.ks[0]
    every = other_image_pairs(bank, per_class=s.per_class, seed=s.seed)
    large = np.array([
        min(object_share(bank, image, p.class_id) for image in (p.support, p.query))
        >= s.least_share
        for p in every
    ])  # fmt: skip
    groups = {"all": np.ones(len(every), dtype=bool), "large": large}
    grid = [(k, k) for k in s.ks] + [(first, s.ks[1]), (s.ks[1], first)]
    by_k = {
        k: margin_histograms(bank, every, k=k, kappa=s.kappa, description=f"K = {k}") for k in grid
    }
    of_large = [pair for pair, take in zip(every, large, strict=True) if take]
    result: dict[str, Any] = {"pairs": {}, "grid": {}, "curves": {}}
    result["thresholds"] = THRESHOLDS.tolist()
    for name, group in groups.items():
        pairs = [pair for pair, take in zip(every, group, strict=True) if take]
        classes = {pair.class_id for pair in pairs}
        result["pairs"][name] = {"pairs": len(pairs), "classes": len(classes)}
        result["grid"][name] = {
            f"{k[0]} x {k[1]}": comparison(pairs, one[group], by_k[first, first][group])
            for k, one in by_k.items()
        }
        result["curves"][name] = {
            str(k): threshold_curve(pairs, by_k[k, k][group]).tolist() for k in s.ks
        }
    result["areas"] = _by_area(bank, every, {k: by_k[k, k] for k in s.ks})
    result["closeness"] = {}
    for view, name in enumerate(("the query itself", "a crop of it")):
        pairs = same_image_pairs(
            bank, least_share=s.least_share, at_most=s.same_images, view=view, seed=s.seed
        )
        result["closeness"][name] = _by_k(bank, pairs, s)
    result["closeness"]["another image"] = {
        str(k): result["grid"]["large"][f"{k} x {k}"] for k in s.ks
    }
    result["kappas"] = {
        f"{kappa:g}": _by_k(bank, of_large, replace(s, kappa=kappa)) for kappa in s.kappas
    }
    result["likelihood"] = likelihood_gains(bank, of_large, ks=s.ks, kappa=s.kappa)
    return result


def study_record(
    bank: FeatureBank, settings: StudySettings = StudySettings(), *, images: str
) -> RunRecord:
    """The study as a run record.

    Args:
        bank: features and label maps.
        settings: what is compared.
        images: name of the images, for the record's name and parameters.
    """
    start = time.perf_counter()
    scores = prototype_study(bank, settings)
    parameters = {
        "study": "prototypes",
        "dataset": images,
        "model": "training_free",
        "images": len(bank.labels),
        "size": bank.size,
        **asdict(settings),
    }
    return RunRecord(
        name=record_name(parameters, ("dataset", "study")),
        parameters=parameters,
        protocol={"name": "pairs", "void": "ignore", "resolution": "bank"},
        scores=scores,
        seconds={"study": time.perf_counter() - start},
        peak_memory_mb=peak_memory_mb(),
        environment=environment(),
    )


def comparison(
    pairs: Sequence[Pair], histograms: np.ndarray, reference: np.ndarray
) -> dict[str, Any]:
    """mIoU with the model's threshold and with calibrated ones, and both against a reference.

    Args:
        pairs: of both.
        histograms: of the setting in question.
        reference: those of the setting that it is compared with, usually K = 1.

    Returns:
        "at_zero", "calibrated" and "separation" (percent), each with "value" and "gain" over the
        reference (see :func:`mean_and_interval`, over classes); and "best_threshold".
    """
    classes = np.array([pair.class_id for pair in pairs])

    def by_class(one: np.ndarray) -> dict[int, float]:
        return {
            int(c): float(np.nanmean(100 * separation(one[classes == c])))
            for c in np.unique(classes)
        }

    measures = {
        "at_zero": lambda one: class_ious(pairs, one, ZERO),
        "calibrated": lambda one: calibrated_ious(pairs, one),
        "separation": by_class,
    }
    result: dict[str, Any] = {}
    for name, measure in measures.items():
        value = np.array(list(measure(histograms).values()))
        before = np.array(list(measure(reference).values()))
        result[name] = {"value": float(value.mean()), "gain": mean_and_interval(value - before)}
    best = threshold_curve(pairs, histograms).argmax()
    return result | {"best_threshold": float(THRESHOLDS[best])}


def _by_k(bank: FeatureBank, pairs: Sequence[Pair], settings: StudySettings) -> dict[str, Any]:
    """:func:`comparison` of each K with the first."""
    histograms = {
        k: margin_histograms(bank, pairs, k=(k, k), kappa=settings.kappa, description=f"K = {k}")
        for k in settings.ks
    }
    reference = histograms[settings.ks[0]]
    return {str(k): comparison(pairs, one, reference) for k, one in histograms.items()}


def _by_area(
    bank: FeatureBank, pairs: Sequence[Pair], histograms: dict[int, np.ndarray]
) -> list[dict[str, Any]]:
    """Gain in a pair's own IoU by the object's share of the query; the unit is the pair."""
    shares = np.array([object_share(bank, pair.query, pair.class_id) for pair in pairs])
    at_zero = {k: pair_ious(one, ZERO) for k, one in histograms.items()}
    best = {
        k: pair_ious(one, int(threshold_curve(pairs, one).argmax()))
        for k, one in histograms.items()
    }
    first = next(iter(histograms))
    rows = []
    for low, high in pairwise(AREAS):
        group = (shares >= low) & (shares < high)
        if group.sum() < 10:
            continue
        rows.append({
            "low": low,
            "high": high,
            "pairs": int(group.sum()),
            "iou": float(at_zero[first][group].mean()),
            "gain_at_zero": {
                str(k): mean_and_interval((one - at_zero[first])[group])
                for k, one in at_zero.items()
            },
            "gain_at_best": {
                str(k): mean_and_interval((one - best[first])[group]) for k, one in best.items()
            },
        })  # fmt: skip
    return rows
