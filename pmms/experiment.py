"""One run: data, model, training, evaluation with its controls, record.

A run is a :class:`RunConfig`. A profile gives the values that nobody wants to spell out: ``mini``
runs in minutes on two CPU cores with data drawn by code, ``paper`` has the paper's settings.
"""

import time
from collections.abc import Collection
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_origin, get_type_hints

import torch

from pmms.backbones import Backbone
from pmms.datasets.base import SegmentationDataset, images_of_class, keep_images, without_classes
from pmms.episodes import EpisodeSampler, check_no_leak, mix
from pmms.evaluation import Control, Protocol, Result, evaluate
from pmms.features import FeatureBank, feature_bank
from pmms.folds import split_classes
from pmms.models import FewShotSegmenter, ModelConfig, build_model
from pmms.results import RunRecord, environment, peak_memory_mb, record_name
from pmms.training import LossPoint, TrainConfig, train
from pmms.transforms import TrainTransform

DATASETS = ("parts", "pascal")
CONTROLS = ("everything", "all_objects", "wrong_support")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which images.

    Attributes:
        dataset: "parts" (drawn by code) or "pascal" (a VOC folder tree under ``root``).
        fold: 0 to 3; its classes are novel.
        validation: hold the classes of the next fold out of training too and test on them instead
            of the novel ones: for choosing settings.
        root: folder of the VOC tree; not used by "parts".
        train_split, test_split: names of the image lists of the VOC tree.
        labels: folder of its label maps, "SegmentationClass" or "SegmentationClassAug".
        train_images, test_images: how many images of "parts" there are.
        extra_classes: training-only classes of "parts", drawn by a random part grammar.
        train_size, test_size: side that images are squashed to, in pixels.
        views: kept views of a training image, the plain one included (frozen backbones only).
    """

    dataset: str = "parts"
    fold: int = 0
    validation: bool = False
    root: str = ""
    train_split: str = "train"
    test_split: str = "val"
    labels: str = "SegmentationClassAug"
    train_images: int = 1000
    test_images: int = 400
    extra_classes: int = 60
    train_size: int = 160
    test_size: int = 160
    views: int = 2

    def __post_init__(self) -> None:
        if self.dataset not in DATASETS:
            raise ValueError(f"dataset must be one of {', '.join(DATASETS)}; got {self.dataset!r}")
        split_classes(self.dataset, self.fold)  # refuses a fold that does not exist
        if self.dataset == "pascal" and not self.root:
            raise ValueError("dataset='pascal' needs root, the folder that holds VOCdevkit")
        for name in ("train_images", "test_images", "views", "train_size", "test_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that decides a run; made by :func:`run_config`."""

    profile: str
    data: DataConfig
    model: ModelConfig
    train: TrainConfig
    protocol: Protocol

    def flat(self) -> dict[str, Any]:
        """Parameters by the names that :func:`run_config` takes."""
        values: dict[str, Any] = {"profile": self.profile}
        for parameter, (part, name) in PARAMETERS.items():
            values[parameter] = getattr(getattr(self, part), name)
        return values

    @property
    def name(self) -> str:
        """File stem of the record."""
        flat = self.flat()
        flat.pop("root")  # where the data lies does not decide the result
        flat["fold"] = f"fold{flat['fold']}"
        shown = ("dataset", "fold", "model", "backbone", "shots", "seed")
        flat["shots"], flat["seed"] = f"{flat['shots']}shot", f"seed{flat['seed']}"
        return record_name(flat, shown)


def _parameters() -> dict[str, tuple[str, str]]:
    """Name of a parameter -> part of :class:`RunConfig` and its field."""
    parts = {"data": DataConfig, "model": ModelConfig, "train": TrainConfig, "protocol": Protocol}
    renamed = {
        ("model", "name"): "model",
        ("model", "seed"): "em_seed",
        ("train", "void"): "train_void",
        ("protocol", "name"): "protocol",
        ("protocol", "seeds"): "episode_seeds",
        ("protocol", "void"): "test_void",
    }
    return {
        renamed.get((part, field.name), field.name): (part, field.name)
        for part, kind in parts.items()
        for field in fields(kind)
    }


PARAMETERS = _parameters()

