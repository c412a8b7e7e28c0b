"""Pairs of pictures to look at: a support with its mask, and a query."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from pmms.checks import expect
from pmms.datasets.parts import PartsVOC
from pmms.episodes import EpisodeSampler, class_mask

# Corners (x, y) of outlines drawn by hand, in percent of width and height.
_COLLINS = (
    (30, 15), (31, 10), (36, 5), (41, 3), (47, 3), (53, 5), (58, 11), (59, 18), (57, 23), (53, 26),
    (52, 30), (50, 36), (56, 43), (60, 48), (65, 51), (68, 54), (70, 60), (71, 67), (66, 70),
    (61, 75), (57, 82), (55, 88), (54, 94), (55, 100), (12, 99), (6, 92), (4, 82), (5, 72), (7, 62),
    (9, 52), (14, 47), (20, 43), (23, 41), (22, 36), (24, 31), (30, 29), (36, 30), (36, 27),
    (34, 24), (31, 21),
)  # fmt: skip
_HOPPER = (
    (33, 7), (38, 4), (50, 3), (60, 5), (66, 8), (70, 13), (72, 16), (73, 22), (72, 29), (74, 32),
    (73, 38), (70, 43), (67, 48), (66, 52), (72, 56), (80, 60), (92, 64), (96, 67), (100, 76),
    (100, 100), (3, 100), (4, 90), (6, 75), (9, 64), (20, 60), (33, 57), (39, 53), (40, 50),
    (37, 49), (33, 45), (31, 40), (30, 33), (31, 28), (30, 24), (32, 17), (35, 15), (34, 10),
)  # fmt: skip
_CAT = (
    (8, 0), (89, 0), (87, 8), (79, 20), (81, 37), (79, 53), (73, 67), (77, 77), (85, 90), (89, 100),
    (0, 100), (0, 50), (7, 40),
)  # fmt: skip


@dataclass(frozen=True)
class Pair:
    """A support picture with its mask, and a query.

    Attributes:
        name: for titles.
        support: uint8 (H, W, 3).
        mask: bool (H, W), the object.
        query: uint8 (H', W', 3).
        truth: uint8 (H', W'), 1 on the object in the query, 255 void; None where nobody knows.

    Raises:
        ValueError: arrays that do not fit, or an empty mask.
    """

    name: str
    support: np.ndarray
    mask: np.ndarray
    query: np.ndarray
    truth: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name, picture in (("support", self.support), ("query", self.query)):
            what = f"{picture.dtype} {picture.shape}"
            good = picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3
            expect(name, what, "uint8 (H, W, 3)", good)
        size = self.support.shape[:2]
        what = f"{self.mask.dtype} {self.mask.shape}"
        fits = self.mask.dtype == bool and self.mask.shape == size
        expect("mask", what, f"bool {size}, like the support picture", fits)
        if not self.mask.any():
            raise ValueError("the mask is empty: it must show the object in the support picture")


def parts_pair(number: int = 0, *, size: int = 320) -> Pair:
    """An episode of PartsVOC as a pair.

    Args:
        number: of the episode, 0 to 299.
        size: side of the drawn pictures in pixels.

    Raises:
        ValueError: a number outside the range.
    """
    data = PartsVOC("val", length=60, size=size)
    episodes = EpisodeSampler(data, range(1, 21), length=300)
    expect("number", number, f"0 to {len(episodes) - 1}", 0 <= number < len(episodes))
    episode = episodes[number]
    support, query = (data[index] for index in (episode.support[0], episode.query))
    return Pair(
        f"{data.class_name(episode.class_id)}, drawn",
        support.image.permute(1, 2, 0).numpy(),
        (support.labels == episode.class_id).numpy(),
        query.image.permute(1, 2, 0).numpy(),
        class_mask(query.labels, episode.class_id).numpy(),
    )


def portraits() -> Pair:
    """Two people in uniform: support Eileen Collins, from scikit-image; query Grace Hopper, from
    Matplotlib.

    The photographs were taken for NASA and the U.S. Navy and are in the public domain. The masks
    were drawn by hand.
    """
    from matplotlib.cbook import get_sample_data
    from skimage.data import astronaut

    collins = astronaut()
    with Image.open(get_sample_data("grace_hopper.jpg", asfileobj=False)) as file:
        hopper = np.array(file.convert("RGB"))
    truth = polygon_mask(_shares(_HOPPER), hopper).astype(np.uint8)
    mask = polygon_mask(_shares(_COLLINS), collins)
    return Pair("person, two portraits", collins, mask, hopper, truth)


def cat() -> Pair:
    """Chelsea, a photograph by Stéfan van der Walt (CC0) from scikit-image; the query mirrors it.

    The mask was drawn by hand.
    """
    from skimage.data import chelsea

    photograph = chelsea()
    mask = polygon_mask(_shares(_CAT), photograph)
    truth = np.ascontiguousarray(mask[:, ::-1]).astype(np.uint8)
    mirrored = np.ascontiguousarray(photograph[:, ::-1])
    return Pair("cat, photograph and its mirror image", photograph, mask, mirrored, truth)


def polygon_mask(corners: Sequence[tuple[float, float]], picture: np.ndarray) -> np.ndarray:
    """The inside of a polygon, bool (H, W): corners (x, y) as shares of a picture's width, height.

    Raises:
        ValueError: fewer than three corners.
    """
    if len(corners) < 3:
        raise ValueError(f"an outline needs at least three corners; got {len(corners)}")
    height, width = picture.shape[:2]
    canvas = Image.new("1", (width, height))
    ImageDraw.Draw(canvas).polygon([(x * width, y * height) for x, y in corners], fill=1)
    return np.array(canvas)


def _shares(percent: Sequence[tuple[int, int]]) -> list[tuple[float, float]]:
    return [(x / 100, y / 100) for x, y in percent]
