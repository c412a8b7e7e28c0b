"""What a training needs to go together, and what decides it."""

from dataclasses import asdict
from typing import Any

from pmms.backbones import weights_digest
from pmms.episodes import EpisodeSampler, Transform
from pmms.features import FeatureBank
from pmms.models import FewShotSegmenter
from pmms.train_config import TrainConfig


def check_training(
    model: FewShotSegmenter,
    source: FeatureBank | Transform,
    sampler: EpisodeSampler,
    config: TrainConfig,
) -> None:
    """Raise ValueError for what cannot be trained, or not in this way."""
    if not any(p.requires_grad for n, p in model.named_parameters() if "backbone." not in n):
        raise ValueError(f"{model.config.name} has nothing to train")
    if isinstance(source, FeatureBank):
        if config.backbone_lr > 0:
            raise ValueError("kept features need a frozen backbone: set backbone_lr to 0")
        if source.dataset is not sampler.dataset:
            raise ValueError("the feature bank and the sampler are of different data sets")
    needed = config.iterations * config.batch_size
    if len(sampler) < needed:
        raise ValueError(
            f"{config.iterations} steps of {config.batch_size} episodes need a sampler of {needed} "
            f"episodes, got one of {len(sampler)}"
        )


def deciding_settings(
    model: FewShotSegmenter,
    source: FeatureBank | Transform,
    sampler: EpisodeSampler,
    config: TrainConfig,
) -> dict[str, Any]:
    """What a checkpoint belongs to.

    It decides a run but for the first weights of the head, and for settings of views: of a bank the
    shapes are known here, of a transform its kind and size.
    """
    if isinstance(source, FeatureBank):
        made_by = ["features", *source.features.shape[1:], *source.labels.shape[1:]]
    else:
        made_by = [type(source).__name__, getattr(source, "size", None)]
    frozen = config.backbone_lr == 0
    return {
        "train": _without_defaults(config),
        "model": asdict(model.config),
        "backbone": weights_digest(model.backbone) if frozen else None,  # then not in checkpoints
        "source": made_by,
        "dataset": sampler.dataset.fingerprint(),
        "episodes": [sampler.classes, sampler.shots, sampler.seed],
    }


def _without_defaults(config: TrainConfig) -> dict[str, Any]:
    """The settings, less those of a later date that have their default: older checkpoints fit."""
    settings = asdict(config)
    if config.accumulate == 1:
        del settings["accumulate"]
    return settings
