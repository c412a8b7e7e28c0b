"""Masks of COCO annotations as run-length codes (RLE), in both ways of drawing a polygon.

An RLE here is what pycocotools makes: a dict of "size" (height, width) and "counts" (bytes). It is
some 300 bytes long where the mask has 300,000, so all masks of COCO fit into memory.
"""

from collections.abc import Sequence
from typing import Any, TypedDict, cast

import numpy as np
from pycocotools import mask as mask_api


class Rle(TypedDict):
    """A compressed run-length code."""

    size: list[int]
    counts: bytes


_BORDER = 0.1
"""How far a vertex may lie outside the image, as a share of its side."""

_ONE = 1 << 16  # one pixel in the fixed-point numbers of the scan conversion


def annotation_rle(segmentation: object, *, height: int, width: int) -> Rle:
    """Mask of one annotation: the union of all its polygons, or an RLE with its holes.

    Args:
        segmentation: the field of that name: a list of polygons [x, y, x, y, ...], or a dict of
            "size" and "counts", which are a list of run lengths or a compressed string.
        height: height of the image in pixels.
        width: width of the image in pixels.

    Raises:
        ValueError: no mask (an empty list; a box is none), a polygon with an odd number of values
            or far outside the image, an RLE of another size or with runs that do not fill it.
    """
    if isinstance(segmentation, dict):
        return _checked_rle(segmentation, height=height, width=width)
    polygons = checked_polygons(segmentation, height=height, width=width)
    # pycocotools would take two points for a box; a line has no area anyway.
    areas = [polygon for polygon in polygons if len(polygon) >= 6]
    if not areas:
        return empty_rle(height=height, width=width)
    codes: list[Any] = mask_api.frPyObjects(cast(Any, areas), height, width)
    return codes[0] if len(codes) == 1 else _rle(mask_api.merge(codes))


def first_polygon_rle(segmentation: object, *, height: int, width: int) -> Rle:
    """Mask of one annotation as the authors of PMMs draw it: see ``convex_fill``.

    Raises:
        ValueError: as ``annotation_rle``, or the annotation is an RLE, which has no polygon.
    """
    if isinstance(segmentation, dict):
        raise ValueError("is an RLE and has no first polygon; use masks='all'")
    polygon = checked_polygons(segmentation, height=height, width=width)[0]
    mask = convex_fill(polygon.reshape(-1, 2), height=height, width=width)
    return _rle(mask_api.encode(np.asfortranarray(mask)))


def empty_rle(*, height: int, width: int) -> Rle:
    """The mask without a pixel."""
    return _rle(mask_api.encode(np.zeros((height, width), dtype=np.uint8, order="F")))


def merged(codes: Sequence[Rle]) -> Rle:
    """The union of masks."""
    return _rle(mask_api.merge(cast(Any, codes)))


def rle_area(code: Rle) -> int:
    """Pixels of a mask."""
    return int(mask_api.area(cast(Any, code)))


def _rle(code: object) -> Rle:
    """What pycocotools gives; its types allow for counts in a string, which it never makes."""
    return cast(Rle, code)


def checked_polygons(segmentation: object, *, height: int, width: int) -> list[np.ndarray]:
    """Polygons of an annotation, each float64 (2 P,): x and y of P points, in pixels.

    What sticks out of the image by up to a tenth of its side is left to the drawing, which cuts it
    off at the border; more than that shows annotations of another image or size.
    """
    if not isinstance(segmentation, Sequence) or isinstance(segmentation, str):
        raise ValueError(
            "has no segmentation; expected a list of polygons or an RLE "
            "(a file of boxes, key points or captions makes no masks)"
        )
    if not segmentation:
        raise ValueError("has an empty segmentation; a box alone makes no mask")
    polygons = []
    for values in segmentation:
        try:
            polygon = np.asarray(values, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"has a polygon that is no list of numbers: {error}") from error
        if polygon.ndim != 1 or not len(polygon) or len(polygon) % 2:
            raise ValueError(
                "has a polygon that is no list of x, y, x, y, ...: "
                f"got {polygon.size} values in the shape {polygon.shape}"
            )
        for axis, side in (("x", width), ("y", height)):
            places = polygon[0 if axis == "x" else 1 :: 2]
            low, high = float(places.min()), float(places.max())
            if not (-_BORDER * side <= low and high <= (1 + _BORDER) * side):  # or not a number
                raise ValueError(
                    f"has a polygon outside its image of {width} x {height} pixels: {axis} from "
                    f"{low:g} to {high:g}; is it drawn on another size of the image?"
                )
        polygons.append(polygon)
    return polygons


