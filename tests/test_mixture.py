"""EM: its guarantees and symmetries, other implementations, kappa, edges."""

import math
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment, minimize_scalar
from scipy.stats import multivariate_normal, ortho_group, vonmises_fisher
from searching import examples
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import Tensor

from pmms.densities import KERNELS, log_normaliser
from pmms.mixture import (
    Mixture,
    estimate_kappa,
    fit_mixture,
    log_likelihood,
    responsibilities,
    weighted_means,
)
from pmms.seeding import kmeans_plus_plus, random_directions, random_uniforms

GOLDEN = Path(__file__).parent / "golden" / "em_pconv.npz"
PROPERTY = examples(40)


@pytest.fixture(autouse=True)
def _same_draws_every_time() -> None:
    torch.manual_seed(0)


def _seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Problem(NamedTuple):
    """Everything that ``fit_mixture`` takes; ``start`` is a set of means (1, K, C)."""

    samples: Tensor
    weights: Tensor
    start: Tensor
    kernel: str
    kappa: float

    def fit(self, **changes) -> Mixture:
        given = dict(
            samples=self.samples,
            weights=self.weights,
            k=self.start.shape[1],
            kernel=self.kernel,
            kappa=self.kappa,
            n_iter=6,
            init=self.start,
        )
        return fit_mixture(**given | changes)


@st.composite
def problems(draw: st.DrawFn, kappas: tuple[float, float] = (0.01, 1e4)) -> Problem:
    """Random mixtures in float64; for the vMF kernel on the unit sphere, as the density is."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1), label="seed"))
    kernel = draw(st.sampled_from(KERNELS), label="kernel")
    k, n = draw(st.integers(1, 6), label="k"), draw(st.integers(1, 30), label="n")
    c = draw(st.integers(2, 12), label="c")
    shape = draw(st.sampled_from(["noise", "clusters", "few distinct", "nearly opposite"]))
    low, high = np.log(kappas)
    kappa = math.exp(draw(st.floats(low, high), label="log kappa"))

    samples = rng.standard_normal((2, n, c))
    if shape == "clusters":
        samples = 5 * rng.standard_normal((2, 3, c))[:, rng.integers(3, size=n)] + samples
    elif shape == "few distinct":
        samples = samples[:, rng.integers(min(n, 3), size=n)]
    elif shape == "nearly opposite":
        signs = rng.choice([-1, 1], size=(2, n, 1))
        samples = signs * samples[:, :1] + 1e-6 * samples
    if kernel == "vmf":
        samples /= np.linalg.norm(samples, axis=2, keepdims=True)
    weights = rng.random((2, n)) * (rng.random((2, n)) < 0.7)
    weights[:, rng.integers(n)] = 1
    start = rng.standard_normal((1, k, c))
    return Problem(*map(torch.from_numpy, (samples, weights, start)), kernel, kappa)


def clusters(
    kernel: str, *, k: int, c: int, kappa: float, n: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Samples (1, n k, c) of a mixture, exact, and its means (k, c), at right angles."""
    rng = np.random.default_rng(seed)
    means = ortho_group.rvs(c, random_state=rng)[:k]
    if kernel == "vmf":
        parts = [vonmises_fisher(m, kappa).rvs(n, random_state=rng) for m in means]
    else:
        parts = [rng.normal(m, kappa**-0.5, (n, c)) for m in means]
    return torch.from_numpy(np.concatenate(parts))[None], torch.from_numpy(means)


def plain_em(
    samples: np.ndarray, weights: np.ndarray, means: np.ndarray, kernel: str, kappa: float, n: int
) -> tuple[np.ndarray, float]:
    """Eqs. 4 and 5 for one mixture, a sample and a prototype at a time.

    Returns the means and the smallest share of the weight that any prototype ever had.
    """
    smallest = 1.0
    for _ in range(n):
        sums, totals = np.zeros_like(means), np.zeros(len(means))
        for s, w in zip(samples, weights, strict=True):
            if kernel == "vmf":
                logs = np.array([kappa * (m / np.linalg.norm(m)) @ s for m in means])
            else:
                logs = np.array([-kappa / 2 * ((s - m) ** 2).sum() for m in means])
            resp = np.exp(logs - logs.max())
            resp /= resp.sum()
            for j in range(len(means)):
                sums[j] += w * resp[j] * s
                totals[j] += w * resp[j]
        means = sums / totals[:, None]
        smallest = min(smallest, totals.min() / weights.sum())
    return means, smallest


# --- What EM guarantees ---------------------------------------------------------------------------


@PROPERTY
@given(problem=problems(), init=st.sampled_from(["given", "random", "kmeans++"]))
def test_likelihood_never_falls(problem: Problem, init: str) -> None:
    start = problem.start if init == "given" else init
    mixture = problem.fit(init=start, n_iter=12, generator=_seeded())
    # Rounding: a log-density is a sum of terms as large as kappa |s|^2 and the normaliser, each
    # exact to 1e-16 of itself, some ten operations deep. Re-seeding: a prototype counts as empty
    # below 1e-12 of the weight, so that much may lose the whole range of the scores.
    longest = problem.samples.square().sum(dim=2).amax(dim=1).clamp(min=1)
    scale = 4 * problem.kappa * longest
    scale += abs(log_normaliser(problem.kernel, problem.kappa, problem.samples.shape[2]))
    tolerance = 3e-12 * problem.weights.sum(dim=1) * scale
    assert (mixture.log_likelihood.diff(dim=1) >= -tolerance[:, None]).all()


