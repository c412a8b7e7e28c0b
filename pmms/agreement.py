"""Do prototypes stand for parts? How far EM's assignment agrees with an object's true parts."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_mutual_info_score, normalized_mutual_info_score
from torch import Tensor

from pmms.datasets.parts import PartsVOC
from pmms.features import FeatureBank
from pmms.margins import mean_and_interval
from pmms.mixture import fit_mixture
from pmms.results import RunRecord, environment, peak_memory_mb, record_name

SETTINGS: Mapping[str, Mapping[str, Any]] = {
    **{f"K = {k}": {"k": k} for k in (1, 2, 3, 4, 5, 8)},
    **{f"κ = {kappa:g}": {"kappa": kappa} for kappa in (5.0, 10.0, 40.0, 80.0)},
    "Gaussian": {"kernel": "gaussian"},
    "k-means++": {"init": "kmeans++"},
    "raw features": {"unit": False},
    "raw features, κ / 84": {"unit": False, "kappa": 20.0 / 84},
    "raw features, Gaussian": {"unit": False, "kernel": "gaussian"},
    "raw features, Gaussian, κ / 84²": {"unit": False, "kernel": "gaussian", "kappa": 20.0 / 84**2},
}
"""What is compared. What a setting does not name is as in ``DEFAULT``. 84 is the mean length of the
features of PartsVOC's objects: with raw features EM sees κ times the length of a sample (the vMF
kernel), or its square (the Gaussian one)."""

DEFAULT: Mapping[str, Any] = {
    "k": 3, "kappa": 20.0, "kernel": "vmf", "init": "random", "unit": True,
}  # fmt: skip
REFERENCES = ("random", "position")
"""Assignments that see no feature: by dice, and k-means on the position in the image."""


class PartObject(NamedTuple):
    """One object: N positions of the feature map inside it whose part is known.

    Attributes:
        class_id: of the object.
        samples: float32 (N, C), features at their own length.
        positions: float32 (N, 2), row and column.
        parts: int64 (N,), ids of the true parts, two or more different ones.
    """

    class_id: int
    samples: Tensor
    positions: Tensor
    parts: np.ndarray


@dataclass(frozen=True, kw_only=True)
class AgreementSettings:
    """Which objects are measured, and how often.

    Attributes:
        per_class: objects of a class at most, the first in the order of images.
        least: positions that an object has at least.
        starts: of EM, whose results are averaged.
        seed: of the first start.
    """

    per_class: int = 15
    least: int = 20
    starts: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.per_class, self.least, self.starts) < 1:
            raise ValueError("per_class, least and starts must be at least 1")


def part_objects(
    data: PartsVOC, bank: FeatureBank, settings: AgreementSettings
) -> list[PartObject]:
    """The objects that can be measured, in the order of images and classes.

    Args:
        data: images whose part maps are known.
        bank: their features.
        settings: see :class:`AgreementSettings`.
    """
    found: list[PartObject] = []
    taken: dict[int, int] = {}
    for image in range(len(data)):
        features = bank.features[image, 0].float()
        size = (features.shape[1], features.shape[2])
        of_image, labels = data.parts(image), bank.label_map(image)
        for class_id in sorted(data.classes_in(image)):
            parts = cell_parts(of_image, labels == class_id, size)
            inside = parts > 0
            if inside.sum() < settings.least or len(parts[inside].unique()) < 2:
                continue
            if taken.setdefault(class_id, 0) < settings.per_class:
                taken[class_id] += 1
                positions = inside.nonzero().float()
                samples, known = features[:, inside].T, parts[inside].numpy()
                found.append(PartObject(class_id, samples, positions, known))
    return found


def cell_parts(parts: Tensor, mask: Tensor, size: tuple[int, int]) -> Tensor:
    """The part of an object that most of its pixels in each cell of a grid belong to.

    Args:
        parts: (H, W) ids of parts, as :meth:`pmms.PartsVOC.parts` gives them.
        mask: bool (H, W), the object.
        size: rows and columns of the grid, such as a feature map's.

    Returns:
        int64 ``size``; 0 where the object fills half of the cell or less.
    """
    of_object = torch.where(mask, parts.long(), 0)
    shares = F.adaptive_avg_pool2d(F.one_hot(of_object).permute(2, 0, 1).float(), size)
    filled = 1 - shares[0] > 0.5
    return torch.where(filled, shares[1:].argmax(dim=0) + 1, 0)


def purity(owner: np.ndarray, parts: np.ndarray) -> float:
    """Share of the samples that belong to the commonest part of their prototype, 0 to 1.

    Args:
        owner: (N,) prototype of each sample.
        parts: (N,) true part of each sample, from 0.
    """
    commonest = (np.bincount(parts[owner == k]).max() for k in np.unique(owner))
    return float(sum(commonest) / len(parts))


MEASURES: Mapping[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "nmi": normalized_mutual_info_score,
    "ami": adjusted_mutual_info_score,
    "purity": purity,
}
"""Of prototypes and true parts, (N,) each."""


def agreement(
    objects: Sequence[PartObject], assign: Callable[[PartObject], np.ndarray]
) -> dict[str, dict[int, float]]:
    """NMI, AMI and purity by class, means over its objects.

    NMI and purity rise with the number of prototypes even where these are dealt out by dice. AMI is
    NMI less what dice would get (Vinh, Epps and Bailey, JMLR 2010): 0 for dice, 1 at best.

    Args:
        objects: what is measured.
        assign: of an object, gives the prototype of each sample, (N,).

    Returns:
        "nmi", "ami" and "purity" -> class -> mean.
    """
    by_class: dict[str, dict[int, list[float]]] = {name: {} for name in MEASURES}
    for one in objects:
        owner = assign(one)
        for name, measure in MEASURES.items():
            value = float(measure(owner, one.parts))
            by_class[name].setdefault(one.class_id, []).append(value)
    return {
        name: {class_id: float(np.mean(values)) for class_id, values in sorted(of.items())}
        for name, of in by_class.items()
    }


def assign_by_em(one: PartObject, *, seed: int, **options: Any) -> np.ndarray:
    """The prototype that is most responsible for each sample, (N,).

    Args:
        one: the object.
        seed: of the start of EM.
        options: other than ``DEFAULT``: k, kappa, kernel, init, and ``unit`` for features of unit
            length.
    """
    options = {**DEFAULT, **options}
    unit = options.pop("unit")
    samples = F.normalize(one.samples, dim=1) if unit else one.samples
    generator = torch.Generator().manual_seed(seed)
    mixture = fit_mixture(samples[None], generator=generator, **options)
    return mixture.resp[0].argmax(dim=1).numpy()


def assign_by_reference(one: PartObject, name: str, *, seed: int) -> np.ndarray:
    """As many groups as ``DEFAULT`` has prototypes, without a look at the features."""
    if name == "random":
        return np.random.default_rng(seed).integers(DEFAULT["k"], size=len(one.parts))
    groups: np.ndarray = KMeans(DEFAULT["k"], n_init=1, random_state=seed).fit_predict(
        one.positions.numpy()
    )
    return groups


def agreement_record(
    data: PartsVOC, bank: FeatureBank, settings: AgreementSettings = AgreementSettings()
) -> RunRecord:
    """All settings and references on the same objects, as a run record.

    Its scores: "objects", "classes" and "parts" (of an object, on average) say what was measured;
    "settings" has for each of ``SETTINGS`` and ``REFERENCES`` the "nmi", "ami" and "purity", and
    "gain", its AMI minus that of the default setting; each with its interval, whose unit is the
    class (see :func:`pmms.margins.mean_and_interval`).
    """
    start = time.perf_counter()
    objects = part_objects(data, bank, settings)
    seeds = range(settings.seed, settings.seed + settings.starts)
    measured: dict[str, dict[str, np.ndarray]] = {}
    for name in [*SETTINGS, *REFERENCES]:
        runs = []
        for seed in seeds:
            if name in SETTINGS:
                assign = _bound(assign_by_em, seed=seed, **SETTINGS[name])
            else:
                assign = _bound(assign_by_reference, name=name, seed=seed)
            runs.append(agreement(objects, assign))
        measured[name] = {
            kind: np.mean([list(run[kind].values()) for run in runs], axis=0) for kind in MEASURES
        }
    default = measured[f"K = {DEFAULT['k']}"]["ami"]
    scores = {
        "objects": len(objects),
        "classes": len(default),
        "parts": float(np.mean([len(np.unique(one.parts)) for one in objects])),
        "settings": {
            name: {
                **{kind: mean_and_interval(list(values)) for kind, values in of_name.items()},
                "gain": mean_and_interval(list(of_name["ami"] - default)),
            }
            for name, of_name in measured.items()
        },
    }
    parameters = {
        "study": "agreement",
        "dataset": "parts",
        "model": "training_free",
        "images": len(data),
        "size": bank.size,
        "default": dict(DEFAULT),
        **asdict(settings),
    }
    return RunRecord(
        name=record_name(parameters, ("dataset", "study")),
        parameters=parameters,
        protocol={"name": "objects", "void": "ignore", "resolution": "bank"},
        scores=scores,
        seconds={"study": time.perf_counter() - start},
        peak_memory_mb=peak_memory_mb(),
        environment=environment(),
    )


def _bound(assign: Callable[..., np.ndarray], **options: Any) -> Callable[[PartObject], np.ndarray]:
    return lambda one: assign(one, **options)
