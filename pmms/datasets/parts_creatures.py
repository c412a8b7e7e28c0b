"""The living classes of PartsVOC: bird, cat, cow, dog, horse, person, sheep."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from pmms.datasets.parts_drawing import Shape, blob, box, ellipse, limb, poly, transform
from pmms.datasets.parts_recipe import arm, legs, named, recipe


@recipe("body head beak wing tail leg eye", tilt=0.2)
def bird(rng: Generator) -> list[Shape]:
    fat, up, r = rng.uniform(0.28, 0.4), rng.uniform(0.38, 0.58), rng.uniform(0.2, 0.26)
    head = (0.58, -up)
    body = blob(
        (0.72, -up + 0.1),
        (0.62, 0.1),
        (0.25, fat),
        (-0.3, fat - 0.1),
        (-0.62, 0),
        (-0.25, -0.22),
        (0.3, -up + 0.1),
        (0.5, -up - 0.1),
    )
    droop, beak = rng.uniform(-0.2, 0.25), rng.uniform(0.22, 0.4)
    far = [
        Shape("leg", limb([(x, fat - 0.1), (x + 0.02, fat + 0.34), (x + 0.2, fat + 0.36)], 0.075))
        for x in (-0.05, 0.2)
    ]
    tail = poly((-0.4, -0.1), (-1.15, -0.1 + droop), (-1.1, 0.14 + droop), (-0.4, 0.14))
    if rng.random() < 0.5:
        lift = rng.uniform(0.6, 0.95)
        wings = named(
            "wing",
            blob(
                (0.3, -0.15),
                (0.0, -lift),
                (-0.35, -lift - 0.15),
                (-0.45, -lift * 0.5),
                (-0.3, 0.05),
            ),
        )
    else:
        wings = named(
            "wing",
            blob(
                (0.36, -0.1), (0.2, 0.14), (-0.3, 0.2), (-0.85, 0.1), (-0.35, -0.12), (0.1, -0.24)
            ),
        )
    return [
        *far,
        Shape("tail", tail),
        Shape("body", body),
        *wings,
        Shape("beak", poly((0.7, -up - 0.1), (0.78 + beak, -up + 0.02), (0.7, -up + 0.12))),
        Shape("head", ellipse(*head, r)),
        Shape("eye", ellipse(0.65, -up - 0.06, 0.05, n=10)),
    ]


@recipe("body head ear leg tail eye nose", tilt=0.12)
def cat(rng: Generator) -> list[Shape]:
    r, point = rng.uniform(0.3, 0.36), rng.uniform(0.2, 0.28)
    curl = rng.uniform(0.15, 0.35)
    if rng.random() < 0.5:  # sitting, seen from the front
        x, y = rng.uniform(-0.08, 0.08), -0.5
        body = [
            Shape("tail", limb([(0.2, 0.72), (0.66, 0.66), (0.72, 0.3), (0.6, 0.3 - curl),
                                (0.75, 0.1 - curl)], (0.13, 0.13, 0.13, 0.12, 0.1))),
            Shape("body", blob((0, -0.42), (0.3, -0.1), (0.46, 0.5), (0.34, 0.8), (-0.34, 0.8),
                               (-0.46, 0.5), (-0.3, -0.1))),
            *named("leg", *(limb([(side * 0.13, 0.15), (side * 0.15, 0.8)], (0.15, 0.2))
                            for side in (-1, 1))),
        ]  # fmt: skip
    else:  # walking, the face turned to us
        x, y = 0.62, -0.34
        far, near = legs(rng, (-0.5, 0.42), 0.15, rng.uniform(0.42, 0.52), (0.2, 0.13))
        body = [
            *far,
            Shape("tail", limb([(-0.6, -0.05), (-0.85, -0.2), (-0.88, -0.5), (-0.75, -0.6 - curl),
                                (-0.85, -0.78 - curl)], (0.14, 0.13, 0.12, 0.12, 0.1))),
            Shape("body", blob((-0.68, -0.02), (-0.45, -0.2), (0.1, -0.17), (0.6, -0.2),
                               (0.64, 0.1), (0.3, 0.24), (-0.2, 0.2), (-0.6, 0.24))),
            *near,
        ]  # fmt: skip
    face = [
        *named(
            "ear",
            *(
                poly(
                    (x + s * r * 0.95, y - r * 0.35),
                    (x + s * r * 0.85, y - r - point),
                    (x + s * r * 0.15, y - r * 0.85),
                )
                for s in (-1, 1)
            ),
        ),
        Shape("head", ellipse(x, y, r * 1.08, r * 0.93)),
        *named("eye", *(ellipse(x + s * r * 0.42, y - 0.05, 0.06, 0.08, n=12) for s in (-1, 1))),
        Shape("nose", poly((x - 0.06, y + 0.1), (x + 0.06, y + 0.1), (x, y + 0.18))),
    ]
    return body + face


@recipe("body head muzzle horn ear leg tail udder patch", tilt=0.1)
def cow(rng: Generator) -> list[Shape]:
    y, horn = rng.uniform(-0.3, -0.08), rng.uniform(0.16, 0.28)
    far, near = legs(rng, (-0.55, 0.42), 0.2, rng.uniform(0.46, 0.56), (0.22, 0.15))
    turn = rng.uniform(-0.15, 0.2)
    body = blob(
        (-0.75, -0.3),
        (-0.3, -0.32),
        (0.2, -0.3),
        (0.6, -0.36),
        (0.72, -0.05),
        (0.55, 0.26),
        (-0.1, 0.33),
        (-0.6, 0.26),
        (-0.78, 0),
    )
    spots = [
        ellipse(px, py, rng.uniform(0.12, 0.2), rng.uniform(0.09, 0.15), angle=rng.uniform(0, 3))
        for px, py in ((-0.45, -0.08), (-0.02, 0.05), (0.35, -0.12))
    ]
    sway = rng.uniform(-0.1, 0.15)
    head = [
        Shape(
            "horn",
            limb([(0.78, y - 0.12), (0.88, y - 0.2), (0.92, y - 0.2 - horn)], (0.12, 0.1, 0.06)),
        ),
        Shape(
            "horn",
            limb([(0.7, y - 0.12), (0.62, y - 0.22), (0.63, y - 0.22 - horn)], (0.12, 0.1, 0.06)),
        ),
        Shape("ear", blob((0.68, y - 0.06), (0.5, y - 0.14), (0.44, y - 0.05), (0.58, y + 0.04))),
        Shape("head", limb([(0.76, y), (0.9, y + 0.3 + turn)], (0.34, 0.26))),
        Shape("muzzle", ellipse(0.94, y + 0.38 + turn, 0.17, 0.13, angle=0.3)),
    ]
    return [
        *far,
        Shape("tail", limb([(-0.74, -0.22), (-0.9, 0), (-0.88 - sway, 0.38)], (0.08, 0.07, 0.08))),
        Shape("tail", ellipse(-0.88 - sway, 0.45, 0.08, 0.13)),
        Shape("udder", ellipse(-0.32, 0.32, 0.17, 0.12)),
        Shape("body", body),
        *named("patch", *spots),
        *near,
        *head,
    ]


@recipe("body head snout ear leg tail nose collar", tilt=0.12)
def dog(rng: Generator) -> list[Shape]:
    y, wag = rng.uniform(-0.62, -0.48), rng.uniform(-0.3, 0.2)
    far, near = legs(rng, (-0.5, 0.38), 0.1, rng.uniform(0.55, 0.68), (0.2, 0.13))
    body = blob(
        (-0.66, -0.1),
        (-0.3, -0.2),
        (0.2, -0.2),
        (0.52, -0.3),
        (0.62, -0.02),
        (0.42, 0.24),
        (-0.1, 0.12),
        (-0.5, 0.18),
    )
    snout, ear = rng.uniform(0.3, 0.42), rng.uniform(0.34, 0.48)
    return [
        *far,
        Shape("tail", limb([(-0.6, -0.08), (-0.85, -0.3), (-0.92 + wag, -0.6)],
                           (0.15, 0.12, 0.07))),
        Shape("body", body),
        *near,
        Shape("body", limb([(0.46, -0.1), (0.62, y + 0.1)], (0.36, 0.27))),
        Shape("collar", limb([(0.42, y + 0.2), (0.73, y + 0.3)], 0.1)),
        Shape("snout", limb([(0.75, y + 0.05), (0.72 + snout, y + 0.12)], (0.24, 0.17))),
        Shape("head", ellipse(0.68, y, 0.25, 0.23)),
        Shape("nose", ellipse(0.79 + snout, y + 0.08, 0.075, 0.065, n=12)),
        Shape("ear", blob((0.62, y - 0.2), (0.47, y - 0.16), (0.4, y + ear * 0.6),
                          (0.52, y + ear * 0.75), (0.62, y + 0.05))),
        Shape("nose", ellipse(0.78, y - 0.05, 0.045, n=10)),
    ]  # fmt: skip


@recipe("body neck head mane ear leg tail hoof", tilt=0.12)
def horse(rng: Generator) -> list[Shape]:
    reach, lift = rng.uniform(0.78, 0.95), rng.uniform(-0.85, -0.6)
    length = rng.uniform(0.72, 0.85)
    far, near = legs(rng, (-0.48, 0.4), 0.08, length, (0.24, 0.12))
    hooves = [
        transform(ellipse(0, 0, 0.095, 0.07, n=14), shift=tuple(_foot(leg))) for leg in far + near
    ]
    body = blob(
        (-0.66, -0.12),
        (-0.42, -0.28),
        (0.05, -0.2),
        (0.42, -0.28),
        (0.6, -0.08),
        (0.42, 0.16),
        (0, 0.2),
        (-0.42, 0.14),
    )
    fly = rng.uniform(0.0, 0.35)
    poll = (reach, lift)
    return [
        *far, *named("hoof", *hooves[:2]),
        Shape("tail", limb([(-0.6, -0.15), (-0.8 - fly * 0.5, 0.02), (-0.82 - fly, 0.5)],
                           (0.1, 0.19, 0.1))),
        Shape("body", body),
        *near, *named("hoof", *hooves[2:]),
        Shape("mane", limb([(0.28, -0.25), (reach - 0.24, lift + 0.2), (reach - 0.1, lift - 0.06)],
                           (0.12, 0.2, 0.15))),
        Shape("neck", limb([(0.42, -0.08), (reach - 0.05, lift + 0.06)], (0.38, 0.2))),
        Shape("ear", poly((reach - 0.1, lift - 0.04), (reach - 0.05, lift - 0.24),
                          (reach + 0.04, lift - 0.06))),
        Shape("head", limb([poll, (reach + 0.32, lift + 0.3)], (0.24, 0.15))),
    ]  # fmt: skip


def _foot(leg: Shape) -> np.ndarray:
    """The lowest point of a leg, a little raised: where its hoof sits."""
    lowest: np.ndarray = leg.outline[np.argmax(leg.outline[:, 1])]
    return lowest - (0, 0.03)


@recipe("head hair torso arm hand leg shoe", tilt=0.12)
def person(rng: Generator) -> list[Shape]:
    wide, hip = rng.uniform(0.21, 0.27), rng.uniform(0.15, 0.2)
    r = rng.uniform(0.15, 0.18)
    stride, knee = rng.uniform(0, 0.45), rng.uniform(0, 0.4)
    shapes: list[Shape] = []
    for side, x in ((-1, -hip * 0.55), (1, hip * 0.55)):
        bend = knee * (rng.random() if side == 1 else -rng.random())
        points = arm((x, 0.12), (0.42, 0.4), side * stride + rng.uniform(0, 0.08) * side, -bend)
        foot = points[-1]
        shapes.append(Shape("leg", limb(points, (0.24, 0.2, 0.16))))
        shapes.append(Shape("shoe", limb([foot, (foot[0] + 0.14, foot[1] + 0.02)], (0.15, 0.12))))
    raised = rng.choice([0.2, 0.5, 1.3, 2.5], size=2) + rng.uniform(-0.15, 0.25, size=2)
    arms: list[Shape] = []
    for side, angle in zip((-1, 1), raised, strict=True):
        points = arm(
            (side * wide * 0.92, -0.4), (0.3, 0.28), side * angle, side * rng.uniform(-0.3, 0.5)
        )
        arms.append(Shape("arm", limb(points, (0.17, 0.14, 0.12))))
        arms.append(Shape("hand", ellipse(*points[-1], 0.085, n=14)))
    torso = blob(
        (-0.08, -0.52),
        (0.08, -0.52),
        (wide, -0.44),
        (wide * 0.9, -0.1),
        (hip + 0.02, 0.2),
        (-hip - 0.02, 0.2),
        (-wide * 0.9, -0.1),
        (-wide, -0.44),
    )
    y = -0.72
    hair = ellipse(0, y - 0.03, r + 0.03, r + 0.05)
    if rng.random() < 0.5:
        hair = box(-r - 0.04, y - r - 0.07, r + 0.04, y + rng.uniform(0.15, 0.35), corner=r)
    return [
        *shapes, *arms[:2],
        Shape("hair", hair),
        Shape("head", limb([(0, y + 0.1), (0, y + 0.25)], 0.12)),
        Shape("torso", torso), *arms[2:],
        Shape("head", ellipse(rng.uniform(-0.03, 0.03), y + 0.03, r * 0.9, r * 1.1)),
    ]  # fmt: skip


@recipe("wool head ear leg tail", tilt=0.1)
def sheep(rng: Generator) -> list[Shape]:
    y, tall = rng.uniform(-0.3, -0.05), rng.uniform(0.42, 0.52)
    far, near = legs(rng, (-0.36, 0.36), 0.3, rng.uniform(0.38, 0.46), (0.15, 0.12))
    n = int(rng.integers(11, 15))
    t = np.linspace(0, 2 * np.pi, n * 8, endpoint=False)
    puff = 1 + 0.1 * np.abs(np.sin(t * n / 2 + rng.uniform(0, 3)))
    wool = np.stack([0.68 * puff * np.cos(t), tall * puff * np.sin(t)], axis=1)
    return [
        *far, *near,
        Shape("tail", ellipse(-0.76, rng.uniform(-0.1, 0.1), 0.13, 0.16)),
        Shape("wool", wool),
        Shape("head", limb([(0.72, y), (0.88, y + 0.3)], (0.3, 0.2))),
        Shape("ear", limb([(0.66, y - 0.02), (0.5, y + rng.uniform(0.08, 0.2))], (0.12, 0.09))),
        Shape("wool", ellipse(0.7, y - 0.13, 0.19, 0.13)),
    ]  # fmt: skip
