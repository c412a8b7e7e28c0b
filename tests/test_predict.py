"""A person's own pictures: reading them, segmenting them, drawing the result."""

import io
import random
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from fakes import tiny_model
from PIL import Image

from pmms.datasets.parts import PartsVOC
from pmms.datasets.parts_voc import voc_colour_map
from pmms.models import FewShotSegmenter
from pmms.predict import (
    overlay,
    png_bytes,
    read_mask,
    read_picture,
    segment_image,
    training_free_model,
)

MASK = np.zeros((20, 30), dtype=bool)
MASK[3:9, 4:12] = True
COLOURS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return (one & other).sum() / (one | other).sum()


@pytest.fixture(scope="module")
def model() -> FewShotSegmenter:
    return training_free_model()


@pytest.fixture(scope="module")
def cat() -> tuple[np.ndarray, np.ndarray]:
    """A photo of a cat's head, and an ellipse about the head."""
    photo = skimage.data.chelsea()
    y, x = np.mgrid[: photo.shape[0], : photo.shape[1]]
    return photo, ((y - 130) / 95) ** 2 + ((x - 215) / 110) ** 2 < 1


# Segmenting


def test_an_object_is_found_again_in_its_own_picture(
    model: FewShotSegmenter, cat: tuple[np.ndarray, np.ndarray]
) -> None:
    photo, mask = cat
    found = segment_image([cat], photo, model=model, size=160)
    assert found.mask.shape == found.probability.shape == photo.shape[:2]
    assert found.mask.dtype == bool
    assert found.probability.dtype == np.float32
    assert 0 <= found.probability.min() < 0.1 < 0.9 < found.probability.max() <= 1
    assert np.array_equal(found.mask, found.probability > 0.5)
    assert iou(found.mask, mask) > 0.6
    assert iou(np.ones_like(mask), mask) < 0.3  # chance


def test_an_object_is_found_in_another_picture(
    model: FewShotSegmenter, cat: tuple[np.ndarray, np.ndarray]
) -> None:
    """Mirrored, darker and cut off at one side."""
    photo, mask = cat
    query = (photo[:, :20:-1] * 0.8).astype(np.uint8)
    found = segment_image([cat], query, model=model, size=160)
    assert found.mask.shape == (300, 430)
    assert iou(found.mask, mask[:, :20:-1]) > 0.6


def test_the_mask_says_which_object(model: FewShotSegmenter) -> None:
    """Two objects in one picture, asked for in turn: each is found rather than the other."""
    dataset = PartsVOC("val", length=20, size=160)
    index = next(i for i in range(20) if len(dataset.classes_in(i)) == 2)
    image, labels = dataset[index]
    picture = image.permute(1, 2, 0).numpy()
    masks = [(labels == c).numpy() for c in sorted(dataset.classes_in(index))]
    for asked, other in (masks, masks[::-1]):
        found = segment_image([(picture, asked)], picture, model=model, size=160).mask
        assert iou(found, asked) > 0.3 > 2 * iou(found, other)


def test_several_shots_and_sizes_go_together(
    model: FewShotSegmenter, cat: tuple[np.ndarray, np.ndarray]
) -> None:
    photo, mask = cat
    small = photo[::2, ::2], mask[::2, ::2]
    one = segment_image([cat], photo, model=model, size=160)
    two = segment_image([cat, small], photo, model=model, size=160)
    assert iou(two.mask, mask) > 0.6
    assert not np.array_equal(one.probability, two.probability)


def test_the_same_call_gives_the_same_mask(cat: tuple[np.ndarray, np.ndarray]) -> None:
    """A model that is still in training mode as well: it is put in eval mode."""
    network = tiny_model("pmms", dropout=0.5, norm="batch").train()
    before = {n: v.clone() for n, v in network.state_dict().items()}
    results = [segment_image([cat], cat[0], model=network, size=64) for _ in range(2)]
    assert np.array_equal(results[0].probability, results[1].probability)
    assert all(torch.equal(v, before[n]) for n, v in network.state_dict().items())


def test_without_a_model_the_training_free_one_is_used(
    model: FewShotSegmenter, cat: tuple[np.ndarray, np.ndarray]
) -> None:
    own = segment_image([cat], cat[0], size=64)
    assert np.array_equal(own.mask, segment_image([cat], cat[0], model=model, size=64).mask)


def test_settings_of_the_training_free_model() -> None:
    network = training_free_model(k=5, kappa=7.0)
    assert (network.config.k, network.config.kappa) == ((5,), 7.0)
    assert not network.training


