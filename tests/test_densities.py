"""The normaliser of the vMF density against mpmath and a closed form."""

import math

import mpmath
import pytest
import torch

from pmms.densities import log_normaliser

KAPPAS = (0.01, 0.3, 1.0, 20.0, 500.0, 1e4)


@pytest.mark.parametrize("channels", [2, 3, 4, 5, 16, 152, 256, 1001, 2048])
def test_log_normaliser_equals_mpmath(channels: int) -> None:
    with mpmath.workdps(30):
        for kappa in KAPPAS:
            order = mpmath.mpf(channels) / 2 - 1
            bessel = mpmath.besseli(order, kappa, maxterms=10**6)
            expected = float(
                order * mpmath.log(kappa)
                - (order + 1) * mpmath.log(2 * mpmath.pi)
                - mpmath.log(bessel)
            )
            # Both are differences of numbers of up to 1e5, known to 16 digits.
            got = log_normaliser("vmf", kappa, channels)
            assert got == pytest.approx(expected, rel=1e-13, abs=1e-12)


@pytest.mark.parametrize("kappa", KAPPAS)
def test_log_normaliser_in_three_dimensions(kappa: float) -> None:
    # kappa / (4 pi sinh kappa), with log sinh kappa = kappa + log((1 - exp(-2 kappa)) / 2)
    log_sinh = kappa + math.log(-math.expm1(-2 * kappa) / 2)
    expected = math.log(kappa / (4 * math.pi)) - log_sinh
    assert log_normaliser("vmf", kappa, 3) == pytest.approx(expected, rel=1e-13, abs=1e-12)


@pytest.mark.parametrize("channels", [1, 2, 152])
@pytest.mark.parametrize("kappa", [0.01, 1.0, 20.0])
def test_gaussian_normaliser(channels: int, kappa: float) -> None:
    mean = torch.zeros(channels).double()
    density = torch.distributions.MultivariateNormal(mean, torch.eye(channels).double() / kappa)
    expected = density.log_prob(mean).item()
    assert log_normaliser("gaussian", kappa, channels) == pytest.approx(expected, rel=1e-12)
