"""A batch in parts, by process or one after the other: what each part needs to know of the whole.

A network sees one image at a time but for two layers. Dropout draws random numbers for a batch:
here each part draws those of the whole batch and takes its own. Batch normalisation takes mean and
variance over a batch: here over the parts of all processes, by adding up their sums. Over parts of
one process, one after the other, it cannot: there BatchNorm sees smaller batches.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Part(NamedTuple):
    """Rows ``start`` to ``stop`` of a batch of ``whole`` episodes."""

    start: int
    stop: int
    whole: int

    @property
    def rows(self) -> slice:
        """The same, for indexing."""
        return slice(self.start, self.stop)


def batch_parts(size: int, *, rank: int, processes: int, accumulate: int) -> list[Part]:
    """The parts of a batch that process ``rank`` takes, one after the other.

    Raises:
        ValueError: if the parts were not of one length.
    """
    length, rest = divmod(size, processes * accumulate)
    if rest:
        raise ValueError(
            f"batch_size must be a multiple of processes x accumulate = {processes} x "
            f"{accumulate}, got {size}"
        )
    first = rank * accumulate * length
    return [Part(i, i + length, size) for i in range(first, first + accumulate * length, length)]


class PartInTurn:
    """Holds the part that is being computed."""

    part: Part


@contextmanager
def as_parts(
    model: nn.Module, turn: PartInTurn, *, total: Callable[[Tensor], Tensor] | None
) -> Iterator[None]:
    """Within the block, dropout and batch normalisation of ``model`` know that they see parts.

    Args:
        model: its ``Dropout2d`` and ``BatchNorm2d`` change how they compute, not what they are.
        turn: says which part; the random generator must be the same for all parts of a batch.
        total: sums a tensor over the processes; None if there is only one.
    """
    changed: list[nn.Module] = []
    for module in model.modules():
        if isinstance(module, nn.Dropout2d):
            # Calling the module finds the instance's own attribute before the method of its class.
            module.forward = partial(_dropout, module, turn)  # type: ignore[method-assign]
        elif isinstance(module, nn.BatchNorm2d) and total is not None:
            module.forward = partial(_batch_norm, module, total)  # type: ignore[method-assign]
        else:
            continue
        changed.append(module)
    try:
        yield
    finally:
        for module in changed:
            del module.forward  # that of its class shows again


def _dropout(module: nn.Dropout2d, turn: PartInTurn, x: Tensor) -> Tensor:
    """Dropout2d with the random numbers that the whole batch would get.

    Rows of one episode are neighbours: support images, or prototypes, were folded into the batch.
    """
    if not module.training or module.p == 0:
        return x
    part, keep = turn.part, 1 - module.p
    each = x.shape[0] // (part.stop - part.start)
    noise = x.new_empty(part.whole * each, x.shape[1], 1, 1).bernoulli_(keep).div_(keep)
    return x * noise[part.start * each : part.stop * each]


def _batch_norm(module: nn.BatchNorm2d, total: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """BatchNorm2d with the statistics of all processes."""
    if not module.training:
        answer: Tensor = type(module).forward(module, x)
        return answer
    with torch.no_grad():
        variance, mean = torch.var_mean(_single(x), dim=(0, 2, 3), correction=0)
        # Squares are summed in float64: the difference of two sums is a small number.
        mean, variance = mean.double(), variance.double()
        n = torch.full_like(mean, x.numel() / x.shape[1])
        n, first, second = total(torch.stack([n, n * mean, n * (variance + mean.square())]))
        mean = first / n
        variance = (second / n - mean.square()).clamp(min=0)
        tracked, running_mean, running_var = (
            module.num_batches_tracked, module.running_mean, module.running_var
        )  # fmt: skip
        share = module.momentum
        # No network here has BatchNorm without running statistics.
        assert tracked is not None
        assert running_mean is not None
        assert running_var is not None
        assert share is not None
        tracked.add_(1)
        running_mean.lerp_(mean.to(running_mean), share)
        running_var.lerp_((variance * n / (n - 1)).to(running_var), share)
        scale = (variance + module.eps).rsqrt()
    normalised: Tensor = _Normalise.apply(  # type: ignore[no-untyped-call]  # PyTorch's, from C
        x, module.weight, module.bias, mean.to(_single(x)), scale.to(_single(x)), n, total
    )
    # Those of timm go on with dropout and activation.
    for after in ("drop", "act"):
        normalised = getattr(module, after, nn.Identity())(normalised)
    return normalised


def _single(x: Tensor) -> Tensor:
    """In float32, or float64 where it is that already."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class _Normalise(torch.autograd.Function):
    """(x - mean) scale weight + bias, where mean and scale follow from the x of all processes."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        scale: Tensor,
        n: Tensor,
        total: Callable[[Tensor], Tensor],
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, scale, n)
        ctx.total = total
        factor = scale * weight
        shift = bias - mean * factor
        return (_single(x) * factor[:, None, None] + shift[:, None, None]).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, of_output: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale, n = ctx.saved_tensors
        gradient = _single(of_output)
        standard = (x - mean[:, None, None]) * scale[:, None, None]
        sums = torch.stack([gradient.sum((0, 2, 3)), (gradient * standard).sum((0, 2, 3))])
        constant, slope = ctx.total(sums) / n.to(sums)
        of_x = gradient - constant[:, None, None] - standard * slope[:, None, None]
        of_x = of_x * (scale * weight)[:, None, None]
        needs = ctx.needs_input_grad
        return (
            of_x.to(x.dtype) if needs[0] else None,
            sums[1] if needs[1] else None,
            sums[0] if needs[2] else None,
            *[None] * 4,
        )
