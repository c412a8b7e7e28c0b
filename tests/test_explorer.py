"""The explorer: what it computes, and what its controls do; nothing here needs a browser."""

import base64
import io
import json
import re
import time
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from pmms.backbones import Backbone
from pmms.exploration import KEPT_PATHS, LEVELS, MAX_K, Scene, Settings
from pmms.explorer import KEPT_SCENES, OWN, SOURCES, Explorer
from pmms.explorer_data import TOP, frame_data, scene_data, still
from pmms.heads import PConv
from pmms.mixture import fit_mixture
from pmms.pairs import Pair, cat, parts_pair, polygon_mask, portraits
from pmms.prototypes import partition_samples


class WideBackbone(Backbone):
    """256 channels at stride 8: 40 x 40 positions of a picture of 320 pixels."""

    def __init__(self, channels: int = 256) -> None:
        super().__init__("efficientnet_lite0", channels, mean=(0.5,) * 3, std=(0.25,) * 3)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.net = nn.Conv2d(3, channels, 8, stride=8)

    def features(self, image: Tensor) -> Tensor:
        return self.net(image)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def pair(*, size: tuple[int, int] = (48, 64), box: slice = slice(8, 40), **options: object) -> Pair:
    mask = np.zeros(size, dtype=bool)
    mask[box, box] = True
    return Pair("noise", noise(*size, 3), mask, noise(*size, 3, seed=1), **options)


@pytest.fixture(scope="module")
def scene() -> Scene:
    truth = np.zeros((48, 64), dtype=np.uint8)
    truth[10:40, 10:50] = 1
    return Scene(pair(truth=truth), WideBackbone(160), size=128, steps=6)


# pairs


def test_pairs_have_what_they_promise() -> None:
    for one in (portraits(), cat(), parts_pair(6)):
        assert 0.05 < one.mask.mean() < 0.8
        assert one.support.shape[:2] == one.mask.shape
    assert parts_pair(6).truth.max() >= 1
    np.testing.assert_array_equal(cat().truth.astype(bool), cat().mask[:, ::-1])
    two = portraits()
    assert two.support.shape != two.query.shape  # two photographs, not one twice
    assert two.truth.shape == two.query.shape[:2]
    assert 0.4 < two.truth.mean() < 0.7


def test_parts_pairs_differ_and_have_limits() -> None:
    assert not np.array_equal(parts_pair(0, size=96).support, parts_pair(5, size=96).support)
    with pytest.raises(ValueError, match="number must be 0 to 299; got 300"):
        parts_pair(300)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"mask": np.zeros((48, 64), dtype=bool)}, "the mask is empty"),
        ({"mask": np.ones((48, 63), dtype=bool)}, r"bool \(48, 64\), like the support"),
        ({"mask": np.ones((48, 64), dtype=np.uint8)}, "got 'uint8"),
        ({"support": np.zeros((48, 64), dtype=np.uint8)}, "support must be uint8"),
        ({"query": np.zeros((48, 64, 4), dtype=np.uint8)}, "query must be uint8"),
    ],
)
def test_pairs_that_do_not_fit_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Pair(**(vars(pair()) | change))


def test_polygon() -> None:
    mask = polygon_mask([(0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75)], noise(40, 80, 3))
    assert mask.shape == (40, 80)
    assert mask[11:29, 21:59].all()
    assert not mask[:9].any()
    assert not mask[:, 62:].any()
    with pytest.raises(ValueError, match="at least three corners; got 2"):
        polygon_mask([(0, 0), (1, 1)], noise(4, 4, 3))


# computation


@pytest.mark.parametrize("kernel", ["vmf", "gaussian"])
@pytest.mark.parametrize("init", ["random", "kmeans++"])
def test_every_step_is_that_of_a_fit_with_so_many_iterations(
    scene: Scene, kernel: str, init: str
) -> None:
    path = scene.path(Settings(k=3, kernel=kernel, init=init, seed=5))
    support, _ = scene.features("all")
    sides = partition_samples(support[None, None], scene.inside[None, None, None])
    samples, weights = (torch.cat(parts) for parts in zip(*sides, strict=True))
    for step in (0, 1, 6):
        mixture = fit_mixture(
            samples,
            weights,
            k=3,
            kernel=kernel,
            n_iter=step,
            init=init,
            generator=torch.Generator().manual_seed(5),
        )
        torch.testing.assert_close(path.means[step], mixture.means)
        torch.testing.assert_close(path.resp[step].flatten(1, 2), mixture.resp)
        expected = mixture.log_likelihood[:, -1] / weights.sum(dim=1)
        torch.testing.assert_close(path.log_likelihood[step], expected)


