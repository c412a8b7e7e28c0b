"""Parts of a batch: dropout and batch normalisation as if the batch were whole."""

import copy
from collections.abc import Callable

import pytest
import torch
from fakes import tiny_model
from torch import Tensor, nn

import pmms
from pmms.batch_parts import Part, PartInTurn, as_parts, batch_parts


def test_parts_cover_a_batch_once() -> None:
    parts = [batch_parts(12, rank=rank, processes=2, accumulate=3) for rank in (0, 1)]
    assert parts[0] == [Part(0, 2, 12), Part(2, 4, 12), Part(4, 6, 12)]
    assert parts[1] == [Part(6, 8, 12), Part(8, 10, 12), Part(10, 12, 12)]
    assert batch_parts(8, rank=0, processes=1, accumulate=1) == [Part(0, 8, 8)]
    with pytest.raises(ValueError, match=r"batch_size must be a multiple of .* 4 x 3, got 8"):
        batch_parts(8, rank=0, processes=4, accumulate=3)


@pytest.mark.parametrize("each", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_of_parts_is_that_of_the_whole(each: int, dtype: torch.dtype) -> None:
    """To the bit; ``each`` rows of an episode are neighbours."""
    module = nn.Dropout2d(0.3).train()
    x = torch.rand(8 * each, 5, 4, 3, generator=torch.Generator().manual_seed(1)).to(dtype)
    torch.manual_seed(7)
    whole = module(x)
    assert (whole == 0).any()
    turn, pieces = PartInTurn(), []
    with as_parts(module, turn, total=None):
        for turn.part in batch_parts(8, rank=0, processes=1, accumulate=4):
            torch.manual_seed(7)
            pieces.append(module(x[turn.part.start * each : turn.part.stop * each]))
        module.eval()
        assert torch.equal(module(x), x)
    assert torch.equal(torch.cat(pieces), whole)


def in_one(*others: Tensor) -> Callable[[Tensor], Tensor]:
    """A sum over processes, of which the others' contributions are known."""
    calls = iter(others)
    return lambda mine: mine + next(calls)


@pytest.mark.parametrize("affine", [True, False])
def test_batch_normalisation_over_two_processes(affine: bool) -> None:
    """Forward, running statistics, and gradients, each process in turn with the other's sums."""
    torch.manual_seed(0)
    x = (3 * torch.randn(6, 4, 5, 7) + 100).requires_grad_()  # a mean far from zero
    slope = torch.randn(6, 4, 5, 7)
    plain, synced = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
    for module in (plain, synced):
        nn.init.constant_(module.weight, 1.7)
        module.requires_grad_(affine)
    whole = plain(x)
    (whole * slope).sum().backward()
    halves = [x.detach()[:3].clone().requires_grad_(), x.detach()[3:].clone().requires_grad_()]
    told: list[list[Tensor]] = [[], []]

    def listening(half: int) -> Callable[[Tensor], Tensor]:
        def total(mine: Tensor) -> Tensor:
            told[half].append(mine)
            return mine

        return total

    # What each would tell the other; in the backward pass that follows from the forward one.
    for half in (0, 1):
        with as_parts(synced, PartInTurn(), total=listening(half)):
            synced(halves[half].detach())
    statistics = [sums[0] for sums in told]
    with torch.no_grad():
        mean, scale = x.mean((0, 2, 3)), (x.var((0, 2, 3), correction=0) + plain.eps).rsqrt()
        standard = (x - mean[:, None, None]) * scale[:, None, None]
    backward = [
        torch.stack([g.sum((0, 2, 3)), (g * s).sum((0, 2, 3))])
        for g, s in ((slope[:3], standard[:3]), (slope[3:], standard[3:]))
    ]
    synced.reset_running_stats()
    for half in (0, 1):
        other = 1 - half
        synced.reset_running_stats()
        total = in_one(statistics[other], backward[other])
        with as_parts(synced, PartInTurn(), total=total):
            part = synced(halves[half])
            (part * slope[3 * half : 3 * half + 3]).sum().backward()
        torch.testing.assert_close(part, whole[3 * half : 3 * half + 3], rtol=1e-4, atol=1e-4)
        expected = x.grad[3 * half : 3 * half + 3]
        torch.testing.assert_close(halves[half].grad, expected, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(synced.running_mean, plain.running_mean)
        torch.testing.assert_close(synced.running_var, plain.running_var)
        assert synced.num_batches_tracked == 1
    if affine:  # the gradients of both processes have been added up
        torch.testing.assert_close(synced.weight.grad, plain.weight.grad, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(synced.bias.grad, plain.bias.grad, rtol=1e-4, atol=1e-4)
    else:
        assert synced.weight.grad is None


def test_batch_normalisation_in_bfloat16_and_in_eval() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 3, 5, 5)
    plain, synced = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    with as_parts(synced, PartInTurn(), total=torch.clone):
        assert synced(x.bfloat16()).dtype == torch.bfloat16
        torch.testing.assert_close(synced(x.bfloat16()), plain(x).bfloat16(), rtol=2e-2, atol=2e-2)
        synced.eval()
        synced.reset_running_stats()
        torch.testing.assert_close(synced(x), nn.BatchNorm2d(3).eval()(x))


@pytest.mark.parametrize("training", [True, False])
def test_a_backbone_of_another_package_computes_the_same(training: bool) -> None:
    """EfficientNet's normalisation layers, of timm, apply the activation too."""
    backbone = pmms.build_backbone("efficientnet_lite0").train(training)
    image = torch.rand(4, 3, 96, 96)
    kept = copy.deepcopy(backbone.state_dict())
    with torch.no_grad():
        alone = backbone(image)
        backbone.load_state_dict(kept)
        with as_parts(backbone, PartInTurn(), total=torch.clone):
            # Sums in another order, 48 layers deep. Without activations it is off by two.
            torch.testing.assert_close(backbone(image), alone, rtol=0, atol=1e-2)


def test_the_model_is_left_as_it_was() -> None:
    model = tiny_model(norm="batch", aspp_dropout=0.5)
    before = {name: type(module) for name, module in model.named_modules()}
    with as_parts(model, PartInTurn(), total=torch.clone):
        changed = [m for m in model.modules() if "forward" in vars(m)]
        assert {type(m) for m in changed} == {nn.Dropout2d, nn.BatchNorm2d}
    assert not any("forward" in vars(module) for module in model.modules())
    assert {name: type(module) for name, module in model.named_modules()} == before
