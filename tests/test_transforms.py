import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from searching import examples
from torch import Tensor

from pmms.transforms import EvalTransform, TrainTransform


def square_pair(
    height: int, width: int, *, top: int, left: int, side: int, label: int = 1
) -> tuple[Tensor, Tensor]:
    """A bright square on black, with its mask inside a frame of void."""
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    mask = torch.zeros(height, width, dtype=torch.uint8)
    mask[max(0, top - 2) : top + side + 2, max(0, left - 2) : left + side + 2] = 255
    mask[top : top + side, left : left + side] = label
    image[:, top : top + side, left : left + side] = 250
    return image, mask


def ramps(height: int, width: int) -> tuple[Tensor, Tensor]:
    """An image whose first two channels tell the place of a pixel, 0 to 250; the mask is empty."""
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    image[0] = torch.linspace(0, 250, height).round().to(torch.uint8)[:, None]
    image[1] = torch.linspace(0, 250, width).round().to(torch.uint8)[None, :]
    return image, torch.zeros(height, width, dtype=torch.uint8)


def overlap(image: Tensor, mask: Tensor) -> float:
    """IoU of the bright part of the image and label 1 of the mask, without void."""
    bright, labelled, valid = image[0] > 0.5, mask == 1, mask != 255
    both = (bright & labelled & valid).sum()
    return float(both / ((bright | labelled) & valid).sum())


@pytest.mark.parametrize("keep_aspect", [False, True])
@pytest.mark.parametrize("height, width", [(160, 160), (375, 500), (500, 333), (90, 70)])
def test_eval_gives_the_documented_types_and_ranges(height, width, keep_aspect):
    image, mask = square_pair(height, width, top=20, left=30, side=30)
    image, mask = EvalTransform(128, keep_aspect=keep_aspect)(image, mask)
    assert image.shape == (3, 128, 128)
    assert mask.shape == (128, 128)
    assert (image.dtype, mask.dtype) == (torch.float32, torch.uint8)
    assert float(image.min()) == 0.0
    assert 0.9 < float(image.max()) <= 1.0
    assert set(mask.unique().tolist()) == {0, 1, 255}


@pytest.mark.parametrize("keep_aspect", [False, True])
@pytest.mark.parametrize("height, width", [(160, 160), (375, 500), (500, 333), (61, 47)])
def test_eval_keeps_image_and_mask_registered(height, width, keep_aspect):
    transform = EvalTransform(161, keep_aspect=keep_aspect)
    image, mask = transform(*square_pair(height, width, top=11, left=9, side=31))
    assert overlap(image, mask) > 0.95


def test_masks_are_read_at_pixel_centres():
    """The older "nearest" of torchvision and OpenCV floors i * scale and shifts a mask."""
    mask = torch.from_numpy(np.random.default_rng(0).integers(0, 20, (75, 100), dtype=np.uint8))
    image = torch.zeros(3, 75, 100, dtype=torch.uint8)
    _, small = EvalTransform(32)(image, mask)
    rows = np.floor((np.arange(32) + 0.5) * 75 / 32).astype(int)
    columns = np.floor((np.arange(32) + 0.5) * 100 / 32).astype(int)
    assert torch.equal(small, mask[rows][:, columns])


def test_keep_aspect_pads_at_the_bottom_or_the_right():
    transform = EvalTransform(100, keep_aspect=True)
    white = torch.full((3, 60, 120), 255, dtype=torch.uint8)
    labels = torch.full((60, 120), 4, dtype=torch.uint8)
    image, mask = transform(white, labels)
    assert transform.content(60, 120) == (50, 100)
    assert (mask[:50] == 4).all()
    assert (mask[50:] == 255).all()
    assert (image[:, :50] == 1).all()
    assert (image[:, 50:] == 0).all()
    image, mask = transform(white.transpose(1, 2), labels.T)
    assert (mask[:, :50] == 4).all()
    assert (mask[:, 50:] == 255).all()