def test_maps_are_those_of_p_conv(scene: Scene) -> None:
    settings = Settings(k=2, kappa=10.0)
    path = scene.path(settings)
    _, query = scene.features("all")
    for step in (0, 4):
        sides = path.means[step].unsqueeze(1)
        torch.testing.assert_close(path.maps[step], PConv(kappa=10.0).maps(query[None], *sides)[0])
        plus = PConv(kappa=10.0)(query[None], *sides)[0, 1]
        torch.testing.assert_close(path.probability(step), plus)


def test_a_common_random_start_leaves_the_query_at_one_half(scene: Scene) -> None:
    probability = scene.path(Settings(k=4)).probability(0)
    torch.testing.assert_close(probability, torch.full_like(probability, 0.5))
    assert (scene.path(Settings(k=4)).probability(6) - 0.5).abs().max() > 0.01


def test_levels(scene: Scene) -> None:
    channels = {level: scene.features(level)[0].shape[0] for level in LEVELS}
    assert channels == {"all": 160, "fine": 112, "coarse": 48, "colour": 3}
    for level in LEVELS:
        for features in scene.features(level):
            norms = features.norm(dim=0)
            torch.testing.assert_close(norms, torch.ones_like(norms))
    assert scene.samples("colour").shape == (len(scene.cells), 3)
    one_stage = Scene(pair(), WideBackbone(8), size=64, steps=1)
    one_stage._name = "vgg16"
    with pytest.raises(ValueError, match="vgg16 has one stage: choose the level 'all'"):
        one_stage.path(Settings(level="fine"))


def test_grid_keeps_the_pictures_shape(scene: Scene) -> None:
    assert scene.support.shape == (3, 96, 128)
    assert scene.inside.shape == (12, 16)
    assert scene.inside.sum() == pytest.approx(scene.pair.mask.mean() * 12 * 16, rel=1e-5)
    assert len(scene.cells) == int((scene.inside > 0).sum())
    thin = Scene(pair(size=(9, 300), box=slice(0, 9)), WideBackbone(8), size=64, steps=1)
    assert thin.inside.shape == (1, 8)


def test_paths_are_kept_and_only_so_many(scene: Scene) -> None:
    first = scene.path(Settings(seed=1))
    assert scene.path(Settings(seed=1)) is first
    for seed in range(2, KEPT_PATHS + 3):
        scene.path(Settings(k=1, seed=seed))
    assert len(scene._paths) == KEPT_PATHS
    again = scene.path(Settings(seed=1))
    assert again is not first
    torch.testing.assert_close(again.means, first.means, rtol=0, atol=0)


def test_more_prototypes_than_positions_are_refused() -> None:
    small = Scene(pair(box=slice(8, 9)), WideBackbone(8), size=64, steps=1)
    assert len(small.cells) == 1
    with pytest.raises(ValueError, match="K = 2 prototypes need as many positions; 1 lie on the"):
        small.path(Settings(k=2))
    assert small.path(Settings(k=1)).probability(1).isfinite().all()
    assert np.isfinite(small.plane("all").points).all()
    with pytest.raises(ValueError, match="t-SNE needs at least 5 positions, got 1"):
        small.plane("all", "t-SNE")


def test_a_mask_of_the_whole_picture_has_a_background_too() -> None:
    whole = Scene(pair(size=(64, 64), box=slice(0, 64)), WideBackbone(8), size=64, steps=2)
    probability = whole.path(Settings(k=2)).probability(2)
    torch.testing.assert_close(probability, torch.full_like(probability, 0.5))


@pytest.mark.parametrize(
    "wrong",
    [
        {"k": 0},
        {"k": MAX_K + 1},
        {"kappa": 0.0},
        {"kappa": float("inf")},
        {"kernel": "rbf"},
        {"init": "zeros"},
        {"seed": -1},
        {"level": "deep"},
    ],
)
def test_settings_outside_their_range_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
        Settings(**wrong)


def test_iou_counts_what_lies_above_one_half(scene: Scene) -> None:
    path = scene.path(Settings(k=2))
    magnified = F.interpolate(path.probability(6)[None, None], (48, 64), mode="bilinear")[0, 0]
    found, truth = magnified.numpy() > 0.5, scene.pair.truth == 1
    assert scene.iou(path, 6) == pytest.approx((found & truth).sum() / (found | truth).sum())
    assert Scene(pair(), WideBackbone(8), size=64, steps=1).iou(path, 1) is None


