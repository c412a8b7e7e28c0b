"""Random directions, and k-means++ seeding."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from searching import examples

from pmms.densities import KERNELS, Kernel
from pmms.seeding import kmeans_plus_plus, random_directions, random_uniforms


def _seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_random_directions_are_uniform_unit_vectors() -> None:
    directions = random_directions(20_000, 3, generator=_seeded())
    assert directions.shape == (1, 20_000, 3)
    torch.testing.assert_close(directions.norm(dim=2), torch.ones(1, 20_000))
    # A coordinate of a uniform point of the sphere in 3 dimensions is uniform on [-1, 1].
    for axis in range(3):
        values = directions[0, :, axis].sort().values
        assert (values - torch.linspace(-1, 1, 20_000)).abs().max() < 0.03


@examples(60)
@given(
    n=st.integers(1, 30),
    k=st.integers(1, 8),
    distinct=st.integers(1, 30),
    kernel=st.sampled_from(KERNELS),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 10_000),
)
def test_seeding_draws_samples_that_have_weight(
    n: int, k: int, distinct: int, kernel: Kernel, dtype: torch.dtype, seed: int
) -> None:
    """Also with fewer samples than means, and with samples that coincide."""
    generator = _seeded(seed)
    samples = torch.randn(2, distinct, 4, generator=generator, dtype=dtype)
    samples = samples[:, torch.randint(distinct, (n,), generator=generator)]
    weights = torch.rand(2, n, generator=generator, dtype=dtype)
    weights = weights * (torch.rand(2, n, generator=generator) < 0.5)
    weights[:, seed % n] = 1
    uniforms = random_uniforms(k, generator=generator).to(dtype)
    means = kmeans_plus_plus(samples, weights, uniforms, kernel=kernel)
    assert means.shape == (2, k, 4)
    assert torch.equal(means, kmeans_plus_plus(samples, weights, uniforms, kernel=kernel))
    for b in range(2):
        candidates = samples[b][weights[b] > 0]
        assert (means[b].unsqueeze(1) == candidates).all(dim=2).any(dim=1).all()


# One is what a draw just below it becomes when it is rounded to float32.
@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-24, 1.0])
def test_extreme_draws_do_not_hit_weight_zero(uniform: float) -> None:
    samples = torch.arange(1.0, 7).view(1, 6, 1).expand(1, 6, 2) * torch.tensor([1.0, 0.3])
    weights = torch.tensor([[0.0, 0, 1e-3, 1, 0, 0]])
    means = kmeans_plus_plus(samples, weights, torch.full((4,), uniform), kernel="gaussian")
    assert set(means[0, :, 0].tolist()) <= {3.0, 4.0}


@pytest.mark.parametrize("kernel", KERNELS)
def test_seeding_hits_every_cluster(kernel: str) -> None:
    truth = torch.eye(8)[:5]
    noise = torch.randn(40, 5, 8, generator=_seeded())
    samples = (truth + 0.003 * noise).view(1, 200, 8)
    for seed in range(20):
        uniforms = random_uniforms(5, generator=_seeded(seed))
        means = kmeans_plus_plus(samples, torch.ones(1, 200), uniforms, kernel=kernel)
        assert sorted(torch.cdist(means[0], truth).argmin(dim=1).tolist()) == [0, 1, 2, 3, 4]


def test_seeding_follows_weight_times_squared_distance() -> None:
    samples = torch.tensor([[[0.0, 0], [1, 0], [0, 3]]])
    weights = torch.tensor([[1.0, 3, 2]])
    grid = (torch.arange(400) + 0.5) / 400
    first = [kmeans_plus_plus(samples, weights, u[None], kernel="gaussian")[0, 0] for u in grid]
    shares = torch.stack([(torch.stack(first) == s).all(dim=1).float().mean() for s in samples[0]])
    torch.testing.assert_close(shares, torch.tensor([1, 3, 2]) / 6, atol=5e-3, rtol=0)
    # After the first sample the others follow with 3 * 1^2 to 2 * 3^2.
    second = [
        kmeans_plus_plus(samples, weights, torch.stack([grid[0], u]), kernel="gaussian")[0, 1]
        for u in grid
    ]
    far = (torch.stack(second) == samples[0, 2]).all(dim=1).float().mean()
    assert far.item() == pytest.approx(18 / 21, abs=5e-3)


def test_seeding_by_direction_ignores_length_in_the_vmf_kernel() -> None:
    directions = random_directions(12, 4, generator=_seeded())
    lengths = torch.linspace(0.1, 50, 12).view(1, 12, 1)
    uniforms, ones = random_uniforms(4, generator=_seeded()), torch.ones(1, 12)
    short, long = (kmeans_plus_plus(s, ones, uniforms) for s in (directions, lengths * directions))
    torch.testing.assert_close(F.normalize(long, dim=2), short)


def test_draws_come_from_the_generator_alone() -> None:
    before = torch.get_rng_state()
    for draw in (
        lambda g: random_directions(3, 4, generator=g),
        lambda g: random_uniforms(3, generator=g),
    ):
        one, same, other = (draw(_seeded(seed)) for seed in (1, 1, 2))
        assert torch.equal(one, same)
        assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_random_uniforms() -> None:
    draws = random_uniforms(10_000, generator=_seeded())
    assert draws.shape == (10_000,)
    assert draws.min() >= 0
    assert draws.max() < 1
    assert abs(draws.mean() - 0.5) < 0.02
