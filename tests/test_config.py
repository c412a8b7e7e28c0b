"""Settings of a run: what is accepted, what is refused and how, names of records."""

import json
import math
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from pmms.config import PARAMETERS, PARTS, PROFILES, RunConfig, run_config
from pmms.model_config import ModelConfig
from pmms.protocols import Protocol
from pmms.results import RunRecord
from pmms.train_config import TrainConfig


def test_mini_needs_nothing() -> None:
    config = run_config()
    assert config == run_config("mini")
    assert config.profile == "mini"
    assert config.data.dataset == "parts"
    assert config.model.backbone == "efficientnet_lite0"
    assert config.train.backbone_lr == 0


def test_paper_has_the_paper_s_settings() -> None:
    config = run_config("paper", root="VOCdevkit")
    assert config.model == ModelConfig(name="pmms", backbone="resnet50")
    assert config.train == TrainConfig(backbone_lr=0.1)
    assert config.protocol == Protocol()
    assert (config.data.train_size, config.data.test_size) == (321, 481)
    with pytest.raises(ValueError, match="root"):
        run_config("paper")


def test_a_parameter_goes_on_top_of_the_profile() -> None:
    changed = run_config("mini", model="rpmms", fold=2, episode_seeds=[3], k=[1, 2, 4])
    flat, plain = changed.flat(), run_config().flat()
    assert {name for name in flat if flat[name] != plain[name]} == {
        "model", "fold", "episode_seeds", "k",
    }  # fmt: skip
    assert changed.model.k == (1, 2, 4)
    assert changed.protocol.seeds == (3,)


def test_every_field_has_one_parameter() -> None:
    assert len(set(PARAMETERS.values())) == len(PARAMETERS) == len(run_config().flat()) - 1
    follow = {"protocol": {"form", "size"}}  # from dataset and test_size
    for part, kind in PARTS.items():
        named = {field for where, field in PARAMETERS.values() if where == part}
        assert named == set(kind.__dataclass_fields__) - follow.get(part, set())
    for profile in PROFILES.values():
        assert set(profile) <= set(PARAMETERS)


def test_an_unknown_parameter_is_answered_with_the_list() -> None:
    with pytest.raises(ValueError, match=r"unknown parameter\(s\) iteration, kapa; valid are") as e:
        run_config(kapa=3, fold=1, iteration=4)
    assert all(name in str(e.value) for name in PARAMETERS)


def test_an_unknown_profile() -> None:
    with pytest.raises(ValueError, match="profile must be one of mini, paper; got 'maxi'"):
        run_config("maxi")


WRONG_TYPE: list[tuple[str, Any]] = [
    ("dataset", 1), ("dataset", None), ("fold", "1"), ("fold", 1.0), ("fold", True),
    ("validation", 1), ("validation", "true"), ("root", 3), ("labels", None),
    ("train_images", 1e3), ("test_images", "300"), ("extra_classes", 2.5), ("views", None),
    ("train_size", 160.0), ("model", 3), ("backbone", None), ("backbone_options", 3),
    ("backbone_options", "magnify"), ("kernel", 1), ("kappa", "20"), ("kappa", None),
    ("kappa", True), ("em_iterations", 2.0), ("init", None), ("em_seed", "0"), ("width", "48"),
    ("p_conv_kappa", "none"), ("norm", None), ("dropout", "0"), ("aspp_dropout", None),
    ("iterations", "100"), ("iterations", 100.0), ("batch_size", True), ("learning_rate", "0.1"),
    ("momentum", None), ("train_void", 0), ("precision", 32), ("seed", 1.5), ("shots", "1"),
    ("episodes", None), ("test_void", True), ("protocol", 1), ("resolution", 481),
]  # fmt: skip


@pytest.mark.parametrize("name, value", WRONG_TYPE)
def test_a_value_of_the_wrong_type(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=f"^{name} must be .*, got ") as error:
        run_config(**{name: value})
    assert repr(value) in str(error.value)


WRONG_VALUE: list[tuple[str, Any]] = [
    ("dataset", "voc"), ("fold", 4), ("fold", -1), ("train_images", 0), ("test_images", -3),
    ("extra_classes", -1), ("views", 0), ("train_size", 0), ("test_size", -8),
    ("model", "pmm"), ("backbone", "resnet18"), ("k", 0), ("k", (1, 2)), ("k", "3"), ("k", 2.0),
    ("k", ()), ("kernel", "laplace"), ("kappa", 0), ("kappa", -1.0), ("kappa", math.nan),
    ("kappa", math.inf), ("em_iterations", 0), ("init", "first"), ("em_seed", -1),
    ("em_features", "both"), ("prototype_scale", "none"), ("gradient", "all"),
    ("mask_partition", "hard"), ("fusion", "max"), ("prob_map_at", "end"), ("p_conv_kappa", 0),
    ("width", 1), ("reduce_kernel", 2), ("norm", "layer"), ("dropout", 1.0),
    ("aspp_rates", (1, 2)), ("aspp_rates", 6), ("aspp_dropout", -0.1),
    ("iterations", 0), ("batch_size", 0), ("learning_rate", 0.0), ("learning_rate", math.inf),
    ("momentum", 1), ("weight_decay", -1.0), ("power", -1), ("backbone_lr", -0.1),
    ("train_void", "skip"), ("precision", "float16"), ("log_every", 0), ("checkpoint_every", -1),
    ("shots", 0), ("episodes", 0), ("episode_seeds", ()), ("episode_seeds", (0, 0)),
    ("episode_seeds", "01"), ("episode_seeds", (0.5,)), ("test_void", "skip"),
    ("resolution", "network"), ("checkpoint", "best"),
]  # fmt: skip