def test_likelihood_never_falls_when_samples_cancel() -> None:
    """Two samples that are opposite but for 1e-6: their mean is far shorter than any feature."""
    angle = 1e-6
    samples = torch.tensor([[[1.0, 0.0], [-math.cos(angle), math.sin(angle)]]]).double()
    start = torch.tensor([[[0.0, 1.0]]]).double()
    history = fit_mixture(samples, k=1, kappa=1e4, init=start, n_iter=3).log_likelihood
    assert (history.diff() >= -1e-8).all()  # 2e4 nats a sample, rounded


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("k, c", [(1, 3), (3, 8), (5, 16)])
def test_known_means_come_back(kernel: str, k: int, c: int) -> None:
    kappa, n = 100.0, 300
    samples, truth = clusters(kernel, k=k, c=c, kappa=kappa, n=n, seed=k)
    fits = [
        fit_mixture(
            samples, k=k, kernel=kernel, kappa=kappa, init="kmeans++", n_iter=30, generator=g
        )
        for g in map(_seeded, range(5))
    ]
    best = max(fits, key=lambda fit: fit.log_likelihood[0, -1])
    assert best.converged.all()
    means = best.means[0] if kernel == "gaussian" else F.normalize(best.means[0], dim=1)
    distance = torch.cdist(means, truth).numpy()
    rows, columns = linear_sum_assignment(distance)
    # A mean of n samples is off by sqrt(c / (n kappa)) or so.
    assert distance[rows, columns].max() < 3 * math.sqrt(c / (n * kappa))
    shares = best.resp[0].mean(dim=0)
    torch.testing.assert_close(shares, torch.full_like(shares, 1 / k), atol=0.01, rtol=0)


@PROPERTY
@given(problem=problems())
def test_fields_of_the_result_agree(problem: Problem) -> None:
    b, n, c = problem.samples.shape
    k = problem.start.shape[1]
    mixture = problem.fit(n_iter=4)
    assert mixture.means.shape == (b, k, c)
    assert mixture.resp.shape == (b, n, k)
    assert mixture.log_likelihood.shape == (b, 5)
    assert mixture.n_iter == 4
    kernel = dict(kernel=problem.kernel, kappa=problem.kappa)
    torch.testing.assert_close(mixture.resp.sum(dim=2), torch.ones(b, n).double())
    torch.testing.assert_close(
        mixture.resp, responsibilities(problem.samples, mixture.means, **kernel)
    )
    torch.testing.assert_close(
        mixture.log_likelihood[:, -1],
        log_likelihood(problem.samples, mixture.means, problem.weights, **kernel),
    )
    gain = mixture.log_likelihood[:, -1] - mixture.log_likelihood[:, -2]
    assert mixture.converged.tolist() == (gain < 1e-4 * problem.weights.sum(dim=1)).tolist()


def test_without_iterations_the_start_is_returned() -> None:
    samples, start = torch.randn(1, 20_000, 3), torch.randn(1, 2, 3)
    mixture = fit_mixture(samples, k=2, init=start, n_iter=0)
    assert torch.equal(mixture.means, start)
    assert mixture.log_likelihood.shape == (1, 1)
    assert not mixture.converged.any()


# --- Symmetries -----------------------------------------------------------------------------------
# Where the posterior is all but hard, or a prototype without samples moves to the worst of them,
# rounding may decide a tie. A moderate kappa keeps the one soft; the other is tested by itself.

SYMMETRIC = problems(kappas=(0.1, 50.0))


def assume_no_prototype_moves(problem: Problem, init: str | Tensor) -> None:
    generator = _seeded()
    for _ in range(6):
        mixture = problem.fit(init=init, generator=generator, n_iter=0)
        share = (mixture.resp * problem.weights.unsqueeze(2)).sum(dim=1)
        assume((share > 1e-11 * problem.weights.sum(dim=1, keepdim=True)).all())
        init = weighted_means(problem.samples, mixture.resp, problem.weights)


@PROPERTY
@given(problem=SYMMETRIC, seed=st.integers(0, 1000))
def test_order_of_samples_does_not_matter(problem: Problem, seed: int) -> None:
    assume_no_prototype_moves(problem, problem.start)
    n = problem.samples.shape[1]
    order = torch.randperm(n, generator=_seeded(seed))
    one = problem.fit()
    other = problem.fit(samples=problem.samples[:, order], weights=problem.weights[:, order])
    torch.testing.assert_close(other.means, one.means)
    torch.testing.assert_close(other.resp, one.resp[:, order])
    torch.testing.assert_close(other.log_likelihood, one.log_likelihood)


