"""The indoor classes of PartsVOC: bottle, chair, diningtable, pottedplant, sofa, tvmonitor."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.random import Generator

from pmms.datasets.parts_drawing import Shape, blob, box, ellipse, limb, poly, transform
from pmms.datasets.parts_recipe import named, recipe


@recipe("body neck cap label", tilt=0.45)
def bottle(rng: Generator) -> list[Shape]:
    w, n = rng.uniform(0.26, 0.36), rng.uniform(0.09, 0.13)
    shoulder, neck = rng.uniform(-0.35, -0.1), rng.uniform(-0.85, -0.65)
    label = rng.uniform(0.05, 0.2)
    half = np.array([(w, 0.95), (w, shoulder + 0.1), (w * 0.85, shoulder - 0.08),
                     (n + 0.02, shoulder - 0.28)])  # fmt: skip
    body = np.concatenate([half, half[::-1] * (-1, 1)])
    return [
        Shape("neck", box(-n, neck, n, shoulder - 0.1)),
        Shape("body", body),
        Shape("label", box(-w, label, w, label + rng.uniform(0.35, 0.5))),
        Shape("cap", box(-n - 0.04, neck - 0.16, n + 0.04, neck + 0.02, corner=0.03)),
    ]


@recipe("back seat leg armrest", tilt=0.12)
def chair(rng: Generator) -> list[Shape]:
    top, deep, w = rng.uniform(-1.0, -0.75), rng.uniform(0.2, 0.3), rng.uniform(0.4, 0.5)
    skew, thick = rng.uniform(0.12, 0.3), rng.uniform(0.1, 0.14)
    feet = rng.uniform(0.8, 0.95)
    # The seat is a parallelogram: its far edge at (skew, 0), its near edge at (0, deep).
    seat = poly((-w + skew, 0), (w + skew, 0), (w, deep), (-w, deep))
    posts = [limb([(x + skew, top), (x + skew, 0.04)], thick) for x in (-w + 0.05, w - 0.05)]
    if rng.random() < 0.5:
        back = [*posts, *(limb([(-w + skew, y), (w + skew, y)], 0.13)
                          for y in np.linspace(top + 0.08, -0.3, 3))]  # fmt: skip
    else:
        back = [*posts, box(-w + skew, top - 0.02, w + skew, -0.16, corner=0.12)]
    legs = [limb([(x, y), (x * 1.04, y + feet - deep * 0.6)], thick)
            for x, y in ((-w + skew + 0.05, 0.05), (w + skew - 0.05, 0.05))]  # fmt: skip
    near = [limb([(x, deep - 0.02), (x * 1.04, feet + deep * 0.4)], thick)
            for x in (-w + 0.06, w - 0.06)]  # fmt: skip
    rests = []
    if rng.random() < 0.4:
        rests = [limb([(x + skew, -0.3), (x, -0.26 + deep), (x, deep)], 0.11) for x in (-w, w)]
    return [
        *named("leg", *legs),
        *named("back", *back),
        *named("leg", *near),
        Shape("seat", seat),
        Shape("seat", box(-w, deep - 0.03, w, deep + 0.08)),
        *named("armrest", *rests),
    ]


@recipe("top apron leg plate vase", tilt=0.08)
def diningtable(rng: Generator) -> list[Shape]:
    w, deep, skew = rng.uniform(0.85, 1.0), rng.uniform(0.3, 0.45), rng.uniform(0.1, 0.28)
    tall, thick = rng.uniform(0.55, 0.75), rng.uniform(0.11, 0.16)
    y = -0.15
    round_top = rng.random() < 0.35
    if round_top:
        middle = y + deep / 2
        top = ellipse(0, middle, w, deep * 0.55)
        legs = [limb([(0, middle), (0, middle + tall)], 0.2),
                *(limb([(0, middle + tall - 0.12), (s * 0.42, middle + tall + 0.1)], 0.13)
                  for s in (-1, 1))]  # fmt: skip
        apron = [transform(top, shift=(0, 0.1))]
    else:
        top = poly((-w + skew, y), (w - skew, y), (w, y + deep), (-w, y + deep))
        legs = [limb([(x, y + 0.1), (x, y + tall)], thick * 0.9) for x in (-w + skew, w - skew)]
        legs += [limb([(x, y + deep), (x, y + deep + tall)], thick)
                 for x in (-w + 0.12, w - 0.12)]  # fmt: skip
        apron = [box(-w + 0.02, y + deep, w - 0.02, y + deep + rng.uniform(0.1, 0.18))]
    plates = [ellipse(x, y + deep * 0.6, 0.19, 0.085) for x in (-0.48, 0.45)]
    x = rng.uniform(-0.12, 0.12)
    vase = blob((x - 0.06, y - 0.22), (x + 0.06, y - 0.22), (x + 0.13, y + 0.02), (x, y + 0.14),
                (x - 0.13, y + 0.02))  # fmt: skip
    return [
        *named("leg", *legs),
        *named("apron", *apron),
        Shape("top", top),
        *named("plate", *plates[: int(rng.integers(1, 3))]),
        *named("vase", *([vase] if rng.random() < 0.6 else [])),
    ]


@recipe("pot rim stem leaf flower", tilt=0.12)
def pottedplant(rng: Generator) -> list[Shape]:
    w, top, n = rng.uniform(0.34, 0.44), rng.uniform(0.22, 0.36), int(rng.integers(6, 10))
    spread, long = rng.uniform(0.9, 1.35), rng.uniform(0.6, 0.85)
    fat = rng.uniform(0.1, 0.17)
    base = (0.0, top - rng.uniform(0.05, 0.3))
    leaf = blob((0, 0), (-fat, -long * 0.45), (-fat * 0.6, -long * 0.8), (0, -long),
                (fat * 0.6, -long * 0.8), (fat, -long * 0.45))  # fmt: skip
    angles = np.linspace(-spread, spread, n) + rng.uniform(-0.1, 0.1, n)
    order = rng.permutation(n)
    sizes = rng.uniform(0.75, 1.15, n)
    flowers = []
    for k in order[: int(rng.integers(0, 3))]:
        tip = long * sizes[k] * 0.95
        flowers.append(ellipse(base[0] + tip * np.sin(angles[k]), base[1] - tip * np.cos(angles[k]),
                               0.12))  # fmt: skip
    return [
        *named("stem", *(limb([(0, top + 0.05), base], 0.12),)),
        *named("leaf", *(transform(leaf, scale=sizes[k], angle=angles[k], shift=base)
                         for k in order)),
        *named("flower", *flowers),
        Shape("pot", poly((-w, top), (w, top), (w * 0.68, 0.95), (-w * 0.68, 0.95))),
        Shape("rim", box(-w - 0.07, top - 0.06, w + 0.07, top + 0.12, corner=0.04)),
    ]  # fmt: skip


@recipe("back armrest seat cushion foot", tilt=0.1)
def sofa(rng: Generator) -> list[Shape]:
    top, w = rng.uniform(-0.58, -0.42), rng.uniform(0.92, 1.05)
    arm, seat = rng.uniform(0.2, 0.28), rng.uniform(0.02, 0.12)
    n = int(rng.integers(2, 4))
    edges = np.linspace(-w + arm, w - arm, n + 1)
    return [
        *named("foot", *(box(s * (w - 0.12) - 0.07, 0.5, s * (w - 0.12) + 0.07, 0.68)
                         for s in (-1, 1))),
        Shape("back", box(-w + 0.06, top, w - 0.06, 0.3, corner=0.2)),
        Shape("seat", box(-w + 0.1, seat + 0.17, w - 0.1, 0.56)),
        *named("cushion", *(box(a + 0.02, top + 0.12, b - 0.02, seat + 0.03, corner=0.1)
                            for a, b in itertools.pairwise(edges))),
        *named("seat", *(box(a, seat, b, seat + 0.2, corner=0.08)
                         for a, b in itertools.pairwise(edges))),
        *named("armrest", *(box(s * (w - arm / 2) - arm / 2, -0.14, s * (w - arm / 2) + arm / 2,
                                0.56, corner=0.12) for s in (-1, 1))),
    ]  # fmt: skip


@recipe("bezel screen stand base button aerial", tilt=0.1)
def tvmonitor(rng: Generator) -> list[Shape]:
    w, h = rng.uniform(0.8, 0.95), rng.uniform(0.5, 0.62)
    if rng.random() < 0.5:  # a flat monitor on a stand
        edge, foot = rng.uniform(0.07, 0.12), rng.uniform(0.3, 0.5)
        return [
            Shape("stand", box(-0.11, h - 0.2, 0.11, h + 0.16)),
            Shape("base", box(-foot, h + 0.1, foot, h + 0.24, corner=0.06)),
            Shape("bezel", box(-w, -h - 0.1, w, h - 0.1, corner=0.04)),
            Shape("screen", box(-w + edge, -h - 0.1 + edge, w - edge, h - 0.16 - edge)),
            Shape("button", ellipse(w - 0.12, h - 0.18, 0.045, n=10)),
        ]
    side = rng.uniform(0.28, 0.38)  # an old set with buttons beside the screen and an aerial
    lean = rng.uniform(0.25, 0.5, 2)
    return [
        *named("aerial", limb([(0, -h), (-lean[0], -h - 0.42)], 0.08),
               limb([(0, -h), (lean[1], -h - 0.42)], 0.08)),
        *named("base", *(box(x - 0.08, h, x + 0.08, h + 0.18) for x in (-w + 0.2, w - 0.2))),
        Shape("bezel", box(-w, -h, w, h + 0.06, corner=0.1)),
        Shape("screen", box(-w + 0.1, -h + 0.1, w - side, h - 0.05, corner=0.14)),
        *named("button", *(ellipse(w - side / 2, y, 0.075, n=14) for y in (-0.28, -0.06))),
        Shape("button", box(w - side + 0.07, 0.14, w - 0.07, h - 0.06)),
    ]  # fmt: skip
