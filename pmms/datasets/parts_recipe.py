"""What a class of PartsVOC is (a recipe of named parts), and shapes that several recipes share.

A recipe draws one instance from a generator: proportions, pose and limb angles vary. Frame: x to
the right, y down, about -1 to 1; animals and vehicles face right. Colour is not decided here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from pmms.datasets.parts_drawing import Outline, Shape, ellipse, limb

Point = tuple[float, float]
Draw = Callable[[Generator], list[Shape]]


class Recipe(NamedTuple):
    """Part names (part id = position + 1), the drawing function, the largest tilt in radians."""

    parts: tuple[str, ...]
    draw: Draw
    tilt: float


def recipe(parts: str, *, tilt: float = 0.15) -> Callable[[Draw], Recipe]:
    """Decorator: the drawing function and its part names (one string) become a `Recipe`."""
    return lambda draw: Recipe(tuple(parts.split()), draw, tilt)


def named(part: str, *outlines: Outline) -> list[Shape]:
    """One shape of `part` per outline."""
    return [Shape(part, outline) for outline in outlines]


def arm(start: Point, lengths: tuple[float, float], first: float, bend: float) -> list[Point]:
    """Two segments from `start`; angles in radians from straight down, positive to the right."""
    middle = (start[0] + lengths[0] * np.sin(first), start[1] + lengths[0] * np.cos(first))
    second = first + bend
    end = (middle[0] + lengths[1] * np.sin(second), middle[1] + lengths[1] * np.cos(second))
    return [start, middle, end]


def wheel(x: float, y: float, radius: float, *, hub: float = 0.5) -> list[Shape]:
    """A disc and a smaller disc on it, `hub` of its radius."""
    return [Shape("wheel", ellipse(x, y, radius)), Shape("hub", ellipse(x, y, radius * hub))]


def legs(
    rng: Generator, hips: tuple[float, float], y: float, length: float, widths: tuple[float, float]
) -> tuple[list[Shape], list[Shape]]:
    """Far and near legs of a four-legged animal whose hips are at x = `hips`."""
    swing = rng.uniform(-0.4, 0.4)
    pairs = []
    for near, sign in ((0, -1), (1, 1)):
        shapes = []
        for side, x in enumerate(hips):
            angle = sign * swing * (1 if side else -1) + rng.uniform(-0.1, 0.1)
            x = x + (0.05 if near else -0.08)
            bend = (-0.35 if side == 0 else 0.25) * abs(angle)
            points = arm((x, y), (length * 0.55, length * 0.45), angle, bend)
            shapes.append(
                Shape("leg", limb(points, (widths[0], (widths[0] + widths[1]) / 2, widths[1])))
            )
        pairs.append(shapes)
    return pairs[0], pairs[1]