@PROPERTY
@given(problem=SYMMETRIC, seed=st.integers(0, 1000), init=st.sampled_from(["given", "kmeans++"]))
def test_means_turn_with_the_samples(problem: Problem, seed: int, init: str) -> None:
    turn = torch.from_numpy(ortho_group.rvs(problem.samples.shape[2], random_state=seed))
    starts = [problem.start, problem.start @ turn] if init == "given" else ["kmeans++"] * 2
    assume_no_prototype_moves(problem, starts[0])
    one, other = (
        problem.fit(samples=samples, init=start, generator=_seeded(seed))
        for samples, start in zip((problem.samples, problem.samples @ turn), starts, strict=True)
    )
    torch.testing.assert_close(other.means, one.means @ turn)
    torch.testing.assert_close(other.log_likelihood, one.log_likelihood)


@PROPERTY
@given(problem=SYMMETRIC, init=st.sampled_from(["given", "kmeans++"]))
def test_weight_two_is_two_samples(problem: Problem, init: str) -> None:
    start = problem.start if init == "given" else init
    assume_no_prototype_moves(problem, start)
    twice = problem.samples.repeat_interleave(2, dim=1)
    halves = (problem.weights / 2).repeat_interleave(2, dim=1)
    one = problem.fit(init=start, generator=_seeded())
    other = problem.fit(samples=twice, weights=halves, init=start, generator=_seeded())
    torch.testing.assert_close(other.means, one.means)
    torch.testing.assert_close(other.log_likelihood, one.log_likelihood)


@PROPERTY
@given(problem=SYMMETRIC, init=st.sampled_from(["given", "kmeans++"]))
def test_samples_of_weight_zero_have_no_influence(problem: Problem, init: str) -> None:
    start = problem.start if init == "given" else init
    assume_no_prototype_moves(problem, start)
    outliers = -3 * problem.samples.flip(2)
    with_outliers = problem.fit(
        samples=torch.cat([outliers, problem.samples, outliers], dim=1),
        weights=F.pad(problem.weights, (outliers.shape[1], outliers.shape[1])),
        init=start,
        generator=_seeded(),
        n_iter=3,
    )
    without = problem.fit(init=start, generator=_seeded(), n_iter=3)
    torch.testing.assert_close(with_outliers.means, without.means)
    torch.testing.assert_close(with_outliers.log_likelihood, without.log_likelihood)


@PROPERTY
@given(problem=SYMMETRIC, init=st.sampled_from(["given", "random", "kmeans++"]))
def test_batch_elements_do_not_see_each_other(problem: Problem, init: str) -> None:
    start = problem.start if init == "given" else init
    assume_no_prototype_moves(problem, start)
    together = problem.fit(init=start, generator=_seeded())
    for b in range(2):
        alone = problem.fit(
            samples=problem.samples[b : b + 1],
            weights=problem.weights[b : b + 1],
            init=start,
            generator=_seeded(),
        )
        torch.testing.assert_close(alone.means[0], together.means[b])
        torch.testing.assert_close(alone.log_likelihood[0], together.log_likelihood[b])


def test_missing_weights_are_ones() -> None:
    samples = torch.randn(2, 9, 4)
    ones = fit_mixture(samples, torch.ones(2, 9), k=2, init="kmeans++", generator=_seeded())
    none = fit_mixture(samples, k=2, init="kmeans++", generator=_seeded())
    assert torch.equal(ones.means, none.means)


def test_on_the_sphere_both_kernels_agree() -> None:
    """|s - m|^2 = 2 - 2 <m, s> for unit vectors: see the table in the module's docstring."""
    samples = F.normalize(torch.randn(1, 30, 5).double(), dim=2)
    means = random_directions(3, 5, generator=_seeded()).double()
    vmf, gaussian = (
        responsibilities(samples, F.normalize(means, dim=2), kernel=kernel, kappa=7.0)
        for kernel in KERNELS
    )
    torch.testing.assert_close(vmf, gaussian)


# --- Other implementations ------------------------------------------------------------------------


@PROPERTY
@given(problem=problems(kappas=(0.1, 30.0)))
def test_equals_em_written_with_loops(problem: Problem) -> None:
    means = problem.fit(n_iter=3).means
    for b in range(2):
        plain, smallest = plain_em(
            problem.samples[b].numpy(),
            problem.weights[b].numpy(),
            problem.start[0].numpy(),
            problem.kernel,
            problem.kappa,
            3,
        )
        assume(smallest > 1e-11)  # no prototype was moved for want of samples
        torch.testing.assert_close(means[b], torch.from_numpy(plain), rtol=1e-8, atol=1e-9)


def test_first_iteration_equals_scikit_learn_gaussian_mixture() -> None:
    """The first E-step and the M-step of the means are the same; from the second iteration on,
    scikit-learn's covariances and mixing weights move while ours stay, so nothing else is."""
    rng = np.random.default_rng(0)
    x, start, kappa = rng.standard_normal((80, 4)), rng.standard_normal((3, 4)), 2.5
    given = dict(
        covariance_type="spherical",
        weights_init=np.full(3, 1 / 3),
        means_init=start,
        precisions_init=np.full(3, kappa),
        reg_covar=0,
    )
    with pytest.warns(ConvergenceWarning):
        theirs = GaussianMixture(3, **given, max_iter=1).fit(x)
    samples, means = torch.from_numpy(x)[None], torch.from_numpy(start)[None]
    ours = fit_mixture(samples, k=3, kernel="gaussian", kappa=kappa, init=means, n_iter=1)
    torch.testing.assert_close(ours.means[0], torch.from_numpy(theirs.means_))
    # Their E-step with the covariances and mixing weights put back.
    theirs.weights_, theirs.precisions_cholesky_ = given["weights_init"], np.full(3, kappa**0.5)
    torch.testing.assert_close(ours.resp[0], torch.from_numpy(theirs.predict_proba(x)))
    torch.testing.assert_close(
        ours.log_likelihood[0, -1].item(), float(theirs.score_samples(x).sum())
    )


