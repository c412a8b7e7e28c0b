"""One run: data, model, training, evaluation with its controls, record."""

from collections.abc import Collection
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from pmms.backbones import Backbone
from pmms.config import RunConfig
from pmms.data import Data, load_data
from pmms.datasets.base import SegmentationDataset
from pmms.distributed import Team
from pmms.episodes import EpisodeSampler, mix
from pmms.evaluation import Control, Result, evaluate
from pmms.feature_computing import bank_megabytes, feature_bank
from pmms.features import FeatureBank
from pmms.files import check_writable
from pmms.folds import FOLDS
from pmms.models import FewShotSegmenter, model_of
from pmms.protocol_episodes import protocol_sampler
from pmms.protocols import Protocol
from pmms.results import RunRecord, environment
from pmms.run_record import Stopwatch, make_record
from pmms.run_state import LossPoint
from pmms.training import train
from pmms.training_processes import train_in_processes
from pmms.transforms import TrainTransform

if TYPE_CHECKING:
    from lightning_fabric import Fabric

CONTROLS: tuple[Control, ...] = ("everything", "all_objects", "wrong_support")


def new_model(config: RunConfig) -> FewShotSegmenter:
    """The untrained model of a run; its weights follow from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(mix(config.train.seed, -1))
        return model_of(config.model)


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
    limit_mb: float = 4000,
    training: bool = True,
    fabric: "Fabric | None" = None,
) -> Images:
    """Training and test images of a run, as features that are computed once where that can be.

    It can where the backbone is frozen and the features fit ``limit_mb`` (units of 10^6 bytes): of
    the test images, which are seen most often, and of the training images in what is then left.
    What does not fit stays images. Without ``training``, or with a model that has none, there are
    no training features. Of several processes the first computes what the others read from
    ``cache``.
    """
    test = protocol_images(config, data)
    if config.train.backbone_lr > 0:
        return Images(data.train, test)
    team = Team(fabric)
    if team.size > 1:
        with team.chief_first() if cache is not None else nullcontext():
            return prepare_images(
                config, data, backbone, cache=cache, device=team.device, workers=workers,
                limit_mb=limit_mb, training=training,
            )  # fmt: skip
    compute = partial(feature_bank, cache=cache, device=device, workers=workers)
    train_size, views = config.data.train_size, config.data.views
    test_size = config.data.test_size
    needed = bank_megabytes(test, backbone, size=test_size)
    images = Images(data.train, test)
    if needed <= limit_mb:
        bank = compute(
            test, backbone, size=test_size, keep_aspect=config.protocol.aspect == "pad",
            description="test features",
        )  # fmt: skip
        images, limit_mb = images._replace(test=bank), limit_mb - needed
    training = training and config.model.learns
    if training and bank_megabytes(data.train, backbone, size=train_size, views=views) <= limit_mb:
        bank = compute(
            data.train, backbone, size=train_size, views=views, description="train features"
        )
        images = images._replace(train=bank)
    return images


def protocol_images(config: RunConfig, data: Data) -> SegmentationDataset:
    """The test images: those of the authors' lists where the protocol draws from them.

    Raises:
        FileNotFoundError: the lists are not below ``root``.
    """
    if config.protocol.lists != "authors":
        return data.test
    from pmms.datasets.pascal_lists import PairVOC

    fold = (config.data.fold + config.data.validation) % FOLDS
    return PairVOC(config.data.root, fold, labels=config.data.labels)


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
    devices: int = 1,
    fabric: "Fabric | None" = None,
) -> list[LossPoint]:
    """Train the model of a run; see :func:`pmms.training.train`. One support image an episode.

    Args:
        devices: processes that are started for the training and end with it, see
            :func:`pmms.training_processes.train_in_processes`.
        fabric: of processes that are there already, this one among them.
    """
    sampler = EpisodeSampler(
        data.train,
        data.train_classes,
        length=config.train.iterations * config.train.batch_size,
        seed=config.train.seed,
    )
    source: FeatureBank | TrainTransform = (
        images.train
        if isinstance(images.train, FeatureBank)
        else TrainTransform(config.data.train_size)
    )
    options: dict[str, Any] = {"folder": folder, "workers": workers, "tensorboard": tensorboard}
    if devices > 1 and fabric is None:
        return train_in_processes(
            model, source, sampler, config.train, devices=devices, device=str(device), **options
        )
    return train(model, source, sampler, config.train, device=device, fabric=fabric, **options)


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
    fabric: "Fabric | None" = None,
) -> Result:
    """Test the model of a run on ``classes`` (None: the test classes of the run)."""
    return evaluate(
        model, images.test, data.test_classes if classes is None else classes,
        protocol=protocol or config.protocol, size=config.data.test_size, control=control,
        device=device, precision=config.train.precision, workers=workers,
        description=control or "evaluate", fabric=fabric,
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
    fabric: "Fabric | None" = None,
) -> RunRecord:
    """Do a whole run: data, features, training, evaluation with its controls, record.

    Args:
        config: what is run.
        results: folder for the record; None writes none.
        runs: folder for checkpoints and logs, a subfolder ``config.training_name`` for each
            training; one that was stopped is gone on with, a finished one is loaded. None keeps
            none.
        cache: folder for kept features, see :func:`pmms.feature_computing.feature_bank`.
        device: where the model runs.
        workers: processes that load images.
        tensorboard: also log to TensorBoard.
        fabric: of several processes that do the run together, see :mod:`pmms.distributed`; each
            makes this call, and the first writes the files.

    Raises:
        ValueError: too few test images or episodes for every class to be scored, found before
            training; and what :func:`load_data` and :func:`pmms.training.train` raise.
        OSError: a folder that cannot be written, found before anything else.

    Returns:
        The record. Its scores hold the model, the same model untrained (1,000 episodes), the
        controls of :func:`pmms.evaluation.evaluate` and the classes seen in training (one seed
        each; no seen classes where the protocol has lists of the novel ones only).
    """
    if Team(fabric).chief:
        for kept in (results, runs, cache):
            if kept is not None:
                check_writable(Path(kept))
    watch, began = Stopwatch(), environment(device)
    data = load_data(config.data, cache=cache)
    check_episodes(config, data)
    model = new_model(config)
    where: dict[str, Any] = {"device": device, "workers": workers, "fabric": fabric}
    images = prepare_images(config, data, model.backbone, cache=cache, **where)
    watch.lap("images")
    scores: dict[str, Any] = {}
    history: list[LossPoint] = []
    if config.model.learns:
        scores["untrained"] = evaluate_model(
            config, model, data, images, protocol=first_seed(config), **where
        ).summary()
        watch.lap("evaluate")
        folder = None if runs is None else Path(runs) / config.training_name
        history = train_model(
            config, model, data, images, folder=folder, tensorboard=tensorboard, **where
        )
        watch.lap("train")
    scores |= score_controls(config, model, data, images, **where)
    scores["model"] = evaluate_model(config, model, data, images, **where).summary()
    watch.lap("evaluate")
    record = make_record(
        config, scores, history, watch.seconds, started_with=began, left_out=data.left_out,
        processes=Team(fabric).size,
    )  # fmt: skip
    if results is not None and Team(fabric).chief:
        record.save(results)
    return record


def first_seed(config: RunConfig) -> Protocol:
    """The protocol of a run with its first episode seed only: enough for a control."""
    return replace(config.protocol, seeds=config.protocol.seeds[:1])


def score_controls(
    config: RunConfig,
    model: FewShotSegmenter,
    data: Data,
    images: Images,
    *,
    device: torch.device | str = "cpu",
    workers: int = 0,
    fabric: "Fabric | None" = None,
) -> dict[str, dict[str, Any]]:
    """Summaries of the controls and, after training, of "seen_classes"; one episode seed each."""
    shared: dict[str, Any] = {
        "protocol": first_seed(config),
        "device": device,
        "workers": workers,
        "fabric": fabric,
    }
    scores: dict[str, dict[str, Any]] = {
        control: evaluate_model(config, model, data, images, control=control, **shared).summary()
        for control in CONTROLS
    }
    if _scores_seen_classes(config):
        seen = evaluate_model(config, model, data, images, classes=data.seen_classes, **shared)
        scores["seen_classes"] = seen.summary()
    return scores


def _scores_seen_classes(config: RunConfig) -> bool:
    return config.model.learns and config.protocol.lists != "authors"


def check_episodes(config: RunConfig, data: Data) -> None:
    """Refuse at the start what the evaluation would refuse after hours of training."""
    protocol = config.protocol
    images = protocol_images(config, data)
    groups = [data.test_classes]
    if _scores_seen_classes(config):
        groups.append(data.seen_classes)
    for classes in groups:
        sampler = protocol_sampler(protocol, images, classes, seed=protocol.seeds[0])
        missing = set(classes) - {episode.class_id for episode in sampler}
        if missing:
            names = ", ".join(data.test.class_name(c) for c in sorted(missing))
            raise ValueError(
                f"episodes must be more than {protocol.episodes}: none of them is of {names}"
            )
