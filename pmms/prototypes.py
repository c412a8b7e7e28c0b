"""From support features and masks to prototypes: the support branch of Fig. 2.

The mask partitions the samples S into foreground S+ and background S- (Algorithm 1); a mixture is
fitted to each; its means are the prototypes.
"""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pmms.densities import Kernel
from pmms.mixture import fit_mixture, weighted_means
from pmms.seeding import kmeans_plus_plus, random_directions, random_uniforms


class Samples(NamedTuple):
    """Samples of one mixture: ``features`` (B, N, C) and ``weights`` (B, N), or None for ones."""

    features: Tensor
    weights: Tensor | None

    def weighted(self) -> Tensor:
        """The weights as a tensor (B, N), ones where there are none."""
        return (
            self.features.new_ones(self.features.shape[:2])
            if self.weights is None
            else (self.weights)
        )


def partition_samples(
    features: Tensor, mask: Tensor, *, how: Literal["weights", "product"] = "weights"
) -> tuple[Samples, Samples]:
    """Split support features into S+ and S-, with the samples of all shots pooled.

    "weights": a feature belongs to S+ with the share of its cell that the mask covers, and to S-
    with the rest. However small an object is, it keeps its weight. Where a cell's border runs
    through pixels, the cell counts them whole, and so does its neighbour. A mask that covers the
    whole image leaves no background; S- is then the whole image too, so that P-Conv, seeing the
    same prototypes twice, abstains.

    "product": as in the authors' code. The mask is resized bilinearly and multiplied with the
    features. Masked-out features stay among the samples as zero vectors, which change a mean's
    length but not its direction; a small object may vanish.

    Args:
        features: (B, S, C, h, w), S the number of shots.
        mask: (B, S, 1, H, W) float in [0, 1].

    Returns:
        S+ and S-, with N = S h w samples each.
    """
    B, S, C, h, w = features.shape
    flat = features.permute(0, 1, 3, 4, 2).reshape(B, S * h * w, C)
    mask = mask.flatten(0, 1).to(torch.promote_types(features.dtype, torch.float32))
    if how == "product":
        inside = F.interpolate(mask, (h, w), mode="bilinear", align_corners=True).reshape(B, -1, 1)
        return Samples(inside * flat, None), Samples((1 - inside) * flat, None)
    inside = F.adaptive_avg_pool2d(mask, (h, w)).reshape(B, -1)
    outside = 1 - inside
    outside = torch.where(outside.sum(dim=1, keepdim=True) > 0, outside, 1.0)
    return Samples(flat, inside), Samples(flat, outside)


class PrototypeMixture(nn.Module):
    """Samples to K prototypes by EM (Eqs. 4 and 5).

    ``em_iterations`` E-steps are made, each followed by its M-step. The last M-step takes the
    features at their own scale and with their gradient. For one prototype EM has nothing to do: the
    result is masked average pooling.

    The start of EM is a buffer, part of the checkpoint: with another start, the same weights
    would give another output.

    Args:
        channels: C.
        k: number of prototypes K.
        kernel, kappa: see :func:`pmms.mixture.fit_mixture`.
        em_iterations: at least 1; the paper uses 10.
        init: "random" or "kmeans++".
        seed: of the start.
        em_features: what EM compares, "unit" (the cosine of Eq. 2) or "raw" features.
        scale: of the prototypes: "feature", as Eq. 5 gives them, or "unit" norm.
        gradient: "none", "means" (through the last M-step, responsibilities held fixed) or "em"
            (through all iterations).
    """

    def __init__(
        self,
        channels: int,
        k: int,
        *,
        kernel: Kernel = "vmf",
        kappa: float = 20.0,
        em_iterations: int = 10,
        init: Literal["random", "kmeans++"] = "random",
        seed: int = 0,
        em_features: Literal["unit", "raw"] = "unit",
        scale: Literal["feature", "unit"] = "feature",
        gradient: Literal["none", "means", "em"] = "means",
    ) -> None:
        super().__init__()
        self.k, self.kernel, self.kappa, self.em_iterations = k, kernel, kappa, em_iterations
        self.init, self.em_features, self.scale, self.gradient = init, em_features, scale, gradient
        generator = torch.Generator().manual_seed(seed)
        if init == "random":
            start = random_directions(k, channels, generator=generator)
        else:
            start = random_uniforms(k, generator=generator)
        self.start: Tensor
        self.register_buffer("start", start)

    def forward(self, samples: Samples) -> Tensor:
        """Samples (B, N, C) to prototypes (B, K, C)."""
        features, weights = samples
        with torch.autocast(features.device.type, enabled=False):
            features = features.to(torch.promote_types(features.dtype, torch.float32))
            weights = None if weights is None else weights.to(features.dtype)
            means = weighted_means(features, self.responsibilities(features, weights), weights)
        if self.scale == "unit":
            means = F.normalize(means, dim=2, eps=1e-6)
        return means.detach() if self.gradient == "none" else means

    def responsibilities(self, features: Tensor, weights: Tensor | None) -> Tensor:
        """Those of the last E-step, (B, N, K)."""
        compared = features if self.gradient == "em" else features.detach()
        if self.em_features == "unit":
            compared = F.normalize(compared, dim=2, eps=1e-6)
        start = self.start
        if self.init == "kmeans++":
            seeds = Samples(compared, weights).weighted()
            start = kmeans_plus_plus(compared.detach(), seeds, start, kernel=self.kernel)
        mixture = fit_mixture(
            compared,
            weights,
            k=self.k,
            kernel=self.kernel,
            kappa=self.kappa,
            n_iter=self.em_iterations - 1 if self.k > 1 else 0,
            init=start,
        )
        return mixture.resp