def test_large_kappa_equals_scikit_learn_kmeans() -> None:
    """A Gaussian mixture of vanishing variance gives each sample to its nearest mean: k-means."""
    rng = np.random.default_rng(3)
    x, weights = rng.standard_normal((200, 3)), rng.random(200)
    start = x[:4]
    theirs = KMeans(4, init=start, n_init=1, tol=0).fit(x, sample_weight=weights)
    ours = fit_mixture(
        torch.from_numpy(x)[None],
        torch.from_numpy(weights)[None],
        k=4,
        kernel="gaussian",
        kappa=1e6,
        init=torch.from_numpy(start)[None],
        n_iter=theirs.n_iter_,
    )
    assert theirs.n_iter_ > 3
    torch.testing.assert_close(ours.means[0], torch.from_numpy(theirs.cluster_centers_))
    assert ours.resp[0].argmax(dim=1).tolist() == theirs.labels_.tolist()


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("n_iter, suffix", [(10, ""), (1, "_1step")])
@pytest.mark.parametrize("side", ["fg", "bg"])
def test_golden_means_of_the_authors_code(k: int, n_iter: int, suffix: str, side: str) -> None:
    golden = {name: torch.from_numpy(value) for name, value in np.load(GOLDEN).items()}
    if f"mu_{side}{suffix}_k{k}" not in golden:
        assert (side, suffix) == ("bg", "_1step")  # the one combination that was not recorded
        return
    feature = golden["feature"]
    mask = F.interpolate(golden["mask"], feature.shape[-2:], mode="bilinear", align_corners=True)
    part = feature * (mask if side == "fg" else 1 - mask)
    start = golden[f"mu0_k{k}"].transpose(1, 2)
    samples = part.flatten(2).transpose(1, 2)
    means = F.normalize(fit_mixture(samples, k=k, n_iter=n_iter, init=start).means, dim=2)
    expected = golden[f"mu_{side}{suffix}_k{k}"]
    assert (means - expected).abs().max() < 1e-5 * expected.abs().max()


# --- Densities and kappa --------------------------------------------------------------------------


@pytest.mark.parametrize("kappa", [0.01, 1.0, 20.0, 1e4])
def test_density_on_the_circle_integrates_to_one(kappa: float) -> None:
    # The trapezoidal rule is exact for smooth periodic functions, once it resolves them.
    n = 4000
    angle = 2 * math.pi * torch.arange(n).double() / n
    circle = torch.stack([angle.cos(), angle.sin()], dim=1)[:, None]  # n mixtures of one sample
    means = torch.tensor([[[1.0, 0.0], [-0.6, 0.8]]]).double()
    density = log_likelihood(circle, means, kappa=kappa).exp()
    assert density.mean().item() * 2 * math.pi == pytest.approx(1, abs=1e-10)


def test_density_on_the_sphere_integrates_to_one_by_monte_carlo() -> None:
    c, n = 5, 200_000
    points = random_directions(n, c, generator=_seeded()).double().transpose(0, 1)
    means = random_directions(3, c, generator=_seeded(1)).double()
    area = 2 * math.pi ** (c / 2) / math.gamma(c / 2)
    density = area * log_likelihood(points, means, kappa=4.0).exp()
    error = density.std().item() / math.sqrt(n)
    assert error < 0.005
    assert density.mean().item() == pytest.approx(1, abs=4 * error)


def test_likelihood_equals_scipy_densities() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((50, 6))
    means, weights, kappa = rng.standard_normal((3, 6)), rng.random(50), 3.0
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    directions = means / np.linalg.norm(means, axis=1, keepdims=True)
    densities = {
        "vmf": (unit, [vonmises_fisher(m, kappa).pdf(unit) for m in directions]),
        "gaussian": (x, [multivariate_normal(m, np.eye(6) / kappa).pdf(x) for m in means]),
    }
    for kernel, (points, parts) in densities.items():
        expected = (weights * np.log(np.mean(parts, axis=0))).sum()
        batch = (torch.from_numpy(a)[None] for a in (points, means, weights))
        got = log_likelihood(*batch, kernel=kernel, kappa=kappa)
        assert got.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("true_kappa", [5.0, 20.0, 80.0])
def test_likelihood_finds_kappa_among_several(true_kappa: float) -> None:
    samples, means = clusters("vmf", k=3, c=8, kappa=true_kappa, n=300, seed=0)
    totals = {
        kappa: fit_mixture(samples, k=3, kappa=kappa, init=means[None]).log_likelihood[0, -1]
        for kappa in (1.25, 5.0, 20.0, 80.0, 320.0)
    }
    assert max(totals, key=totals.get) == true_kappa


