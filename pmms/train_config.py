"""Settings of the optimisation, checked when they are written down."""

import math
from dataclasses import dataclass
from typing import Literal

from pmms.checks import whole


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of the optimisation.

    Attributes:
        iterations: steps; 200,000 in the paper.
        batch_size: episodes a step; 8 in the paper.
        learning_rate: at the first step; 0.0035 in the paper.
        momentum: of SGD; 0.9 in the paper.
        weight_decay: of all weights.
        power: of the "poly" schedule, ``learning_rate * (1 - t / iterations) ** power``.
        backbone_lr: learning rate of the backbone as a share of the head's; 0 freezes it. The
            authors' code has 0.1, with the affine parameters of BatchNorm frozen.
        void: how the loss takes void pixels: "ignore", or "background" as the authors' code does.
        precision: "float32", or "bfloat16" for automatic mixed precision.
        seed: of the episodes, the views, dropout.
        log_every: steps between two rows of the log, each the mean loss since the last.
        checkpoint_every: steps between two checkpoints.
        accumulate: parts of a batch that are computed one after the other, for less memory; the
            gradients add up to those of the whole batch. Only BatchNorm sees the smaller parts.
    """

    iterations: int = 200_000
    batch_size: int = 8
    learning_rate: float = 0.0035
    momentum: float = 0.9
    weight_decay: float = 5e-4
    power: float = 0.9
    backbone_lr: float = 0.0
    void: Literal["ignore", "background"] = "ignore"
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: int = 0
    log_every: int = 20
    checkpoint_every: int = 500
    accumulate: int = 1

    def __post_init__(self) -> None:
        counts = ("iterations", "batch_size", "log_every", "checkpoint_every", "accumulate")
        for name in counts:
            value = getattr(self, name)
            if not whole(value, least=1):
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"accumulate must divide batch_size, {self.batch_size}; got {self.accumulate}"
            )
        ranges = {
            "learning_rate": 0 < self.learning_rate < math.inf,
            "momentum": 0 <= self.momentum < 1,
            "weight_decay": 0 <= self.weight_decay < math.inf,
            "power": 0 <= self.power < math.inf,
            "backbone_lr": 0 <= self.backbone_lr < math.inf,
            "void": self.void in ("ignore", "background"),
            "precision": self.precision in ("float32", "bfloat16"),
        }
        for name, good in ranges.items():
            if not good:
                raise ValueError(f"{name} is out of range: {getattr(self, name)!r}")

    def learning_rate_at(self, step: int) -> float:
        """The poly schedule, step from 0."""
        return self.learning_rate * float((1 - step / self.iterations) ** self.power)
