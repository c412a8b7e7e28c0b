"""The parts of the query branch: P-Match, P-Conv, residual refinement, ASPP.

Every module works on query features Q of shape (B, C, h, w) and keeps h and w. The convolutions are
those of CANet (Zhang et al., CVPR 2019), the paper's baseline.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FUSIONS = ("mean", "sum", "max")


@dataclass(frozen=True)
class BlockStyle:
    """What follows a convolution besides the ReLU.

    Attributes:
        norm: "batch", "group" (8 groups at most: better for small batches) or "none".
        dropout: probability of Dropout2d after the ReLU, in [0, 1).
    """

    norm: Literal["batch", "group", "none"] = "batch"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.norm not in ("batch", "group", "none"):
            raise ValueError(f"norm must be 'batch', 'group' or 'none', got {self.norm!r}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {self.dropout}")


class ConvBlock(nn.Module):
    """Convolution, normalisation, ReLU, dropout; keeps height and width."""

    def __init__(
        self, inputs: int, outputs: int, *, kernel: int = 3, dilation: int = 1, style: BlockStyle
    ) -> None:
        super().__init__()
        padding = dilation * (kernel // 2)
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation)
        self.norm: nn.Module
        if style.norm == "batch":
            self.norm = nn.BatchNorm2d(outputs)
        elif style.norm == "group":
            self.norm = nn.GroupNorm(max(g for g in range(1, 9) if outputs % g == 0), outputs)
        else:
            self.norm = nn.Identity()
        self.dropout = nn.Dropout2d(style.dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.finish(self.conv(x))

    def finish(self, response: Tensor) -> Tensor:
        """All that follows the convolution."""
        finished: Tensor = self.dropout(F.relu(self.norm(response)))
        return finished


class PMatch(nn.Module):
    """P-Match (Eq. 6): compare every query position with every foreground prototype.

    The plain form concatenates Q with a map that holds the prototype at every position, convolves
    the 2C channels, and does so K times. But a convolution is linear: the response to the
    concatenation is the response to Q, the same for every prototype, plus the response to a
    constant map. The latter needs no convolution: position by position it is the sum of the
    prototype's responses to the kernel's taps, over those taps that fall inside the map (outside,
    the padding is zero). Both forms are equal up to rounding.

    Without gradients the K maps are never written down. The sum over taps takes at most nine
    values, one for each corner, edge and the inside of the map; within such a region the K
    activations are added up one by one. BatchNorm with its running statistics is affine and fits
    in; a normalisation that looks at a whole map, as GroupNorm does, needs the maps.

    Args:
        channels: C, of the query, the prototypes and the output.
        dilation: of the 3x3 convolution.
        fusion: how the K activated maps become one: their "mean", whose scale does not depend on K;
            their "sum", as in the authors' code; or their "max", so that at each position the
            prototype counts that answers most.
        style: normalisation and dropout.
    """

    def __init__(
        self,
        channels: int,
        *,
        dilation: int = 2,
        fusion: Literal["mean", "sum", "max"] = "mean",
        style: BlockStyle = BlockStyle(),
    ) -> None:
        super().__init__()
        if fusion not in FUSIONS:
            raise ValueError(f"fusion must be 'mean', 'sum' or 'max', got {fusion!r}")
        self.block = ConvBlock(2 * channels, channels, dilation=dilation, style=style)
        self.fusion = fusion

    def forward(self, query: Tensor, prototypes: Tensor) -> Tensor:
        """Q (B, C, h, w) and prototypes (B, K, C) to the activated Q' (B, C, h, w)."""
        return self.match(self.respond(query), prototypes)

    def respond(self, query: Tensor) -> Tensor:
        """The response to Q alone, (B, C, h, w): the same whatever the prototypes are."""
        conv = self.block.conv
        weight = conv.weight[:, : query.shape[1]]
        return F.conv2d(query, weight, conv.bias, padding=conv.padding, dilation=conv.dilation)

    def match(self, of_query: Tensor, prototypes: Tensor) -> Tensor:
        """What :meth:`respond` gave and prototypes (B, K, C) to the activated Q'."""
        B, C, h, w = of_query.shape
        K = prototypes.shape[1]
        conv = self.block.conv
        of_taps = torch.einsum("bkc,ocij->bkoij", prototypes, conv.weight[:, C:].to(prototypes))
        if self._is_pointwise and not torch.is_grad_enabled():
            return self._without_maps(of_query, of_taps)
        rows = _taps_inside(h, conv.dilation[0], like=of_taps)
        columns = _taps_inside(w, conv.dilation[1], like=of_taps)
        of_prototypes = torch.einsum("bkoij,iy,jx->bkoyx", of_taps, rows, columns)
        response = of_query.unsqueeze(1) + of_prototypes.to(of_query.dtype)  # (B, K, C, h, w)
        activated = self.block.finish(response.flatten(0, 1)).view(B, K, C, h, w)
        if self.fusion == "max":
            return activated.amax(dim=1)
        return activated.mean(dim=1) if self.fusion == "mean" else activated.sum(dim=1)

    @property
    def _is_pointwise(self) -> bool:
        """Whether all that follows the convolution acts on each position alone."""
        return not self.training and not isinstance(self.block.norm, nn.GroupNorm)

    def _without_maps(self, of_query: Tensor, of_taps: Tensor) -> Tensor:
        """The same as :meth:`match`, the prototypes taken one by one, region by region."""
        norm, dilation = self.block.norm, self.block.conv.dilation
        if isinstance(norm, nn.BatchNorm2d):  # affine: norm(a + b) = norm(a) + scale b
            assert norm.running_var is not None  # BlockStyle has no other
            scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
            of_query, of_taps = norm(of_query), of_taps * scale[:, None, None]
        of_taps = of_taps.to(of_query.dtype)  # (B, K, C, 3, 3)
        inside, *edges = _regions(of_query.shape[2:], dilation)
        # The inside's values go everywhere and the edges are put right: whole maps are faster to
        # add than parts of them.
        fused = torch.empty_like(of_query)
        collect = torch.maximum if self.fusion == "max" else torch.add
        _activated(of_query, of_taps[..., *inside.taps], collect, out=fused)
        for edge in edges:
            there = of_query[..., *edge.place]
            _activated(there, of_taps[..., *edge.taps], collect, out=fused[..., *edge.place])
        return fused.div_(of_taps.shape[1]) if self.fusion == "mean" else fused


