"""Figures: what the functions draw, and files that do not change without need."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from PIL import Image

from pmms import figures


@pytest.fixture(autouse=True)
def _style() -> Iterator[None]:
    with mpl.rc_context():
        figures.use_style()
        yield
        plt.close("all")


@pytest.fixture
def axes() -> Axes:
    return plt.figure().add_subplot()


IMAGE = torch.rand(3, 6, 8, generator=torch.Generator().manual_seed(0))


def mask(*rows: str) -> torch.Tensor:
    return torch.tensor([[{".": 0, "#": 1, "v": 255}[c] for c in row] for row in rows])


def tints(axes: Axes) -> dict[str, np.ndarray]:
    """Colour -> where it is drawn, for the tints over the picture."""
    found = {}
    for image in axes.images:
        values = np.asarray(image.get_array())
        if values.ndim == 3 and values.shape[2] == 4:
            for colour in np.unique(values[values[..., 3] > 0][:, :3], axis=0):
                inside = (values[..., :3] == colour).all(axis=2) & (values[..., 3] > 0)
                found[mpl.colors.to_hex(colour).upper()] = inside
    return found


def test_agg_draws() -> None:
    assert plt.get_backend().lower() == "agg"


def test_picture() -> None:
    drawn = figures.picture(IMAGE)
    assert drawn.shape == (6, 8, 3)
    assert drawn[2, 5, 1] == IMAGE[1, 2, 5]
    assert figures.picture((255 * IMAGE).to(torch.uint8)).dtype == np.uint8


def test_show(axes: Axes) -> None:
    assert figures.show(axes, IMAGE, "a query") is axes
    (shown,) = axes.images
    assert np.array_equal(shown.get_array(), figures.picture(IMAGE))
    assert axes.get_title() == "a query"
    assert not axes.axison


def test_outline(axes: Axes) -> None:
    labels = mask(".##v", "..#.")
    assert figures.outline(axes, labels, colour="#123456") is axes
    assert np.array_equal(tints(axes)["#123456"], labels.numpy() == 1)
    assert len(axes.collections) == 1  # the border
    for whole in (np.ones((3, 3), dtype=bool), np.zeros((3, 3), dtype=bool)):
        plain = plt.figure().add_subplot()
        assert figures.outline(plain, whole) is plain
        assert not plain.collections


@pytest.mark.parametrize("white", [1, 255])
def test_show_errors(axes: Axes, white: int) -> None:
    prediction, target = mask("##..", "##.."), mask("#v#.", "#.#v")
    image = torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1).expand(3, 2, 4) * white
    image = image if white == 1 else image.to(torch.uint8)
    assert figures.show_errors(axes, image, prediction, target, "0.5") is axes
    below = axes.images[0]
    assert np.asarray(below.get_array()) == pytest.approx(np.full((2, 4), white / 2), abs=0.5)
    assert below.get_clim() == (0, white)
    drawn = tints(axes)
    assert drawn[figures.TARGET].tolist() == [[True, False] * 1 + [False] * 2] * 2
    assert drawn[figures.MISSED].tolist() == [[False, False, True, False]] * 2
    assert drawn[figures.FALSE].tolist() == [[False] * 4, [False, True, False, False]]
    assert len(drawn) == 3


def test_show_probability(axes: Axes) -> None:
    drawn = figures.show_probability(axes, torch.full((3, 4), 0.25), "M_p")
    assert isinstance(drawn, AxesImage)
    assert drawn.get_clim() == (0, 1)
    assert drawn.get_cmap().name == "viridis"
    plt.colorbar(drawn)


def test_show_assignment(axes: Axes) -> None:
    resp = torch.tensor([[[0.7, 0.2], [0.1, 0.4]], [[0.3, 0.8], [0.9, 0.6]]])
    inside = torch.tensor([[1.0, 0.9], [0.8, 0.2]])
    assert figures.show_assignment(axes, IMAGE, resp, inside, "parts") is axes
    drawn = tints(axes)
    assert drawn[figures.COLOURS[0]].tolist() == [[True, False], [False, False]]
    assert drawn[figures.COLOURS[1]].tolist() == [[False, True], [True, False]]
    assert axes.images[0].get_extent() == axes.images[1].get_extent()  # over the whole picture


def test_more_prototypes_than_colours(axes: Axes) -> None:
    resp = torch.eye(10).view(10, 2, 5)
    figures.show_assignment(axes, IMAGE, resp, torch.ones(2, 5))
    assert set(tints(axes)) == set(figures.COLOURS)


def test_grid() -> None:
    figure, axes = figures.grid(1, 3, size=2.0)
    assert isinstance(figure, Figure)
    assert axes.shape == (1, 3)
    assert figure.get_size_inches()[0] == 6


def test_show_loss(axes: Axes) -> None:
    points = [(20, 0.5, 0.1), (40, 0.25, 0.05)]  # rows of a log have a learning rate too
    assert figures.show_loss(axes, points, label="pmms") is axes
    (line,) = axes.lines
    assert line.get_xydata().tolist() == [[20, 0.5], [40, 0.25]]
    assert line.get_label() == "pmms"
    assert axes.get_xlabel() == "training step"
    assert "nats" in axes.get_ylabel()
    figures.show_loss(axes, points)
    assert len(axes.get_legend_handles_labels()[1]) == 1


def drawn(kind: str) -> Figure:
    figure, axes = figures.grid(1, 2)
    for place in axes.flat:
        if kind == "picture":
            figures.outline(figures.show(place, IMAGE, "query"), IMAGE[0] > 0.5)
        else:
            figures.show_loss(place, [(1, 2.0), (2, 1.0)])
    return figure


@pytest.mark.parametrize("kind, suffix", [("picture", ".png"), ("plot", ".svg")])
def test_a_saved_figure_is_the_same_to_the_byte(tmp_path: Path, kind: str, suffix: str) -> None:
    paths = [
        figures.save_figure(drawn(kind), "fig-a", folder=tmp_path / folder)
        for folder in ("one", "two")
    ]
    assert [path.name for path in paths] == [f"fig-a{suffix}"] * 2
    assert paths[0].read_bytes() == paths[1].read_bytes()
    again = figures.save_figure(drawn(kind), "fig-a", folder=tmp_path / "one")
    assert again.read_bytes() == paths[1].read_bytes()
    if kind == "picture":
        with Image.open(paths[0]) as image:
            assert image.width > 400
            assert "Software" not in image.info
    else:
        text = paths[0].read_text(encoding="utf-8")
        assert "training step" in text  # as text, not as outlines
        assert not re.search(r"<dc:date>|\b20\d\d-\d\d-\d\d", text)


def test_figures_go_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    figures.save_figure(drawn("plot"), "fig-a")
    assert (tmp_path / "figures" / "fig-a.svg").is_file()
    monkeypatch.setenv(figures.FOLDER, str(tmp_path / "elsewhere"))
    assert figures.save_figure(drawn("plot"), "fig-a").parent == tmp_path / "elsewhere"
    assert figures.save_figure(drawn("plot"), "fig-a", folder="here").parent == Path("here")


def test_publish_saves_shows_and_closes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[Any, dict[str, Any]]] = []
    monkeypatch.setattr(
        "IPython.display.display", lambda figure, metadata: shown.append((figure, metadata))
    )
    figure = drawn("plot")
    figures.publish(figure, "fig-b", alt="Two falling curves.", folder=tmp_path)
    assert shown == [(figure, {"image/png": {"alt": "Two falling curves."}})]
    assert (tmp_path / "fig-b.svg").is_file()
    assert not plt.fignum_exists(figure.number)


def test_colours_are_distinct() -> None:
    """Apart in lightness or hue: CIE76 distance in L*a*b* of every pair."""
    from skimage.color import rgb2lab

    assert len(set(figures.COLOURS)) == len(figures.COLOURS) == 8
    lab = [rgb2lab([mpl.colors.to_rgb(colour)])[0] for colour in figures.COLOURS]
    for one, other in itertools.combinations(lab, 2):
        assert np.linalg.norm(one - other) > 20
    assert len({figures.TARGET, figures.MISSED, figures.FALSE}) == 3


def test_style_sets_the_colour_cycle() -> None:
    assert mpl.rcParams["axes.prop_cycle"].by_key()["color"] == list(figures.COLOURS)