@pytest.mark.parametrize("name, value", WRONG_VALUE)
def test_a_value_that_does_not_fit(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name} (must|is)"):
        run_config(**{name: value})


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_every_parameter_refuses_what_is_nothing_like_it(name: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^{name} must be"):
        run_config(**{name: object()})


@pytest.mark.parametrize("name", ["kappa", "learning_rate", "momentum", "p_conv_kappa"])
def test_a_whole_number_may_stand_for_a_float(name: str) -> None:
    value = 0 if name == "momentum" else 5
    taken = run_config(**{name: value}).flat()[name]
    assert isinstance(taken, float)
    assert taken == value
    assert run_config(**{name: value}).name == run_config(**{name: float(value)}).name


def test_none_is_a_value_for_some() -> None:
    assert run_config(p_conv_kappa=None).model.p_conv_kappa is None
    assert run_config(k=None).model.k == (3,)


@pytest.mark.parametrize(
    "config",
    [
        run_config(),
        run_config("paper", root="VOCdevkit", model="rpmms", fold=3, shots=5),
        run_config(model="training_free", k=5, episode_seeds=4, backbone_options={"magnify": True}),
    ],
)
def test_flat_parameters_make_the_same_run(config: RunConfig) -> None:
    assert run_config(**config.flat()) == config
    # Through JSON too, as they stand in records and model files.
    again = run_config(**json.loads(json.dumps(config.flat())))
    assert again == config
    assert again.name == config.name


def test_names_tell_runs_apart() -> None:
    changes: dict[str, Any] = {
        "validation": True, "train_split": "trainval", "test_split": "test", "labels": "Mine",
        "dataset": "pascal", "fold": 1, "train_images": 499, "test_images": 299,
        "extra_classes": 1, "train_size": 128, "test_size": 128, "views": 3,
        "model": "pmms_plus", "backbone": "vgg16", "backbone_options": {"magnify": True}, "k": 4,
        "kernel": "gaussian", "kappa": 19.0, "em_iterations": 9, "init": "kmeans++", "em_seed": 1,
        "em_features": "raw", "prototype_scale": "unit", "gradient": "none", "fusion": "sum",
        "mask_partition": "product", "prob_map_at": "residual", "p_conv_kappa": None, "width": 8,
        "reduce_kernel": 3, "norm": "batch", "dropout": 0.5, "aspp_rates": (1, 2, 3),
        "aspp_dropout": 0.5, "iterations": 9, "batch_size": 9, "learning_rate": 0.9,
        "momentum": 0.0, "weight_decay": 0.0, "power": 0.0, "backbone_lr": 0.5,
        "train_void": "background", "precision": "bfloat16", "seed": 1, "log_every": 9,
        "checkpoint_every": 9, "shots": 5, "episodes": 9, "episode_seeds": (9,),
        "protocol": "theirs",
    }  # fmt: skip
    fixed = {  # by "ours"; another name is free in them
        "test_void": "background", "test_episodes": "hsnet",
        "test_aspect": "pad", "query_mask": "resized", "shot_fusion": "vote", "fb_iou": False,
        "resolution": "network",
    }  # fmt: skip
    of_disk = {  # no choice for "parts"
        "root", "classes", "layout", "year", "train_lists", "masks", "min_area", "keep_novel",
        "min_images", "max_images", "test_lists",
    }  # fmt: skip
    assert set(PARAMETERS) - set(changes) - set(fixed) - of_disk == {"checkpoint"}
    names = {run_config(**{name: value}, root="x").name for name, value in changes.items()}
    for name, value in fixed.items():
        with pytest.raises(ValueError, match=f"^{name} must be"):
            run_config(**{name: value})
        resized = {"query_mask": "resized"} if name == "resolution" else {}
        names.add(run_config(**{name: value}, **resized, protocol="other").name)
    names.add(run_config().name)
    assert len(names) == len(changes) + len(fixed) + 1
    for name in names:
        RunRecord(name=name, parameters={}, protocol={}, scores={})


def test_a_name_tells_what_was_run() -> None:
    config = run_config(fold=2, model="rpmms", shots=5, seed=7)
    assert config.name.startswith("parts-fold2-rpmms-efficientnet_lite0-5shot-seed7-")


def test_where_the_data_lies_is_not_in_the_name() -> None:
    names = {run_config("paper", root=root).name for root in ("here", "there")}
    assert len(names) == 1


def test_settings_are_frozen() -> None:
    config = run_config()
    for part, name in ((config, "profile"), (config.data, "fold"), (config.train, "seed")):
        with pytest.raises(FrozenInstanceError):
            setattr(part, name, 1)
