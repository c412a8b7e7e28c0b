"""Properties of mixtures and heads that hold for all numbers; precision; gradients in float64."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from fakes import tiny_model
from hypothesis import given
from hypothesis import strategies as st
from searching import examples
from torch import Tensor, nn

from pmms.batch_parts import PartInTurn, as_parts
from pmms.densities import KERNELS
from pmms.heads import PConv
from pmms.mixture import fit_mixture, log_likelihood, responsibilities, weighted_means
from pmms.model_config import MODELS
from pmms.models import upsample
from pmms.prototypes import Samples, partition_samples
from pmms.training import segmentation_loss


def unit_samples(seed: int, n: int, c: int) -> Tensor:
    """Unit vectors in float64, (1, N, C), some of them alike."""
    rng = np.random.default_rng(seed)
    centres = 2 * rng.standard_normal((1, 3, c))
    samples = rng.standard_normal((1, n, c)) + centres[:, rng.integers(3, size=n)]
    return torch.from_numpy(samples / np.linalg.norm(samples, axis=2, keepdims=True))


SIZES: dict[str, Any] = {
    "seed": st.integers(0, 2**32 - 1),
    "n": st.integers(1, 40),
    "c": st.integers(2, 24),
    "k": st.integers(1, 6),
    "kernel": st.sampled_from(KERNELS),
}


# mixtures


@examples(40)
@given(**SIZES, scale=st.floats(1e-6, 1e6), kappa=st.floats(0.1, 100))
def test_the_unit_of_the_weights_does_not_matter(
    seed: int, n: int, c: int, k: int, kernel: Any, scale: float, kappa: float
) -> None:
    samples, weights = unit_samples(seed, n, c), torch.rand(1, n).double() + 0.01
    start = samples[:, :1].expand(1, k, c) + 0.5 * torch.randn(1, k, c).double()
    one, other = (
        fit_mixture(samples, w, k=k, kernel=kernel, kappa=kappa, init=start, n_iter=4)
        for w in (weights, scale * weights)
    )
    torch.testing.assert_close(one.means, other.means, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(scale * one.log_likelihood, other.log_likelihood)


@examples(40)
@given(**SIZES, kappa=st.floats(0.1, 100))
def test_means_lie_among_their_samples(
    seed: int, n: int, c: int, k: int, kernel: Any, kappa: float
) -> None:
    """A weighted mean of unit vectors is no longer than one; shares add up to one."""
    fitted = fit_mixture(
        unit_samples(seed, n, c), k=k, kernel=kernel, kappa=kappa, init="kmeans++",
        generator=torch.Generator().manual_seed(seed % 2**31),
    )  # fmt: skip
    assert fitted.means.norm(dim=2).max() <= 1 + 1e-12
    assert (fitted.resp >= 0).all()
    assert fitted.resp.sum(dim=2).sub(1).abs().max() < 1e-12


@examples(40)
@given(**SIZES, kappa=st.floats(0.1, 100))
def test_log_likelihood_is_that_of_the_fit(
    seed: int, n: int, c: int, k: int, kernel: Any, kappa: float
) -> None:
    samples = unit_samples(seed, n, c)
    options: dict[str, Any] = {"kernel": kernel, "kappa": kappa}
    fitted = fit_mixture(samples, k=k, init="kmeans++", n_iter=3, **options)
    again = log_likelihood(samples, fitted.means, **options)
    torch.testing.assert_close(again, fitted.log_likelihood[:, -1])
    torch.testing.assert_close(responsibilities(samples, fitted.means, **options), fitted.resp)


@examples(40)
@given(seed=SIZES["seed"], n=SIZES["n"], c=SIZES["c"])
def test_one_prototype_is_masked_average_pooling(seed: int, n: int, c: int) -> None:
    samples = unit_samples(seed, n, c)
    mask = torch.rand(1, n).double() + 0.01
    pooled = (samples * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
    torch.testing.assert_close(fit_mixture(samples, mask, k=1).means[:, 0], pooled)
    torch.testing.assert_close(weighted_means(samples, mask.new_ones(1, n, 1), mask)[:, 0], pooled)


# precision: EM in float32 and on samples of bfloat16, against float64


@examples(60)
@given(**SIZES, kappa=st.floats(0.1, 100))
def test_the_e_step_in_float32(
    seed: int, n: int, c: int, k: int, kernel: Any, kappa: float
) -> None:
    """Scores are off by some rounding errors of kappa; shares by no more than that."""
    samples = unit_samples(seed, n, c)
    means = unit_samples(seed + 1, k, c)
    exact = responsibilities(samples, means, kernel=kernel, kappa=kappa)
    single = responsibilities(samples.float(), means.float(), kernel=kernel, kappa=kappa)
    assert (single - exact).abs().max() < 4e-7 * (1 + kappa)


@examples(60)
@given(**SIZES, kappa=st.floats(0.1, 100))
def test_em_in_float32_fits_as_well(
    seed: int, n: int, c: int, k: int, kernel: Any, kappa: float
) -> None:
    """In nats per sample, after ten iterations, judged in float64."""
    samples = unit_samples(seed, n, c)
    options: dict[str, Any] = {"kernel": kernel, "kappa": kappa}
    start = unit_samples(seed + 1, k, c)
    exact = fit_mixture(samples, k=k, init=start, **options)
    single = fit_mixture(samples.float(), k=k, init=start.float(), **options)
    reached = log_likelihood(samples, single.means.double(), **options)
    assert (reached - exact.log_likelihood[:, -1]).abs().max() / n < 1e-3


@examples(60)
@given(**SIZES, kappa=st.floats(0.1, 100))
def test_the_e_step_on_bfloat16_samples(
    seed: int, n: int, c: int, k: int, kernel: Any, kappa: float
) -> None:
    """Each entry of a sample is off by 2^-9 of itself, the cosine by no more; kappa multiplies."""
    samples, means = unit_samples(seed, n, c), unit_samples(seed + 1, k, c)
    exact = responsibilities(samples, means, kernel="vmf", kappa=kappa)
    half = responsibilities(samples.bfloat16().double(), means, kernel="vmf", kappa=kappa)
    assert (half - exact).abs().max() <= kappa * 2**-9


# heads


@examples(40)
@given(
    seed=st.integers(0, 10_000), k=st.integers(1, 8), h=st.integers(1, 7), w=st.integers(1, 7),
    kappa=st.one_of(st.none(), st.floats(0.1, 50)),
)  # fmt: skip
def test_p_conv_against_plain_loops(seed: int, k: int, h: int, w: int, kappa: float | None) -> None:
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(1, 5, h, w, generator=generator).double()
    plus, minus = (torch.randn(1, k, 5, generator=generator).double() for _ in range(2))
    got = PConv(kappa=kappa)(query, plus, minus)
    for y in range(h):
        for x in range(w):
            q = query[0, :, y, x]
            q = q if kappa is None else kappa * q / q.norm()
            scores = [math.exp(float(p / p.norm() @ q)) for p in (*plus[0], *minus[0])]
            expected = sum(scores[:k]) / sum(scores)
            assert got[0, 1, y, x].item() == pytest.approx(expected, rel=1e-9, abs=1e-12)
            assert got[0, :, y, x].sum().item() == pytest.approx(1, abs=1e-12)


# gradients in float64 of every operation of our own; those of EM, PMatch stand beside them


def leaf(*shape: int, seed: int = 0) -> Tensor:
    return (
        torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double().requires_grad_()
    )


@pytest.mark.parametrize("kappa", [None, 3.0])
def test_gradient_of_p_conv(kappa: float | None) -> None:
    inputs = leaf(2, 3, 2, 2), leaf(2, 2, 3, seed=1), leaf(2, 3, 3, seed=2)
    assert torch.autograd.gradcheck(PConv(kappa=kappa), inputs)


@pytest.mark.parametrize("how", ["weights", "product"])
def test_gradient_of_the_partition(how: Any) -> None:
    mask = torch.rand(1, 2, 1, 6, 6, generator=torch.Generator().manual_seed(0)).double()

    def features(x: Tensor) -> tuple[Tensor, ...]:
        return tuple(side.features for side in partition_samples(x, mask, how=how))

    assert torch.autograd.gradcheck(features, leaf(1, 2, 3, 2, 2))


def test_gradient_of_the_samples_weights() -> None:
    resp = torch.rand(1, 4, 2).double().softmax(dim=2)
    samples = Samples(leaf(1, 4, 3), torch.rand(1, 4).double().requires_grad_())
    assert samples.weights is not None
    assert torch.autograd.gradcheck(
        lambda x, w: weighted_means(x, resp, w), (samples.features, samples.weights)
    )


def test_gradient_of_upsampling_and_loss() -> None:
    target = torch.tensor([[[0, 1, 255], [1, 1, 0], [255, 0, 1]]])

    def loss(logits: Tensor) -> Tensor:
        upsampled = nn.functional.interpolate(logits, (3, 3), mode="bilinear", align_corners=True)
        return nn.functional.cross_entropy(upsampled, target, ignore_index=255)

    logits = leaf(1, 2, 2, 2)
    model = tiny_model("baseline")
    prediction = model.segment(
        *(torch.rand(s) for s in ((1, 1, 12, 2, 2), (1, 1, 1, 2, 2), (1, 12, 2, 2)))
    )
    ours = segmentation_loss(prediction._replace(stages=(logits,)), target)
    (got,) = torch.autograd.grad(ours, logits)
    (expected,) = torch.autograd.grad(loss(logits), logits)
    assert upsample(logits, (3, 3)).shape == (1, 2, 3, 3)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-7)


def test_gradient_of_batch_normalisation_over_processes() -> None:
    """One process that hears its own sums twice is a batch of two equal halves."""
    norm = nn.BatchNorm2d(3).double().train()
    inputs = leaf(2, 3, 2, 2)
    with as_parts(norm, PartInTurn(), total=torch.clone):
        assert torch.autograd.gradcheck(lambda x: norm(x), inputs)


@pytest.mark.parametrize("name", MODELS)
def test_gradient_of_a_whole_network(name: str) -> None:
    k = {"baseline": 1, "no_support": 1, "rpmms": (2, 2, 2)}.get(name, 2)
    model = tiny_model(name, gradient="em", em_iterations=2, k=k).double().eval()
    mask = torch.tensor([[1.0, 0.0], [0.3, 0.0]]).double().view(1, 1, 1, 2, 2)

    def logits(support: Tensor, query: Tensor) -> tuple[Tensor, ...]:
        return model.segment(support, mask, query).stages

    assert torch.autograd.gradcheck(logits, (leaf(1, 1, 12, 2, 2), leaf(1, 12, 2, 2, seed=1)))
