"""The support branch: how a mask divides the samples, and what the prototypes of each part are."""

import math
from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from searching import examples
from torch import Tensor

from pmms.densities import Kernel
from pmms.heads import PConv
from pmms.mixture import fit_mixture
from pmms.prototypes import PrototypeMixture, Samples, partition_samples

PROPERTY = examples(40)


@pytest.fixture(autouse=True)
def _same_draws_every_time() -> None:
    torch.manual_seed(0)


def features(*, shots: int = 1, h: int = 5, w: int = 6, c: int = 4, batch: int = 2) -> Tensor:
    return torch.rand(batch, shots, c, h, w)


def box_mask(*, shots: int = 1, size: tuple[int, int] = (40, 48), batch: int = 2) -> Tensor:
    mask = torch.zeros(batch, shots, 1, *size)
    for b in range(batch):
        for s in range(shots):
            mask[b, s, 0, 5 + 3 * b : 21 + s, 7 + s : 30 + 2 * b] = 1
    return mask


# --- Weights --------------------------------------------------------------------------------------


@PROPERTY
@given(
    h=st.integers(1, 6), w=st.integers(1, 6), cell=st.integers(1, 8), seed=st.integers(0, 10_000)
)
def test_weight_is_the_share_of_the_cell(h: int, w: int, cell: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    mask = (torch.rand(2, 1, 1, h * cell, w * cell, generator=generator) < 0.3).float()
    mask[:, :, :, 0, 0] = 0  # some background is left
    inside, outside = partition_samples(features(h=h, w=w), mask)
    share = mask.unflatten(3, (h, cell)).unflatten(5, (w, cell)).mean(dim=(4, 6)).flatten(1)
    torch.testing.assert_close(inside.weights, share)
    torch.testing.assert_close(outside.weights, 1 - share)


@PROPERTY
@given(size=st.integers(3, 60), cells=st.integers(1, 9), seed=st.integers(0, 10_000))
def test_cells_that_are_no_whole_pixels_cover_every_pixel_they_touch(
    size: int, cells: int, seed: int
) -> None:
    mask = torch.rand(1, 1, 1, size, size, generator=torch.Generator().manual_seed(seed)).double()
    inside, _ = partition_samples(features(h=cells, w=cells, batch=1).double(), mask)
    ends = [(math.floor(i * size / cells), math.ceil((i + 1) * size / cells)) for i in range(cells)]
    expected = [[mask[..., a:b, c:d].mean() for c, d in ends] for a, b in ends]
    torch.testing.assert_close(inside.weights[0], torch.tensor(expected).double().flatten())


def test_one_pixel_keeps_its_weight_and_its_prototype() -> None:
    support = features(h=20, w=20, batch=1)
    mask = torch.zeros(1, 1, 1, 160, 160)
    mask[..., 83, 44] = 1
    inside, _ = partition_samples(support, mask)
    assert inside.weights.sum().item() == pytest.approx(1 / 64)
    prototypes = PrototypeMixture(4, 3)(inside)
    expected = support[0, 0, :, 10, 5]
    torch.testing.assert_close(prototypes, expected.expand(1, 3, 4))
    # The authors' bilinear mask loses it.
    lost, _ = partition_samples(support, mask, how="product")
    assert lost.features.abs().max() < 0.1


def test_half_precision_features_do_not_round_the_weights() -> None:
    """80 pixels of a cell of 81: in bfloat16 the share left for the background is off by 5 %."""
    mask = torch.ones(1, 1, 1, 18, 18)
    mask[..., ::9, ::9] = 0
    half, single = (
        partition_samples(features(h=2, w=2, batch=1).to(dtype), mask)
        for dtype in (torch.bfloat16, torch.float32)
    )
    torch.testing.assert_close(half[0].weights.float(), single[0].weights, rtol=1e-6, atol=0)
    torch.testing.assert_close(half[1].weights.float(), single[1].weights, rtol=1e-5, atol=0)


def test_full_mask_makes_p_conv_abstain() -> None:
    support, query = features(), torch.rand(2, 4, 7, 7)
    inside, outside = partition_samples(support, torch.ones(2, 1, 1, 40, 48))
    mixture = PrototypeMixture(4, 3)
    prob_map = PConv()(query, mixture(inside), mixture(outside))
    torch.testing.assert_close(prob_map, torch.full((2, 2, 7, 7), 0.5))


def test_full_mask_of_one_shot_leaves_the_background_of_the_others() -> None:
    mask = box_mask(shots=2)
    mask[:, 1] = 1
    _, outside = partition_samples(features(shots=2), mask)
    assert outside.weights[:, 30:].abs().max() == 0
    assert (outside.weights[:, :30].sum(dim=1) > 0).all()


def test_full_mask_of_one_episode_leaves_its_neighbour_alone() -> None:
    support, mask = features(), box_mask()
    alone = partition_samples(support[1:], mask[1:])[1].weights
    mask[0] = 1
    _, outside = partition_samples(support, mask)
    assert torch.equal(outside.weights[0], torch.ones(30))
    assert torch.equal(outside.weights[1:], alone)


def test_empty_mask_is_refused_in_words() -> None:
    inside, _ = partition_samples(features(), torch.zeros(2, 1, 1, 40, 48))
    with pytest.raises(ValueError, match="mask that shows the object"):
        PrototypeMixture(4, 2)(inside)


def test_product_partition_is_that_of_the_authors() -> None:
    support, mask = features(shots=2), box_mask(shots=2)
    inside, outside = partition_samples(support, mask, how="product")
    assert inside.weights is outside.weights is None
    small = F.interpolate(mask.flatten(0, 1), (5, 6), mode="bilinear", align_corners=True)
    product = (support.flatten(0, 1) * small).unflatten(0, (2, 2))
    expected = torch.cat([product[:, s].flatten(2) for s in range(2)], dim=2).transpose(1, 2)
    torch.testing.assert_close(inside.features, expected)
    both = support.permute(0, 1, 3, 4, 2).reshape(2, 60, 4)
    torch.testing.assert_close(inside.features + outside.features, both)


# --- Shots ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how, init", [("weights", "random"), ("weights", "kmeans++"), ("product", "random")]
)
@pytest.mark.parametrize("kernel", get_args(Kernel))
def test_shots_pool_into_one_set_of_samples(how: str, init: str, kernel: str) -> None:
    support, mask = features(shots=3), box_mask(shots=3)
    mixture = PrototypeMixture(4, 2, init=init, kernel=kernel)
    pooled = partition_samples(support, mask, how=how)
    singles = [partition_samples(support[:, [s]], mask[:, [s]], how=how) for s in range(3)]
    for part in range(2):
        joined = Samples(
            torch.cat([single[part].features for single in singles], dim=1),
            None
            if how == "product"
            else torch.cat([single[part].weights for single in singles], dim=1),
        )
        torch.testing.assert_close(mixture(pooled[part]), mixture(joined))