def test_pca_plane(scene: Scene) -> None:
    plane, samples = scene.plane("all"), scene.samples("all").numpy()
    assert plane.points.shape == (len(samples), 2)
    centred = samples - samples.mean(axis=0)
    share = plane.points.var(axis=0).sum() / centred.var(axis=0).sum()
    assert plane.explained == pytest.approx(share, rel=1e-3)
    settings = Settings(k=2)
    directions = F.normalize(scene.path(settings).means[3, 0], dim=1).numpy()
    # The projection is linear: distances in the plane are never longer than in the space.
    placed = scene.place(plane, settings, 3)
    shown = np.linalg.norm(placed[:, None] - plane.points[None], axis=2)
    real = np.linalg.norm(directions[:, None] - samples[None], axis=2)
    assert (shown <= real + 1e-4).all()
    assert (scene.place(plane, Settings(k=2, kernel="gaussian"), 3) != placed).any()


def test_tsne_plane_keeps_neighbours_and_prototypes_among_them(scene: Scene) -> None:
    plane = scene.plane("all", "t-SNE")
    assert scene.plane("all", "t-SNE") is plane
    assert plane.points.shape == (len(scene.cells), 2)
    placed = scene.place(plane, Settings(k=3), 6)
    low, high = plane.points.min(axis=0), plane.points.max(axis=0)
    assert ((placed >= low) & (placed <= high)).all()


# the widget


@pytest.fixture
def explorer() -> Iterator[Explorer]:
    made = Explorer("photograph: cat", backbone=WideBackbone(16), size=96, steps=5)
    yield made
    made.close_all()


def alert(explorer: Explorer) -> str:
    return re.sub("<.*?>", "", explorer.message.value)


def test_views_show_what_was_computed(explorer: Explorer) -> None:
    scene, view = explorer.scene, explorer.view
    assert alert(explorer) == ""
    assert view.scene["h"], view.scene["w"] == scene.inside.shape
    cells = np.frombuffer(view.scene["cells"], "<u2")
    np.testing.assert_array_equal(np.flatnonzero(scene.inside), cells)
    assert Image.open(io.BytesIO(view.scene["support"])).size == scene.support.shape[:0:-1]
    path = scene.path(explorer.settings)
    resp = np.frombuffer(view.frame["resp"], np.uint8).reshape(-1, 3) / 255
    np.testing.assert_allclose(resp, path.resp[5, 0].flatten(0, 1)[cells.astype(int)], atol=0.003)
    probability = np.frombuffer(view.frame["probability"], np.uint8) / 255
    np.testing.assert_allclose(probability, path.probability(5).flatten(), atol=0.003)
    maps = np.frombuffer(view.frame["maps"], np.uint8).reshape(6, -1) / 255
    np.testing.assert_allclose(maps[:3].sum(axis=0), probability, atol=0.01)
    assert view.frame["likelihood"] == path.log_likelihood[:, 0].tolist()
    assert "nats per sample" in explorer.summary.value
    assert "IoU on the query" in explorer.summary.value


@pytest.mark.parametrize(
    "control, value",
    [
        ("k", 5),
        ("kappa", 100),
        ("kernel", "gaussian"),
        ("init", "kmeans++"),
        ("seed", 3),
        ("level", "colour"),
        ("step", 1),
        ("in_plane", "t-SNE"),
    ],
)
def test_every_control_changes_the_views(explorer: Explorer, control: str, value: object) -> None:
    before = (explorer.view.frame, explorer.view.plane["points"])
    getattr(explorer, control).value = value
    after = (explorer.view.frame, explorer.view.plane["points"])
    assert after != before
    assert alert(explorer) == ""
    expected = explorer.scene.path(explorer.settings).resp[explorer.step.value, 0]
    cells = explorer.scene.cells
    resp = np.frombuffer(explorer.view.frame["resp"], np.uint8) / 255
    np.testing.assert_allclose(resp, expected[cells[:, 0], cells[:, 1]].flatten(), atol=0.003)


