"""P-Match against its plain form, P-Conv against the authors' maps, the shapes of the rest."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from searching import examples
from torch import Tensor, nn

from pmms.heads import ASPP, BlockStyle, ConvBlock, PConv, PMatch, ResidualRefinement
from pmms.mixture import fit_mixture, responsibilities

GOLDEN = Path(__file__).parent / "golden" / "em_pconv.npz"
PROPERTY = examples(60)


@pytest.fixture(autouse=True)
def _same_draws_every_time() -> None:
    torch.manual_seed(0)


def plain_p_match(module: PMatch, query: Tensor, prototypes: Tensor) -> Tensor:
    """Eq. 6 as it is written: for each prototype concatenate, convolve, normalise, rectify."""
    block = module.block
    maps = []
    for k in range(prototypes.shape[1]):
        prototype_map = prototypes[:, k, :, None, None].expand_as(query)
        response = block.conv(torch.cat([query, prototype_map], dim=1))
        maps.append(F.relu(block.norm(response)))
    stacked = torch.stack(maps)
    return {"mean": stacked.mean(0), "sum": stacked.sum(0), "max": stacked.amax(0)}[module.fusion]


def relative_error(got: Tensor, expected: Tensor) -> float:
    """Largest error over the largest value: an output near zero is a difference of large terms."""
    return ((got - expected).abs().max() / expected.abs().max()).item()


# --- P-Match --------------------------------------------------------------------------------------


def p_match(channels: int, norm: str, **options: Any) -> PMatch:
    """In eval mode, with batch statistics that are not the initial ones."""
    module = PMatch(channels, style=BlockStyle(norm=norm), **options).eval()
    if norm == "batch":
        module.block.norm.running_mean.uniform_(-0.3, 0.3)
        module.block.norm.running_var.uniform_(0.5, 2)
    return module


@PROPERTY
@given(
    h=st.integers(1, 9),
    w=st.integers(1, 9),
    k=st.integers(1, 10),
    channels=st.integers(2, 20),
    dilation=st.integers(1, 4),
    norm=st.sampled_from(["none", "group", "batch"]),
    fusion=st.sampled_from(["mean", "sum", "max"]),
    seed=st.integers(0, 10_000),
)
def test_p_match_equals_the_plain_form(
    h: int, w: int, k: int, channels: int, dilation: int, norm: str, fusion: str, seed: int
) -> None:
    """In float64, where rounding hides nothing; also for maps smaller than the dilation."""
    torch.manual_seed(seed)
    module = p_match(channels, norm, dilation=dilation, fusion=fusion).double()
    query = torch.randn(2, channels, h, w).double()
    prototypes = torch.randn(2, k, channels).double()
    with torch.no_grad():
        got = module(query, prototypes)
        assert got.shape == (2, channels, h, w)
        plain = plain_p_match(module, query, prototypes)
    torch.testing.assert_close(got, plain, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("norm", ["none", "group", "batch"])
@pytest.mark.parametrize("fusion", ["mean", "sum", "max"])
@pytest.mark.parametrize(
    "h, w, channels, k, dilation",
    [
        (1, 1, 48, 1, 2),
        (2, 3, 48, 10, 4),
        (20, 20, 48, 1, 1),
        (20, 20, 48, 10, 2),
        (13, 41, 256, 6, 2),
        (60, 60, 256, 3, 2),
    ],
)
def test_p_match_equals_the_plain_form_in_single_precision(
    h: int, w: int, channels: int, k: int, dilation: int, fusion: str, norm: str
) -> None:
    module = p_match(channels, norm, dilation=dilation, fusion=fusion)
    query, prototypes = torch.rand(1, channels, h, w), torch.rand(1, k, channels)
    with torch.no_grad():
        plain = plain_p_match(module, query, prototypes)
        assert relative_error(module(query, prototypes), plain) < 2e-6


@pytest.mark.parametrize("norm", ["none", "group", "batch"])
@pytest.mark.parametrize("fusion", ["mean", "sum", "max"])
@pytest.mark.parametrize("dilation", [1, 2])
def test_p_match_has_the_gradients_of_the_plain_form(norm: str, fusion: str, dilation: int) -> None:
    module = PMatch(4, dilation=dilation, fusion=fusion, style=BlockStyle(norm=norm))
    module.double().eval()
    query = torch.randn(2, 4, 5, 3).double().requires_grad_()
    prototypes = torch.randn(2, 3, 4).double().requires_grad_()
    inputs = (query, prototypes, *module.parameters())
    mix = torch.randn(2, 4, 5, 3).double()
    got = torch.autograd.grad((mix * module(query, prototypes)).sum(), inputs)
    expected = torch.autograd.grad((mix * plain_p_match(module, query, prototypes)).sum(), inputs)
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_p_match_gradcheck() -> None:
    module = PMatch(2, style=BlockStyle(norm="none")).double()
    query = torch.randn(1, 2, 4, 3).double().requires_grad_()
    prototypes = torch.randn(1, 2, 2).double().requires_grad_()
    assert torch.autograd.gradcheck(module, (query, prototypes))


def test_p_match_under_autocast_equals_the_plain_form_in_bfloat16() -> None:
    module = PMatch(32, style=BlockStyle(norm="group")).eval()
    query, prototypes = torch.rand(2, 32, 9, 9), torch.rand(2, 3, 32)
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            half = module(query, prototypes)
        assert relative_error(half.float(), plain_p_match(module, query, prototypes)) < 0.03


def test_fusion_by_mean_is_the_sum_over_k() -> None:
    mean, total = (PMatch(6, fusion=fusion).eval() for fusion in ("mean", "sum"))
    total.load_state_dict(mean.state_dict())
    query, prototypes = torch.rand(1, 6, 4, 4), torch.rand(1, 5, 6)
    torch.testing.assert_close(5 * mean(query, prototypes), total(query, prototypes))
    # The same prototype many times is one prototype.
    many = mean(query, prototypes[:, :1].expand(1, 7, 6))
    torch.testing.assert_close(many, mean(query, prototypes[:, :1]))


def test_p_match_does_not_depend_on_the_order_of_prototypes() -> None:
    module = PMatch(6).eval()
    query, prototypes = torch.rand(1, 6, 4, 4), torch.rand(1, 5, 6)
    torch.testing.assert_close(module(query, prototypes.flip(1)), module(query, prototypes))


def test_batch_norm_in_training_sees_the_maps_of_all_prototypes_together() -> None:
    module = PMatch(4, style=BlockStyle(norm="batch")).train()
    query, prototypes = torch.rand(2, 4, 6, 6), torch.rand(2, 3, 4)
    maps = [
        module.block.conv(torch.cat([query, p[:, :, None, None].expand_as(query)], dim=1))
        for p in prototypes.unbind(dim=1)
    ]
    together = F.batch_norm(torch.cat(maps), None, None, training=True).relu()
    expected = together.unflatten(0, (3, 2)).mean(dim=0)
    torch.testing.assert_close(module(query, prototypes), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_p_match_runs_on_the_device_of_its_query(norm: str) -> None:
    module = PMatch(4, style=BlockStyle(norm=norm)).eval().to("meta")
    with torch.no_grad():
        fused = module(torch.empty(1, 4, 5, 5, device="meta"), torch.empty(1, 3, 4, device="meta"))
    assert fused.device.type == "meta"


def test_unknown_fusion_is_refused() -> None:
    with pytest.raises(ValueError, match="'mean', 'sum' or 'max', got 'min'"):
        PMatch(4, fusion="min")


# --- P-Conv ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 3, 5])
def test_golden_probability_maps_of_the_authors_code(k: int) -> None:
    golden = {name: torch.from_numpy(value) for name, value in np.load(GOLDEN).items()}
    feature, query = golden["feature"], golden["query"]
    mask = F.interpolate(golden["mask"], feature.shape[-2:], mode="bilinear", align_corners=True)
    foreground, background = (
        fit_mixture(
            (feature * part).flatten(2).transpose(1, 2),
            k=k,
            init=golden[f"mu0_k{k}"].transpose(1, 2),
        ).means
        for part in (mask, 1 - mask)
    )
    for got, expected in (
        (PConv()(query, foreground, background), golden[f"prob_map_k{k}"]),
        (PConv().maps(query, foreground, background), golden[f"prob_per_prototype_k{k}"]),
    ):
        assert got.shape == expected.shape
        assert relative_error(got, expected) < 1e-5


@PROPERTY
@given(
    k=st.integers(1, 6),
    other=st.integers(1, 6),
    kappa=st.sampled_from([None, 0.5, 20.0]),
    seed=st.integers(0, 10_000),
)
def test_p_conv_is_a_softmax_over_all_prototypes(
    k: int, other: int, kappa: float | None, seed: int
) -> None:
    torch.manual_seed(seed)
    module = PConv(kappa=kappa)
    query = torch.randn(2, 5, 3, 4)
    foreground, background = torch.randn(2, k, 5), torch.randn(2, other, 5)
    prob_map = module(query, foreground, background)
    maps = module.maps(query, foreground, background)
    assert prob_map.shape == (2, 2, 3, 4)
    assert maps.shape == (2, k + other, 3, 4)
    torch.testing.assert_close(prob_map.sum(dim=1), torch.ones(2, 3, 4))
    torch.testing.assert_close(prob_map[:, 1], maps[:, :k].sum(dim=1))
    torch.testing.assert_close(prob_map[:, 0], maps[:, k:].sum(dim=1))
    # Eq. 7, position by position.
    classifiers = F.normalize(torch.cat([foreground, background], dim=1), dim=2)
    for y, x in ((0, 0), (2, 3)):
        feature = query[:, :, y, x]
        if kappa is not None:
            feature = kappa * F.normalize(feature, dim=1)
        expected = torch.einsum("bkc,bc->bk", classifiers, feature).softmax(dim=1)
        torch.testing.assert_close(maps[:, :, y, x], expected)
    # Swapping the sides swaps the channels.
    torch.testing.assert_close(module(query, background, foreground), prob_map.flip(1))


def test_p_conv_with_kappa_is_the_e_step() -> None:
    query = torch.randn(2, 5, 3, 4)
    foreground, background = torch.randn(2, 2, 5), torch.randn(2, 3, 5)
    samples = F.normalize(query, dim=1).flatten(2).transpose(1, 2)
    resp = responsibilities(samples, torch.cat([foreground, background], dim=1), kappa=12.0)
    maps = PConv(kappa=12.0).maps(query, foreground, background)
    torch.testing.assert_close(maps.flatten(2).transpose(1, 2), resp)


def test_p_conv_is_exact_under_autocast() -> None:
    query, prototypes = torch.randn(1, 64, 5, 5), torch.randn(2, 1, 3, 64)
    with torch.autocast("cpu", torch.bfloat16):
        inside = PConv()(query, *prototypes)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, PConv()(query, *prototypes))


@pytest.mark.parametrize("norm", ["none", "group", "batch"])
def test_p_match_takes_prototypes_of_another_precision(norm: str) -> None:
    """EM gives float32, also where the network is of bfloat16."""
    module = p_match(4, norm)
    query, prototypes = torch.randn(2, 4, 6, 6), torch.randn(2, 3, 4)
    with torch.no_grad():
        single = module(query, prototypes)
        half = module.bfloat16()(query.bfloat16(), prototypes)
    assert half.dtype == torch.bfloat16
    assert relative_error(half.float(), single) < 0.05


def test_dilations_are_those_asked_for() -> None:
    assert PMatch(4).block.conv.dilation == (2, 2)
    assert PMatch(4, dilation=3).block.conv.dilation == (3, 3)
    conv = ConvBlock(3, 4, style=BlockStyle()).conv
    assert (conv.dilation, conv.kernel_size) == ((1, 1), (3, 3))


def test_p_conv_takes_a_query_of_another_precision() -> None:
    query, prototypes = torch.randn(1, 8, 3, 3).bfloat16(), torch.randn(2, 1, 3, 8)
    assert torch.equal(PConv()(query, *prototypes), PConv()(query.float(), *prototypes))


def test_p_conv_has_a_floor_under_the_length_of_features_and_prototypes() -> None:
    """Below 1e-6 a direction is noise, and the products go to zero with the length."""
    tiny = torch.tensor([1e-8, 0.0])
    logits = PConv(kappa=10.0).logits(tiny.view(1, 2, 1, 1), tiny.view(1, 1, 2), tiny.view(1, 1, 2))
    assert logits.flatten().tolist() == pytest.approx([10 * 0.01 * 0.01] * 2)


@pytest.mark.parametrize("kappa", [None, 20.0])
def test_p_conv_of_zeros_abstains(kappa: float | None) -> None:
    zeros = torch.zeros(1, 3, 4, requires_grad=True)
    prob_map = PConv(kappa=kappa)(torch.zeros(1, 4, 2, 2), zeros, zeros)
    torch.testing.assert_close(prob_map, torch.full((1, 2, 2, 2), 0.5))
    prob_map[:, 1].sum().backward()
    assert zeros.grad.isfinite().all()


# --- Blocks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel, dilation", [(1, 1), (3, 1), (3, 2), (3, 18), (5, 1)])
@pytest.mark.parametrize("norm", ["batch", "group", "none"])
def test_conv_block_keeps_height_and_width(kernel: int, dilation: int, norm: str) -> None:
    block = ConvBlock(3, 10, kernel=kernel, dilation=dilation, style=BlockStyle(norm=norm))
    out = block(torch.randn(2, 3, 5, 7))
    assert out.shape == (2, 10, 5, 7)
    assert out.min() >= 0


@pytest.mark.parametrize(
    "channels, groups", [(256, 8), (48, 8), (10, 5), (9, 3), (7, 7), (11, 1), (2, 2)]
)
def test_group_norm_takes_as_many_groups_as_divide(channels: int, groups: int) -> None:
    assert ConvBlock(3, channels, style=BlockStyle(norm="group")).norm.num_groups == groups


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(norm="layer"), "norm must be .*'layer'"),
        (dict(dropout=1.0), r"dropout must lie in \[0, 1\), got 1.0"),
        (dict(dropout=-0.1), "got -0.1"),
        (dict(dropout=float("nan")), "got nan"),
    ],
)
def test_block_style_refuses(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BlockStyle(**settings)


@pytest.mark.parametrize("extra", [None, 0, 2, 4])
def test_residual_refinement(extra: int | None) -> None:
    module = ResidualRefinement(6) if extra is None else ResidualRefinement(6, extra=extra)
    x, maps = torch.randn(2, 6, 5, 4), torch.randn(2, extra, 5, 4) if extra else None
    assert module(x, maps).shape == x.shape
    if extra:
        assert not torch.equal(module(x, maps), module(x, maps + 1))
    # Without weights in the blocks nothing is added.
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    assert torch.equal(module(x, maps), x)


@pytest.mark.parametrize("extra", [0, 2])
def test_residual_refinement_done_plainly(extra: int) -> None:
    """Three times x + conv(relu(conv(relu(x)))); the first sees the maps beside x."""
    module = ResidualRefinement(6, extra=extra)
    weights = list(module.parameters())
    assert [w.shape[1] for w in weights[::2]] == [6 + extra, 6, 6, 6, 6, 6]
    x, maps = torch.randn(2, 6, 5, 4), torch.randn(2, extra, 5, 4)
    expected = x
    for first, bias, second, other_bias in zip(*(weights[i::4] for i in range(4)), strict=True):
        inside = torch.cat([expected, maps], dim=1) if first.shape[1] > 6 else expected
        inside = F.conv2d(F.relu(inside), first, bias, padding=1)
        expected = expected + F.conv2d(F.relu(inside), second, other_bias, padding=1)
    torch.testing.assert_close(module(x, maps if extra else None), expected)


def test_residual_refinement_takes_maps_of_another_precision() -> None:
    module = ResidualRefinement(6, extra=2).bfloat16()
    x = torch.randn(1, 6, 4, 4).bfloat16()
    assert module(x, torch.rand(1, 2, 4, 4)).dtype == torch.bfloat16


def test_aspp_done_plainly() -> None:
    """Without normalisation; the image's branch sees one position, so it is 1x1."""
    module = ASPP(6, rates=(1, 2, 3), dropout=0.0)
    weights = list(module.parameters())
    assert [tuple(w.shape[2:]) for w in weights[::2]] == [(1, 1), (1, 1), (3, 3), (3, 3), (3, 3)]
    x = torch.randn(2, 6, 7, 5)
    inputs = [x.mean(dim=(2, 3), keepdim=True), x, x, x, x]
    branches = [
        F.relu(F.conv2d(given, weight, bias, padding=rate, dilation=max(rate, 1)))
        for given, weight, bias, rate in zip(
            inputs, weights[::2], weights[1::2], [0, 0, 1, 2, 3], strict=True
        )
    ]
    branches[0] = branches[0].expand_as(x)
    torch.testing.assert_close(module(x), torch.cat(branches, dim=1))