def test_the_same_shot_twice_changes_nothing() -> None:
    support, mask = features(), box_mask()
    mixture = PrototypeMixture(4, 3)
    once, _ = partition_samples(support, mask)
    twice, _ = partition_samples(support.repeat(1, 2, 1, 1, 1), mask.repeat(1, 2, 1, 1, 1))
    torch.testing.assert_close(mixture(twice), mixture(once))


# --- Prototypes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("em_features", ["unit", "raw"])
@pytest.mark.parametrize("kernel", get_args(Kernel))
def test_one_prototype_is_masked_average_pooling(em_features: str, kernel: str) -> None:
    support, mask = features(shots=2), box_mask(shots=2)
    inside, outside = partition_samples(support, mask)
    mixture = PrototypeMixture(4, 1, em_features=em_features, kernel=kernel)
    for part, cover in ((inside, mask), (outside, 1 - mask)):
        small = F.avg_pool2d(cover.flatten(0, 1), 8).unflatten(0, (2, 2))  # 40 x 48 to 5 x 6
        pooled = (small * support).sum(dim=(1, 3, 4)) / small.sum(dim=(1, 3, 4))
        torch.testing.assert_close(mixture(part)[:, 0], pooled)


@pytest.mark.parametrize("em_iterations", [1, 2, 10])
@pytest.mark.parametrize("em_features", ["unit", "raw"])
@pytest.mark.parametrize("kernel", get_args(Kernel))
def test_prototypes_are_the_means_of_the_last_iteration(
    em_iterations: int, em_features: str, kernel: str
) -> None:
    """Where EM sees the features as they are, the result is simply that of EM."""
    support = features(c=6)
    if em_features == "unit":
        support = F.normalize(support, dim=2)
    samples, _ = partition_samples(support, box_mask())
    mixture = PrototypeMixture(
        6, 3, em_iterations=em_iterations, em_features=em_features, kernel=kernel, kappa=5.0
    )
    expected = fit_mixture(
        *samples, k=3, kernel=kernel, kappa=5.0, n_iter=em_iterations, init=mixture.start
    )
    torch.testing.assert_close(mixture(samples), expected.means)