def test_extreme_shapes_keep_at_least_one_row():
    image, mask = EvalTransform(32, keep_aspect=True)(*square_pair(3, 400, top=0, left=50, side=3))
    assert image.shape == (3, 32, 32)
    assert (mask[1:] == 255).all()


@pytest.mark.parametrize("keep_aspect", [False, True])
def test_restore_undoes_the_transform(keep_aspect):
    image, mask = square_pair(120, 200, top=31, left=50, side=60)
    mask[mask == 255] = 0
    transform = EvalTransform(160, keep_aspect=keep_aspect)
    _, small = transform(image, mask)
    logits = torch.nn.functional.one_hot((small == 1).long(), 2).permute(2, 0, 1)[None].float()
    restored = transform.restore(logits, height=120, width=200)
    assert restored.shape == (1, 2, 120, 200)
    found = restored.argmax(dim=1)[0]
    assert float(((found == 1) & (mask == 1)).sum() / ((found == 1) | (mask == 1)).sum()) > 0.97


@pytest.mark.parametrize("height, width", [(160, 160), (375, 500), (500, 333)])
def test_train_keeps_image_and_mask_registered(height, width):
    transform = TrainTransform(128)
    pair = square_pair(height, width, top=height // 3, left=width // 2, side=50)
    for seed in range(60):
        image, mask = transform(*pair, seed=seed)
        assert image.shape == (3, 128, 128)
        assert mask.shape == (128, 128)
        assert (image.dtype, mask.dtype) == (torch.float32, torch.uint8)
        assert overlap(image, mask) > 0.9


@examples(40)
@given(st.integers(0, 2**63 - 1), st.integers(8, 90), st.integers(8, 90))
def test_masks_never_gain_a_label(seed, height, width):
    generator = np.random.default_rng(seed)
    values = generator.choice([0, 2, 7, 255], size=3, replace=False)
    mask = torch.from_numpy(generator.choice(values, size=(height, width)).astype(np.uint8))
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    _, squashed = EvalTransform(40)(image, mask)
    _, padded = EvalTransform(40, keep_aspect=True)(image, mask)
    _, cropped = TrainTransform(40)(image, mask, seed=seed)
    before = set(mask.unique().tolist())
    assert set(squashed.unique().tolist()) <= before
    assert set(padded.unique().tolist()) <= before | {255}
    assert set(cropped.unique().tolist()) <= before


def test_train_depends_on_the_seed_alone():
    transform = TrainTransform(64)
    pair = square_pair(100, 120, top=30, left=40, side=40)
    first = transform(*pair, seed=11)
    torch.rand(3)  # moves the global generator
    state = torch.get_rng_state()
    again = transform(*pair, seed=11)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert torch.equal(torch.get_rng_state(), state)
    others = [transform(*pair, seed=s)[0] for s in range(20)]
    assert len({tuple(o[0, ::7, ::7].flatten().tolist()) for o in others}) == 20


def test_train_without_chance_is_eval():
    pair = square_pair(100, 100, top=30, left=40, side=40)
    plain = TrainTransform(64, scale=(1, 1), ratio=(1, 1), flip=0)(*pair, seed=3)
    expected = EvalTransform(64)(*pair)
    assert torch.equal(plain[0], expected[0])
    assert torch.equal(plain[1], expected[1])


def test_train_may_keep_the_aspect_and_pad():
    image, mask = square_pair(90, 180, top=30, left=60, side=40)
    mask[mask == 255] = 0
    transform = TrainTransform(120, ratio=(1.9, 2.0), keep_aspect=True)
    shapes = set()
    for seed in range(40):
        small, labels = transform(image, mask, seed=seed)
        assert small.shape == (3, 120, 120)
        rows = int((labels != 255).any(dim=1).sum())
        columns = int((labels != 255).any(dim=0).sum())
        assert columns == 120  # the longer side fills the square
        assert 60 <= rows <= 64
        assert bool((labels[rows:] == 255).all())
        assert bool((small[:, rows:] == 0).all())
        assert overlap(small, labels) > 0.85
        ys, xs = (labels == 1).nonzero().T
        shapes.add((int(xs.max() - xs.min()), int(ys.max() - ys.min())))
    assert max(width for width, _ in shapes) > 1.25 * min(width for width, _ in shapes)


def test_random_resizing_changes_the_size_of_the_object():
    """Between the whole image and a crop of half its area, stretched at most by the ratio."""
    transform = TrainTransform(160, flip=0, keep=1)
    pair = square_pair(160, 160, top=60, left=60, side=40)
    widths, heights = [], []
    for seed in range(200):
        _, mask = transform(*pair, seed=seed)
        ys, xs = (mask == 1).nonzero().T
        heights.append(int(ys.max() - ys.min()) + 1)
        widths.append(int(xs.max() - xs.min()) + 1)
    largest = 40 * (2 * 4 / 3) ** 0.5
    for sides in (widths, heights):
        assert min(sides) == pytest.approx(40, abs=2)
        assert 0.9 * largest < max(sides) < largest + 2


def test_void_is_resized_like_any_label():
    """The same crops of the same mask, with 7 in the place of void."""
    image, mask = square_pair(160, 160, top=60, left=60, side=40)
    transform = TrainTransform(128, keep=0)  # so that no crop depends on what is foreground
    for seed in range(40):
        _, small = transform(image, mask, seed=seed)
        _, other = transform(image, mask.masked_fill(mask == 255, 7), seed=seed)
        assert bool((small == 255).any())
        assert torch.equal(small.masked_fill(small == 255, 7), other)


def test_flip_mirrors_image_and_mask():
    pair = square_pair(100, 120, top=30, left=10, side=40)
    for seed in range(5):
        plain = TrainTransform(64, flip=0)(*pair, seed=seed)
        mirrored = TrainTransform(64, flip=1)(*pair, seed=seed)
        assert torch.allclose(mirrored[0], plain[0].flip(-1), atol=1.01 / 255)
        # Pixel centres that fall between two pixels may be read from the other side.
        assert (mirrored[1] != plain[1].flip(-1)).float().mean() < 0.03


def test_half_of_the_images_are_flipped():
    transform = TrainTransform(16)
    flipped = sum(
        bool(image[1, 8, 0] > image[1, 8, -1])
        for image, _ in (transform(*ramps(40, 50), seed=s) for s in range(400))
    )
    assert 160 <= flipped <= 240


def test_crops_have_the_drawn_area_and_shape_and_reach_every_side():
    transform = TrainTransform(32, scale=(0.4, 0.8), flip=0)
    height, width = 200, 240
    areas, ratios, tops, bottoms = [], [], [], []
    for seed in range(300):
        image, _ = transform(*ramps(height, width), seed=seed)
        # The outermost output pixels lie half a pixel inside the crop.
        down = float(image[0, -1, 16] - image[0, 0, 16]) * 255 / 250 * 32 / 31
        across = float(image[1, 16, -1] - image[1, 16, 0]) * 255 / 250 * 32 / 31
        areas.append(down * across)
        ratios.append(across * width / (down * height))
        tops.append(float(image[0, 0, 16]))
        bottoms.append(float(image[0, -1, 16]))
    assert 0.38 < min(areas) < 0.45
    assert 0.72 < max(areas) < 0.82
    assert 0.73 < min(ratios) < 0.82
    assert 1.22 < max(ratios) < 1.37
    assert min(tops) < 0.03
    assert max(bottoms) > 0.95


def test_crops_keep_a_share_of_the_object():
    pair = square_pair(160, 160, top=0, left=0, side=24)
    kept, plain = [], []
    for seed in range(100):
        _, mask = TrainTransform(160, scale=(0.5, 0.7))(*pair, seed=seed)
        kept.append(int((mask == 1).sum()))
        _, mask = TrainTransform(160, scale=(0.5, 0.7), keep=0)(*pair, seed=seed)
        plain.append(int((mask == 1).sum()))
    assert min(kept) >= 24 * 24 / 4  # a crop is magnified, never shrunk, at this size
    assert min(plain) == 0


def test_whole_image_where_no_crop_keeps_the_object():
    mask = torch.zeros(60, 60, dtype=torch.uint8)
    mask[[0, 0, -1, -1], [0, -1, 0, -1]] = 1  # one pixel in each corner
    image, _ = ramps(60, 60)
    _, cropped = TrainTransform(60, scale=(0.5, 0.6), keep=1, flip=0)(image, mask, seed=0)
    assert torch.equal(cropped, mask)


@pytest.mark.parametrize("keep_aspect", [False, True])
def test_a_tiny_object_keeps_one_pixel_where_it_was(keep_aspect):
    image, mask = square_pair(400, 300, top=201, left=101, side=2, label=9)
    image, small = EvalTransform(20, keep_aspect=keep_aspect)(image, mask)
    places = (small == 9).nonzero()
    assert len(places) == 1
    height, width = EvalTransform(20, keep_aspect=keep_aspect).content(400, 300)
    assert places[0].tolist() == [201 * height // 400, 101 * width // 300]


def test_an_image_without_object_gets_none():
    mask = torch.zeros(90, 90, dtype=torch.uint8)
    mask[:4] = 255
    _, small = EvalTransform(30)(torch.zeros(3, 90, 90, dtype=torch.uint8), mask)
    assert set(small.unique().tolist()) == {0, 255}


def test_input_is_left_unchanged():
    image, mask = square_pair(50, 50, top=0, left=0, side=1)
    before = image.clone(), mask.clone()
    EvalTransform(50)(image, mask)
    EvalTransform(7)(image, mask)
    TrainTransform(50, scale=(1, 1))(image, mask, seed=0)
    assert torch.equal(image, before[0])
    assert torch.equal(mask, before[1])


@pytest.mark.parametrize("size", [1, 0, -3, 32.0, True])
def test_size_must_be_two_pixels_or_more(size):
    with pytest.raises(ValueError, match="size must be an integer of at least 2"):
        EvalTransform(size)
    with pytest.raises(ValueError, match="size must be an integer of at least 2"):
        TrainTransform(size)


@pytest.mark.parametrize(
    "setting, message",
    [
        ({"scale": (0.0, 1.0)}, "scale must satisfy"),
        ({"scale": (0.9, 0.5)}, "scale must satisfy"),
        ({"scale": (0.5, 1.5)}, "scale must satisfy"),
        ({"ratio": (0.0, 1.0)}, "ratio must satisfy"),
        ({"flip": 1.5}, "flip must lie"),
        ({"keep": -0.1}, "keep must lie"),
    ],
)
def test_train_settings_are_validated(setting, message):
    with pytest.raises(ValueError, match=message):
        TrainTransform(32, **setting)


@pytest.mark.parametrize("transform", [EvalTransform(32), TrainTransform(32)])
def test_wrong_input_is_refused(transform):
    image, mask = square_pair(50, 60, top=5, left=5, side=20)
    with pytest.raises(TypeError, match=r"image must be uint8, got torch\.float32"):
        transform(image.float(), mask, seed=0)
    with pytest.raises(TypeError, match=r"mask must be uint8, got torch\.int64"):
        transform(image, mask.long(), seed=0)
    with pytest.raises(ValueError, match=r"same size, got \(3, 50, 60\) and \(50, 50\)"):
        transform(image, mask[:, :50], seed=0)
    with pytest.raises(ValueError, match=r"expected image \(3, H, W\)"):
        transform(image[:1], mask, seed=0)