@pytest.mark.parametrize("c", [2, 3, 8, 128])
@pytest.mark.parametrize("true_kappa", [2.0, 20.0, 300.0])
def test_estimate_of_kappa(c: int, true_kappa: float) -> None:
    """Against the truth, and against the maximum of our own likelihood."""
    n, rng = 2000, np.random.default_rng(0)
    draw = vonmises_fisher(np.eye(c)[0], true_kappa).rvs(n, random_state=rng)
    samples = torch.from_numpy(draw)[None]
    mean, resp = samples.mean(dim=1, keepdim=True), torch.ones(1, n, 1).double()
    estimate = estimate_kappa(samples, resp).item()

    def loss(log_kappa: float) -> float:
        return -log_likelihood(samples, mean, kappa=math.exp(log_kappa)).item() / n

    best = minimize_scalar(loss, bounds=(-2, 9), method="bounded", options=dict(xatol=1e-6))
    # The approximation of Banerjee et al. is worst on the circle and exact for large C.
    error = {2: 0.06, 3: 0.03}.get(c, 0.02)
    assert estimate == pytest.approx(math.exp(best.x), rel=error)
    assert loss(math.log(estimate)) - best.fun < 1e-3
    # A weak concentration in many dimensions is hidden by the noise of 2,000 samples.
    if true_kappa > c / 10:
        assert estimate == pytest.approx(true_kappa, rel=0.1)


def test_estimate_of_kappa_in_a_mixture() -> None:
    samples, means = clusters("vmf", k=3, c=8, kappa=50.0, n=500, seed=1)
    kappa, start = 10.0, means[None]
    for _ in range(10):
        mixture = fit_mixture(samples, k=3, kappa=kappa, init=start)
        kappa, start = estimate_kappa(samples, mixture.resp).item(), mixture.means
    assert kappa == pytest.approx(50, rel=0.05)


def test_estimate_of_kappa_respects_weights() -> None:
    samples = F.normalize(torch.randn(1, 40, 5).double(), dim=2)
    weights = (torch.arange(40) < 12)[None].double()
    some = estimate_kappa(samples, torch.ones(1, 40, 1).double(), weights)
    few = estimate_kappa(samples[:, :12], torch.ones(1, 12, 1).double())
    torch.testing.assert_close(some, few)


def test_estimate_of_kappa_is_one_for_each_mixture_of_a_batch() -> None:
    samples = F.normalize(torch.randn(3, 40, 5).double() + 1, dim=2)
    resp, weights = torch.randn(3, 40, 2).double().softmax(dim=2), torch.rand(3, 40).double()
    weights[1] *= 100
    together = estimate_kappa(samples, resp, weights)
    alone = [
        estimate_kappa(s[None], r[None], w[None])
        for s, r, w in zip(samples, resp, weights, strict=True)
    ]
    torch.testing.assert_close(together, torch.cat(alone))


def test_estimate_of_kappa_is_finite_for_identical_samples() -> None:
    samples = F.normalize(torch.ones(1, 7, 4), dim=2)
    kappa = estimate_kappa(samples, torch.ones(1, 7, 1))
    assert kappa.isfinite().all()
    assert kappa > 1e6


# --- Few samples ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", KERNELS)
def test_more_prototypes_than_samples(kernel: str) -> None:
    samples = torch.eye(3)[None]
    weights = torch.tensor([[1.0, 2.0, 0.0]])
    for init in ("random", "kmeans++"):
        mixture = fit_mixture(
            samples, weights, k=7, kernel=kernel, kappa=300.0, init=init, generator=_seeded()
        )
        assert mixture.means.isfinite().all()
        assert (mixture.log_likelihood.diff() > -1e-3).all()  # float32, 600 nats
        assert mixture.means[0, :, 2].abs().max() == 0  # the third sample has no weight


@pytest.mark.parametrize("kernel", KERNELS)
def test_identical_samples(kernel: str) -> None:
    sample = torch.tensor([0.6, 0.8, 0.0])
    samples = sample.expand(1, 9, 3)
    for init in ("random", "kmeans++"):
        mixture = fit_mixture(samples, k=3, kernel=kernel, init=init, generator=_seeded())
        torch.testing.assert_close(mixture.means, sample.expand(1, 3, 3))
        torch.testing.assert_close(mixture.resp, torch.full((1, 9, 3), 1 / 3))


# --- Prototypes without samples -------------------------------------------------------------------


def _far_start(kernel: str) -> Problem:
    """Prototypes 1 and 2 start where no sample's density reaches: all samples go to prototype 0."""
    generator = _seeded()
    samples = F.normalize(torch.tensor([1.0, 0, 0]) + torch.randn(1, 8, 3, generator=generator) / 9)
    samples = F.normalize(samples, dim=2).double()
    start = torch.tensor([[[1.0, 0, 0], [-1, 0, 0], [-0.9, 0.1, 0]]]).double()
    return Problem(samples, torch.ones(1, 8).double(), start, kernel, 2000.0)