def test_unit_features_make_the_grouping_blind_to_length() -> None:
    samples, _ = partition_samples(features(c=6), box_mask())
    longer = samples._replace(features=samples.features * (1 + 9 * torch.rand(2, 30, 1)))
    unit, raw = (PrototypeMixture(6, 3, em_features=how) for how in ("unit", "raw"))
    for mixture, same in ((unit, True), (raw, False)):
        one, other = (mixture.responsibilities(*s) for s in (samples, longer))
        assert torch.allclose(one, other, atol=1e-4) == same
    # The means still are at the scale of the features.
    assert unit(longer).norm(dim=2).min() > unit(samples).norm(dim=2).max()


def test_scale() -> None:
    samples, _ = partition_samples(10 * features(), box_mask())
    feature, unit = (PrototypeMixture(4, 3, scale=scale)(samples) for scale in ("feature", "unit"))
    torch.testing.assert_close(unit, F.normalize(feature, dim=2))
    assert feature.norm(dim=2).min() > 3


@pytest.mark.parametrize("init", ["random", "kmeans++"])
def test_gradient_modes(init: str) -> None:
    support = features(c=6)
    masks = {}
    for gradient in ("none", "means", "em"):
        leaf, mask = support.clone().requires_grad_(), box_mask()
        samples, _ = partition_samples(leaf, mask)
        prototypes = PrototypeMixture(6, 3, gradient=gradient, init=init)(samples)
        assert prototypes.requires_grad == (gradient != "none")
        if gradient != "none":
            prototypes.square().sum().backward()
            masks[gradient] = leaf.grad
            outside = samples.weights.view(2, 1, 1, 5, 6).expand_as(support) == 0
            assert (leaf.grad[outside] == 0).all()
            assert (leaf.grad[~outside] != 0).any()
    assert not torch.allclose(masks["means"], masks["em"])


def test_gradient_of_means_holds_responsibilities_fixed() -> None:
    leaf = features(c=6).requires_grad_()
    samples, _ = partition_samples(leaf, box_mask())
    mixture = PrototypeMixture(6, 3, gradient="means")
    resp = mixture.responsibilities(*samples)
    assert not resp.requires_grad
    (expected,) = torch.autograd.grad((_means(samples, resp) ** 3).sum(), leaf, retain_graph=True)
    (got,) = torch.autograd.grad((mixture(samples) ** 3).sum(), leaf)
    torch.testing.assert_close(got, expected)


def test_gradient_of_em_is_exact() -> None:
    mixture = PrototypeMixture(3, 2, gradient="em", em_iterations=3, kappa=2.0).double()
    flat, weights = torch.randn(1, 6, 3).double(), torch.rand(1, 6).double()
    assert torch.autograd.gradcheck(lambda x: mixture(Samples(x, weights)), flat.requires_grad_())


@pytest.mark.parametrize("init", ["random", "kmeans++"])
def test_start_comes_from_the_seed_and_is_saved(init: str) -> None:
    samples, _ = partition_samples(features(), box_mask())
    before = torch.get_rng_state()
    one, same, other = (PrototypeMixture(4, 3, init=init, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(one(samples), same(samples))
    assert torch.equal(torch.get_rng_state(), before)  # neither construction nor use draws
    assert not torch.equal(one.start, other.start)
    assert list(one.state_dict()) == ["start"]
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(samples), other(samples))


def test_half_precision_features() -> None:
    support, mask = features(c=16).bfloat16(), box_mask()
    mixture = PrototypeMixture(16, 3)
    with torch.autocast("cpu", torch.bfloat16):
        half = mixture(partition_samples(support, mask)[0])
    single = mixture(partition_samples(support.float(), mask)[0])
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, single, rtol=1e-5, atol=1e-6)


def test_prototypes_recover_the_parts_of_an_object() -> None:
    """Three bands of distinct features under the mask, other features outside it."""
    c = 8
    support = torch.zeros(1, 1, c, 9, 9)
    for band in range(3):
        support[:, :, band, 3 * band : 3 * band + 3, :6] = 1
    support[:, :, 5, :, 6:] = 1
    support += 0.02 * torch.randn(support.shape, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(1, 1, 1, 9, 9)
    mask[..., :6] = 1
    inside, outside = partition_samples(support, mask)
    mixture = PrototypeMixture(c, 3, init="kmeans++")
    cosine = F.normalize(mixture(inside)[0], dim=1)[:, :3]
    assert np.array_equal(np.sort(cosine.argmax(dim=1).numpy()), [0, 1, 2])
    assert cosine.amax(dim=1).min() > 0.99
    assert (F.normalize(mixture(outside)[0], dim=1)[:, 5] > 0.99).all()


def _means(samples: Samples, resp: Tensor) -> Tensor:
    weighted = resp * samples.weights.unsqueeze(2)
    return torch.einsum("bnk,bnc->bkc", weighted, samples.features) / weighted.sum(dim=1)[..., None]
