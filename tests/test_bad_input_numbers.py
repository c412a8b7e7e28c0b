"""Bad numbers and settings: samples of a mixture, features, transforms, metrics, parameters."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from bad_input import Case, Deed, Table, check
from fakes import TinyBackbone, fake_dataset, tiny_model
from torch import Tensor

from pmms.config import run_config
from pmms.evaluation import evaluate
from pmms.exploration import Settings
from pmms.feature_computing import feature_bank
from pmms.heads import PMatch
from pmms.mixture import fit_mixture
from pmms.model_config import ModelConfig
from pmms.protocols import PROTOCOLS, Protocol
from pmms.train_config import TrainConfig
from pmms.transforms import EvalTransform, TrainTransform

case = Table()


# mixtures


def _samples(value: float | None = None) -> Tensor:
    samples = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    if value is not None:
        samples[1, 3, 2] = value
    return samples


for _name, _value in {"NaN": math.nan, "infinite": math.inf, "minus infinite": -math.inf}.items():

    @case(f"{_name} samples", ValueError, "hold NaN or infinite values", "look at the features")
    def _(folder: Path, value: float = _value) -> Deed:
        return lambda: fit_mixture(_samples(value), k=2)


@case("NaN in a sample of weight zero", ValueError, "hold NaN or infinite values")
def _(folder: Path) -> Deed:
    weights = torch.ones(2, 5)
    weights[1, 3] = 0
    return lambda: fit_mixture(_samples(math.nan), weights, k=2)


@case("samples of integers", ValueError, "floating-point tensor (B, N, C)", "int64")
def _(folder: Path) -> Deed:
    return lambda: fit_mixture(torch.ones(1, 4, 3, dtype=torch.int64), k=2)


@case("no sample", ValueError, "without empty dimensions", "(1, 0, 4)")
def _(folder: Path) -> Deed:
    return lambda: fit_mixture(torch.ones(1, 0, 4), k=2)


@case("samples without a batch", ValueError, "(B, N, C)", "(5, 4)")
def _(folder: Path) -> Deed:
    return lambda: fit_mixture(torch.ones(5, 4), k=2)


@case("weights of an empty mask", ValueError, "all-zero weight", "a mask that shows the object")
def _(folder: Path) -> Deed:
    return lambda: fit_mixture(_samples(), torch.tensor([[1.0] * 5, [0.0] * 5]), k=2)


@case("weights below zero", ValueError, "non-negative weights")
def _(folder: Path) -> Deed:
    return lambda: fit_mixture(_samples(), torch.full((2, 5), -0.1), k=2)


@case("weights of NaN", ValueError, "non-negative weights")
def _(folder: Path) -> Deed:
    return lambda: fit_mixture(_samples(), torch.full((2, 5), math.nan), k=2)


@case("weights of another shape", ValueError, "(B, N) = (2, 5)", "(2, 4)")
def _(folder: Path) -> Deed:
    return lambda: fit_mixture(_samples(), torch.ones(2, 4), k=2)


for _value in (0.0, -20.0, math.nan, math.inf):

    @case(f"kappa = {_value}", ValueError, "kappa must be a finite number above 0", str(_value))
    def _(folder: Path, value: float = _value) -> Deed:
        return lambda: fit_mixture(_samples(), k=2, kappa=value)


@case("no prototype", ValueError, "k must be at least 1", "k=0")
def _(folder: Path) -> Deed:
    return lambda: fit_mixture(_samples(), k=0)


@case("kernel that does not exist", ValueError, "kernel must be one of", "vmf", "cauchy")
def _(folder: Path) -> Deed:
    kernel: Any = "cauchy"
    return lambda: fit_mixture(_samples(), k=2, kernel=kernel)


@case("starting means of another width", ValueError, "(2 or 1, 2, 4)", "(1, 2, 3)")
def _(folder: Path) -> Deed:
    return lambda: fit_mixture(_samples(), k=2, init=torch.ones(1, 2, 3))


@case("starting means of NaN", ValueError, "starting means hold NaN")
def _(folder: Path) -> Deed:
    return lambda: fit_mixture(_samples(), k=2, init=torch.full((1, 2, 4), math.nan))


@case("a direction in one channel", ValueError, "at least 2 channels")
def _(folder: Path) -> Deed:
    return lambda: fit_mixture(torch.ones(1, 3, 1), k=2)


# networks


@case("an empty support mask in a network", ValueError, "a mask that shows the object")
def _(folder: Path) -> Deed:
    image = torch.rand(1, 3, 32, 32)
    model = tiny_model("pmms").eval()
    return lambda: model(image[:, None], torch.zeros(1, 1, 1, 32, 32), image)


@case("a support picture of NaN", ValueError, "hold NaN or infinite values")
def _(folder: Path) -> Deed:
    image = torch.rand(1, 3, 32, 32)
    model = tiny_model("pmms").eval()
    return lambda: model(image[:, None] * math.nan, torch.ones(1, 1, 1, 32, 32), image)


class _Broken(TinyBackbone):
    """A backbone whose features are not numbers."""

    def features(self, image: Tensor) -> Tensor:
        return super().features(image) * math.nan


@case("kept features of NaN", ValueError, "NaN or infinite", "backbone")
def _(folder: Path) -> Deed:
    cache = folder / "cache"
    return lambda: feature_bank(fake_dataset(), _Broken(), size=32, cache=cache)


@case("a query that the network cannot answer", ValueError, "NaN or infinite", "weights")
def _(folder: Path) -> Deed:
    model = tiny_model("baseline").eval()
    torch.nn.init.constant_(model.decoder.classify.weight, math.nan)
    protocol = replace(PROTOCOLS["ours"], episodes=10, seeds=(0,))
    return lambda: evaluate(model, fake_dataset(), [1, 2], protocol=protocol, size=32)


@case("fusion that does not exist", ValueError, "fusion must be 'mean', 'sum' or 'max'", "min")
def _(folder: Path) -> Deed:
    fusion: Any = "min"
    return lambda: PMatch(4, fusion=fusion)


# transforms


@case("transform of a float image", TypeError, "image must be uint8", "float32")
def _(folder: Path) -> Deed:
    mask = torch.zeros(8, 8, dtype=torch.uint8)
    return lambda: EvalTransform(8)(torch.rand(3, 8, 8), mask)


@case("transform of sizes that differ", ValueError, "same size", "(3, 8, 8)", "(8, 9)")
def _(folder: Path) -> Deed:
    image, mask = torch.zeros(3, 8, 8, dtype=torch.uint8), torch.zeros(8, 9, dtype=torch.uint8)
    return lambda: TrainTransform(8)(image, mask, seed=0)


@case("transform of nothing", ValueError, "same size", "(0, 8)")
def _(folder: Path) -> Deed:
    image, mask = torch.zeros(3, 0, 8, dtype=torch.uint8), torch.zeros(0, 8, dtype=torch.uint8)
    return lambda: EvalTransform(8)(image, mask)


@case("transform to no size", ValueError, "size must be an integer of at least 2", "0")
def _(folder: Path) -> Deed:
    return lambda: EvalTransform(0)


# parameters, as papermill and the command line give them

_Given = tuple[dict[str, Any], type[Exception], tuple[str, ...]]
_PARAMETERS: dict[str, _Given] = {
    "a parameter that does not exist": (
        {"kapa": 20}, ValueError, ("unknown parameter(s) kapa", "valid are", "kappa"),
    ),
    "a text for a number": ({"iterations": "many"}, TypeError, ("iterations must be int", "many")),
    "a fraction for a whole number": ({"shots": 1.5}, TypeError, ("shots must be int", "1.5")),
    "a truth for a number": ({"seed": True}, TypeError, ("seed must be int", "True")),
    "a number for a text": ({"model": 3}, TypeError, ("model must be", "3")),
    "a profile that does not exist": ({"profile": "huge"}, ValueError, ("one of mini, paper",)),
    "a model that does not exist": ({"model": "unet"}, ValueError, ("one of", "rpmms", "unet")),
    "a protocol of almost that name": (
        {"protocol": "Authors"}, ValueError, ("protocol must be 'authors'", "or unlike it"),
    ),
    "a fold of no data set": ({"fold": 4}, ValueError, ("from 0 to 3", "4")),
    "no prototypes": ({"k": 0}, ValueError, ("k must be", "whole number(s) >= 1")),
    "three Ks for one stage": ({"model": "pmms", "k": (3, 3, 3)}, ValueError, ("must be 1 whole",)),
    "several prototypes of the baseline": ({"model": "baseline", "k": 3}, ValueError, ("1 for",)),
    "a concentration of zero": ({"kappa": 0.0}, ValueError, ("kappa must be a finite number > 0",)),
    "a concentration of NaN": ({"kappa": math.nan}, ValueError, ("a finite number > 0", "nan")),
    "no step": ({"iterations": 0}, ValueError, ("iterations must be a whole number", "1")),
    "a learning rate of zero": ({"learning_rate": 0.0}, ValueError, ("learning_rate", "0.0")),
    "a learning rate of NaN": ({"learning_rate": math.nan}, ValueError, ("learning_rate", "nan")),
    "parts of a batch that do not fit": (
        {"batch_size": 4, "accumulate": 3}, ValueError, ("accumulate must divide batch_size",),
    ),
    "own classes of drawn data": ({"classes": "x"}, ValueError, ("own data is pascal or coco",)),
    "no test images": ({"test_images": 0}, ValueError, ("test_images must be at least 1",)),
    "COCO of no year": (
        {"dataset": "coco", "root": "x", "year": 2020}, ValueError, ("2014 or 2017", "2020"),
    ),
}  # fmt: skip

for _name, (_given, _error, _words) in _PARAMETERS.items():

    @case(_name, _error, *_words)
    def _(folder: Path, given: dict[str, Any] = _given) -> Deed:
        return lambda: run_config(**{"profile": "mini"} | given)


@case("settings of another type", ValueError, "batch_size must be a whole number", "2.0")
def _(folder: Path) -> Deed:
    size: Any = 2.0
    return lambda: TrainConfig(batch_size=size)


@case("a protocol whose name lies", ValueError, "must be 'authors'", "its own name")
def _(folder: Path) -> Deed:
    return lambda: Protocol(name="authors", sampler="ours")


@case("dilations that are none", ValueError, "three dilations", "(6, 12)")
def _(folder: Path) -> Deed:
    rates: Any = (6, 12)
    return lambda: ModelConfig(name="pmms", aspp_rates=rates)


@case("explorer with too many prototypes", ValueError, "k must be 1 to 8", "9")
def _(folder: Path) -> Deed:
    return lambda: Settings(k=9)


@case.parametrize()
def test_bad_numbers_are_refused(case: Case, tmp_path: Path) -> None:
    check(case, tmp_path)


# what is not refused, because it has an answer


def test_more_prototypes_than_samples_coincide() -> None:
    fitted = fit_mixture(torch.eye(3)[None], k=7, init="kmeans++")
    assert fitted.means.isfinite().all()
    assert fitted.resp.sum(dim=2).sub(1).abs().max() < 1e-5


def test_a_mask_of_the_whole_picture_leaves_the_background_the_whole_picture() -> None:
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    answer = tiny_model("pmms").eval()(image[:, None], torch.ones(1, 1, 1, 32, 32), image)
    assert answer.logits.isfinite().all()


@pytest.mark.parametrize("mask_partition", ["weights", "product"])
def test_an_object_of_one_pixel_has_prototypes(mask_partition: str) -> None:
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(1, 1, 1, 64, 64)
    mask[..., 17, 42] = 1
    model = tiny_model("pmms", mask_partition=mask_partition).eval()
    assert model(image[:, None], mask, image).logits.isfinite().all()