class PConv(nn.Module):
    """P-Conv (Eqs. 7 and 8): every prototype, foreground and background, as a linear classifier.

    Each query feature is multiplied with each prototype; a softmax over all prototypes makes
    probability maps of the products; the maps of the foreground and those of the background are
    summed. The two sums add up to one at every position.

    Prototypes enter with unit norm, so that the product ranks them by direction. Seen as a mixture
    this is the E-step (Eq. 4) over foreground and background components together.

    Args:
        kappa: None takes the products as they are, with the query features at their own scale (the
            authors' code). A number takes kappa times the cosine instead: the vMF posterior.
    """

    def __init__(self, *, kappa: float | None = None) -> None:
        super().__init__()
        self.kappa = kappa

    def forward(self, query: Tensor, foreground: Tensor, background: Tensor) -> Tensor:
        """Q (B, C, h, w), prototypes (B, K, C) and (B, K', C) to M_p (B, 2, h, w).

        Channel 0 is the background, channel 1 the foreground, as in the segmentation logits.
        """
        maps = self.maps(query, foreground, background)
        parts = maps.split([foreground.shape[1], background.shape[1]], dim=1)
        return torch.stack([parts[1].sum(dim=1), parts[0].sum(dim=1)], dim=1)

    def maps(self, query: Tensor, foreground: Tensor, background: Tensor) -> Tensor:
        """Probability map of each prototype (Eq. 7): (B, K + K', h, w), foreground first."""
        return self.logits(query, foreground, background).softmax(dim=1)

    def logits(self, query: Tensor, foreground: Tensor, background: Tensor) -> Tensor:
        """The products before the softmax, (B, K + K', h, w), foreground first."""
        classifiers = F.normalize(torch.cat([foreground, background], dim=1), dim=2, eps=1e-6)
        if self.kappa is not None:
            query = self.kappa * F.normalize(query, dim=1, eps=1e-6)
        with torch.autocast(query.device.type, enabled=False):
            return torch.einsum("bkc,bchw->bkhw", classifiers, query.to(classifiers.dtype))


