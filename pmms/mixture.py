"""Prototype mixture models: EM for von Mises-Fisher and Gaussian mixtures on weighted samples.

The mixture of Eq. 1 has K components of equal weight. A component is a mean vector ``mu_k`` and a
kernel (Eq. 2); the concentration ``kappa`` is fixed and shared. EM alternates

* the **E-step** (Eq. 4), the responsibility of prototype k for sample i: a softmax over k, and
* the **M-step** (Eq. 5), each mean as the responsibility-weighted mean of the samples.

Both kernels make the E-step the same small computation, an affine score and a softmax:

========  ==========================  =======================================
kernel    ``log p_k(s)``              score that depends on k
========  ==========================  =======================================
vmf       ``kappa <mu_k/|mu_k|, s>``  ``kappa <mu_k/|mu_k|, s>``
gaussian  ``-kappa/2 |s - mu_k|^2``   ``kappa <mu_k, s> - kappa/2 |mu_k|^2``
========  ==========================  =======================================

plus a normaliser that depends on neither i nor k. ``kappa`` is the concentration of the vMF density
(Eq. 3) and the precision of the Gaussian one, so that on the unit sphere, with unit means, both
kernels give the same responsibilities. The paper's RBF kernel, exp(-|s - mu|^2), is ``kappa=2``.

Paper: Yang et al., "Prototype Mixture Models for Few-shot Semantic Segmentation", ECCV 2020.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pmms.densities import KERNELS, Kernel, log_normaliser
from pmms.device_checks import host_may_look, require
from pmms.seeding import INITS, kmeans_plus_plus, random_directions, random_uniforms

# Share of the total weight below which a prototype counts as one without samples.
EMPTY = 1e-12


class Mixture(NamedTuple):
    """What EM returns, for a batch of B independent mixtures.

    Attributes:
        means: (B, K, C) the prototypes, at the samples' own scale (Eq. 5).
        resp: (B, N, K) responsibilities under ``means``; each row sums to one.
        log_likelihood: (B, n_iter + 1) weighted log-likelihood in nats, before the first iteration
            and after each.
        n_iter: EM iterations done.
        converged: (B,) bool, whether the last iteration gained less than 1e-4 nats per unit weight;
            False without iterations.
    """

    means: Tensor
    resp: Tensor
    log_likelihood: Tensor
    n_iter: int
    converged: Tensor


def fit_mixture(
    samples: Tensor,
    weights: Tensor | None = None,
    *,
    k: int,
    kernel: Kernel = "vmf",
    kappa: float = 20.0,
    n_iter: int = 10,
    init: str | Tensor = "random",
    generator: torch.Generator | None = None,
) -> Mixture:
    """Fit a mixture of ``k`` equally weighted prototypes to weighted samples by EM.

    The samples are taken as they are. A vMF mixture in the strict sense wants unit-norm samples
    (normalise them first); for those the log-likelihood never falls. Samples of other norms are
    what the authors' code feeds in: a long sample then has a larger kappa of its own. Several
    support images are pooled by concatenating their samples along N.

    Gradients flow through all iterations unless the call runs under ``torch.no_grad()``.
    Computation is in float32 (float64 for float64 samples), also under autocast.

    A prototype that is left without samples moves to the sample that the mixture explains worst (a
    second one to the second worst). It contributed nothing to any sample's likelihood, so the move
    cannot lower it. ``k`` may exceed the number of samples: prototypes then coincide.

    Args:
        samples: (B, N, C) float. A zero vector belongs to all vMF prototypes equally.
        weights: (B, N) float >= 0, or None for ones: a soft mask, or a hard partition as 0 and 1.
        k: number of prototypes K >= 1.
        kernel: "vmf" (Eq. 3) or "gaussian" (Eq. 2, fixed covariance ``I / kappa``).
        kappa: concentration (vmf) or precision (gaussian), > 0; the paper uses 20.
        n_iter: EM iterations >= 0; the paper uses 10.
        init: "random" (unit directions, the same for the whole batch, as the authors' code),
            "kmeans++" (on the kernel's distance), or starting means (B or 1, K, C).
        generator: source of all randomness, on any device; None uses PyTorch's default one.

    Returns:
        A :class:`Mixture`.

    Raises:
        ValueError: for shapes or settings that do not fit; on the CPU also for NaN or infinite
            samples, negative weights and weights that are all zero. On an accelerator the latter
            checks are asynchronous assertions, so that the host never waits.
    """
    _check_settings(samples, weights, k=k, kernel=kernel, kappa=kappa, n_iter=n_iter, init=init)
    with torch.autocast(samples.device.type, enabled=False):
        samples = samples.to(torch.promote_types(samples.dtype, torch.float32))
        if weights is None:
            weights = samples.new_ones(samples.shape[:2])
        weights = weights.to(samples.dtype)
        require(
            (weights >= 0).all() & (weights.sum(dim=1) > 0).all(),
            "every mixture of the batch needs non-negative weights of which one at least is above "
            "zero; an all-zero weight means an empty mask: give a mask that shows the object",
        )
        if isinstance(init, Tensor):
            means = _given_means(init, samples, k)
        elif init == "random":
            means = random_directions(k, samples.shape[2], generator=generator).to(samples)
        else:
            uniforms = random_uniforms(k, generator=generator)
            means = kmeans_plus_plus(samples, weights, uniforms.to(samples), kernel=kernel)
        means = means.expand(samples.shape[0], -1, -1)

        offset = _offset(samples, kernel, kappa)
        resp, log_density = _e_step(samples, means, kernel, kappa, offset)
        history = [_total(log_density, weights)]
        for _ in range(n_iter):
            means = _m_step(samples, weights, resp, log_density)
            resp, log_density = _e_step(samples, means, kernel, kappa, offset)
            history.append(_total(log_density, weights))
        log_likelihood = torch.stack(history, dim=1)
        require(
            log_likelihood.isfinite().all(),
            "the samples, weights or starting means hold NaN or infinite values; look at the "
            "features that were given to EM",
        )
        before = log_likelihood[:, -2] if n_iter else -torch.inf
        converged = log_likelihood[:, -1] - before < 1e-4 * weights.sum(dim=1)
        return Mixture(means, resp.transpose(1, 2), log_likelihood, n_iter, converged)


def responsibilities(
    samples: Tensor, means: Tensor, *, kernel: Kernel = "vmf", kappa: float = 20.0
) -> Tensor:
    """E-step alone (Eq. 4): (B, N, C) samples and (B, K, C) means to (B, N, K), rows sum to one."""
    resp, _ = _e_step(samples, means, kernel, kappa, 0.0)  # Eq. 4 divides the offset out
    return resp.transpose(1, 2)


def weighted_means(samples: Tensor, resp: Tensor, weights: Tensor | None = None) -> Tensor:
    """M-step alone (Eq. 5): the responsibility-weighted means of the samples, at their own scale.

    With one prototype (``resp`` all ones) this is masked average pooling.

    Args:
        samples: (B, N, C) float.
        resp: (B, N, K) responsibilities.
        weights: (B, N) float >= 0, or None for ones.

    Returns:
        (B, K, C); the zero vector for a prototype without samples.
    """
    if weights is not None:
        resp = resp * weights.unsqueeze(2)
    return _normalised_shares(resp.transpose(1, 2)) @ samples


def log_likelihood(
    samples: Tensor,
    means: Tensor,
    weights: Tensor | None = None,
    *,
    kernel: Kernel = "vmf",
    kappa: float = 20.0,
) -> Tensor:
    """Weighted log-likelihood (B,) in nats of samples (B, N, C) under the mixture (Eqs. 1-3).

    It includes the normaliser, so it can be compared across kappa and K (for the vMF kernel: on
    unit-norm samples, where the density lives).
    """
    _, log_density = _e_step(samples, means, kernel, kappa, _offset(samples, kernel, kappa))
    return _total(log_density, weights if weights is not None else torch.ones_like(log_density))


def estimate_kappa(samples: Tensor, resp: Tensor, weights: Tensor | None = None) -> Tensor:
    """Maximum-likelihood concentration of a vMF mixture, shared by its prototypes.

    Uses the approximation of Banerjee et al. (JMLR 2005, Eq. 4.4),
    ``kappa = r (C - r^2) / (1 - r^2)``, where r is the mean resultant length
    ``sum_k |sum_i w_i E_ik s_i| / sum_i w_i``.

    Args:
        samples: (B, N, C) unit-norm samples.
        resp: (B, N, K) responsibilities.
        weights: (B, N) float >= 0, or None for ones.

    Returns:
        (B,) kappa; it grows without bound as the samples of each prototype become identical.
    """
    if weights is None:
        weights = samples.new_ones(samples.shape[:2])
    resultant = (resp * weights.unsqueeze(2)).transpose(1, 2) @ samples
    r = resultant.norm(dim=2).sum(dim=1) / weights.sum(dim=1)
    r = r.clamp(max=1 - torch.finfo(r.dtype).eps)
    kappa: Tensor = r * (samples.shape[2] - r**2) / (1 - r**2)
    return kappa


def _offset(samples: Tensor, kernel: str, kappa: float) -> Tensor | float:
    """What the log-density has that depends on the sample alone: (B, N), or zero for vMF."""
    return -kappa / 2 * samples.square().sum(dim=2) if kernel == "gaussian" else 0.0


def _e_step(
    samples: Tensor, means: Tensor, kernel: str, kappa: float, offset: Tensor | float
) -> tuple[Tensor, Tensor]:
    """Eq. 4. Returns responsibilities (B, K, N) and the log-density (B, N) of Eq. 1.

    K comes before N: a softmax over three rows of N numbers is much faster than over N rows of 3.
    """
    if kernel == "vmf":
        scores = (F.normalize(means, dim=2) @ samples.transpose(1, 2)).mul_(kappa)
    else:
        half_norms = means.square().sum(dim=2, keepdim=True) / 2
        scores = kappa * (means @ samples.transpose(1, 2) - half_norms)
    log_sum = _log_sum_exp(scores)
    resp = (scores - log_sum).exp_()
    constant = log_normaliser(kernel, kappa, samples.shape[2]) - math.log(means.shape[1])
    return resp, log_sum.squeeze(1) + offset + constant


def _log_sum_exp(scores: Tensor) -> Tensor:
    """Over prototypes: (B, K, N) to (B, 1, N)."""
    if scores.requires_grad:
        return scores.logsumexp(dim=1, keepdim=True)
    # The same, bit by bit, in fewer passes: without a look at each sample for infinities, which
    # `fit_mixture` refuses at its end.
    largest = scores.amax(dim=1, keepdim=True)
    return (scores - largest).exp_().sum(dim=1, keepdim=True).log_().add_(largest)


def _m_step(samples: Tensor, weights: Tensor, resp: Tensor, log_density: Tensor) -> Tensor:
    """Eq. 5 for responsibilities (B, K, N); prototypes without samples are seeded anew."""
    weighted = resp * weights.unsqueeze(1)
    means = _normalised_shares(weighted) @ samples
    empty = weighted.sum(dim=2) <= EMPTY * weights.sum(dim=1, keepdim=True)
    # Almost never is one empty. The CPU can look; asking an accelerator would make the host wait.
    if host_may_look(empty) and not empty.any():
        return means
    surprise = torch.where(weights > 0, log_density, torch.inf)
    worst = surprise.topk(min(resp.shape[1:]), largest=False).indices
    # With more empty prototypes than samples with weight, the last of those serves several times.
    last = (weights > 0).sum(dim=1, keepdim=True) - 1
    rank = torch.minimum((empty.cumsum(dim=1) - 1).clamp(min=0), last)
    seeds = samples.gather(1, worst.gather(1, rank).unsqueeze(2).expand_as(means))
    return torch.where(empty.unsqueeze(2), seeds, means)


def _normalised_shares(weighted: Tensor) -> Tensor:
    """Rows (B, K, N) divided by their sums; a row of zeros stays one of zeros."""
    total = weighted.sum(dim=2, keepdim=True)
    return weighted / total.clamp(min=torch.finfo(weighted.dtype).tiny)


def _total(log_density: Tensor, weights: Tensor) -> Tensor:
    return (weights * log_density).sum(dim=1)


def _given_means(init: Tensor, samples: Tensor, k: int) -> Tensor:
    b, _, c = samples.shape
    if init.ndim != 3 or init.shape[0] not in (1, b) or init.shape[1:] != (k, c):
        raise ValueError(
            f"starting means must have shape ({b} or 1, {k}, {c}), got {tuple(init.shape)}"
        )
    return init.to(samples)


def _check_settings(
    samples: Tensor,
    weights: Tensor | None,
    *,
    k: int,
    kernel: str,
    kappa: float,
    n_iter: int,
    init: str | Tensor,
) -> None:
    if samples.ndim != 3 or 0 in samples.shape or not samples.is_floating_point():
        raise ValueError(
            "samples must be a floating-point tensor (B, N, C) without empty dimensions, got "
            f"{samples.dtype} {tuple(samples.shape)}"
        )
    if weights is not None and weights.shape != samples.shape[:2]:
        raise ValueError(
            f"weights must have shape (B, N) = {tuple(samples.shape[:2])}, got "
            f"{tuple(weights.shape)}"
        )
    if k < 1 or n_iter < 0:
        raise ValueError(f"k must be at least 1 and n_iter at least 0, got k={k}, n_iter={n_iter}")
    if kernel not in KERNELS:
        raise ValueError(f"kernel must be one of {KERNELS}, got {kernel!r}")
    if not isinstance(init, Tensor) and init not in INITS:
        raise ValueError(f"init must be one of {INITS} or a tensor of starting means, got {init!r}")
    if not (kappa > 0 and math.isfinite(kappa)):
        raise ValueError(f"kappa must be a finite number above 0, got {kappa}")
    if kernel == "vmf" and samples.shape[2] < 2:
        raise ValueError("the vmf kernel needs at least 2 channels: directions on a sphere")
