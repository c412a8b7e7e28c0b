"""Checks of values that may lie on an accelerator, which must not be kept waiting."""

import torch
from torch import Tensor


def require(condition: Tensor, message: str) -> None:
    """ValueError unless the condition, a bool, holds: raised on the CPU; on an accelerator asserted
    there, without waiting for the answer."""
    if host_may_look(condition):
        if not condition:
            raise ValueError(message)
    else:
        torch._assert_async(condition, message)


def host_may_look(tensor: Tensor) -> bool:
    """Whether a branch may depend on a value: not where that costs a wait, or breaks a graph."""
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()
