"""Outlines, their rasters, and the colours that fill them: what PartsVOC draws with.

An outline is a closed polygon, float64 (N, 2), columns x (to the right) and y (down). Recipes
write outlines in a frame of their own (about -1 to 1); `transform` moves them into an image.
"""

from __future__ import annotations

import colorsys
from bisect import bisect
from collections.abc import Sequence
from functools import lru_cache
from math import cos, sin
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Outline = NDArray[np.float64]
Colour = tuple[float, float, float]

SUPERSAMPLING = 2  # images are drawn this much larger and averaged down; labels are subsampled
TEXTURES = ("flat", "gradient", "noise", "stripes", "checks", "dots", "blotches")
_SHARES = (0.22, 0.4, 0.6, 0.72, 0.79, 0.87)  # cumulative shares of TEXTURES, the last is the rest
_NOISE_SIDE = 256  # a power of two


class Shape(NamedTuple):
    """One filled outline of a named part, later shapes cover earlier ones."""

    part: str
    outline: Outline


class Texture(NamedTuple):
    """A fill that mixes two RGB colours (0 to 1) by a pattern in image coordinates."""

    kind: str
    first: Colour
    second: Colour
    angle: float
    period: float  # as a fraction of the image side
    shift_u: float
    shift_v: float


# -- outlines ------------------------------------------------------------------------------------


def poly(*points: tuple[float, float]) -> Outline:
    """The polygon through `points`."""
    return np.array(points, dtype=np.float64)


def ellipse(
    x: float, y: float, rx: float, ry: float | None = None, *, angle: float = 0.0, n: int = 28
) -> Outline:
    """An ellipse at (x, y); `ry` defaults to `rx`; `angle` in radians, clockwise on screen."""
    return transform(_circle(n), scale=(rx, rx if ry is None else ry), angle=angle, shift=(x, y))


@lru_cache(maxsize=16)
def _circle(n: int) -> Outline:
    """`n` points of the unit circle from (1, 0) on. Do not write to it."""
    t = np.arange(n) * (2 * np.pi / n)
    return np.stack([np.cos(t), np.sin(t)], axis=1)


def box(x0: float, y0: float, x1: float, y1: float, *, corner: float = 0.0) -> Outline:
    """An upright rectangle whose corners are rounded with radius `corner`."""
    if corner <= 0:
        return poly((x0, y0), (x1, y0), (x1, y1), (x0, y1))
    r = min(corner, abs(x1 - x0) / 2, abs(y1 - y0) / 2)
    quarter = _circle(16)[:5] * r
    turns = [(x1 - r, y1 - r, 1, 1), (x0 + r, y1 - r, -1, 1), (x0 + r, y0 + r, -1, -1)]
    turns.append((x1 - r, y0 + r, 1, -1))
    corners = []
    for cx, cy, sx, sy in turns:
        arc = quarter * (sx, sy) + (cx, cy)
        corners.append(arc if sx * sy > 0 else arc[::-1])
    return np.concatenate(corners)


def blob(*points: tuple[float, float], n: int = 5) -> Outline:
    """A smooth closed curve through `points` (uniform Catmull-Rom, `n` samples a segment)."""
    p1 = np.array(points, dtype=np.float64)
    p0, p2, p3 = np.roll(p1, 1, 0), np.roll(p1, -1, 0), np.roll(p1, -2, 0)
    t = (np.arange(n) / n)[None, :, None]
    a, b, c, d = (p[:, None] for p in (p0, p1, p2, p3))
    curve = 2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2
    return ((curve + (3 * b - a - 3 * c + d) * t**3) / 2).reshape(-1, 2)


def limb(points: Sequence[tuple[float, float]], widths: Sequence[float] | float) -> Outline:
    """A strip along the polyline `points` with round ends; `widths` are full widths per point."""
    p = np.array(points, dtype=np.float64)
    w = np.broadcast_to(np.asarray(widths, dtype=np.float64), len(p))[:, None] / 2
    padded = np.concatenate([p[:1], p, p[-1:]])
    d = padded[2:] - padded[:-2]
    d /= np.maximum(np.sqrt((d * d).sum(axis=1, keepdims=True)), 1e-9)
    normal = d[:, ::-1] * (-1, 1)
    cap = _circle(12)[1:6]  # a half turn without its ends
    end = p[-1] + w[-1] * (normal[-1] * cap[:, :1] + d[-1] * cap[:, 1:])
    start = p[0] - w[0] * (normal[0] * cap[:, :1] + d[0] * cap[:, 1:])
    return np.concatenate([p + w * normal, end, (p - w * normal)[::-1], start])


def ring(x: float, y: float, radius: float, thickness: float) -> Outline:
    """An annulus as one outline (outer circle, a seam, inner circle backwards)."""
    outer, inner = (ellipse(x, y, r, n=32) for r in (radius, radius - thickness))
    return np.concatenate([outer, outer[:1], inner[:1], inner[::-1]])


def transform(
    outline: Outline,
    *,
    scale: float | tuple[float, float] = 1.0,
    angle: float = 0.0,
    shift: tuple[float, float] = (0.0, 0.0),
) -> Outline:
    """Scale about the origin, then rotate by `angle` radians, then shift."""
    if angle == 0:
        return outline * scale + shift
    c, s = cos(angle), sin(angle)
    turned: Outline = (outline * scale) @ np.array([[c, s], [-s, c]])
    return turned + shift


# -- rasters -------------------------------------------------------------------------------------


