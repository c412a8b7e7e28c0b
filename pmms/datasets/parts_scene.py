"""From recipes to a scene: which part of which object is at each pixel.

The geometry is drawn before any colour and alone decides the labels. A scene is drawn again, from
the next stream, until each object is visible enough.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from pmms.datasets.parts_drawing import SUPERSAMPLING, Figure, Shape, rasterise, transform
from pmms.datasets.parts_grammar import random_figure, random_outline
from pmms.datasets.parts_recipe import Recipe

_ATTEMPTS = 12  # free arrangements before the objects get a cell of their own each
_CELL_ATTEMPTS = 30
_MEDIAN_AREA = {1: 0.18, 2: 0.14, 3: 0.118}  # share of the image, by the number of objects
_VISIBLE = 0.5  # least share of an object that is neither covered, cut off nor void


class Scene(NamedTuple):
    """The geometry of an image.

    Attributes:
        shapes: int32 (2 size, 2 size): 0 background, else 1 + position in `owners`, `parts`, ...
        owners: for each shape its object (1, 2, ... in the order of the plan), 0 for clutter.
        parts: for each shape the name of its part.
        looks: for each shape the number of its texture: one for each part of each figure.
        objects: uint8 (size, size): 0 background, else the object at the pixel, 255 void.
        attempt: how many arrangements were refused before this one.
    """

    shapes: NDArray[np.int32]
    owners: tuple[int, ...]
    parts: tuple[str, ...]
    looks: tuple[int, ...]
    objects: NDArray[np.uint8]
    attempt: int


def arrange(
    recipes: Sequence[Recipe], *, size: int, min_pixels: float, stream: Callable[[int], Generator]
) -> Scene:
    """Place one instance of each recipe among clutter, each with at least `min_pixels` labelled.

    `stream(attempt)` gives the generator of an attempt; the first attempt that fits is the scene.

    Raises:
        RuntimeError: none fits, which needs a far larger `min_pixels` than PartsVOC allows.
    """
    for attempt in range(_ATTEMPTS + _CELL_ATTEMPTS):
        rng = stream(attempt)
        free = attempt < _ATTEMPTS
        placed = _place_freely(recipes, rng) if free else _place_in_cells(recipes, rng)
        figures = [(0, figure) for figure in _clutter(rng)]
        figures += [(owner, figure) for owner, (figure, _) in enumerate(placed, 1)]
        if free:
            figures += [(0, figure) for figure in _clutter(rng, front=True)]
        side = size * SUPERSAMPLING
        shapes = rasterise([o for _, f in figures for o in f.outlines(side)], side)
        owners = tuple(owner for owner, f in figures for _ in f.parts)
        table = np.array((0, *owners), dtype=np.uint8)
        objects = with_void(table[subsample(shapes)])
        seen = np.bincount(objects.ravel(), minlength=256)[1 : len(recipes) + 1]
        whole = np.array([area for _, area in placed]) * size**2
        if (seen < np.maximum(min_pixels, _VISIBLE * whole if free else 0)).any():
            continue
        keys = [(n, part) for n, (_, f) in enumerate(figures) for part in f.parts]
        number = {key: i for i, key in enumerate(dict.fromkeys(keys))}
        looks = tuple(number[key] for key in keys)
        return Scene(shapes, owners, tuple(part for _, part in keys), looks, objects, attempt)
    raise RuntimeError(f"no arrangement shows {min_pixels:.0f} pixels of each object (size {size})")


def subsample(canvas: NDArray[np.int32]) -> NDArray[np.int32]:
    """The canvas at image size, one of each `SUPERSAMPLING`^2 values, none invented."""
    return canvas[SUPERSAMPLING // 2 :: SUPERSAMPLING, SUPERSAMPLING // 2 :: SUPERSAMPLING]


def with_void(objects: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Mark the border of each object as 255: two pixels wide, four from size 240, one below 112.

    The border straddles the outline, between touching objects too; the single pixel of small
    images lies outside, so that thin parts survive.
    """
    rows, columns = objects[1:] != objects[:-1], objects[:, 1:] != objects[:, :-1]
    void = np.zeros(objects.shape, dtype=bool)
    void[1:] |= rows
    void[:-1] |= rows
    void[:, 1:] |= columns
    void[:, :-1] |= columns
    if len(objects) < 112:
        void &= objects == 0
        void[1:] |= rows & (objects[1:] > 0) & (objects[:-1] > 0)
        void[:, 1:] |= columns & (objects[:, 1:] > 0) & (objects[:, :-1] > 0)
    if len(objects) >= 240:
        narrow = void.copy()
        void[1:] |= narrow[:-1]
        void[:-1] |= narrow[1:]
        void[:, 1:] |= narrow[:, :-1]
        void[:, :-1] |= narrow[:, 1:]
    return np.where(void, np.uint8(255), objects)