class ResidualRefinement(nn.Module):
    """Three residual blocks; the first also sees ``extra`` maps beside its input (CANet).

    Args:
        channels: C of the input and output.
        extra: channels of the additional maps; 0 if there are none.
    """

    def __init__(self, channels: int, *, extra: int = 0) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.ReLU(),
                nn.Conv2d(channels + (extra if i == 0 else 0), channels, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(channels, channels, 3, padding=1),
            )
            for i in range(3)
        )

    def forward(self, x: Tensor, maps: Tensor | None = None) -> Tensor:
        """x (B, C, h, w); maps (B, extra, h, w), or None where ``extra`` is 0."""
        first = x if maps is None else torch.cat([x, maps.to(x.dtype)], dim=1)
        x = x + self.blocks[0](first)
        for block in self.blocks[1:]:
            x = x + block(x)
        return x


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling (DeepLab): context at five scales, side by side.

    Args:
        channels: C of the input and of each branch; the output has 5 C.
        rates: dilations of the three 3x3 branches.
        dropout: Dropout2d probability in every branch.
    """

    def __init__(
        self, channels: int, *, rates: tuple[int, int, int] = (6, 12, 18), dropout: float = 0.5
    ) -> None:
        super().__init__()
        style = BlockStyle(norm="none", dropout=dropout)
        self.image = ConvBlock(channels, channels, kernel=1, style=style)
        self.point = ConvBlock(channels, channels, kernel=1, style=style)
        self.atrous = nn.ModuleList(
            ConvBlock(channels, channels, dilation=rate, style=style) for rate in rates
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to (B, 5 C, h, w): image average, 1x1, and one branch for each rate."""
        image = self.image(x.mean(dim=(2, 3), keepdim=True)).expand_as(x)
        return torch.cat([image, self.point(x), *(branch(x) for branch in self.atrous)], dim=1)


def _taps_inside(size: int, dilation: int, *, like: Tensor) -> Tensor:
    """(3, size): 1 where tap t of a centred 3-tap kernel, placed at x, falls inside the map."""
    offset = torch.arange(-dilation, dilation + 1, dilation, device=like.device).unsqueeze(1)
    position = torch.arange(size, device=like.device) + offset
    return ((position >= 0) & (position < size)).to(like.dtype)


def _activated(
    of_query: Tensor, of_taps: Tensor, collect: Callable[..., Tensor], *, out: Tensor
) -> None:
    """Sum or maximum over K of ReLU(Q + constant): (B, C, y, x), (B, K, C, taps, taps) to
    (B, C, y, x)."""
    out.zero_()  # the least that a ReLU gives
    activated = torch.empty_like(of_query)
    for constant in of_taps.sum(dim=(3, 4), keepdim=True).unbind(dim=1):  # (B, C, 1, 1)
        collect(out, F.relu_(torch.add(of_query, constant, out=activated)), out=out)


class _Region(NamedTuple):
    """Part of a map: ``place``, its rows and columns, and ``taps``, those inside the map there."""

    place: tuple[slice, slice]
    taps: tuple[slice, slice]


def _regions(size: torch.Size, dilation: tuple[int, ...]) -> list[_Region]:
    """Split a map by which taps of a 3x3 kernel fall inside it; the largest region first."""
    regions = [
        _Region((y, x), (i, j))
        for y, i in _bands(size[0], dilation[0])
        for x, j in _bands(size[1], dilation[1])
    ]
    return sorted(regions, key=lambda region: -math.prod(s.stop - s.start for s in region.place))


def _bands(size: int, dilation: int) -> list[tuple[slice, slice]]:
    """Split positions 0..size into bands; with each, the taps of a centred 3-tap kernel that fall
    inside the map there."""
    cuts = sorted({0, min(dilation, size), max(size - dilation, 0), size})
    first_tap = [0 if start >= dilation else 1 for start in cuts[:-1]]
    last_tap = [2 if start + dilation < size else 1 for start in cuts[:-1]]
    return [
        (slice(start, stop), slice(first, last + 1))
        for (start, stop), first, last in zip(pairwise(cuts), first_tap, last_tap, strict=True)
    ]