@pytest.mark.parametrize("kernel", KERNELS)
def test_empty_prototypes_move_to_the_worst_explained_samples(kernel: str) -> None:
    problem = _far_start(kernel)
    before = problem.fit(n_iter=0)
    assert before.resp[0, :, 1:].max() == 0
    means = problem.fit(n_iter=1).means[0]
    density = torch.stack(
        [
            log_likelihood(s[None, None], problem.start, kernel=kernel, kappa=problem.kappa)
            for s in problem.samples[0]
        ]
    ).flatten()
    worst = density.argsort()
    torch.testing.assert_close(means[0], problem.samples[0].mean(dim=0))
    assert torch.equal(means[1:], problem.samples[0, worst[:2]])

    after = problem.fit(n_iter=8)
    assert (after.log_likelihood.diff() >= -1e-9).all()
    assert after.log_likelihood[0, -1] > after.log_likelihood[0, 0] + 100
    assert (after.resp.sum(dim=1) > 0.5).all()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("with_weight", [1, 2])
def test_empty_prototypes_never_move_to_samples_without_weight(
    kernel: str, with_weight: int
) -> None:
    problem = _far_start(kernel)
    weights = (torch.arange(8) < with_weight)[None].double()
    means = problem.fit(weights=weights, n_iter=1).means[0]
    distance = torch.cdist(means[1:], problem.samples[0, :with_weight])
    assert distance.amin(dim=1).max() == 0


@pytest.mark.parametrize("kernel", KERNELS)
def test_empty_prototypes_of_one_mixture_do_not_see_the_others(kernel: str) -> None:
    """Mixtures of one batch with weights of other sizes, and with other numbers of them."""
    problem = _far_start(kernel)
    weights = torch.stack([torch.ones(8), torch.arange(8) < 1, torch.full((8,), 1e-9)]).double()
    weights[1] *= 1e6
    samples = problem.samples.expand(3, -1, -1)
    for n_iter in (1, 3):
        together = problem.fit(samples=samples, weights=weights, n_iter=n_iter).means
        for b in range(3):
            one = slice(b, b + 1)
            alone = problem.fit(samples=samples[one], weights=weights[one], n_iter=n_iter).means
            torch.testing.assert_close(together[one], alone)


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_only_the_proportions_of_weights_matter(scale: float) -> None:
    samples, weights = torch.randn(2, 9, 4).double(), torch.rand(2, 9).double()
    weights[:, 0] = 1e-7
    start = torch.cat([samples[:, :1] * 5, torch.randn(2, 2, 4).double()], dim=1)
    given = dict(k=3, kernel="gaussian", kappa=5.0, init=start, n_iter=3)
    fits = [fit_mixture(samples, weights * factor, **given) for factor in (1.0, scale)]
    torch.testing.assert_close(fits[0].means, fits[1].means)


@pytest.mark.parametrize("kernel", KERNELS)
def test_more_empty_prototypes_than_channels(kernel: str) -> None:
    problem = _far_start(kernel)
    samples = F.normalize(problem.samples[..., :2], dim=2)
    start = torch.tensor([[[1.0, 0], [-1, 0], [-0.9, 0.1], [-0.9, -0.1]]]).double()
    means = problem.fit(samples=samples, k=4, init=start, n_iter=1).means[0]
    assert len(means.unique(dim=0)) == 4
    assert torch.cdist(means[1:], samples[0]).amin(dim=1).max() == 0


def test_a_prototype_that_keeps_samples_is_not_moved() -> None:
    """A share of 1e-9 is small, but not none: the mean of those samples is well defined."""
    samples = torch.tensor([[[0.0, 0.0]] * 5 + [[1.0, 0.0]]]).double()
    weights = torch.tensor([[1.0] * 5 + [5e-9]]).double()
    start = torch.tensor([[[0.0, 0.0], [1.0, 0.0]]]).double()
    mixture = fit_mixture(samples, weights, k=2, kernel="gaussian", kappa=100.0, init=start)
    torch.testing.assert_close(mixture.means, start, atol=1e-9, rtol=0)


# --- Edges and errors -----------------------------------------------------------------------------


def test_a_zero_vector_belongs_to_all_prototypes() -> None:
    samples = torch.cat([torch.zeros(1, 1, 4), torch.randn(1, 6, 4)], dim=1)
    mixture = fit_mixture(samples, k=3, generator=_seeded())
    torch.testing.assert_close(mixture.resp[0, 0], torch.full((3,), 1 / 3))
    assert mixture.means.isfinite().all()
    zeros = fit_mixture(torch.zeros(2, 5, 4), k=3, generator=_seeded())
    assert torch.equal(zeros.means, torch.zeros(2, 3, 4))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("init", ["random", "kmeans++"])
def test_hard_assignment_of_far_samples_stays_finite(kernel: str, init: str) -> None:
    samples = 1e3 * torch.randn(1, 50, 6, generator=_seeded())
    mixture = fit_mixture(samples, k=4, kernel=kernel, kappa=1e4, init=init, generator=_seeded())
    assert all(t.isfinite().all() for t in (mixture.means, mixture.resp, mixture.log_likelihood))


