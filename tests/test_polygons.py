"""Masks of annotations: run-length codes against pycocotools, convex filling against OpenCV."""

import hashlib
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as mask_api

from pmms.datasets.polygons import (
    annotation_rle,
    checked_polygons,
    convex_fill,
    empty_rle,
    first_polygon_rle,
    rle_mask,
)

OPENCV_BAY = [
    "#......#",
    "##....##",
    "###..#.#",
    "###.#..#",
    "########",
    "########",
    "########",
    "########",
]
OPENCV_C = ["########"] * 4 + ["###....."] + ["########"] * 3
OPENCV_SHA256 = "a9ac3485385eaaef406292b6989af9762f2d8c82fb5d3f80f911371db68665db"
"""All three from OpenCV 4.14.0, and the same from 5.0.0."""


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 40))
def test_codes_of_pycocotools_come_back_as_they_were(seed, height, width):
    generator = np.random.default_rng(seed)
    mask = (generator.random((height, width)) < generator.random()).astype(np.uint8)
    if seed % 2:  # long runs, whose differences need several characters
        mask = np.repeat(np.repeat(mask, 20, axis=0), 20, axis=1)
    code = mask_api.encode(np.asfortranarray(mask))
    assert np.array_equal(rle_mask(code), mask)
    counts = code["counts"].decode()
    again = annotation_rle({"size": list(mask.shape), "counts": counts}, height=mask.shape[0],
                           width=mask.shape[1])  # fmt: skip
    assert np.array_equal(rle_mask(again), mask)


def test_an_empty_mask():
    assert rle_mask(empty_rle(height=3, width=5)).shape == (3, 5)
    assert not rle_mask(empty_rle(height=3, width=5)).any()


def test_all_polygons_are_united():
    polygons = [[0, 0, 4, 0, 4, 4, 0, 4], [2, 2, 6, 2, 6, 6, 2, 6]]
    mask = rle_mask(annotation_rle(polygons, height=10, width=10))
    expected = np.zeros((10, 10), dtype=bool)
    expected[:4, :4] = expected[2:6, 2:6] = True
    assert np.array_equal(mask, expected)


@given(st.binary(max_size=12))
def test_no_string_of_counts_crashes(counts):
    """It is drawn, or refused as damaged."""
    with suppress(ValueError):
        code = annotation_rle({"size": [4, 5], "counts": counts}, height=4, width=5)
        assert rle_mask(code).shape == (4, 5)


def drawn(points: list[tuple[int, int]], *, size: int = 8) -> list[str]:
    mask = convex_fill(np.array(points, dtype=float), height=size, width=size)
    return ["".join(".#"[value] for value in row) for row in mask]


def test_a_convex_polygon_is_filled_with_its_border():
    assert drawn([(1, 1), (5, 1), (5, 4), (1, 4)]) == [
        "........",
        ".#####..",
        ".#####..",
        ".#####..",
        ".#####..",
        "........",
        "........",
        "........",
    ]


def test_a_notch_is_filled_as_opencv_fills_it():
    """Output of cv2.fillConvexPoly for a shape with a bay on top and one that turns back."""
    assert drawn([(0, 0), (3, 4), (7, 0), (7, 7), (0, 7)]) == OPENCV_BAY
    assert drawn([(0, 0), (7, 0), (7, 3), (2, 3), (2, 5), (7, 5), (7, 7), (0, 7)]) == OPENCV_C


def test_fractions_are_cut_off():
    assert drawn([(1.9, 1.9), (5.9, 1.1), (5.2, 4.9), (1, 4)]) == drawn(
        [(1, 1), (5, 1), (5, 4), (1, 4)]
    )


def test_points_and_lines_are_drawn():
    assert sum(row.count("#") for row in drawn([(3, 3)])) == 1
    assert sum(row.count("#") for row in drawn([(0, 0), (7, 7)])) == 8


def test_many_polygons_equal_those_of_opencv():
    """300 polygons, a third of them leave the image; the hash is that of cv2.fillConvexPoly."""
    digest = hashlib.sha256()
    for points, height, width in random_polygons(300):
        digest.update(convex_fill(points, height=height, width=width).tobytes())
    assert digest.hexdigest() == OPENCV_SHA256


def random_polygons(count: int):
    """Points of whole numbers, so that the platform's rounding has no part in them."""
    state = 12345

    def draw(low: int, high: int) -> int:
        nonlocal state
        state = (1103515245 * state + 12345) % 2**31
        return low + (state >> 8) % (high - low + 1)

    for number in range(count):
        height, width = draw(5, 60), draw(5, 60)
        out = 4 if number % 3 == 0 else 0
        points = [
            (draw(-out, width - 1 + out), draw(-out, height - 1 + out)) for _ in range(draw(1, 12))
        ]
        yield np.array(points, dtype=float), height, width


def test_first_polygon_is_the_first_and_convex():
    polygons = [[0, 0, 4, 0, 4, 4, 0, 4], [2, 2, 6, 2, 6, 6, 2, 6]]
    mask = rle_mask(first_polygon_rle(polygons, height=10, width=10))
    expected = np.zeros((10, 10), dtype=bool)
    expected[:5, :5] = True
    assert np.array_equal(mask, expected)


def test_a_tenth_of_the_side_is_the_limit():
    assert len(checked_polygons([[-10, 0, 110, 0, 50, 55]], height=50, width=100)) == 1
    with pytest.raises(ValueError, match=r"outside its image of 100 x 50 .* x from -10.1 to 20"):
        checked_polygons([[-10.1, 0, 20, 0, 20, 20]], height=50, width=100)
    with pytest.raises(ValueError, match=r"y from 0 to 55\.1"):
        checked_polygons([[0, 0, 20, 0, 20, 55.1]], height=50, width=100)
