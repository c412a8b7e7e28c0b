"""From a scene to an image: colours, textures, light, shadows and the camera."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from pmms.datasets.parts_drawing import SUPERSAMPLING, Texture, fill, noise_tile, random_texture
from pmms.datasets.parts_scene import Scene, subsample


def paint(scene: Scene, rng: Generator) -> NDArray[np.uint8]:
    """The image, uint8 (size, size, 3): colours, textures, light, shadows and sensor noise."""
    side = len(scene.shapes)
    size = side // SUPERSAMPLING
    cells = np.empty((size, SUPERSAMPLING, size, SUPERSAMPLING, 3), dtype=np.float32)
    cells[:] = _background(rng, size)[:, None, :, None]
    canvas = cells.reshape(side, side, 3)
    _fill_shapes(canvas.reshape(-1, 3), scene, rng)
    _darken_edges(canvas, scene.shapes, rng.uniform(0.45, 0.85))
    rows = canvas[0::2] + canvas[1::2]
    image = (rows[:, 0::2] + rows[:, 1::2]) / 4
    return _camera(_shadow(image, subsample(scene.shapes) > 0, rng), rng)


def _fill_shapes(canvas: NDArray[np.float32], scene: Scene, rng: Generator) -> None:
    """Give each visible shape its texture, lit from one side and darker towards its rim.

    `canvas` is float32 (pixels, 3), changed in place.
    """
    side = len(scene.shapes)
    light_x, light_y = (rng.uniform(-1, 1, 2) * (0.25, 0.15) - (0, 0.12)).tolist()
    textures: list[Texture] = []
    worn_by = [0] * (max(scene.looks) + 1)
    for look, owner in zip(scene.looks, scene.owners, strict=True):
        if look == len(textures):  # looks are numbered in the order of their first shape
            worn_by[look] = owner
            others = [t for t, o in zip(textures, worn_by, strict=False) if o == owner and owner]
            textures.append(random_texture(rng, apart_from=others))
    # Pixels in the order of their texture, then of their shape: runs that are filled at once.
    by_look = np.argsort(scene.looks, kind="stable")
    rank = np.zeros(len(scene.looks) + 1, dtype=np.uint16)
    rank[by_look + 1] = np.arange(len(by_look))
    flat = scene.shapes.ravel()
    pixels = np.flatnonzero(flat).astype(np.int32)
    ranks = rank[flat[pixels]]
    order = np.argsort(ranks, kind="stable")
    pixels, ranks = pixels[order], ranks[order]
    y, x = (a.astype(np.float32) / side for a in np.divmod(pixels, side))
    starts = np.flatnonzero(np.diff(ranks, prepend=np.uint16(65535)))
    lengths = np.diff(starts, append=len(ranks))
    shade = np.ones(len(pixels), dtype=np.float32)
    for axis, tilt in ((x, light_x), (y, light_y)):
        low, high = np.minimum.reduceat(axis, starts), np.maximum.reduceat(axis, starts)
        half = np.maximum((high - low) / 2, np.float32(1e-3))
        u = (axis - np.repeat((low + high) / 2, lengths)) / np.repeat(half, lengths)
        shade += u * (tilt - 0.12 * u)
    looks = np.asarray(scene.looks)[by_look[ranks[starts]]]
    first = np.flatnonzero(np.diff(looks, prepend=-1))
    colours = np.concatenate(
        [
            fill(textures[looks[i]], x[a:b], y[a:b])
            for i, a, b in zip(first, starts[first], [*starts[first[1:]], len(pixels)], strict=True)
        ]
    )
    canvas[pixels] = colours * shade[:, None]


def _darken_edges(canvas: NDArray[np.float32], shapes: NDArray[np.int32], factor: float) -> None:
    """A thin dark line where a shape ends, so that parts of similar colour stay apart."""
    edge = np.zeros(shapes.shape, dtype=bool)
    edge[1:] |= shapes[1:] != shapes[:-1]
    edge[:, 1:] |= shapes[:, 1:] != shapes[:, :-1]
    pixels = canvas.reshape(-1, 3)
    pixels[np.flatnonzero(edge)] *= np.float32(factor)


def _background(rng: Generator, size: int) -> NDArray[np.float32]:
    """One or two textured regions under uneven light, float32 (size, size, 3)."""
    grid = (np.arange(size, dtype=np.float32) + 0.5) / size
    y, x = np.repeat(grid, size), np.tile(grid, size)
    first, second = (
        t._replace(period=t.period * rng.uniform(1, 4))
        for t in (random_texture(rng), random_texture(rng))
    )
    ground = fill(first, x, y)
    if rng.random() < 0.6:  # a horizon, a wall, the edge of a table
        level, slope = rng.uniform(0.25, 0.8), rng.uniform(-0.3, 0.3)
        below = y > level + slope * (x - 0.5)
        if below.any():
            ground[below] = fill(second, x[below], y[below])
    ground = ground.reshape(size, size, 3)
    pixels = np.arange(size) * (160 / size)
    for depth in rng.uniform(0, 0.75, 2) ** 2:  # clouds, grain, or streaks where steps differ
        steps = np.exp(rng.uniform(-0.4, 1.0) + rng.uniform(-0.5, 0.5, 2))
        rows, columns = (
            np.mod(pixels * step + start, len(noise_tile())).astype(np.int64)
            for step, start in zip(steps, rng.uniform(0, 256, 2), strict=True)
        )
        cloud = noise_tile()[rows[:, None], columns]
        cloud = cloud.T if rng.random() < 0.5 else cloud
        ground = ground * (1 + np.float32(1.5 * depth) * (cloud - 0.5))[..., None]
    return ground


def _shadow(
    image: NDArray[np.floating], mask: NDArray[np.bool_], rng: Generator
) -> NDArray[np.floating]:
    """Darken the ground beside everything that stands on it, clutter and objects alike."""
    size = len(image)
    shift = rng.uniform((-0.03, -0.01), (0.03, 0.05))
    cast = Image.fromarray(np.roll(mask, tuple((shift[::-1] * size).astype(int)), (0, 1)))
    cast = cast.convert("L").filter(ImageFilter.BoxBlur(size * 0.02))
    depth = np.float32(rng.uniform(0.1, 0.5) / 255) * np.asarray(cast, dtype=np.float32)
    light: NDArray[np.float32] = 1 - np.where(mask, np.float32(0), depth)
    return image * light[..., None]


def _camera(image: NDArray[np.floating], rng: Generator) -> NDArray[np.uint8]:
    """Exposure, tint, grain, sometimes a slight blur; then eight bits."""
    gain = (rng.uniform(0.8, 1.15) * rng.uniform(0.93, 1.07, 3)).astype(np.float32)
    image = np.clip(image * gain, 0, 1) ** np.float32(rng.uniform(0.85, 1.2))
    if rng.random() < 0.3:
        eight = Image.fromarray((image * 255).astype(np.uint8))
        blurred = eight.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.8) * len(image) / 160))
        image = np.asarray(blurred, dtype=np.float32) / 255
    grain = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(
        rng.uniform(0.005, 0.03)
    )
    return (np.clip(image + grain, 0, 1) * 255 + 0.5).astype(np.uint8)