SAMPLES = torch.ones(2, 3, 4)


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(samples=torch.ones(3, 4)), r"\(B, N, C\).*\(3, 4\)"),
        (dict(samples=torch.ones(2, 0, 4)), r"without empty dimensions.*\(2, 0, 4\)"),
        (dict(samples=torch.ones(2, 3, 4, dtype=torch.int64)), r"floating-point.*torch\.int64"),
        (dict(samples=torch.ones(2, 3, 1)), "at least 2 channels"),
        (dict(weights=torch.ones(2, 4)), r"\(2, 3\).*\(2, 4\)"),
        (dict(weights=torch.ones(2, 3, 1)), r"\(2, 3\).*\(2, 3, 1\)"),
        (dict(k=0), "k=0"),
        (dict(n_iter=-1), "n_iter=-1"),
        (dict(kernel="cosine"), "'vmf', 'gaussian'.*'cosine'"),
        (dict(kappa=0.0), "above 0, got 0.0"),
        (dict(kappa=-3.0), "above 0, got -3.0"),
        (dict(kappa=math.inf), "finite.*inf"),
        (dict(kappa=math.nan), "finite.*nan"),
        (dict(init="kmeens"), "'random', 'kmeans[+][+]'.*'kmeens'"),
        (dict(init=torch.ones(1, 3, 4)), r"\(2 or 1, 2, 4\).*\(1, 3, 4\)"),
        (dict(init=torch.ones(2, 4)), r"\(2 or 1, 2, 4\).*\(2, 4\)"),
        (dict(init=torch.ones(3, 2, 4)), r"\(2 or 1, 2, 4\).*\(3, 2, 4\)"),
        (dict(weights=torch.tensor([[1.0, 0, 0], [0, 0, 0]])), "empty mask"),
        (dict(weights=torch.tensor([[1.0, 0, 0], [1, -1e-3, 0]])), "non-negative"),
        (dict(weights=torch.tensor([[1.0, 0, 0], [1, math.nan, 0]])), "non-negative"),
        (dict(weights=torch.tensor([[1.0, 0, 0], [1, math.inf, 0]])), "infinite"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict, message: str) -> None:
    given = dict(samples=SAMPLES, k=2, generator=_seeded())
    with pytest.raises(ValueError, match=message):
        fit_mixture(**given | changes)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("init", ["random", "kmeans++", "given"])
def test_samples_that_are_no_numbers_are_refused(bad: float, kernel: str, init: str) -> None:
    samples = torch.randn(2, 6, 4)
    start: str | Tensor = torch.randn(1, 2, 4) if init == "given" else init
    samples[1, 2, 3] = bad
    with pytest.raises(ValueError, match="NaN or infinite"):
        fit_mixture(samples, k=2, kernel=kernel, init=start, generator=_seeded())


def test_starts_are_those_asked_for() -> None:
    samples, weights = torch.randn(2, 9, 4) * torch.rand(2, 9, 1) * 9, torch.rand(2, 9)
    random = fit_mixture(samples, k=3, n_iter=0, generator=_seeded()).means
    assert torch.equal(random[1], random_directions(3, 4, generator=_seeded())[0])
    uniforms = random_uniforms(3, generator=_seeded())
    chosen = {}
    for kernel in KERNELS:
        given = dict(k=3, kernel=kernel, n_iter=0, init="kmeans++", generator=_seeded())
        chosen[kernel] = fit_mixture(samples, weights, **given).means
        expected = kmeans_plus_plus(samples, weights, uniforms.to(samples), kernel=kernel)
        assert torch.equal(chosen[kernel], expected)
    assert not torch.equal(*chosen.values())


@pytest.mark.parametrize("dtype", [torch.bool, torch.float64, torch.float16])
def test_weights_of_another_type_become_that_of_the_samples(dtype: torch.dtype) -> None:
    weights = torch.tensor([[1, 1, 0], [0, 1, 1]])
    given = dict(k=2, init="kmeans++")
    plain = fit_mixture(SAMPLES, weights.float(), **given, generator=_seeded())
    other = fit_mixture(SAMPLES, weights.to(dtype), **given, generator=_seeded())
    assert other.log_likelihood.dtype == torch.float32
    assert torch.equal(other.log_likelihood, plain.log_likelihood)


def test_a_batch_gives_the_same_with_gradients_and_without() -> None:
    samples, start = torch.randn(2, 2, 4), torch.randn(2, 2, 4)
    without = fit_mixture(samples, k=2, init=start)
    within = fit_mixture(samples.clone().requires_grad_(), k=2, init=start)
    torch.testing.assert_close(within.means.detach(), without.means)
    torch.testing.assert_close(within.log_likelihood.detach(), without.log_likelihood)


def test_starting_means_of_another_precision_become_that_of_the_samples() -> None:
    start = torch.randn(1, 2, 4)
    single = fit_mixture(SAMPLES, k=2, init=start)
    other = fit_mixture(SAMPLES, k=2, init=start.double())
    assert other.means.dtype == torch.float32
    assert torch.equal(other.means, single.means)


