"""How many differences it takes to see one of a given size."""

import math

from scipy import stats

from pmms.intervals import CONFIDENCE, LEAST


def pairs_needed(spread: float, *, resolve: float, power: float = 0.8) -> int:
    """How many differences it takes for an interval that leaves zero out; ``LEAST`` at the least.

    Args:
        spread: standard deviation of the differences.
        resolve: their true mean.
        power: probability with which the 95 % t interval is to lie above zero.

    Raises:
        ValueError: unless spread and resolve are positive and power is between 0 and 1.
    """
    if spread <= 0 or resolve <= 0 or not 0 < power < 1:
        raise ValueError(
            "spread and resolve must be positive and power between 0 and 1, got "
            f"{spread}, {resolve} and {power}"
        )
    tail = (1 + CONFIDENCE) / 2
    # With a known spread; t distributions ask for more, never for less.
    known = (stats.norm.ppf(tail) + stats.norm.ppf(power)) * spread / resolve
    count = max(LEAST, math.ceil(known**2))
    while _power(count, resolve / spread, tail) < power:
        count += 1
    return count


def _power(count: int, effect: float, tail: float) -> float:
    """Probability that the t interval of so many differences lies above zero."""
    free = count - 1
    return float(stats.nct.sf(stats.t.ppf(tail, free), free, effect * math.sqrt(count)))
