"""Pairs of pictures to look at: a support with its mask, and a query."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from pmms.checks import expect
from pmms.datasets.parts import PartsVOC
from pmms.episodes import EpisodeSampler, class_mask

# Corners (x, y) of outlines drawn by hand, in percent of width and height.
_MOTORBIKE = (
    (14, 42), (19, 32), (25, 32), (33, 35), (40, 37), (48, 38), (52, 34), (60, 34), (67, 29),
    (66, 21), (69, 17), (72, 23), (76, 27), (74, 35), (70, 38), (73, 53), (80, 53), (87, 62),
    (89, 68), (92, 81), (90, 89), (85, 90), (78, 86), (72, 75), (69, 65), (65, 68), (60, 73),
    (46, 74), (46, 87), (43, 86), (44, 75), (38, 74), (33, 79), (25, 80), (19, 74), (16, 65),
    (16, 54), (17, 48), (14, 47),
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


def motorbike() -> Pair:
    """A stereo pair of photographs from scikit-image: support from the left, query from the right.

    Scharstein et al., "High-resolution stereo datasets with subpixel-accurate ground truth", GCPR
    2014. The mask was drawn by hand.
    """
    from skimage.data import stereo_motorcycle

    left, right, _ = stereo_motorcycle()
    return Pair("motorbike, photographs", left, polygon_mask(_shares(_MOTORBIKE), left), right)


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
