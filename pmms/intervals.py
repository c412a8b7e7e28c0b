"""95 % intervals of means."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from scipy import stats

CONFIDENCE = 0.95
LEAST = 3
"""Values that an interval of a mean takes: with two it is 13 times as wide as they lie apart."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A 95 % interval: its ends, what it is over, and how many of them."""

    low: float
    high: float
    over: Literal["seeds", "episodes", "pairs"]
    count: int


def t_interval(values: Sequence[float], *, over: Literal["seeds", "pairs"]) -> Interval:
    """The t interval of the mean of some values.

    Raises:
        ValueError: for fewer than ``LEAST`` values.
    """
    if len(values) < LEAST:
        raise ValueError(f"an interval needs {LEAST} values at least, got {len(values)}")
    mean = statistics.fmean(values)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * stats.sem(values))
    return Interval(low=mean - half, high=mean + half, over=over, count=len(values))


def mean_interval(mean: float, parts: Sequence[tuple[float, float]]) -> Interval:
    """The interval of a mean of independent parts, each with its own 95 % interval over episodes.

    The parts' intervals are taken as normal: their half widths add up in squares.
    """
    half = math.sqrt(sum(((high - low) / 2) ** 2 for low, high in parts)) / len(parts)
    return Interval(low=mean - half, high=mean + half, over="episodes", count=len(parts))
