"""The vehicles of PartsVOC: aeroplane, bicycle, boat, bus, car, motorbike, train."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.random import Generator

from pmms.datasets.parts_drawing import Outline, Shape, blob, box, ellipse, limb, poly, ring
from pmms.datasets.parts_recipe import named, recipe, wheel


@recipe("fuselage wing tail engine window", tilt=0.5)
def aeroplane(rng: Generator) -> list[Shape]:
    h, sweep, span = rng.uniform(0.13, 0.19), rng.uniform(0.25, 0.6), rng.uniform(0.5, 0.8)
    fin, root = rng.uniform(0.38, 0.55), rng.uniform(0.15, 0.3)
    body = blob((1, 0.02), (0.8, -h), (-0.4, -h), (-1, -0.07), (-0.98, 0.03), (-0.4, h), (0.75, h))
    chord = rng.uniform(0.36, 0.5)

    def wing(tip: float, start: float) -> Outline:
        x = root - sweep
        return poly((root, start), (x + 0.02, tip), (x - chord / 2.4, tip), (root - chord, start))

    near = span * rng.uniform(0.85, 1.1)
    engines = [(root - sweep * 0.35, near * 0.42)] + [(root - sweep * 0.7, near * 0.75)] * int(
        rng.integers(2)
    )
    return [
        Shape("wing", wing(-span * 0.75, -h * 0.5)),
        Shape("tail", poly((-0.62, -h * 0.6), (-0.86, -fin), (-1.06, -fin), (-0.97, 0))),
        Shape("fuselage", body),
        Shape("tail", poly((-0.66, 0), (-0.98, 0.24), (-1.12, 0.24), (-0.94, 0))),
        *named("engine", *(limb([(x - 0.08, y), (x + 0.16, y)], 0.15) for x, y in engines)),
        Shape("wing", wing(near, h * 0.3)),
        Shape("window", poly((0.72, -h * 0.8), (0.86, -h * 0.45), (0.7, -h * 0.3))),
        *named("window", *(ellipse(x, -h * 0.35, 0.035, n=8) for x in np.arange(-0.4, 0.6, 0.13))),
    ]


@recipe("wheel frame saddle handlebar pedal", tilt=0.2)
def bicycle(rng: Generator) -> list[Shape]:
    r, base = rng.uniform(0.4, 0.47), rng.uniform(0.56, 0.64)
    y, w = 0.3, rng.uniform(0.08, 0.12)
    seat, head = (-0.26, -0.3 - rng.uniform(0, 0.12)), (0.36, -0.32 - rng.uniform(0, 0.1))
    crank = (-0.06, y + 0.02)
    turn = rng.uniform(0, np.pi)
    dx, dy = 0.17 * np.cos(turn), 0.17 * np.sin(turn)
    bar = (head[0] + 0.02, head[1] - 0.16)
    frame = [
        limb([(-base, y), crank], w),
        limb([(-base, y), (seat[0] + 0.02, seat[1] + 0.12)], w),
        limb([seat, crank], w),
        limb([crank, head], w),
        limb([(seat[0] + 0.03, seat[1] + 0.12), head], w),
        limb([(base, y), head, bar], w),
    ]
    return [
        *named("wheel", ring(-base, y, r, 0.12), ring(base, y, r, 0.12)),
        *named("frame", *frame),
        Shape("pedal", ellipse(*crank, 0.11)),
        Shape("pedal", limb([(crank[0] - dx, crank[1] - dy), (crank[0] + dx, crank[1] + dy)], w)),
        Shape(
            "saddle",
            blob(
                (-0.45, seat[1] - 0.06),
                (-0.25, seat[1] - 0.08),
                (-0.06, seat[1] - 0.02),
                (-0.25, seat[1] + 0.04),
            ),
        ),
        Shape(
            "handlebar",
            limb(
                [
                    (bar[0] - 0.14, bar[1] + 0.05),
                    bar,
                    (bar[0] + 0.17, bar[1] - 0.02),
                    (bar[0] + 0.2, bar[1] + 0.12),
                ],
                w,
            ),
        ),
    ]


@recipe("hull mast sail cabin window", tilt=0.18)
def boat(rng: Generator) -> list[Shape]:
    depth, bow = rng.uniform(0.28, 0.42), rng.uniform(0.12, 0.3)
    hull = blob(
        (-0.85, 0.4),
        (0, 0.42),
        (0.95 + bow * 0.3, 0.4 - bow),
        (0.6, 0.4 + depth),
        (0, 0.46 + depth),
        (-0.7, 0.4 + depth),
    )
    if rng.random() < 0.6:
        top, x = rng.uniform(-1.05, -0.8), rng.uniform(-0.1, 0.15)
        return [
            Shape("mast", limb([(x, 0.5), (x, top)], 0.09)),
            Shape(
                "sail",
                poly((x + 0.07, top + 0.05), (x + rng.uniform(0.55, 0.8), 0.24), (x + 0.07, 0.28)),
            ),
            Shape(
                "sail",
                poly(
                    (x - 0.07, top + rng.uniform(0.1, 0.4)),
                    (x - 0.07, 0.28),
                    (x - rng.uniform(0.4, 0.65), 0.28),
                ),
            ),
            Shape("hull", hull),
        ]
    left, high = rng.uniform(-0.6, -0.4), rng.uniform(-0.25, 0.0)
    right = left + rng.uniform(0.7, 0.95)
    panes = np.linspace(left + 0.13, right - 0.2, 3)
    return [
        Shape("mast", limb([(left + 0.3, 0.2), (left + 0.3, high - rng.uniform(0.3, 0.5))], 0.1)),
        Shape("cabin", poly((left, 0.5), (left + 0.06, high), (right - 0.12, high), (right, 0.5))),
        Shape("hull", hull),
        *named("window", *(box(x - 0.08, high + 0.08, x + 0.08, 0.22, corner=0.04) for x in panes)),
        *named("window", *(ellipse(x, 0.56, 0.055, n=10) for x in (-0.4, -0.1, 0.2, 0.5))),
    ]


@recipe("body window door wheel hub light", tilt=0.12)
def bus(rng: Generator) -> list[Shape]:
    top, n, r = rng.uniform(-0.6, -0.48), int(rng.integers(3, 6)), rng.uniform(0.15, 0.19)
    sill = rng.uniform(-0.1, 0.02)
    edges = np.linspace(-0.92, 0.5, n + 1)
    return [
        Shape("body", box(-1, top, 1, 0.45, corner=0.1)),
        *named("window", *(box(a + 0.03, top + 0.12, b - 0.03, sill, corner=0.03)
                            for a, b in itertools.pairwise(edges))),
        Shape("door", box(0.53, top + 0.14, 0.76, 0.42, corner=0.03)),
        Shape("window", box(0.82, top + 0.1, 0.985, sill + 0.1, corner=0.03)),
        *wheel(-0.58, 0.45, r), *wheel(0.34, 0.45, r),
        Shape("light", ellipse(0.92, 0.27, 0.065)), Shape("light", box(-1, 0.16, -0.92, 0.3)),
    ]  # fmt: skip


@recipe("body cabin window wheel hub light", tilt=0.12)
def car(rng: Generator) -> list[Shape]:
    roof, r = rng.uniform(-0.5, -0.36), rng.uniform(0.19, 0.24)
    front, rear = rng.uniform(0.15, 0.32), rng.uniform(-0.62, -0.3)
    hood, tail = rng.uniform(0.48, 0.62), rng.uniform(-0.95, -0.75)
    body = blob(
        (-0.98, 0.05),
        (-0.9, -0.06),
        (-0.4, -0.09),
        (hood - 0.1, -0.07),
        (0.88, 0.02),
        (1, 0.14),
        (0.98, 0.34),
        (0, 0.36),
        (-0.98, 0.34),
    )
    middle = (front + rear) / 2 + 0.03
    glass = roof + 0.08
    return [
        Shape("cabin", poly((tail, 0), (rear, roof), (front, roof), (hood, 0))),
        Shape("window", poly((tail + 0.17, -0.07), (rear + 0.05, glass), (middle - 0.04, glass),
                             (middle - 0.04, -0.07))),
        Shape("window", poly((middle + 0.04, -0.07), (middle + 0.04, glass), (front - 0.03, glass),
                             (hood - 0.13, -0.07))),
        Shape("body", body),
        *wheel(-0.57, 0.35, r), *wheel(0.56, 0.35, r),
        Shape("light", ellipse(0.92, 0.12, 0.07, 0.055)),
        Shape("light", box(-0.98, 0.05, -0.88, 0.17)),
    ]  # fmt: skip


@recipe("wheel hub frame tank seat engine handlebar light", tilt=0.2)
def motorbike(rng: Generator) -> list[Shape]:
    r, base, y = rng.uniform(0.33, 0.39), rng.uniform(0.6, 0.68), 0.32
    lean = rng.uniform(0.22, 0.34)
    head = (base - lean, -0.32)
    return [
        *wheel(-base, y, r, hub=0.45), *wheel(base, y, r, hub=0.45),
        Shape("frame", limb([(base, y), head], 0.11)),
        Shape("frame", limb([(-base, y), (-0.15, 0.3), (0.25, 0.1)], (0.1, 0.14, 0.14))),
        Shape("engine", box(-0.27, 0.02, 0.26, 0.42, corner=0.1)),
        Shape("frame", limb([(0.05, 0.45), (-0.5, 0.5), (-1.0, 0.42)], (0.09, 0.12, 0.15))),
        Shape("seat", blob((-0.95, -0.26), (-0.5, -0.17), (-0.12, -0.14), (-0.1, 0.04),
                           (-0.5, 0.05), (-0.8, -0.08))),
        Shape("tank", blob((-0.14, -0.12), (0.05, -0.33), (0.34, -0.28), (0.36, -0.05), (0.1, 0.06),
                           (-0.12, 0.04))),
        Shape("handlebar", limb([(head[0] + 0.05, head[1]), (head[0] - 0.04, head[1] - 0.22),
                                 (head[0] - 0.24, head[1] - 0.24)], 0.09)),
        Shape("light", ellipse(head[0] + 0.14, head[1] + 0.02, 0.12, 0.1)),
    ]  # fmt: skip


@recipe("boiler cab window chimney wheel hub wagon front", tilt=0.1)
def train(rng: Generator) -> list[Shape]:
    r, top, roof = rng.uniform(0.13, 0.17), rng.uniform(-0.26, -0.16), rng.uniform(-0.6, -0.48)
    cab, nose = rng.uniform(-0.25, -0.1), 0.86
    stack = rng.uniform(0.2, 0.34)
    wheels = [*list(np.linspace(cab - 0.15, nose - 0.12, 4)), -0.95, -0.6]
    return [
        Shape("wagon", box(-1.12, roof + 0.2, cab - 0.4, 0.28, corner=0.04)),
        *named("window", *(box(x, roof + 0.3, x + 0.14, roof + 0.5) for x in (-1.02, -0.78))),
        Shape("wagon", box(cab - 0.45, 0.14, cab - 0.2, 0.24)),
        Shape("chimney", poly((nose - 0.3, top + 0.05), (nose - 0.36, top - stack),
                              (nose - 0.08, top - stack), (nose - 0.14, top + 0.05))),
        Shape("chimney", ellipse(0.28, top, 0.11, 0.12)),
        Shape("boiler", box(cab, top, nose, 0.27, corner=0.1)),
        Shape("front", box(nose - 0.08, top + 0.02, nose + 0.06, 0.22, corner=0.05)),
        Shape("front", poly((nose - 0.15, 0.22), (nose + 0.08, 0.22), (nose + 0.26, 0.5),
                            (nose - 0.15, 0.5))),
        Shape("cab", box(cab - 0.32, roof, cab + 0.06, 0.3)),
        Shape("cab", box(cab - 0.4, roof - 0.07, cab + 0.14, roof + 0.04, corner=0.05)),
        Shape("window", box(cab - 0.24, roof + 0.12, cab - 0.02, roof + 0.34, corner=0.03)),
        *(shape for x in wheels for shape in wheel(x, 0.34, r, hub=0.4)),
    ]  # fmt: skip