# -- placing -------------------------------------------------------------------------------------


def _pose(recipe: Recipe, rng: Generator, area: float, extent: float) -> tuple[Figure, float]:
    """An instance around the origin, in fractions of the image, and the share that it covers.

    That share is `area`, or less where the instance would grow wider or taller than `extent`.
    """
    flip, tilt = (-1.0 if rng.random() < 0.5 else 1.0), rng.uniform(-recipe.tilt, recipe.tilt)
    aspect = np.exp(rng.uniform(-0.12, 0.12))
    figure = _turned(Figure.of(recipe.draw(rng)), (flip * aspect, 1 / aspect), tilt)
    low, high = figure.bounds()
    unit = figure.area()
    scale = min(np.sqrt(area / unit), extent / float((high - low).max()))
    return _turned(_moved(figure, -(low + high) / 2), scale), unit * scale**2


def _turned(figure: Figure, scale: float | tuple[float, float], angle: float = 0.0) -> Figure:
    return figure._replace(points=transform(figure.points, scale=scale, angle=angle))


def _moved(figure: Figure, shift: NDArray[np.float64]) -> Figure:
    return figure._replace(points=figure.points + shift)


def _place_freely(recipes: Sequence[Recipe], rng: Generator) -> list[tuple[Figure, float]]:
    """Objects anywhere, a little beyond the border at most, overlapping mildly."""
    taken: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
    placed = []
    for recipe in recipes:
        area = _MEDIAN_AREA[len(recipes)] * np.exp(rng.uniform(-0.55, 0.45))
        figure, covered = _pose(recipe, rng, area, 0.92)
        half = figure.bounds()[1]
        room = np.maximum(1.06 - 2 * half, 0.0)
        spots = (rng.random((12, 2)) - 0.5) * room + 0.5
        cost = rng.uniform(0, 0.15, len(spots))
        for low, high in taken:
            overlap = np.minimum(spots + half, high) - np.maximum(spots - half, low)
            cost += np.maximum(overlap, 0).prod(axis=1) / (2 * half).prod()
        spot = spots[np.argmin(cost)]
        taken.append((spot - half, spot + half))
        placed.append((_moved(figure, spot), covered))
    return placed


def _place_in_cells(recipes: Sequence[Recipe], rng: Generator) -> list[tuple[Figure, float]]:
    """Objects as large as fits into a quarter of the image each: nothing covers anything."""
    cells = rng.permutation([(0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75)])
    posed = (_pose(recipe, rng, np.inf, 0.47) for recipe in recipes)
    return [(_moved(f, cell), covered) for (f, covered), cell in zip(posed, cells, strict=False)]


def _clutter(rng: Generator, *, front: bool = False) -> list[Figure]:
    """Unlabelled things: simple shapes and whole figures as rich as an object."""
    if front:
        sizes = rng.uniform(0.03, 0.08, int(rng.random() < 0.35))
    else:
        sizes = rng.uniform(0.04, 0.16, int(rng.integers(2, 8)))
        sizes[: int(rng.integers(0, 3))] *= 1.7
    figures = []
    for size in sizes:
        simple = front or rng.random() < 0.5
        figure = Figure.of([Shape("", random_outline(rng))] if simple else random_figure(rng))
        squeeze = np.exp(rng.uniform(-0.4, 0.4))
        figure = _turned(figure, (size * squeeze, size / squeeze), rng.uniform(0, 2 * np.pi))
        figures.append(_moved(figure, rng.random(2)))
    return figures