def test_aspp_has_five_branches_of_growing_reach() -> None:
    module = ASPP(4, dropout=0.0).eval()
    x = torch.zeros(1, 4, 41, 41)
    x[..., 20, 20] = 1
    with torch.no_grad():
        change = (module(x) - module(torch.zeros_like(x))).abs()
    assert change.shape == (1, 20, 41, 41)
    reach = []
    for branch in change.split(4, dim=1):
        touched = branch.amax(dim=(0, 1)).nonzero()
        reach.append((touched - 20).abs().max().item() if len(touched) else None)
    assert reach == [20, 0, 6, 12, 18]  # image average, 1x1, three dilations
    image = module(torch.rand(1, 4, 9, 9))[:, :4]
    torch.testing.assert_close(image, image[..., :1, :1].expand_as(image))


def test_aspp_rates() -> None:
    assert [b.conv.dilation for b in ASPP(2, rates=(1, 2, 3)).atrous] == [(1, 1), (2, 2), (3, 3)]


@pytest.mark.parametrize(
    "build",
    [
        lambda: (PMatch(8, style=BlockStyle(dropout=0.5)), (8, 4, 4), (3, 8)),
        lambda: (ASPP(8, dropout=0.5), (8, 4, 4)),
        lambda: (ConvBlock(8, 8, style=BlockStyle(dropout=0.5)), (8, 4, 4)),
    ],
)
def test_dropout_acts_in_training_only(build) -> None:
    module, *shapes = build()
    inputs = [torch.randn(2, *shape) for shape in shapes]
    module.train()
    assert not torch.equal(module(*inputs), module(*inputs))
    module.eval()
    assert torch.equal(module(*inputs), module(*inputs))
