"""Settings of a run, checked before any work is done.

A run is decided by four groups of settings: data, model, training, protocol. People give them by
name, as flat parameters, on top of a profile: ``mini`` runs in minutes on two CPU cores with data
drawn by code, ``paper`` has the paper's settings.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, Literal, get_origin, get_type_hints

from pmms.checks import whole
from pmms.data import DataConfig
from pmms.folds import read_classes
from pmms.model_config import ModelConfig
from pmms.protocol_episodes import PFENET_AREA
from pmms.protocols import PRESETS, Protocol
from pmms.results import record_name
from pmms.train_config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that decides a run; made by :func:`run_config`."""

    profile: str
    data: DataConfig
    model: ModelConfig
    train: TrainConfig
    protocol: Protocol

    def __post_init__(self) -> None:
        """Refuse a protocol on data that it does not know."""
        protocol = self.protocol
        images = "classes of one's own" if self.data.classes else self.data.dataset
        published = protocol.name in PRESETS and protocol.name != "ours"
        if published and images not in ("pascal", "coco"):
            raise ValueError(
                f"protocol must be 'ours' for {images}: {protocol.name!r} is made for Pascal-5i "
                "and COCO-20i"
            )
        if protocol.lists == "authors" and images != "pascal":
            raise ValueError(
                f"test_lists must be 'split' or 'area' for {images}: the authors' lists are of "
                "Pascal-5i"
            )
        if protocol.lists == "authors" and self.data.test_split != "val":
            raise ValueError(
                f"test_split must be 'val' with the authors' lists, got {self.data.test_split!r}"
            )
        if protocol.lists == "area" and (
            self.data.dataset == "parts" or self.data.min_area != PFENET_AREA
        ):
            raise ValueError(
                f"min_area must be {PFENET_AREA} with test_lists='area', on pascal or coco; got "
                f"{self.data.min_area} on {images}"
            )

    def flat(self) -> dict[str, Any]:
        """Parameters by the names that :func:`run_config` takes."""
        values: dict[str, Any] = {"profile": self.profile}
        for parameter, (part, name) in PARAMETERS.items():
            values[parameter] = getattr(getattr(self, part), name)
        return values

    @property
    def name(self) -> str:
        """File stem of the record: some parameters, and a hash of all that decide the result."""
        flat = self._deciding()
        flat["fold"] = f"fold{flat['fold']}"
        shown = ("dataset", "fold", "model", "backbone", "shots", "seed")
        flat["shots"], flat["seed"] = f"{flat['shots']}shot", f"seed{flat['seed']}"
        return record_name(flat, shown)

    @property
    def training_name(self) -> str:
        """Name of the folder of checkpoint and log: like ``name``, of what decides the training.

        Runs that differ in nothing but how they are tested (protocol, shots, test images) have the
        same, and so one of them trains for all.
        """
        testing = {p for p, (part, _) in PARAMETERS.items() if part == "protocol"}
        testing |= {"profile", *TEST_IMAGES}
        flat = {p: value for p, value in self._deciding().items() if p not in testing}
        flat["fold"], flat["seed"] = f"fold{flat['fold']}", f"seed{flat['seed']}"
        return record_name(flat, ("dataset", "fold", "model", "backbone", "seed"))

    def _deciding(self) -> dict[str, Any]:
        """``portable`` without later parameters that have their default."""
        flat = self.portable()
        for parameter, (part, name) in PARAMETERS.items():
            # So a record keeps its name when the package learns a new parameter.
            if parameter not in FIRST and flat.get(parameter) == self._default(part, name):
                flat.pop(parameter, None)
        return flat

    def portable(self) -> dict[str, Any]:
        """``flat`` for a record: without folders, which decide nothing and tell of one machine.

        A file of one's own classes is replaced by what it says: names and folds.
        """
        flat = self.flat()
        del flat["root"]
        if flat.get("classes"):
            of_file = read_classes(flat["classes"])
            flat["classes"] = {"names": of_file.names, "folds": of_file.folds}
        return flat

    def _default(self, part: str, name: str) -> Any:
        if part == "protocol":
            return getattr(Protocol(name=self.protocol.name, form=self.protocol.form), name)
        return PARTS[part].__dataclass_fields__[name].default


