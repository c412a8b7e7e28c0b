"""Extra classes from a random part grammar, for training only; and unlabelled clutter.

A class of the twenty teaches a head to recognise; a class it sees a few times among hundreds
teaches it to compare. `grammar_recipe` turns a number into a class: two to six parts, their
shapes, sizes and places are fixed by the number; an instance varies sizes and joints a little.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
from numpy.random import PCG64, Generator, SeedSequence

from pmms.datasets.parts_drawing import (
    Figure,
    Outline,
    Shape,
    blob,
    box,
    ellipse,
    limb,
    ring,
    transform,
)
from pmms.datasets.parts_recipe import Recipe

MAX_EXTRA_CLASSES = 200
_GRAMMAR_SEED = 4711  # part of the world: a change is a change of every extra class


class _Piece(NamedTuple):
    """A part of a class: its outline about the origin, and where copies of it go.

    Each place is (x, y, angle): the piece hangs from its own origin, so that an instance can turn
    it there as about a joint.
    """

    outline: Outline
    places: tuple[tuple[float, float, float], ...]


@lru_cache(maxsize=MAX_EXTRA_CLASSES)
def grammar_recipe(number: int) -> Recipe:
    """Extra class `number` (1 to `MAX_EXTRA_CLASSES`), the same in every data set and split."""
    rng = Generator(PCG64(SeedSequence([_GRAMMAR_SEED, number])))
    pieces = _grow(rng)
    while _fullness(pieces) < 0.3:  # too thin to leave a mask at a small scale
        pieces = _grow(rng)
    return Recipe(
        tuple(f"part-{i + 1}" for i in range(len(pieces))), partial(_instance, pieces), 0.35
    )


def random_figure(rng: Generator) -> list[Shape]:
    """One instance of a class that exists only here: clutter as rich as an object."""
    return _instance(_grow(rng), rng)


def random_outline(rng: Generator) -> Outline:
    """A simple outline of radius about 1: disc, box, polygon, star, leaf, ring or wavy blob."""
    return _PIECES[int(rng.integers(len(_PIECES)))](rng)


def _fullness(pieces: Sequence[_Piece]) -> float:
    """Share of its bounding square that a class covers, for one fixed instance."""
    figure = Figure.of(_instance(pieces, Generator(PCG64(0))))
    low, high = figure.bounds()
    return figure.area() / float((high - low).max()) ** 2


def _instance(pieces: Sequence[_Piece], rng: Generator) -> list[Shape]:
    shapes = []
    for i, piece in enumerate(pieces):
        stretch = tuple(rng.uniform(0.85, 1.18, 2))
        sway = rng.uniform(-0.3, 0.3) if i else 0.0
        for x, y, angle in piece.places:
            turn = angle + sway + rng.uniform(-0.08, 0.08)
            outline = transform(piece.outline, scale=stretch, angle=turn, shift=(x, y))
            shapes.append(Shape(f"part-{i + 1}", outline))
    # Some parts lie behind the core, as legs do, the rest on top of it.
    behind = {f"part-{i + 1}" for i, piece in enumerate(pieces) if i and len(piece.places) > 1}
    return [s for s in shapes if s.part in behind] + [s for s in shapes if s.part not in behind]


def _grow(rng: Generator) -> tuple[_Piece, ...]:
    """A core, and one to five more parts around it, along it or on it."""
    n = int(rng.integers(2, 7))
    rx, ry = rng.uniform(0.3, 0.7, 2)
    core = transform(random_outline(rng), scale=(rx, ry))
    pieces = [_Piece(core, ((0.0, 0.0, 0.0),))]
    layout = str(rng.choice(("radial", "chain", "symmetric")))
    heading = rng.uniform(0, 2 * np.pi)
    end = (rx * np.cos(heading), ry * np.sin(heading))
    for _ in range(n - 1):
        long, wide = rng.uniform(0.3, 0.75), rng.uniform(0.13, 0.3)
        if rng.random() < 0.3:  # a marking on the core
            x, y = rng.uniform(-0.5, 0.5, 2) * (rx, ry)
            size = rng.uniform(0.12, 0.25)
            mirrored = layout == "symmetric" and abs(x) > size
            places: tuple[tuple[float, float, float], ...]
            places = ((x, y, 0.0), (-x, y, 0.0)) if mirrored else ((x, y, 0.0),)
            pieces.append(_Piece(random_outline(rng) * size, places))
            continue
        if rng.random() < 0.5:  # a limb, pointing down (+y) from its joint
            bend = rng.uniform(-0.3, 0.3)
            points = [(0.0, 0.0), (bend * 0.5, long * 0.5), (bend, long)]
            outline = limb(points, (wide, wide * rng.uniform(0.6, 1.2), wide * rng.uniform(0.4, 1)))
        else:  # a simple shape that hangs from its edge
            outline = random_outline(rng) * (wide, long / 2) + (0, long / 2)
        if layout == "radial":
            count = int(rng.integers(2, 7))
            angles = heading + 2 * np.pi * np.arange(count) / count
            places = tuple(_on_rim(rx, ry, a) for a in angles)
            heading += rng.uniform(0.3, 1.2)
        elif layout == "symmetric":
            angle = rng.uniform(-np.pi / 2, np.pi / 2)
            places = (_on_rim(rx, ry, angle), _on_rim(rx, ry, np.pi - angle))
        else:
            turn = heading - np.pi / 2
            places = ((float(end[0]), float(end[1]), float(turn)),)
            end = (end[0] + long * 0.9 * np.cos(heading), end[1] + long * 0.9 * np.sin(heading))
            heading += rng.uniform(-0.9, 0.9)
        pieces.append(_Piece(outline, places))
    return tuple(pieces)


def _on_rim(rx: float, ry: float, angle: float) -> tuple[float, float, float]:
    """A joint just inside the core's rim, the piece (which points down) turned outwards."""
    x, y = 0.8 * rx * np.cos(angle), 0.8 * ry * np.sin(angle)
    return float(x), float(y), float(np.arctan2(y, x) - np.pi / 2)


def _star(rng: Generator) -> Outline:
    n = int(rng.integers(4, 8))
    t = np.arange(2 * n) * np.pi / n
    r = np.where(np.arange(2 * n) % 2, rng.uniform(0.45, 0.7), 1.0)
    return np.stack([r * np.cos(t), r * np.sin(t)], axis=1)


def _polygon(rng: Generator) -> Outline:
    n = int(rng.integers(3, 8))
    t = (np.arange(n) + rng.uniform(-0.3, 0.3, n)) * 2 * np.pi / n
    r = rng.uniform(0.75, 1.1, n)
    return np.stack([r * np.cos(t), r * np.sin(t)], axis=1)


def _wavy(rng: Generator) -> Outline:
    points = _polygon(rng)
    return blob(*map(tuple, points))


_PIECES = (
    lambda rng: ellipse(0, 0, 1, 1),
    lambda rng: box(-0.9, -0.9, 0.9, 0.9, corner=rng.uniform(0, 0.4)),
    _polygon,
    _star,
    lambda rng: blob((0, -1.1), (0.7, 0.2), (0, 0.9), (-0.7, 0.2)),
    lambda rng: ring(0, 0, 1, rng.uniform(0.35, 0.55)),
    _wavy,
)