def rasterise(outlines: Sequence[Outline], side: int) -> NDArray[np.int32]:
    """Paint outlines in order. Coordinates are pixels of a (side, side) canvas.

    Returns int32 (side, side): 0 where nothing was painted, else 1 + the position of the outline
    on top.
    """
    canvas = Image.new("I", (side, side), 0)
    draw = ImageDraw.Draw(canvas)
    for position, outline in enumerate(outlines):
        # A coarse grid keeps the raster the same where libraries differ in the last bit.
        draw.polygon((np.rint(outline * 16) / 16).ravel().tolist(), fill=position + 1)
    return np.array(canvas, dtype=np.int32)


class Figure(NamedTuple):
    """Shapes that move together: names of parts, all points in one array, where outlines end."""

    parts: tuple[str, ...]
    points: Outline
    cuts: tuple[int, ...]

    @classmethod
    def of(cls, shapes: Sequence[Shape]) -> Figure:
        """The figure made of `shapes`, in their order."""
        cuts = np.cumsum([len(s.outline) for s in shapes])[:-1]
        points = np.concatenate([s.outline for s in shapes])
        return cls(tuple(s.part for s in shapes), points, tuple(cuts.tolist()))

    def outlines(self, scale: float = 1.0) -> list[Outline]:
        """The outlines of the shapes, scaled about the origin."""
        return np.split(self.points * scale, self.cuts)

    def bounds(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Least and largest x and y, two arrays (2,)."""
        return self.points.min(axis=0), self.points.max(axis=0)

    def area(self, *, side: int = 64) -> float:
        """Area of the union of the outlines, read off a coarse raster."""
        low, high = self.bounds()
        width = float((high - low).max())
        raster = rasterise(self._replace(points=self.points - low).outlines(side / width), side)
        return np.count_nonzero(raster) / side**2 * width**2


# -- colours -------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def noise_tile() -> NDArray[np.float32]:
    """A fixed periodic tile of 1/f noise, float32 (256, 256), values 0 to 1. Do not write to it."""
    white = np.random.Generator(np.random.PCG64(20)).standard_normal((_NOISE_SIDE, _NOISE_SIDE))
    f = np.hypot(*np.meshgrid(*[np.fft.fftfreq(_NOISE_SIDE) * _NOISE_SIDE] * 2))
    tile: NDArray[np.float64] = np.fft.ifft2(np.fft.fft2(white) / np.maximum(f, 2.0) ** 1.4).real
    ranks: NDArray[np.float64] = np.clip((tile - tile.mean()) / (4 * tile.std()) + 0.5, 0, 1)
    return ranks.astype(np.float32)


def random_colour(rng: Generator) -> Colour:
    """An RGB colour in 0 to 1: any hue, more often muted than vivid, from dark to light."""
    hue, saturation, value = rng.random(3).tolist()
    return colorsys.hsv_to_rgb(hue, 0.95 * saturation**1.6, 0.12 + 0.85 * value)


def random_texture(rng: Generator, *, apart_from: Sequence[Texture] = ()) -> Texture:
    """A texture whose first colour keeps a distance from those of `apart_from` where it can."""
    colour = random_colour(rng)
    for _ in range(6):
        if all(_distance(colour, other.first) > 0.45 for other in apart_from):
            break
        colour = random_colour(rng)
    choice, strength, angle, period, *phase = rng.random(6).tolist()
    kind = TEXTURES[bisect(_SHARES, choice)]
    strength = 0.2 + 0.7 * strength if kind in ("stripes", "checks", "dots") else 0.35
    other = random_colour(rng)
    red, green, blue = (a + strength * (b - a) for a, b in zip(colour, other, strict=True))
    second = red, green, blue
    return Texture(kind, colour, second, np.pi * angle, 0.03 + 0.06 * period, phase[0], phase[1])


def _distance(first: Colour, second: Colour) -> float:
    return sum(abs(a - b) for a, b in zip(first, second, strict=True))


def fill(texture: Texture, x: NDArray[np.floating], y: NDArray[np.floating]) -> NDArray[np.float32]:
    """Colours, float32 (N, 3), of a texture at N points given as fractions of the image side."""
    # Python floats, so that the arrays stay float32.
    c, s = cos(texture.angle) / texture.period, sin(texture.angle) / texture.period
    u = x * c + y * s + texture.shift_u
    v = y * c - x * s + texture.shift_v
    mix: NDArray[np.float32]
    match texture.kind:
        case "flat":
            mix = np.zeros_like(u)
        case "gradient":
            mix = (u - u.min()) / max(float(np.ptp(u)), 1e-6) * 1.6
        case "stripes":
            mix = (u - np.floor(u) < 0.5).astype(np.float32)
        case "checks":
            mix = ((u - np.floor(u) < 0.5) ^ (v - np.floor(v) < 0.5)).astype(np.float32)
        case "dots":
            u, v = u - np.floor(u) - 0.5, v - np.floor(v) - 0.5
            mix = (u * u + v * v < 0.09).astype(np.float32)
        case "noise":
            mix = _noise_at(texture, x, y) * 2
        case "blotches":
            mix = (_noise_at(texture, x, y) > 0.55).astype(np.float32)
        case _:
            raise ValueError(f"unknown texture {texture.kind!r}; known: {', '.join(TEXTURES)}")
    colours = np.empty((len(x), 3), dtype=np.float32)
    for channel, (a, b) in enumerate(zip(texture.first, texture.second, strict=True)):
        colours[:, channel] = a + (b - a) * mix
    return colours


def _noise_at(
    texture: Texture, x: NDArray[np.floating], y: NDArray[np.floating]
) -> NDArray[np.float32]:
    """Values of the noise tile, which repeats no sooner than beyond the image."""
    scale = 0.8 * _NOISE_SIDE
    u, v = (
        (a * scale + shift * _NOISE_SIDE).astype(np.int32) & (_NOISE_SIDE - 1)
        for a, shift in ((x, texture.shift_u), (y, texture.shift_v))
    )
    values: NDArray[np.float32] = noise_tile()[u, v]
    return values