PARTS: dict[str, Any] = {
    "data": DataConfig,
    "model": ModelConfig,
    "train": TrainConfig,
    "protocol": Protocol,
}


def _parameters() -> dict[str, tuple[str, str]]:
    """Name of a parameter -> part of :class:`RunConfig` and its field."""
    renamed = {
        ("model", "name"): "model",
        ("model", "seed"): "em_seed",
        ("train", "void"): "train_void",
        ("protocol", "name"): "protocol",
        ("protocol", "seeds"): "episode_seeds",
        ("protocol", "void"): "test_void",
        ("protocol", "lists"): "test_lists",
        ("protocol", "sampler"): "test_episodes",
        ("protocol", "aspect"): "test_aspect",
        ("protocol", "fusion"): "shot_fusion",
    }
    follow = {("protocol", "form"), ("protocol", "size")}  # from dataset and test_size
    return {
        renamed.get((part, field.name), field.name): (part, field.name)
        for part, kind in PARTS.items()
        for field in fields(kind)
        if (part, field.name) not in follow
    }


PARAMETERS = _parameters()

FIRST = frozenset({
    "dataset", "fold", "validation", "root", "train_split", "test_split", "labels",
    "train_images", "test_images", "extra_classes", "train_size", "test_size", "views", "model",
    "backbone", "backbone_options", "k", "kernel", "kappa", "em_iterations", "init", "em_seed",
    "em_features", "prototype_scale", "gradient", "mask_partition", "fusion", "prob_map_at",
    "p_conv_kappa", "width", "reduce_kernel", "norm", "dropout", "aspp_rates", "aspp_dropout",
    "iterations", "batch_size", "learning_rate", "momentum", "weight_decay", "power",
    "backbone_lr", "train_void", "precision", "seed", "log_every", "checkpoint_every",
    "protocol", "shots", "episodes", "episode_seeds", "test_void", "resolution", "checkpoint",
})  # fmt: skip
"""Parameters of the first records. Others enter a record's name where they are no default."""

TEST_IMAGES = frozenset({"test_split", "test_images", "test_size", "min_images"})
"""Parameters of the data that no training depends on."""

PROFILES: dict[str, dict[str, Any]] = {
    "mini": {
        "dataset": "parts",
        "model": "pmms",
        "backbone": "efficientnet_lite0",
        "width": 32,
        "reduce_kernel": 1,
        "p_conv_kappa": 20.0,
        "norm": "group",
        "aspp_rates": (2, 4, 6),
        "aspp_dropout": 0.0,
        "iterations": 600,
        "learning_rate": 0.05,
    },
    "paper": {
        "dataset": "pascal",
        "model": "pmms",
        "backbone": "resnet50",
        "train_size": 321,
        "test_size": 481,
        "backbone_lr": 0.1,
        "iterations": 200_000,
        "learning_rate": 0.0035,
    },
}


def run_config(profile: str = "mini", **parameters: Any) -> RunConfig:
    """Settings of a run: a profile with some parameters changed.

    Args:
        profile: "mini" or "paper".
        parameters: any of ``PARAMETERS``; see :class:`pmms.data.DataConfig`,
            :class:`pmms.model_config.ModelConfig`, :class:`pmms.train_config.TrainConfig` and
            :class:`pmms.protocols.Protocol`. A ``protocol`` by name sets its episodes, seeds and
            ``test_size`` too, unless they are given; if they are, its label tells so.

    Raises:
        ValueError: for an unknown profile or parameter (the message lists the valid ones), or a
            value that does not fit.
        TypeError: for a value of the wrong type.
    """
    if profile not in PROFILES:
        raise ValueError(f"profile must be one of {', '.join(PROFILES)}; got {profile!r}")
    unknown = sorted(set(parameters) - set(PARAMETERS))
    if unknown:
        raise ValueError(
            f"unknown parameter(s) {', '.join(unknown)}; valid are {', '.join(sorted(PARAMETERS))}"
        )
    values: dict[str, dict[str, Any]] = {part: {} for part in PARTS}
    for name, value in {**PROFILES[profile], **parameters}.items():
        part, field_name = PARAMETERS[name]
        values[part][field_name] = _checked(name, value)
    _fit_protocol(values, given=set(parameters))
    return RunConfig(profile=profile, **{part: _build(part, values[part]) for part in PARTS})


