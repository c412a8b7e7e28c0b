"""Differences drawn: a dot for each, coloured by fold, their mean with its interval."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from pmms.claims import Finding
from pmms.figures import COLOURS
from pmms.rendering import NOT_RUN

WIDTH = 0.5
"""Of a row's dots, of the distance between rows."""


def show_differences(
    axes: Axes, findings: Sequence[Finding], *, label: str = "difference, mIoU"
) -> Axes:
    """Draw findings below each other, the first at the top.

    A dot is one difference, in the colour of its fold; the black mark is the mean, with its 95 %
    interval; the hollow diamond is the paper's difference. A row without runs says so.

    Args:
        axes: where.
        findings: rows; their claims' texts are the labels.
        label: of the horizontal axis.
    """
    axes.axvline(0, color="0.3", linewidth=0.8)
    shown = sorted({fold for found in findings for fold in found.values})
    for row, found in enumerate(findings):
        for fold, values in found.values.items():
            # Folds stand in lanes above each other, so that dots do not cover each other.
            lane = WIDTH * (found.folds.index(fold) / max(1, len(found.folds) - 1) - 0.5)
            axes.plot(
                values, np.full(len(values), row + lane), "o", markersize=3.5, alpha=0.7,
                color=COLOURS[fold % len(COLOURS)], markeredgewidth=0,
            )  # fmt: skip
        if found.mean is None:
            axes.annotate(NOT_RUN, (0, row), (4, 0), textcoords="offset points", va="center")
        else:
            low, high = found.interval or (found.mean, found.mean)
            axes.plot([low, high], [row, row], color="black", linewidth=1.2)
            axes.plot(found.mean, row, "|", color="black", markersize=12, markeredgewidth=2)
        if found.paper is not None:
            axes.plot(found.paper, row, "D", color="black", markersize=5, markerfacecolor="none")
    if not shown and all(found.paper is None for found in findings):
        axes.set_xlim(-1, 1)  # nothing is drawn
    for fold in shown:
        axes.plot([], [], "o", color=COLOURS[fold % len(COLOURS)], label=f"fold {fold}")
    axes.plot([], [], "|-", color="black", label="mean, 95 % interval")
    if any(found.paper is not None for found in findings):
        axes.plot([], [], "D", color="black", markerfacecolor="none", label="paper")
    axes.set_yticks(range(len(findings)), [found.claim.text for found in findings])
    axes.set_ylim(len(findings) - 0.5, -0.5)
    axes.set_xlabel(label)
    return axes
