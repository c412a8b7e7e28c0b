"""Settings of a run: what is accepted, what is refused and how, names of records."""

import json
import math
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest

from pmms.config import (
    FIRST,
    PARAMETERS,
    PARTS,
    PROFILES,
    RunConfig,
    changed_run,
    run_config,
)
from pmms.model_config import ModelConfig
from pmms.protocol_episodes import PFENET_AREA
from pmms.protocols import PROTOCOLS, Protocol
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
    ("mask_partition", "hard"), ("fusion", "min"), ("prob_map_at", "end"), ("p_conv_kappa", 0),
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
        "checkpoint_every": 9, "accumulate": 2, "shots": 5, "episodes": 9, "episode_seeds": (9,),
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


def test_a_training_has_the_name_of_what_decides_it() -> None:
    config = run_config(fold=2, seed=7)
    name = config.training_name
    assert name.startswith("parts-fold2-pmms-efficientnet_lite0-seed7-")
    tests = [
        {"shots": 5}, {"episodes": 9}, {"episode_seeds": 3}, {"protocol": "theirs"},
        {"test_images": 299}, {"test_size": 128},
    ]  # fmt: skip
    for change in tests:
        changed = run_config(fold=2, seed=7, **change)
        assert changed.training_name == name
        assert changed.name != config.name
    trainings = [
        {"iterations": 9}, {"train_images": 499}, {"k": 4}, {"em_seed": 1}, {"views": 3},
        {"validation": True}, {"model": "rpmms"}, {"precision": "bfloat16"},
    ]  # fmt: skip
    names = {run_config(fold=2, **{"seed": 7, **change}).training_name for change in trainings}
    assert len(names | {name}) == len(trainings) + 1


def test_published_protocols_share_a_training_unless_their_images_differ() -> None:
    shared: dict[str, Any] = {"dataset": "pascal", "root": "x"}
    names = {p: run_config("paper", **shared, protocol=p).training_name for p in PROTOCOLS}
    assert names["authors"] == names["ours"] == names["hsnet"]
    assert names["pfenet"] != names["ours"]  # its area decides the images of training as well


def test_where_the_data_lies_is_not_in_the_name() -> None:
    names = {run_config("paper", root=root).name for root in ("here", "there")}
    assert len(names) == 1


@pytest.mark.parametrize("dataset", ["pascal", "coco"])
@pytest.mark.parametrize("profile", ["mini", "paper"])
@pytest.mark.parametrize("name", list(PROTOCOLS))
def test_a_protocol_by_name_sets_all_of_it(name: str, profile: str, dataset: str) -> None:
    config = run_config(profile, dataset=dataset, root="x", protocol=name, shots=5)
    form: Any = dataset
    assert config.protocol == Protocol(name=name, form=form, shots=5)
    assert config.protocol.label == name
    sizes = {"ours": {"mini": 160, "paper": 481}[profile], "authors": 481, "hsnet": 400}
    assert config.data.test_size == (sizes | {"pfenet": 641 if dataset == "coco" else 473})[name]
    assert config.data.min_area == (PFENET_AREA if name == "pfenet" else 1)
    again = run_config(**json.loads(json.dumps(config.flat())))
    assert again == config
    assert again.name == config.name


def test_a_parameter_that_differs_from_the_protocol_shows_or_is_refused() -> None:
    shared: dict[str, Any] = {"dataset": "pascal", "root": "x", "protocol": "hsnet"}
    assert run_config(**shared, test_size=400).protocol.label == "hsnet"
    changed = run_config(**shared, test_size=160, episodes=50, episode_seeds=3)
    assert changed.protocol.label == "hsnet (episodes=50, seeds=3, size=160)"
    assert changed.data.test_size == 160
    for name, value in (
        ("test_void", "background"), ("test_lists", "split"), ("test_episodes", "ours"),
        ("test_aspect", "pad"), ("query_mask", "exact"), ("shot_fusion", "joint"),
        ("fb_iou", False), ("resolution", "original"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"^{name} must be .* under the protocol 'hsnet'"):
            run_config(**shared, **{name: value})


@pytest.mark.parametrize(
    "parameters, message",
    [
        ({"protocol": "authors"}, "protocol must be 'ours' for parts: 'authors' is made for"),
        ({"protocol": "pfenet"}, "protocol must be 'ours' for parts"),
        ({"protocol": "mine", "test_lists": "authors"}, "test_lists must be .* for parts"),
        ({"protocol": "mine", "test_lists": "area"}, "min_area must be 2048 .* on parts"),
        ({"protocol": "mine", "test_lists": "authors", "dataset": "coco", "root": "x"},
         "test_lists must be .* for coco"),
        ({"protocol": "authors", "dataset": "pascal", "root": "x", "test_split": "train"},
         "test_split must be 'val' with the authors' lists"),
        ({"protocol": "pfenet", "dataset": "pascal", "root": "x", "min_area": 5},
         "min_area must be 2048 .* got 5 on pascal"),
    ],
)  # fmt: skip
def test_protocols_on_data_that_they_do_not_know(parameters: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_config(**parameters)


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    path = tmp_path / "kitchen.txt"
    path.write_text("kettle\npan\n\ncup\nfork\n")
    return path


def test_own_classes_are_for_ours_and_enter_a_record_by_name(classes: Path) -> None:
    shared: dict[str, Any] = {"dataset": "pascal", "root": "x"}
    with pytest.raises(ValueError, match="protocol must be 'ours' for classes of one's own"):
        run_config(**shared, classes=str(classes), protocol="hsnet")
    config = run_config(**shared, classes=str(classes))
    portable = config.portable()
    assert portable["classes"] == {
        "names": ("kettle", "pan", "cup", "fork"), "folds": ((1, 2), (3, 4)),
    }  # fmt: skip
    assert str(classes.parent) not in json.dumps(portable)
    assert "root" not in portable
    moved = classes.with_name("other.txt")
    moved.write_text(classes.read_text())
    assert run_config(**shared, classes=str(moved)).name == config.name
    moved.write_text("kettle\npan\n\nmug\nfork\n")
    assert run_config(**shared, classes=str(moved)).name != config.name


def test_committed_records_keep_their_names() -> None:
    """A parameter that the package learns later does not rename them."""
    records = sorted((Path(__file__).parents[1] / "results").glob("parts-fold*.json"))
    assert records
    for path in records:
        parameters = json.loads(path.read_text())["parameters"]
        assert run_config(**parameters).name == path.stem
    assert set(PARAMETERS) >= FIRST


def test_a_changed_protocol_brings_its_own_settings() -> None:
    first = run_config(dataset="pascal", root="x", shots=5, episodes=77, seed=4, kappa=9.0)
    for name in ("hsnet", "pfenet", "authors", "mine"):
        changed = changed_run(first.flat(), protocol=name)
        assert changed.protocol == Protocol(name=name, shots=5)
        assert (changed.train.seed, changed.model.kappa) == (4, 9.0)
        back = changed_run(changed.flat(), protocol="ours", episodes=77)
        assert back == first
    assert changed_run(first.flat(), kappa=3.0) == run_config(**first.flat() | {"kappa": 3.0})
    assert changed_run(first.flat(), protocol="ours") == first


def test_settings_are_frozen() -> None:
    config = run_config()
    for part, name in ((config, "profile"), (config.data, "fold"), (config.train, "seed")):
        with pytest.raises(FrozenInstanceError):
            setattr(part, name, 1)
