"""How likely a mixture finds features that it was not fitted to."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pmms.features import FeatureBank
from pmms.margins import Pair, mean_and_interval, unit_samples
from pmms.prototypes import PrototypeMixture, Samples


def likelihood_gains(
    bank: FeatureBank,
    pairs: Sequence[Pair],
    *,
    ks: Sequence[int],
    kappa: float = 20.0,
    least_cells: int = 12,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Log-likelihood of held-out features: does a mixture describe more than what it was fitted to?

    The feature cells of one side of the support are split at random. A mixture fitted to one half
    is tested on that half ("fitted"), on the other half ("same image") and on the same side of the
    query image ("other image"). A cell belongs to the object if the class covers more than half of
    it, and to the rest if it covers none.

    Args:
        bank: features and label maps.
        pairs: support and query; those with fewer than ``least_cells`` cells are left out.
        ks: numbers of prototypes; the first is what the others are compared with.
        kappa: concentration.
        least_cells: of each side, in support and query.
        seed: of the halves.

    Returns:
        side ("object" or "rest") -> "nats", the mean log-sum of the first K by place, in nats a
        cell, and "gain": K -> place -> :func:`mean_and_interval` of the gain over the first K. The
        unit of the interval is the pair. A side without pairs is left out.
    """
    generator = torch.Generator().manual_seed(seed)
    rows: dict[str, list[list[list[float]]]] = {"object": [], "rest": []}
    for pair in pairs:
        of_support = _cells(bank, pair.support, pair.class_id)
        of_query = _cells(bank, pair.query, pair.class_id)
        for side in rows:
            cells, others = of_support[side], of_query[side]
            if min(len(cells), len(others)) < least_cells:
                continue
            shuffled = cells[torch.randperm(len(cells), generator=generator)]
            half = len(cells) // 2
            places = (shuffled[:half], shuffled[half:], others)
            row = []
            for k in ks:
                mixture = PrototypeMixture(cells.shape[1], k, kappa=kappa)
                means = F.normalize(mixture(Samples(places[0][None], None))[0], dim=1)
                row.append([_log_sum(place, means, kappa) for place in places])
            rows[side].append(row)
    names = ("fitted", "same image", "other image")
    result: dict[str, dict[str, Any]] = {}
    for side, values in rows.items():
        if not values:
            continue
        table = np.array(values)  # (pairs, ks, places)
        gains = table[:, 1:] - table[:, :1]
        result[side] = {
            "nats": dict(zip(names, table[:, 0].mean(axis=0).tolist(), strict=True)),
            "gain": {
                str(k): {name: mean_and_interval(gains[:, n, p]) for p, name in enumerate(names)}
                for n, k in enumerate(ks[1:])
            },
        }
    return result


def _cells(bank: FeatureBank, image: int, class_id: int) -> dict[str, Tensor]:
    """Unit features of the cells that belong clearly to the object, and of those without it."""
    (features, weights), _ = unit_samples(bank, [(class_id, image, 0)])
    assert weights is not None
    return {
        "object": features[0][weights[0] > 0.5],
        "rest": features[0][weights[0] == 0],
    }


def _log_sum(cells: Tensor, means: Tensor, kappa: float) -> float:
    """Mean over cells of log (1/K sum_k exp(kappa cos)): Eq. 1 but for the normaliser."""
    scores = (kappa * cells @ means.T).logsumexp(dim=1) - np.log(len(means))
    return float(scores.mean())
