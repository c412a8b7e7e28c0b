"""The book's one style of figures, and the drawings that recur in it."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

# Okabe and Ito's colours, safe for colour-blind readers, in the order of the prototypes 1, 2, ...
COLOURS = (
    "#0072B2",  # blue
    "#E69F00",  # orange
    "#009E73",  # green
    "#CC79A7",  # purple
    "#D55E00",  # vermilion
    "#56B4E9",  # sky blue
    "#F0E442",  # yellow
    "#999999",  # grey
)
TARGET = "#009E73"
MISSED = "#D55E00"
FALSE = "#56B4E9"
PROBABILITY = "viridis"


def use_style() -> None:
    """Set matplotlib to the book's style; every notebook calls it once."""
    mpl.rcParams.update(
        {
            "figure.dpi": 110,
            "savefig.dpi": 130,
            "savefig.bbox": "tight",
            "figure.constrained_layout.use": True,
            "font.size": 9,
            "axes.titlesize": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.prop_cycle": mpl.rcsetup.cycler(color=COLOURS),
            "image.interpolation": "nearest",
            "svg.hashsalt": "pmms",  # the same figure gives the same file
            "svg.fonttype": "none",
        }
    )


FOLDER = "PMMS_FIGURES"
"""Environment variable that names another folder for figures than the book's."""


def save_figure(figure: Figure, label: str, *, folder: Path | str | None = None) -> Path:
    """Save a figure under its label: PNG where it shows pictures, else SVG.

    Args:
        figure: the figure.
        label: file stem, the same as the label in the text.
        folder: created if need be. None takes that of the environment variable ``PMMS_FIGURES``,
            which ``run_notebooks.py`` sets for runs with parameters of their own, else ``figures/``
            beside the notebooks' folder.

    Returns:
        The file's path.
    """
    folder = Path(folder or os.environ.get(FOLDER, "../figures"))
    folder.mkdir(parents=True, exist_ok=True)
    pictures = any(axes.images for axes in figure.axes)
    path = folder / f"{label}.{'png' if pictures else 'svg'}"
    # Without a date the same figure gives the same bytes.
    figure.savefig(path, metadata={"Software": None} if pictures else {"Date": None})
    if pictures:  # 256 colours are enough for the eye and a third of the bytes
        with Image.open(path) as full:
            small = full.convert("RGB").quantize(256)
        small.save(path, optimize=True)
    return path


def publish(figure: Figure, label: str, *, alt: str, folder: Path | str | None = None) -> None:
    """Save a figure under its label and show it in the notebook with a text for those who cannot
    see it.

    Args:
        figure: closed afterwards.
        label: file stem, see :func:`save_figure`.
        alt: what the figure shows, in a sentence.
        folder: see :func:`save_figure`.
    """
    from IPython.display import Image as Shown
    from IPython.display import display

    path = save_figure(figure, label, folder=folder)
    if path.suffix == ".png":
        display(Shown(data=path.read_bytes(), alt=alt))
    else:
        display(figure, metadata={"image/png": {"alt": alt}})
    plt.close(figure)


def picture(image: Tensor) -> np.ndarray:
    """(3, H, W), uint8 or float in [0, 1], to an array (H, W, 3) that matplotlib shows."""
    return image.permute(1, 2, 0).cpu().numpy()


def show(axes: Axes, image: Tensor, title: str = "") -> Axes:
    """Draw a picture without ticks."""
    axes.imshow(picture(image))
    return _bare(axes, title)


def outline(axes: Axes, mask: Tensor | np.ndarray, *, colour: str = TARGET) -> Axes:
    """Draw a mask (H, W) as a tint with a border."""
    inside = np.asarray(mask) == 1
    tint = np.zeros((*inside.shape, 4))
    tint[inside] = (*mpl.colors.to_rgb(colour), 0.35)
    axes.imshow(tint)
    if inside.any() and not inside.all():
        axes.contour(inside, levels=[0.5], colors=[colour], linewidths=1.2)
    return axes


def show_errors(
    axes: Axes, image: Tensor, prediction: Tensor, target: Tensor, title: str = ""
) -> Axes:
    """Draw a prediction (H, W) against its target (H, W; 255 void), over the picture in grey.

    Green is right, vermilion is missed, blue is false; void is left clear.
    """
    # In colours of its own a picture would be taken for right, missed or false.
    white = 255 if image.dtype == torch.uint8 else 1
    axes.imshow(picture(image).mean(axis=-1), cmap="gray", vmin=0, vmax=white)
    _bare(axes, title)
    predicted, true = np.asarray(prediction) == 1, np.asarray(target) == 1
    known = np.asarray(target) != 255
    for region, colour in (
        (predicted & true, TARGET),
        (~predicted & true, MISSED),
        (predicted & ~true & known, FALSE),
    ):
        tint = np.zeros((*region.shape, 4))
        tint[region] = (*mpl.colors.to_rgb(colour), 0.55)
        axes.imshow(tint)
    return axes


def show_probability(axes: Axes, probability: Tensor, title: str = "") -> Any:
    """Draw a probability map (h, w) from 0 to 1; returns the image, for a colour bar."""
    drawn = axes.imshow(probability.cpu().numpy(), vmin=0, vmax=1, cmap=PROBABILITY)
    _bare(axes, title)
    return drawn


def show_assignment(axes: Axes, image: Tensor, resp: Tensor, mask: Tensor, title: str = "") -> Axes:
    """Draw which prototype each position belongs to most.

    Args:
        axes: where.
        image: (3, H, W).
        resp: (K, h, w) responsibilities.
        mask: (h, w), positions to draw where above one half.
        title: of the axes.
    """
    show(axes, image, title)
    owner, inside = resp.argmax(dim=0).cpu().numpy(), mask.cpu().numpy() > 0.5
    tint = np.zeros((*owner.shape, 4))
    for k in range(resp.shape[0]):
        tint[inside & (owner == k)] = (*mpl.colors.to_rgb(COLOURS[k % len(COLOURS)]), 0.65)
    height, width = image.shape[1:]
    axes.imshow(tint, extent=(-0.5, width - 0.5, height - 0.5, -0.5))
    return axes


def grid(rows: int, columns: int, *, size: float = 1.6) -> tuple[Figure, np.ndarray]:
    """A figure of rows x columns square pictures, ``size`` inches each."""
    figure, axes = plt.subplots(
        rows, columns, figsize=(columns * size, rows * (size + 0.22)), squeeze=False
    )
    return figure, axes


def show_loss(axes: Axes, points: Sequence[tuple[int, float]], *, label: str = "") -> Axes:
    """Draw a training log: rows that start with step and loss."""
    steps, losses = [p[0] for p in points], [p[1] for p in points]
    axes.plot(steps, losses, label=label or None)
    axes.set_xlabel("training step")
    axes.set_ylabel("cross-entropy (nats per pixel)")
    return axes


def _bare(axes: Axes, title: str) -> Axes:
    axes.set_axis_off()
    axes.set_title(title)
    return axes