@pytest.mark.parametrize(
    "support, query, message",
    [
        ([], COLOURS, "at least one support picture"),
        ([(COLOURS, MASK & False)], COLOURS, "mask 1 is empty"),
        ([(COLOURS, MASK), (COLOURS, MASK & False)], COLOURS, "mask 2 is empty"),
        ([(COLOURS, MASK.astype(np.uint8))], COLOURS, r"mask 1 must be bool \(20, 30\).*got uint8"),
        ([(COLOURS, MASK[:10])], COLOURS, r"mask 1 must be bool \(20, 30\).*\(10, 30\)"),
        ([(COLOURS[..., 0], MASK)], COLOURS, "support picture 1 must be uint8"),
        ([(COLOURS / 255, MASK)], COLOURS, "support picture 1 must be uint8.*got float64"),
        ([(COLOURS, MASK)], COLOURS[..., :2], r"query must be uint8 .*\(20, 30, 2\)"),
        ([(COLOURS, MASK)], COLOURS.astype(np.int64), "query must be uint8"),
    ],
)
def test_what_cannot_be_segmented_is_refused(
    support: Sequence[tuple[np.ndarray, np.ndarray]], query: np.ndarray, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        segment_image(support, query, model=tiny_model(), size=32)


def test_a_size_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="size"):
        segment_image([(COLOURS, MASK)], COLOURS, model=tiny_model(), size=0)


def test_a_single_pixel_is_enough() -> None:
    dot = np.zeros((200, 300), dtype=bool)
    dot[133, 77] = True
    picture = np.random.default_rng(1).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    found = segment_image([(picture, dot)], picture[:7, :5], model=tiny_model(), size=32)
    assert found.mask.shape == (7, 5)
    assert np.isfinite(found.probability).all()


# Reading pictures


def test_a_picture_as_it_is(tmp_path: Path) -> None:
    Image.fromarray(COLOURS).save(tmp_path / "p.png")
    assert np.array_equal(read_picture(tmp_path / "p.png"), COLOURS)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "1"])
def test_any_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    converted = Image.fromarray(COLOURS).convert(mode)
    path = tmp_path / ("p.tiff" if mode == "CMYK" else "p.png")
    converted.save(path)
    assert np.array_equal(read_picture(path), np.array(converted.convert("RGB")))


def test_sixteen_bits_keep_their_greys(tmp_path: Path) -> None:
    grey = np.linspace(0, 65535, 600).reshape(20, 30).astype(np.uint16)
    Image.fromarray(grey).save(tmp_path / "p.png")
    read = read_picture(tmp_path / "p.png")
    assert np.array_equal(read, np.repeat((grey >> 8)[..., None], 3, axis=2))
    assert len(np.unique(read)) == 256


def test_thirty_two_bits_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 0.5, dtype=np.float32)).save(tmp_path / "p.tiff")
    with pytest.raises(ValueError, match=r"p\.tiff has 32 bits"):
        read_picture(tmp_path / "p.tiff")


TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("orientation", TURNS)
def test_a_picture_is_turned_as_its_exif_data_says(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(COLOURS).save(tmp_path / "p.png", exif=exif)
    assert np.array_equal(read_picture(tmp_path / "p.png"), TURNS[orientation](COLOURS))


def test_a_missing_picture_is_named(tmp_path: Path) -> None:
    for read in (read_picture, read_mask):
        with pytest.raises(FileNotFoundError, match=r"no file at .*gone\.png"):
            read(tmp_path / "gone.png")
        with pytest.raises(FileNotFoundError):
            read(tmp_path)


def encoded(format: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(COLOURS).resize((120, 90)).save(buffer, format)
    return buffer.getvalue()


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_a_truncated_picture_is_named(tmp_path: Path, format: str) -> None:
    path = tmp_path / "p.img"
    whole = encoded(format)
    for share in (0.0, 0.01, 0.3, 0.6, 0.9):
        path.write_bytes(whole[: int(share * len(whole))])
        for read in (read_picture, read_mask):
            with pytest.raises(ValueError, match=r"p\.img cannot be read as a picture"):
                read(path)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "BMP", "WEBP"])
def test_a_damaged_picture_is_read_or_refused(tmp_path: Path, format: str) -> None:
    """Whatever bytes are changed, nothing but ValueError comes out, and no file stays open."""
    path = tmp_path / "p.img"
    for seed in range(60):
        rng = random.Random(seed)
        content = bytearray(encoded(format))
        for _ in range(rng.randrange(1, 20)):
            content[rng.randrange(min(len(content), 300))] = rng.randrange(256)
        path.write_bytes(content)
        with suppress(ValueError):
            picture = read_picture(path)
            assert picture.dtype == np.uint8
            assert picture.shape[2] == 3


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_picture_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "p.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"p\.png cannot be read as a picture"):
        read_picture(tmp_path / "p.png")


# Reading masks


def save(values: Any, path: Path, *, palette: bool = False) -> Path:
    image = values if isinstance(values, Image.Image) else Image.fromarray(values)
    if palette:
        image.putpalette(voc_colour_map().ravel().tolist())
    image.save(path)
    return path


