"""Where EM starts: random directions, or samples that lie far from each other."""

import torch
import torch.nn.functional as F
from torch import Tensor

from pmms.densities import Kernel

INITS = ("random", "kmeans++")


def random_directions(k: int, channels: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Unit vectors (1, K, C) drawn uniformly from the sphere: the authors' starting means."""
    draw = torch.randn(1, k, channels, generator=generator, device=_device_of(generator))
    return F.normalize(draw, dim=2)


def random_uniforms(k: int, *, generator: torch.Generator | None = None) -> Tensor:
    """(K,) numbers in [0, 1), on the generator's device: what :func:`kmeans_plus_plus` draws by."""
    return torch.rand(k, generator=generator, device=_device_of(generator))


def kmeans_plus_plus(
    samples: Tensor, weights: Tensor, uniforms: Tensor, *, kernel: Kernel = "vmf"
) -> Tensor:
    """Starting means by k-means++ seeding (Arthur and Vassilvitskii, SODA 2007).

    Each next mean is a sample drawn with probability proportional to its weight times its distance
    to the nearest mean so far: squared Euclidean for the Gaussian kernel, ``1 - cosine`` for vMF.
    If every sample already coincides with a mean, samples are drawn by weight again.

    Args:
        samples: (B, N, C) float.
        weights: (B, N) float >= 0, not all zero.
        uniforms: (K,) random numbers in [0, 1): all the randomness there is, shared by the batch,
            so that a mixture does not depend on its neighbours in the batch.
        kernel: "vmf" or "gaussian".

    Returns:
        (B, K, C).
    """
    points = F.normalize(samples, dim=2, eps=1e-6) if kernel == "vmf" else samples
    batch = torch.arange(samples.shape[0], device=samples.device)
    nearest = torch.ones_like(weights)
    chosen: list[Tensor] = []
    for uniform in uniforms:
        share = weights * nearest
        share = torch.where(share.sum(dim=1, keepdim=True) > 0, share, weights)
        cumulative = share.cumsum(dim=1)
        # Staying clear of 1 keeps a sample of weight zero at the end from being drawn by rounding.
        threshold = cumulative[:, -1:] * uniform.clamp(max=1 - 1e-6)
        index = torch.searchsorted(cumulative, threshold, right=True).clamp(
            max=weights.shape[1] - 1
        )
        index = index.squeeze(1)
        distance = (points - points[batch, index].unsqueeze(1)).square().sum(dim=2)
        # Differences of equal vectors are exactly zero; rounding of the others never is negative.
        nearest = torch.minimum(nearest, distance) if chosen else distance
        chosen.append(samples[batch, index])
    return torch.stack(chosen, dim=1)


def _device_of(generator: torch.Generator | None) -> torch.device:
    return generator.device if generator is not None else torch.device("cpu")
