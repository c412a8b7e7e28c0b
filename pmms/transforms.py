"""Image and mask to the size of the network, together: fixed for evaluation, random for training.

Images are resized bilinearly with antialiasing, masks by the nearest pixel CENTRE. torchvision
resizes a ``tv_tensors.Mask`` by its older "nearest" rule, which reads up to half an output pixel up
and to the left of what the image shows there; the functional API on plain tensors lets us choose.

Normalisation is absent on purpose: each backbone normalises its own input.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as TF

from pmms.checks import whole
from pmms.folds import VOID

ATTEMPTS = 10
"""Crops that are tried before the whole image is taken, as in torchvision's random resized crop."""


class Box(NamedTuple):
    """A crop in pixels."""

    top: int
    left: int
    height: int
    width: int


class EvalTransform:
    """Image and mask to a square, without chance.

    Args:
        size: side S of the output in pixels.
        keep_aspect: False squashes both sides to S (the authors' way); True scales the longer side
            to S and fills the rest, at the bottom or at the right, with black and with void.

    Raises:
        ValueError: ``size`` is no integer of at least 2.
    """

    def __init__(self, size: int, *, keep_aspect: bool = False) -> None:
        self.size = _checked_size(size)
        self.keep_aspect = keep_aspect

    def __call__(self, image: Tensor, mask: Tensor, *, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Resize one image with its mask.

        Args:
            image: uint8 (3, H, W).
            mask: uint8 (H, W), any labels; 255 is void.
            seed: has no effect; both transforms are called alike.

        Returns:
            float32 (3, S, S) in [0, 1] and uint8 (S, S), which holds labels of ``mask`` only (and
            255 in the padding). A foreground too small for any pixel centre keeps one pixel.

        Raises:
            TypeError, ValueError: wrong dtype or shape.
        """
        _check_pair(image, mask)
        return _fit(image, mask, self.size, keep_aspect=self.keep_aspect)

    def mask(self, mask: Tensor) -> Tensor:
        """What becomes of a mask, uint8 (H, W) to uint8 (S, S), whatever its image."""
        return _fit_mask(mask, self.size, keep_aspect=self.keep_aspect)

    def content(self, height: int, width: int) -> tuple[int, int]:
        """Height and width that an image of this height and width has in the output, in pixels."""
        return _content((height, width), self.size, keep_aspect=self.keep_aspect)

    def restore(self, logits: Tensor, *, height: int, width: int) -> Tensor:
        """Bring the output of a network back to the size of the image that went in.

        Args:
            logits: floating (B, C, h, w) over the whole output square, at any resolution.
            height: height H of the original image.
            width: width W of the original image.

        Returns:
            (B, C, H, W), bilinear; the padding is cut off.
        """
        if self.keep_aspect:
            logits = F.interpolate(logits, size=(self.size, self.size), mode="bilinear")
            rows, columns = self.content(height, width)
            logits = logits[..., :rows, :columns]
        return F.interpolate(logits, size=(height, width), mode="bilinear")


class TrainTransform:
    """Random crop, resized to a square, and horizontal flip; decided by the seed alone.

    The paper trains with "normalization, horizontal flipping, random cropping and random resizing".
    As in the authors' code (github.com/Yang-Bob/PMMs, ``data/LoadDataSeg.py``), one step does the
    last two: a crop of 0.5 to 1 of the area is resized to a fixed size, so an object appears up to
    1.4 times larger, and stretched by up to 4 / 3. Normalisation is the backbone's. A crop that
    keeps less than a quarter of the foreground is drawn again, so that a support image always
    shows its object; after ten
    draws the whole image is taken.

    Args:
        size: side S of the output in pixels.
        scale: smallest and largest area of the crop as a share of the image, in (0, 1].
        ratio: smallest and largest width / height of the crop, drawn uniformly in its logarithm.
        flip: probability of a horizontal flip, in [0, 1].
        keep: share of the foreground's pixels that a crop must keep, in [0, 1].
        keep_aspect: False squashes the crop to the square (the authors' way); True scales its
            longer side to S and pads the rest with black and void, as ``EvalTransform`` does.

    Raises:
        ValueError: a value outside its range.
    """

    def __init__(
        self,
        size: int,
        *,
        scale: tuple[float, float] = (0.5, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        flip: float = 0.5,
        keep: float = 0.25,
        keep_aspect: bool = False,
    ) -> None:
        if not 0 < scale[0] <= scale[1] <= 1:
            raise ValueError(f"scale must satisfy 0 < smallest <= largest <= 1, got {scale}")
        if not 0 < ratio[0] <= ratio[1]:
            raise ValueError(f"ratio must satisfy 0 < smallest <= largest, got {ratio}")
        for name, share in (("flip", flip), ("keep", keep)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {share}")
        self.size = _checked_size(size)
        self.scale = scale
        self.ratio = ratio
        self.flip = flip
        self.keep = keep
        self.keep_aspect = keep_aspect

    def __call__(self, image: Tensor, mask: Tensor, *, seed: int) -> tuple[Tensor, Tensor]:
        """Crop, resize and perhaps flip one image with its mask.

        Args:
            image: uint8 (3, H, W).
            mask: uint8 (H, W), any labels; 255 is void.
            seed: decides crop and flip, 0 to 2**63 - 1. The global generators are left alone.

        Returns:
            float32 (3, S, S) in [0, 1] and uint8 (S, S), as for ``EvalTransform``.

        Raises:
            TypeError, ValueError: wrong dtype or shape.
        """
        _check_pair(image, mask)
        generator = torch.Generator().manual_seed(seed)
        flipped = float(torch.rand((), generator=generator)) < self.flip
        top, left, height, width = self._box(mask, generator)
        image = TF.crop(image, top, left, height, width)
        mask = TF.crop(mask, top, left, height, width)
        if flipped:
            image, mask = TF.horizontal_flip(image), TF.horizontal_flip(mask)
        return _fit(image, mask, self.size, keep_aspect=self.keep_aspect)

    def _box(self, mask: Tensor, generator: torch.Generator) -> Box:
        """The first of ten random crops that fits and keeps enough foreground, or everything."""
        rows, columns = mask.shape
        foreground = _foreground(mask)
        needed = self.keep * int(foreground.sum())
        draws = torch.rand((ATTEMPTS, 4), generator=generator, dtype=torch.float64).tolist()
        for area, ratio, vertical, horizontal in draws:
            pixels = rows * columns * _between(*self.scale, area)
            aspect = math.exp(_between(math.log(self.ratio[0]), math.log(self.ratio[1]), ratio))
            height = max(1, round(math.sqrt(pixels / aspect)))
            width = max(1, round(math.sqrt(pixels * aspect)))
            if height > rows or width > columns:
                continue
            top = int(vertical * (rows - height + 1))
            left = int(horizontal * (columns - width + 1))
            if int(foreground[top : top + height, left : left + width].sum()) >= needed:
                return Box(top, left, height, width)
        return Box(0, 0, rows, columns)


def _between(low: float, high: float, position: float) -> float:
    return low + (high - low) * position


def _foreground(mask: Tensor) -> Tensor:
    """Pixels that are neither background nor void, bool."""
    return (mask != 0) & (mask != VOID)


def _sides(mask: Tensor) -> tuple[int, int]:
    height, width = mask.shape
    return height, width


def _content(sides: tuple[int, int], size: int, *, keep_aspect: bool) -> tuple[int, int]:
    """Height and width that an image of these takes in a square of side ``size``."""
    if not keep_aspect:
        return size, size
    scale = size / max(sides)
    return max(1, round(sides[0] * scale)), max(1, round(sides[1] * scale))


def _fit(image: Tensor, mask: Tensor, size: int, *, keep_aspect: bool) -> tuple[Tensor, Tensor]:
    """Both into a square of side ``size``; what they leave free is black, and void."""
    inner = _content(_sides(mask), size, keep_aspect=keep_aspect)
    image = TF.resize(image, [*inner], interpolation=InterpolationMode.BILINEAR, antialias=True)
    image = _pad(TF.to_dtype(image, torch.float32, scale=True), size, value=0.0)
    return image, _fit_mask(mask, size, keep_aspect=keep_aspect)


def _fit_mask(mask: Tensor, size: int, *, keep_aspect: bool) -> Tensor:
    """The second half of :func:`_fit`."""
    inner = _content(_sides(mask), size, keep_aspect=keep_aspect)
    small = TF.resize(mask[None], [*inner], interpolation=InterpolationMode.NEAREST_EXACT)[0]
    return _pad(_keep_tiny_foreground(mask, small), size, value=VOID)


def _pad(image: Tensor, size: int, *, value: float) -> Tensor:
    """Fill up to a square, at the bottom and at the right."""
    height, width = image.shape[-2:]
    return F.pad(image, (0, size - width, 0, size - height), value=value)


def _keep_tiny_foreground(mask: Tensor, small: Tensor) -> Tensor:
    """``small`` with one foreground pixel where the resize of ``mask`` lost all of it.

    A support mask without a pixel has no prototype. The pixel that stays is the one over the
    foreground pixel nearest the foreground's centre.
    """
    if _foreground(small).any():
        return small
    positions = _foreground(mask).nonzero()
    if len(positions) == 0:
        return small
    distance = (positions - positions.double().mean(dim=0)).square().sum(dim=1)
    y, x = positions[distance.argmin()].tolist()
    small = small.clone()
    small[y * small.shape[0] // mask.shape[0], x * small.shape[1] // mask.shape[1]] = mask[y, x]
    return small


def _checked_size(size: int) -> int:
    if not whole(size, least=2):  # to one pixel PyTorch cannot resize with antialiasing
        raise ValueError(f"size must be an integer of at least 2, got {size!r}")
    return size


def _check_pair(image: Tensor, mask: Tensor) -> None:
    for name, tensor in (("image", image), ("mask", mask)):
        if tensor.dtype != torch.uint8:
            raise TypeError(f"{name} must be uint8, got {tensor.dtype}")
    if image.ndim != 3 or image.shape[0] != 3 or mask.shape != image.shape[1:] or not mask.numel():
        raise ValueError(
            "expected image (3, H, W) and mask (H, W) of the same size, "
            f"got {tuple(image.shape)} and {tuple(mask.shape)}"
        )