WHITE = (MASK * 255).astype(np.uint8)
VARIANTS: dict[str, Any] = {
    "1 bit": MASK,
    "grey": WHITE,
    "grey, one": MASK.astype(np.uint8),
    "grey and alpha": Image.merge("LA", [Image.fromarray(WHITE), Image.new("L", (30, 20), 200)]),
    "16 bits": (MASK * 60_000).astype(np.uint16),
    "rgb": np.repeat(WHITE[..., None], 3, axis=2),
    "rgba": np.dstack([WHITE, WHITE, WHITE, np.full_like(WHITE, 255)]),
}


@pytest.mark.parametrize("kind", VARIANTS)
def test_masks_of_any_kind(tmp_path: Path, kind: str) -> None:
    read = read_mask(save(VARIANTS[kind], tmp_path / "m.png"))
    assert read.dtype == bool
    assert np.array_equal(read, MASK)


def test_a_grey_palette_is_read_by_its_greys(tmp_path: Path) -> None:
    """Programs put white first as well as black."""
    mask = Image.new("P", (6, 4), 1)
    mask.putpalette([255, 255, 255, 0, 0, 0])
    mask.paste(0, (1, 1, 3, 3))
    mask.save(tmp_path / "mask.png")
    assert np.argwhere(read_mask(tmp_path / "mask.png")).tolist() == [
        [1, 1],
        [1, 2],
        [2, 1],
        [2, 2],
    ]
    assert read_mask(tmp_path / "mask.png", label=1).sum() == 20  # an index, where one is named


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_where_a_mask_is_transparent_there_is_no_object(tmp_path: Path, mode: str) -> None:
    white = (255,) * len(mode[:-1])
    mask = Image.new(mode, (6, 4), (*white, 0))
    mask.paste((*white, 255), (1, 1, 3, 3))
    mask.save(tmp_path / "mask.png")
    assert read_mask(tmp_path / "mask.png").sum() == 4


def test_a_mask_is_turned_like_its_picture(tmp_path: Path) -> None:
    mask = Image.new("L", (6, 4))
    mask.paste(255, (0, 0, 2, 1))
    exif = Image.Exif()
    exif[0x0112] = 6
    mask.save(tmp_path / "mask.png", exif=exif)
    assert read_mask(tmp_path / "mask.png").shape == (6, 4)


def test_void_is_not_the_object(tmp_path: Path) -> None:
    labels = MASK.astype(np.uint8)
    labels[2, 3:13] = labels[9, 3:13] = 255
    path = save(labels, tmp_path / "m.png", palette=True)
    with Image.open(path) as image:
        assert image.mode == "P"
    assert np.array_equal(read_mask(path), MASK)
    assert np.array_equal(read_mask(path, label=1), MASK)
    assert np.array_equal(read_mask(path, label=255), labels == 255)


def test_one_of_several_labels(tmp_path: Path) -> None:
    labels = MASK.astype(np.uint8) * 15
    labels[12:, 20:] = 2
    path = save(labels, tmp_path / "m.png", palette=True)
    with pytest.raises(ValueError, match=r"holds the labels \[2, 15\]; say which one"):
        read_mask(path)
    assert np.array_equal(read_mask(path, label=15), MASK)
    with pytest.raises(ValueError, match=r"does not hold the label 3; it holds \[2, 15\]"):
        read_mask(path, label=3)


def test_an_empty_mask_is_refused(tmp_path: Path) -> None:
    path = save(np.zeros((5, 5), dtype=np.uint8), tmp_path / "m.png")
    with pytest.raises(ValueError, match="holds only 0, an empty mask"):
        read_mask(path)
    with pytest.raises(ValueError, match="does not hold the label 1"):
        read_mask(path, label=1)


def test_a_colour_picture_is_no_mask(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"m\.png is a colour picture"):
        read_mask(save(COLOURS, tmp_path / "m.png"))


# Drawing


def test_overlay_dims_the_rest_and_tints_the_object() -> None:
    before = COLOURS.copy()
    drawn = overlay(COLOURS, MASK)
    assert drawn.size == (30, 20)
    assert drawn.mode == "RGB"
    assert np.array_equal(before, COLOURS)
    values = np.array(drawn).astype(int)
    assert np.abs(values[~MASK] - COLOURS[~MASK] * 0.45).max() <= 0.5
    expected = COLOURS[MASK] * 0.65 + 0.35 * np.array([0, 158, 115])
    assert np.abs(values[MASK] - expected).max() <= 0.51


def test_png_bytes_are_a_png() -> None:
    content = png_bytes(Image.fromarray(COLOURS))
    assert np.array_equal(np.array(Image.open(io.BytesIO(content))), COLOURS)
