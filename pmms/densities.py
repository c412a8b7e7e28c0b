"""Densities of the mixture's components and their normalisers (Eqs. 2 and 3)."""

import math
from functools import lru_cache
from typing import Literal

Kernel = Literal["vmf", "gaussian"]
KERNELS = ("vmf", "gaussian")


@lru_cache
def log_normaliser(kernel: Kernel, kappa: float, channels: int) -> float:
    """Logarithm of the normalisation constant beta of Eq. 2, in nats.

    For the vMF kernel (Eq. 3) it is ``(C/2 - 1) log kappa - C/2 log(2 pi) - log I_{C/2-1}(kappa)``,
    accurate for C from 2 to 2048 and kappa from 0.01 to 10,000; for the Gaussian one
    ``C/2 log(kappa / 2 pi)``.
    """
    if kernel == "gaussian":
        return channels / 2 * math.log(kappa / (2 * math.pi))
    order = channels / 2 - 1
    return (
        order * math.log(kappa) - channels / 2 * math.log(2 * math.pi) - _log_bessel_i(order, kappa)
    )


def _log_bessel_i(order: float, x: float) -> float:
    """log I_order(x) for x > 0, order >= 0, from the power series, whose terms are all positive.

    The terms grow up to index (sqrt(order^2 + x^2) - order) / 2 and then fall like a Gaussian of
    about that variance, so a few hundred beyond the peak are enough for float64.
    """
    peak = (math.hypot(order, x) - order) / 2
    terms = [
        (2 * m + order) * math.log(x / 2) - math.lgamma(m + 1) - math.lgamma(m + order + 1)
        for m in range(int(peak + 40 * math.sqrt(peak + 1) + 40))
    ]
    largest = max(terms)
    return largest + math.log(math.fsum(math.exp(term - largest) for term in terms))
