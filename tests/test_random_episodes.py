"""Random episodes with extreme masks and extreme features: every answer is a number.

    PMMS_EPISODES=10000 python -m pytest tests/test_random_episodes.py

tries as many, shared among the networks. By default a few hundred are tried.
"""

import math
import os
from collections.abc import Callable

import pytest
import torch
from fakes import tiny_model
from torch import Tensor

from pmms.model_config import MODELS
from pmms.training import segmentation_loss

EPISODES = int(os.environ.get("PMMS_EPISODES", "600"))
BATCH = 10
CHANNELS = 12

Draw = Callable[[tuple[int, ...], torch.Generator], Tensor]


def _one_pixel(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    mask = torch.zeros(shape).flatten(1)
    place = torch.randint(mask.shape[1], (len(mask),), generator=generator)
    mask[torch.arange(len(mask)), place] = 1
    return mask.view(shape)


def _all_but_one_pixel(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return 1 - _one_pixel(shape, generator)


def _all(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.ones(shape)


def _line(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    mask = torch.zeros(shape)
    mask[..., int(torch.randint(shape[-1], (), generator=generator))] = 1
    return mask


def _speckles(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.maximum(
        (torch.rand(shape, generator=generator) < 0.02).float(), _one_pixel(shape, generator)
    )


def _faint(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """A soft mask that is hardly there."""
    return 1e-6 * torch.rand(shape, generator=generator) + 1e-9


def _box(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    mask = torch.zeros(shape)
    y, x = (int(torch.randint(side - 1, (), generator=generator)) for side in shape[-2:])
    mask[..., y : y + shape[-2] // 2 + 1, x : x + shape[-1] // 2 + 1] = 1
    return mask


MASKS: tuple[Draw, ...] = (_one_pixel, _all_but_one_pixel, _all, _line, _speckles, _faint, _box)


def _noise(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator)


def _after_relu(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=generator).relu()


def _zeros(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.zeros(shape)


def _constant(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """The same feature at every position: all samples coincide."""
    return torch.randn((*shape[:-2], 1, 1), generator=generator).expand(shape).clone()


def _large(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Near the largest number of float16, in which features are kept."""
    return 6e4 * torch.rand(shape, generator=generator)


def _tiny(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Below the smallest normal number of float16."""
    return 1e-7 * torch.randn(shape, generator=generator)


def _opposite(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Features and their negatives, whose mean is zero."""
    features = torch.randn((*shape[:-2], 1, 1), generator=generator).expand(shape).clone()
    features[..., ::2, :] *= -1
    return features


def _one_channel(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """One channel shouts, as in real networks."""
    features = torch.rand(shape, generator=generator)
    features[..., 3, :, :] *= 1e4
    return features


FEATURES: tuple[Draw, ...] = (
    _noise, _after_relu, _zeros, _constant, _large, _tiny, _opposite, _one_channel,
)  # fmt: skip


def _whole(value: int, generator: torch.Generator) -> int:
    return int(torch.randint(value, (), generator=generator))


@pytest.mark.slow
@pytest.mark.timeout(0 if EPISODES > 600 else 300)
@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("name", MODELS)
def test_no_answer_and_no_gradient_is_nan(name: str, mode: str) -> None:
    generator = torch.Generator().manual_seed(hash_of(name, mode))
    batches = math.ceil(EPISODES / (BATCH * 2 * len(MODELS)))
    for turn in range(batches):
        k = 1 + _whole(6, generator)
        stages = {"baseline": 1, "no_support": 1, "rpmms": (k, 1 + k // 2, k + 2)}.get(name, k)
        model = tiny_model(
            name, seed=turn, k=stages, kernel=("vmf", "gaussian")[_whole(2, generator)],
            kappa=(0.1, 20.0, 200.0)[_whole(3, generator)],
            init=("random", "kmeans++")[_whole(2, generator)], em_iterations=10,
            gradient=("none", "means", "em")[_whole(3, generator)],
        )  # fmt: skip
        model.train(mode == "train" and model.config.learns)
        shots, h, w = 1 + _whole(3, generator), 2 + _whole(5, generator), 2 + _whole(5, generator)
        # Every episode of the batch has a mask and features of another kind.
        masks = torch.stack([_of(MASKS, (shots, 1, 8 * h, 8 * w), generator) for _ in range(BATCH)])
        support = torch.stack(
            [_of(FEATURES, (shots, CHANNELS, h, w), generator) for _ in range(BATCH)]
        )
        query = torch.stack([_of(FEATURES, (CHANNELS, h, w), generator) for _ in range(BATCH)])
        support.requires_grad_(mode == "train")
        with torch.set_grad_enabled(mode == "train"):
            answer = model.segment(support, masks, query)
            for logits in answer.stages:
                assert logits.isfinite().all(), f"batch {turn}"
            assert answer.prototypes.foreground.isfinite().all(), f"batch {turn}"
            if answer.prob_map is not None:
                assert answer.prob_map.sum(dim=1).sub(1).abs().max() < 1e-4, f"batch {turn}"
            assert set(answer.masks((8 * h, 8 * w)).unique().tolist()) <= {0, 1}
            if mode == "train" and model.config.learns:
                target = (masks[:, 0, 0] > 0.5).long()
                segmentation_loss(answer, target).backward()
                slopes = [p.grad for p in model.parameters() if p.grad is not None]
                assert slopes
                slopes += [] if support.grad is None else [support.grad]
                assert all(slope.isfinite().all() for slope in slopes), f"batch {turn}"


def _of(draws: tuple[Draw, ...], shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return draws[_whole(len(draws), generator)](shape, generator)


def hash_of(*texts: str) -> int:
    """A number of 32 bits that is the same in every process."""
    return sum(ord(letter) * 31**place for place, letter in enumerate("".join(texts))) % 2**32