PROFILES: dict[str, dict[str, Any]] = {
    "mini": {
        "dataset": "parts",
        "model": "pmms",
        "backbone": "efficientnet_lite0",
        "width": 48,
        "norm": "group",
        "aspp_rates": (2, 4, 6),
        "aspp_dropout": 0.0,
        "iterations": 1000,
        "learning_rate": 0.02,
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
        parameters: any of ``PARAMETERS``; see :class:`DataConfig`,
            :class:`pmms.models.ModelConfig`, :class:`pmms.training.TrainConfig` and
            :class:`pmms.evaluation.Protocol`.

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
    values: dict[str, dict[str, Any]] = {"data": {}, "model": {}, "train": {}, "protocol": {}}
    for name, value in {**PROFILES[profile], **parameters}.items():
        part, field_name = PARAMETERS[name]
        values[part][field_name] = _checked(name, value)
    return RunConfig(
        profile=profile,
        data=DataConfig(**values["data"]),
        model=ModelConfig(**values["model"]),
        train=TrainConfig(**values["train"]),
        protocol=Protocol(**values["protocol"]),
    )


class Data(NamedTuple):
    """Images of a run.

    Attributes:
        train: training images; none shows a held-out class.
        test: test images.
        train_classes: classes that training episodes are drawn from.
        test_classes: classes that are scored: the novel ones, or the validation classes.
    """

    train: SegmentationDataset
    test: SegmentationDataset
    train_classes: tuple[int, ...]
    test_classes: tuple[int, ...]


def load_data(config: DataConfig) -> Data:
    """Training and test images, with every image that shows a held-out class taken out of training.

    Raises:
        FileNotFoundError: if a VOC tree is not where ``root`` says.
        ValueError: if too few images are left.
    """
    split = split_classes(config.dataset, config.fold, validation=config.validation)
    train: SegmentationDataset
    test: SegmentationDataset
    if config.dataset == "parts":
        from pmms.datasets.parts import PartsVOC

        # About half of the images show no held-out class; with validation classes a quarter.
        drawn = config.train_images * (8 if config.validation else 4)
        every = PartsVOC("train", length=drawn, extra_classes=config.extra_classes)
        train = without_classes(every, split.held_out)
        train = keep_images(train, range(min(config.train_images, len(train))))
        test = PartsVOC("val", length=config.test_images)
        candidates = (*split.train, *range(21, 21 + config.extra_classes))
    else:
        from pmms.datasets.pascal import PascalVOC

        every = PascalVOC(config.root, config.train_split, labels=config.labels)
        train = without_classes(every, split.held_out)
        test = PascalVOC(config.root, config.test_split, labels=config.labels)
        candidates = split.train
    check_no_leak(train, split.held_out)
    images = images_of_class(train)
    classes = tuple(c for c in candidates if len(images[c]) >= 2)
    return Data(train, test, classes, split.validation if config.validation else split.novel)


def new_model(config: RunConfig) -> FewShotSegmenter:
    """The untrained model of a run; its weights follow from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix(config.train.seed, -1))
        options = {f.name: getattr(config.model, f.name) for f in fields(config.model)}
        return build_model(options.pop("name"), **options)


class Images(NamedTuple):
    """Training and test images as a run uses them: kept features, or the images themselves."""

    train: FeatureBank | SegmentationDataset
    test: FeatureBank | SegmentationDataset


def prepare_images(
    config: RunConfig,
    data: Data,
    backbone: Backbone,
    *,
    cache: Path | str | None = None,
    device: torch.device | str = "cpu",
    workers: int = 0,
) -> Images:
    """Backbone features, computed once, for "parts" with a frozen backbone; else the images."""
    if config.train.backbone_lr > 0 or config.data.dataset != "parts":
        return Images(data.train, data.test)
    sizes = config.data.train_size, config.data.test_size
    shared = {"cache": cache, "device": device, "workers": workers}
    return Images(
        feature_bank(
            data.train, backbone, size=sizes[0], views=config.data.views,
            description="train features", **shared,
        ),
        feature_bank(data.test, backbone, size=sizes[1], description="test features", **shared),
    )  # fmt: skip


def train_model(
    config: RunConfig,
    model: FewShotSegmenter,
    data: Data,
    images: Images,
    *,
    folder: Path | str | None = None,
    device: torch.device | str = "cpu",
    workers: int = 0,
    tensorboard: bool = False,
) -> list[LossPoint]:
    """Train the model of a run; see :func:`pmms.training.train`. One support image an episode."""
    sampler = EpisodeSampler(
        data.train,
        data.train_classes,
        length=config.train.iterations * config.train.batch_size,
        seed=config.train.seed,
    )
    kept = isinstance(images.train, FeatureBank)
    source = images.train if kept else TrainTransform(config.data.train_size)
    return train(
        model, source, sampler, config.train,
        folder=folder, device=device, workers=workers, tensorboard=tensorboard,
    )  # fmt: skip


def evaluate_model(
    config: RunConfig,
    model: FewShotSegmenter,
    data: Data,
    images: Images,
    *,
    classes: Collection[int] | None = None,
    control: Control | None = None,
    protocol: Protocol | None = None,
    device: torch.device | str = "cpu",
    workers: int = 0,
) -> Result:
    """Test the model of a run on ``classes`` (None: the test classes of the run)."""
    return evaluate(
        model, images.test, data.test_classes if classes is None else classes,
        protocol=protocol or config.protocol, size=config.data.test_size, control=control,
        device=device, precision=config.train.precision, workers=workers,
        description=control or "evaluate",
    )  # fmt: skip


def run(
    config: RunConfig,
    *,
    results: Path | str | None = "results",
    runs: Path | str | None = None,
    cache: Path | str | None = None,
    device: torch.device | str = "cpu",
    workers: int = 0,
    tensorboard: bool = False,
) -> RunRecord:
    """Do a whole run: data, features, training, evaluation with its controls, record.

    Args:
        config: what is run.
        results: folder for the record; None writes none.
        runs: folder for checkpoints and logs, one subfolder a run; a run that was stopped is gone
            on with. None keeps none.
        cache: folder for kept features, see :func:`pmms.features.feature_bank`.
        device: where the model runs.
        workers: processes that load images.
        tensorboard: also log to TensorBoard.

    Returns:
        The record. Its scores hold the model, the same model untrained (1,000 episodes), the
        controls of :func:`pmms.evaluation.evaluate` and the classes seen in training (1,000
        episodes each).
    """
    watch = Stopwatch()
    data = load_data(config.data)
    model = new_model(config)
    where = {"device": device, "workers": workers}
    images = prepare_images(config, data, model.backbone, cache=cache, **where)
    watch.lap("images")
    once = replace(config.protocol, episodes=min(1000, config.protocol.episodes), seeds=(0,))
    trains = config.model.name != "training_free"
    scores: dict[str, Any] = {}
    history: list[LossPoint] = []
    if trains:
        untrained = evaluate_model(config, model, data, images, protocol=once, **where)
        scores["untrained"] = untrained.summary()
        watch.lap("evaluate")
        folder = None if runs is None else Path(runs) / config.name
        history = train_model(
            config, model, data, images, folder=folder, tensorboard=tensorboard, **where
        )
        watch.lap("train")
    scores["model"] = evaluate_model(config, model, data, images, **where).summary()
    for control in CONTROLS:
        result = evaluate_model(
            config, model, data, images, protocol=once, control=control, **where
        )
        scores[control] = result.summary()
    if trains:
        seen = split_classes(
            config.data.dataset, config.data.fold, validation=config.data.validation
        ).train
        result = evaluate_model(config, model, data, images, classes=seen, protocol=once, **where)
        scores["seen_classes"] = result.summary()
    watch.lap("evaluate")
    record = RunRecord(
        name=config.name,
        parameters=config.flat(),
        protocol=asdict(config.protocol),
        scores=scores,
        loss=tuple((point.step, point.loss) for point in history),
        seconds=watch.seconds,
        peak_memory_mb=peak_memory_mb(),
        environment=environment(device),
    )
    if results is not None:
        record.save(results)
    return record


class Stopwatch:
    """Seconds spent on named parts of a run."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Add the time since the last call to ``name``."""
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now


def _checked(name: str, value: Any) -> Any:
    """A parameter's value in the type of its field; a whole number may stand for a float."""
    part, field_name = PARAMETERS[name]
    kind = {"data": DataConfig, "model": ModelConfig, "train": TrainConfig, "protocol": Protocol}
    hint = get_type_hints(kind[part])[field_name]
    if get_origin(hint) is Literal or hint is str:
        fits = isinstance(value, str)
    elif hint is bool:
        fits = isinstance(value, bool)
    elif hint is int:
        fits = isinstance(value, int) and not isinstance(value, bool)
    elif hint in (float, float | None):
        fits = isinstance(value, int | float) and not isinstance(value, bool)
        fits = fits or (value is None and hint is not float)
        value = float(value) if fits and value is not None else value
    else:  # tuples and mappings are checked where they are used
        fits = True
    if not fits:
        readable = getattr(hint, "__name__", str(hint)).replace("typing.", "")
        raise TypeError(f"{name} must be {readable}, got {value!r} ({type(value).__name__})")
    return value