def convex_fill(points: np.ndarray, *, height: int, width: int) -> np.ndarray:
    """A polygon scan-converted as if it were convex, as OpenCV's ``fillConvexPoly`` does.

    The authors of PMMs draw their COCO masks so (github.com/Yang-Bob/PMMs, ``data/coco_val.py``).
    Two chains of edges run down from the topmost point, and every row is filled between them. Where
    the outline turns back, that is neither the polygon nor its convex hull. The outline itself is
    drawn as well. Follows the algorithm of OpenCV (``modules/imgproc/src/drawing.cpp``,
    Apache-2.0), with equal pixels.

    Args:
        points: (P, 2), x and y in pixels; fractions are cut off, as in the authors' code.
        height: height of the mask.
        width: width of the mask.

    Returns:
        uint8 (height, width), 0 and 1.
    """
    corners = points.astype(np.int64)
    mask = np.zeros((height, width), dtype=np.uint8)
    _draw_outline(mask, corners)
    if len(corners) >= 3:
        _fill_between_chains(mask, corners.tolist())
    return mask


def _draw_outline(mask: np.ndarray, corners: np.ndarray) -> None:
    """Lines between neighbours, one pixel wide (Bresenham), each drawn from its left end."""
    starts, ends = _cut_off(np.roll(corners, 1, axis=0), corners, mask.shape)
    swap = starts[:, :1] > ends[:, :1]
    starts, ends = np.where(swap, ends, starts), np.where(swap, starts, ends)
    change = ends - starts
    length = np.abs(change).max(axis=1)
    line = np.repeat(np.arange(len(length)), length + 1)
    step = np.arange(len(line)) - np.repeat(np.cumsum(length + 1) - length - 1, length + 1)
    longest = np.maximum(length, 1)[line, None]
    # Steps along the longer axis; the shorter one follows, halves rounded down.
    moved = -((longest - 2 * np.abs(change)[line] * step[:, None]) // (2 * longest))
    x, y = (starts[line] + np.sign(change)[line] * moved).T
    mask[y, x] = 1


def _cut_off(
    starts: np.ndarray, ends: np.ndarray, shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Lines without what lies outside the image; a line wholly outside is left out."""
    last = np.array([shape[1] - 1, shape[0] - 1])
    lines = np.stack((starts, ends), axis=1)  # (lines, 2 ends, x and y)
    for axis in (1, 0):  # the order matters for how the new ends are rounded
        beyond = ((lines < 0) | (lines > last))[:, :, axis]
        apart = (lines[:, :, axis].max(axis=1) >= 0) & (lines[:, :, axis].min(axis=1) <= last[axis])
        for place, end in np.argwhere(beyond & apart[:, None]).tolist():
            line, other = lines[place], 1 - axis
            border = 0 if line[end, axis] < 0 else int(last[axis])
            across, along = (line[1] - line[0])[[other, axis]].tolist()
            line[end, other] += int((border - int(line[end, axis])) * across / along)
            line[end, axis] = border
    inside = ((lines >= 0) & (lines <= last)).all(axis=(1, 2))
    return lines[inside, 0], lines[inside, 1]


class _Chain:
    """One of the two chains of edges: where it is in the row that is filled next.

    Attributes:
        corner: position of the corner that the current edge runs to.
        step: +1 or -1, the direction round the polygon.
        end: row in which the current edge ends.
        x: place in 1 / 65,536 pixels.
        slope: change of ``x`` from row to row.
    """

    def __init__(self, corner: int, step: int, end: int) -> None:
        self.corner, self.step, self.end = corner, step, end
        self.x, self.slope = -_ONE, 0


def _fill_between_chains(mask: np.ndarray, corners: list[list[int]]) -> None:
    rows = [y for _, y in corners]
    y, bottom = min(rows), max(rows)
    first = rows.index(y)
    chains = _Chain(first, 1, y), _Chain(first, -1, y)
    left_edges = len(corners)
    top, lefts, rights = y, [], []
    while y <= bottom:
        for chain in chains:
            if y >= chain.end:
                left_edges = _next_edge(chain, corners, y, left_edges)
        if left_edges < 0:
            break
        until = min(chains[0].end, chains[1].end)
        x0, x1 = (chain.x + chain.slope * np.arange(until - y) for chain in chains)
        lefts.append(np.minimum(x0, x1))
        rights.append(np.maximum(x0, x1))
        for chain in chains:
            chain.x += chain.slope * (until - y)
        y = until
    if lefts:
        start, stop = ((np.concatenate(x) + _ONE // 2) >> 16 for x in (lefts, rights))
        _fill_rows(mask, top, start, stop)


def _fill_rows(mask: np.ndarray, top: int, start: np.ndarray, stop: np.ndarray) -> None:
    """Set row ``top`` + i from column ``start[i]`` to ``stop[i]``, both included."""
    above = max(0, -top)
    block = mask[top + above : max(top + len(start), 0)]
    start, stop = (x[above : above + len(block), None] for x in (start, stop))
    if len(block):
        low, high = max(int(start.min()), 0), max(int(stop.max()) + 1, 0)
        columns = np.arange(low, min(high, mask.shape[1]))
        block[:, low:high] |= (start <= columns) & (columns <= stop)


def _next_edge(chain: _Chain, corners: list[list[int]], y: int, left_edges: int) -> int:
    """Move a chain to its next edge that goes down from row ``y``; returns the edges left."""
    start = chain.corner
    while True:
        left_edges -= 1
        if left_edges < 0:
            return left_edges
        corner = (start + chain.step) % len(corners)
        if corners[corner][1] > y:
            break
        start = corner
    across, down = (corners[corner][0] - corners[start][0]) << 16, corners[corner][1] - y
    rounded = 2 * across + down
    chain.slope = abs(rounded) // (2 * down) * (1 if rounded >= 0 else -1)
    chain.x = corners[start][0] << 16
    chain.corner, chain.end = corner, corners[corner][1]
    return left_edges


def _checked_rle(code: dict[str, Any], *, height: int, width: int) -> Rle:
    """An RLE of either kind as a compressed one, with its runs counted."""
    size, counts = code.get("size"), code.get("counts")
    if size is None or list(size) != [height, width]:
        raise ValueError(
            f"has an RLE of the size {size}, but its image has [{height}, {width}] (height, width)"
        )
    if isinstance(counts, list):
        if not all(type(run) is int and run >= 0 for run in counts):
            raise ValueError("has an RLE with a run that is no count of pixels")
        if sum(counts) != height * width:
            raise ValueError(
                f"has an RLE whose runs cover {sum(counts)} of {height * width} pixels"
            )
        return _rle(mask_api.frPyObjects(cast(Any, code), height, width))
    if not isinstance(counts, str | bytes):
        raise ValueError(
            f"has an RLE whose counts are neither a list nor a string, but {type(counts).__name__}"
        )
    raw = counts.encode("ascii", "replace") if isinstance(counts, str) else counts
    runs = _run_lengths(raw)
    if min(runs, default=-1) < 0 or sum(runs) != height * width:
        raise ValueError(f"has a damaged RLE: its runs do not fill the {height * width} pixels")
    return {"size": [height, width], "counts": raw}


def rle_mask(code: Rle) -> np.ndarray:
    """Pixels of a compressed RLE, bool (H, W), column by column in memory.

    As ``pycocotools.mask.decode``, which warns under NumPy 2 and takes three times as long.
    """
    runs = _run_lengths(code["counts"])
    filled = np.arange(len(runs)) % 2 == 1
    return np.repeat(filled, runs).reshape(code["size"], order="F")


def _run_lengths(counts: bytes) -> list[int]:
    """Run lengths of a compressed RLE, background first; none if it is malformed.

    Five bits a character from "0" on, lowest first, the sixth says that more follow; from the
    fourth run on, the difference to the run before the last one is stored (``maskApi.c``).
    """
    runs: list[int] = []
    value, shift = 0, 0
    for character in counts:
        bits = character - 48
        if not 0 <= bits < 64:
            return []
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value, shift = 0, 0
    return runs if shift == 0 else []