def changed_run(parameters: Mapping[str, Any], **changes: Any) -> RunConfig:
    """Settings of an earlier run with some of them changed.

    A change of ``protocol`` brings the new one's settings; of the earlier one's, ``shots`` stays.

    Args:
        parameters: ``RunConfig.flat()`` of the earlier run, "profile" included.
        changes: as for :func:`run_config`.

    Raises:
        ValueError, TypeError: as for :func:`run_config`.
    """
    kept = dict(parameters)
    if changes.get("protocol", kept.get("protocol")) != kept.get("protocol"):
        earlier = run_config(**parameters).protocol
        dropped = {name for name, (part, _) in PARAMETERS.items() if part == "protocol"} - {"shots"}
        new = Protocol(name=changes["protocol"], form=earlier.form)
        if earlier.size is not None or new.size is not None:
            dropped.add("test_size")
        if "area" in (earlier.lists, new.lists):
            dropped.add("min_area")
        kept = {name: value for name, value in kept.items() if name not in dropped}
    return run_config(**{**kept, **changes})


def _fit_protocol(values: dict[str, dict[str, Any]], *, given: set[str]) -> None:
    """Fill in what follows from another part: form and size of the protocol, size and area of data.

    A ``test_size`` that is given changes the protocol, and so its label.
    """
    data, chosen = values["data"], values["protocol"]
    chosen["form"] = "coco" if data.get("dataset") == "coco" else "pascal"
    preset = _build("protocol", {"name": chosen.get("name", "ours"), "form": chosen["form"]})
    if preset.size is not None and "test_size" in given:
        chosen["size"] = data["test_size"]
    elif preset.size is not None:
        data["test_size"] = preset.size
    if chosen.get("lists", preset.lists) == "area" and "min_area" not in given:
        data["min_area"] = PFENET_AREA


def _build(part: str, values: dict[str, Any]) -> Any:
    """One part of :class:`RunConfig`; what it refuses is called as :func:`run_config` calls it."""
    try:
        return PARTS[part](**values)
    except ValueError as error:
        field_name, _, rest = str(error).partition(" ")
        for parameter, place in PARAMETERS.items():
            if place == (part, field_name) and parameter != field_name:
                raise ValueError(f"{parameter} {rest}") from error
        raise


_hints = cache(get_type_hints)


def _checked(name: str, value: Any) -> Any:
    """A parameter's value in the type of its field; a whole number may stand for a float."""
    part, field_name = PARAMETERS[name]
    hint = _hints(PARTS[part])[field_name]
    if get_origin(hint) is Literal or hint is str:
        fits = isinstance(value, str)
    elif hint is bool:
        fits = isinstance(value, bool)
    elif hint is int:
        fits = whole(value)
    elif hint in (float, float | None):
        fits = isinstance(value, int | float) and not isinstance(value, bool)
        fits = fits or (value is None and hint is not float)
        value = float(value) if fits and value is not None else value
    elif get_origin(hint) is Mapping:
        fits = isinstance(value, Mapping)
    else:  # tuples are checked where they are used
        fits = True
    if not fits:
        readable = getattr(hint, "__name__", str(hint)).replace("typing.", "")
        raise TypeError(f"{name} must be {readable}, got {value!r} ({type(value).__name__})")
    return value