def test_the_step_slider_only_looks_up(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("EM ran again")

    monkeypatch.setattr("pmms.exploration.fit_mixture", forbidden)
    for step in (0, 3, 5):
        explorer.step.value = step
        assert explorer.view.frame["step"] == step
    with pytest.raises(AssertionError, match="EM ran again"):
        explorer.seed.value = 7


def test_another_picture(explorer: Explorer) -> None:
    for source in SOURCES:
        explorer.source.value = source
        assert alert(explorer) == ""
        assert (explorer.number.layout.display is None) == (source == "drawn (PartsVOC)")
    explorer.source.value = "drawn (PartsVOC)"
    before = explorer.view.scene["support"]
    explorer.number.value = 0
    assert explorer.view.scene["support"] != before
    for number in range(1, KEPT_SCENES + 2):
        explorer.number.value = number
    assert len(explorer._scenes) == KEPT_SCENES


def png(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG")
    return buffer.getvalue()


def upload(content: bytes, name: str = "mine.png") -> tuple[dict, ...]:
    file = {"name": name, "type": "image/png", "size": len(content), "content": content}
    return (file | {"last_modified": datetime(2020, 1, 1, tzinfo=UTC)},)


MASK = np.zeros((60, 80), dtype=np.uint8)
MASK[20:40, 20:60] = 1


def test_a_picture_of_ones_own(explorer: Explorer) -> None:
    explorer.source.value = OWN
    assert alert(explorer) == "load a picture of your own"
    explorer.picture.value = upload(png(noise(60, 80, 3)))
    assert alert(explorer) == ""
    assert "mine.png (no mask yet" in explorer.summary.value
    explorer.mask.value = upload(png(MASK), "mask.png")
    assert "no mask yet" not in explorer.summary.value
    assert explorer.scene.pair.mask.sum() == 800
    np.testing.assert_array_equal(explorer.scene.pair.query, noise(60, 80, 3))
    explorer.query.value = upload(png(noise(50, 50, 3, seed=2)), "query.png")
    assert explorer.scene.query.shape == (3, 96, 96)
    explorer.source.value = "photograph: cat"
    explorer.source.value = OWN
    assert explorer.scene.pair.name == "mine.png"


def test_another_picture_does_not_keep_the_mask_and_query_of_the_last(explorer: Explorer) -> None:
    explorer.mask.value = upload(png(MASK), "mask.png")  # before its picture: it waits for that
    explorer.picture.value = upload(png(noise(60, 80, 3)))
    explorer.query.value = upload(png(noise(50, 50, 3, seed=2)), "query.png")
    assert explorer.scene.pair.mask.sum() == 800
    explorer.picture.value = upload(png(noise(60, 80, 3, seed=3)), "other.png")
    assert alert(explorer) == ""
    assert "other.png (no mask yet" in explorer.summary.value
    np.testing.assert_array_equal(explorer.scene.pair.query, noise(60, 80, 3, seed=3))


@pytest.mark.parametrize(
    "control, content, message",
    [
        ("picture", b"no picture", "bad.png cannot be read as a picture (an unknown format)"),
        ("picture", png(noise(60, 80, 3))[:200], "bad.png cannot be read as a picture"),
        ("picture", b"", "bad.png cannot be read as a picture"),
        ("mask", png(np.zeros((60, 80), np.uint8)), "bad.png holds only 0, an empty mask"),
        ("mask", png(noise(60, 80, 3)), "bad.png is a colour picture"),
        ("mask", png(MASK[:30]), "mask must be bool (60, 80), like the support picture"),
        ("query", b"\x89PNG", "bad.png cannot be read as a picture"),
    ],
    ids=["text", "cut short", "empty", "empty mask", "colour mask", "other size", "query"],
)
def test_bad_uploads_are_told_and_the_last_picture_stays(
    explorer: Explorer, control: str, content: bytes, message: str
) -> None:
    if control != "picture":
        explorer.picture.value = upload(png(noise(60, 80, 3)))
    shown = explorer.view.scene
    getattr(explorer, control).value = upload(content, "bad.png")
    assert message in alert(explorer).replace("&#x27;", "'")
    assert "/" not in alert(explorer).partition("cannot be read")[0]
    assert explorer.view.scene is shown
    explorer.k.value = 2  # and it goes on
    assert alert(explorer) == ""
    assert explorer.view.frame["k"] == 2


def test_names_of_files_are_no_markup(explorer: Explorer) -> None:
    explorer.picture.value = upload(b"x", "<script>alert(1)<b>.png")
    assert "<script>" not in explorer.message.value
    explorer.picture.value = upload(png(noise(60, 80, 3)), "<img src=x>.png")
    assert "<img" not in explorer.summary.value
    assert "&lt;img" in explorer.summary.value


def test_an_outline_becomes_the_mask(explorer: Explorer) -> None:
    explorer.draw.value = True
    assert explorer.view.drawing
    explorer.view.outline = [[0.1, 0.1]]
    explorer.use.click()
    assert alert(explorer) == "an outline needs at least three corners; got 1"
    assert explorer.view.drawing
    explorer.view.outline = [[0.25, 0.25], [0.75, 0.25], [0.75, 0.75], [0.25, 0.75]]
    explorer.use.click()
    assert alert(explorer) == ""
    assert not explorer.view.drawing
    assert explorer.view.outline == []
    assert explorer.scene.pair.mask.mean() == pytest.approx(0.25, rel=0.03)
    assert "(own outline)" in explorer.summary.value
    explorer.view.outline = [[0.5, 0.5], [0.5, 0.5], [0.5, 0.5]]
    explorer.clear.click()
    assert explorer.view.outline == []


def test_more_prototypes_than_positions_are_told(explorer: Explorer) -> None:
    explorer.view.outline = [[0.53, 0.55], [0.54, 0.55], [0.54, 0.56]]
    explorer.use.click()
    assert "K = 3 prototypes need as many positions; 1 lie on the object." in alert(explorer)
    explorer.k.value = 1
    assert alert(explorer) == ""
    assert explorer.view.frame["k"] == 1


def test_its_text_says_how_to_see_it(explorer: Explorer) -> None:
    text = explorer._repr_mimebundle_()["text/plain"]
    assert text == repr(explorer)
    assert "make explore" in text


def test_an_update_takes_less_than_300_ms() -> None:
    # 40 x 40 positions with 256 channels, one thread; the fastest of six, for a busy machine.
    explorer = Explorer("drawn (PartsVOC)", backbone=WideBackbone(), size=320)
    assert explorer.scene.inside.shape == (40, 40)
    assert explorer.scene.features("all")[0].shape[0] == 256
    seconds = []
    for seed in range(1, 7):
        start = time.perf_counter()
        explorer.seed.value = seed
        seconds.append(time.perf_counter() - start)
        assert explorer.view.frame["k"] == 3
    assert min(seconds) < 0.3
    explorer.close_all()


# computed beforehand


def test_still_holds_every_combination(scene: Scene) -> None:
    page = still(scene, ks=(1, 3), kappas=(5.0, 20.0), settings=Settings(k=3), pixel=(4, 5))
    text = re.search(r'mountStill\(document.getElementById\("px-still"\), (\{.*\})\);', page)
    data = json.loads(text.group(1))
    assert data["start"]["pixel"] == {"where": "support", "row": 4, "column": 5}
    frames = zlib.decompress(base64.b64decode(data["frames"]))
    n, size, count = len(scene.cells), 12 * 16, scene.steps + 1
    offset = 0
    for k in (1, 3):
        for kappa in (5.0, 20.0):
            path = scene.path(Settings(k=k, kappa=kappa))
            likelihood = np.frombuffer(frames, "<f4", count, offset)
            np.testing.assert_allclose(likelihood, path.log_likelihood[:, 0])
            offset += 4 * count
            for step in range(count):
                frame = frame_data(path, scene, step, np.zeros((k, 2)), top=TOP)
                offset += 8 * k
                assert frames[offset : offset + n * k] == frame["resp"]
                offset += n * k
                assert frames[offset : offset + size] == frame["probability"]
                offset += size
    assert offset == len(frames)


def test_still_asks_nobody_and_is_no_empty_box(scene: Scene) -> None:
    page = still(scene, ks=(3,), kappas=(20.0,))
    addresses = re.findall(r"(?:https?:)?//[a-z][\w.-]*\.[a-z]{2,}[^\s\"]*", page)
    assert set(addresses) <= {"//www.w3.org/2000/svg", "http://www.w3.org/2000/svg"}
    without_scripts = re.sub(r"<(script|style).*?</\1>", "", page, flags=re.DOTALL)
    assert "sliders for K, kappa and EM step" in without_scripts
    assert page.count("</script>") == 1


def test_still_starts_at_one_of_its_choices(scene: Scene) -> None:
    with pytest.raises(ValueError, match=r"start at K = 3, kappa = 20\.0: both must be"):
        still(scene, ks=(1, 2), kappas=(20.0,))


def test_scene_data_has_an_entry_for_each_position(scene: Scene) -> None:
    data = scene_data(scene)
    assert len(data["inside"]) == data["h"] * data["w"] == 192
    assert (data["qh"], data["qw"]) == (12, 16)