def test_kappa_is_that_of_the_paper_where_nothing_is_said() -> None:
    means = torch.randn(2, 3, 4)
    short = torch.randn(2, 5, 4) / 50
    cosines = short @ F.normalize(means, dim=2).transpose(1, 2)
    torch.testing.assert_close(responsibilities(short, means), (20 * cosines).softmax(dim=2))
    assert torch.equal(log_likelihood(SAMPLES, means), log_likelihood(SAMPLES, means, kappa=20.0))
    said = fit_mixture(SAMPLES, k=2, kappa=20.0, n_iter=10, generator=_seeded())
    assert torch.equal(fit_mixture(SAMPLES, k=2, generator=_seeded()).means, said.means)


def test_starting_means_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="starting means hold NaN"):
        fit_mixture(SAMPLES, k=2, init=torch.full((1, 2, 4), math.nan))


# --- Numbers, gradients, randomness, time ---------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_in_single_out(dtype: torch.dtype) -> None:
    samples, weights = torch.randn(1, 40, 8).to(dtype), torch.rand(1, 40).to(dtype)
    start = torch.randn(1, 3, 8)
    half = fit_mixture(samples, weights, k=3, init=start)
    single = fit_mixture(samples.float(), weights.float(), k=3, init=start)
    assert half.means.dtype == half.resp.dtype == half.log_likelihood.dtype == torch.float32
    assert torch.equal(half.means, single.means)


def test_autocast_does_not_reach_into_em() -> None:
    samples, start = torch.randn(1, 40, 8), torch.randn(1, 3, 8)
    with torch.autocast("cpu", torch.bfloat16):
        inside = fit_mixture(samples, k=3, init=start)
    assert torch.equal(inside.means, fit_mixture(samples, k=3, init=start).means)


def test_double_precision_is_kept() -> None:
    mixture = fit_mixture(torch.randn(1, 9, 4).double(), torch.ones(1, 9), k=2)
    assert mixture.means.dtype == mixture.log_likelihood.dtype == torch.float64


@pytest.mark.parametrize("kernel", KERNELS)
def test_gradients_through_two_iterations(kernel: str) -> None:
    generator = _seeded()
    samples = torch.randn(2, 7, 3, generator=generator).double().requires_grad_()
    weights = (torch.rand(2, 7, generator=generator).double() + 0.1).requires_grad_()
    start = torch.randn(1, 2, 3, generator=generator).double().requires_grad_()

    def fit(samples: Tensor, weights: Tensor, start: Tensor) -> tuple[Tensor, ...]:
        mixture = fit_mixture(samples, weights, k=2, kernel=kernel, kappa=2.0, n_iter=2, init=start)
        return mixture.means, mixture.resp, mixture.log_likelihood

    assert torch.autograd.gradcheck(fit, (samples, weights, start))


def test_no_gradient_where_none_is_asked_for() -> None:
    samples = torch.randn(1, 9, 4, requires_grad=True)
    with torch.no_grad():
        assert not fit_mixture(samples, k=2).means.requires_grad
    assert fit_mixture(samples, k=2).means.requires_grad
    assert not fit_mixture(samples.detach(), k=2).means.requires_grad


def test_gradients_are_finite_at_the_edges() -> None:
    """Zero vectors, zero weights and a prototype that is moved."""
    problem = _far_start("vmf")
    samples = torch.cat([problem.samples, torch.zeros(1, 2, 3).double()], dim=1).requires_grad_()
    weights = F.pad(problem.weights, (0, 2))
    weights[0, 0] = 0
    mixture = problem.fit(samples=samples, weights=weights, n_iter=3)
    (mixture.means.square().sum() + mixture.log_likelihood.sum()).backward()
    assert samples.grad.isfinite().all()


@pytest.mark.parametrize("init", ["random", "kmeans++"])
def test_generator_is_the_only_source_of_randomness(init: str) -> None:
    samples = torch.randn(1, 20, 4)
    before = torch.get_rng_state()
    one, same, other = (
        fit_mixture(samples, k=3, init=init, generator=_seeded(seed), n_iter=0).means
        for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("init", ["random", "kmeans++"])
def test_twenty_thousand_samples(init: str) -> None:
    samples = F.normalize(torch.randn(1, 20_000, 256), dim=2)
    begin = time.process_time()  # of the processor: other processes do not count
    mixture = fit_mixture(samples, k=5, init=init)
    assert time.process_time() - begin < 2
    assert mixture.resp.shape == (1, 20_000, 5)


def test_weighted_means() -> None:
    samples, resp = torch.randn(2, 6, 3), torch.rand(2, 6, 4)
    weights = torch.rand(2, 6)
    resp[:, :, 3] = 0
    expected = torch.stack(
        [
            sum(weights[:, i, None] * resp[:, i, j, None] * samples[:, i] for i in range(6))
            / (weights * resp[:, :, j]).sum(dim=1, keepdim=True)
            for j in range(3)
        ],
        dim=1,
    )
    means = weighted_means(samples, resp, weights)
    torch.testing.assert_close(means[:, :3], expected)
    assert torch.equal(means[:, 3], torch.zeros(2, 3))
    torch.testing.assert_close(
        weighted_means(samples, torch.ones(2, 6, 1))[:, 0], samples.mean(dim=1)
    )
