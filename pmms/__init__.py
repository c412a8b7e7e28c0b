"""Prototype mixture models for few-shot semantic segmentation.

The names below are the package's front door; each is documented where it is defined. They are
imported on first use, so that ``import pmms`` costs little more than importing PyTorch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pmms import _torchvision  # noqa: F401  (before anything imports torchvision)

if TYPE_CHECKING:
    from pmms.backbones import build_backbone
    from pmms.checkpoints import load_model, save_model
    from pmms.config import RunConfig, run_config
    from pmms.data import load_data
    from pmms.datasets.coco import CocoInstances
    from pmms.datasets.parts import PartsVOC
    from pmms.datasets.pascal import PascalVOC
    from pmms.episodes import Episode, EpisodeSampler
    from pmms.evaluation import Result, evaluate
    from pmms.experiment import run
    from pmms.feature_computing import feature_bank
    from pmms.features import FeatureBank
    from pmms.folds import ClassFolds, read_classes, split_classes
    from pmms.heads import PConv, PMatch
    from pmms.mixture import Mixture, fit_mixture
    from pmms.model_config import ModelConfig
    from pmms.models import Prediction, build_model
    from pmms.predict import read_mask, read_picture, segment_image
    from pmms.protocols import Protocol
    from pmms.results import RunRecord, load_record, load_records
    from pmms.train_config import TrainConfig
    from pmms.training import train

_HOME = {
    "ClassFolds": "folds",
    "CocoInstances": "datasets.coco",
    "Episode": "episodes",
    "EpisodeSampler": "episodes",
    "FeatureBank": "features",
    "Mixture": "mixture",
    "ModelConfig": "model_config",
    "PConv": "heads",
    "PMatch": "heads",
    "PartsVOC": "datasets.parts",
    "PascalVOC": "datasets.pascal",
    "Prediction": "models",
    "Protocol": "protocols",
    "Result": "evaluation",
    "RunConfig": "config",
    "RunRecord": "results",
    "TrainConfig": "train_config",
    "build_backbone": "backbones",
    "build_model": "models",
    "evaluate": "evaluation",
    "feature_bank": "feature_computing",
    "fit_mixture": "mixture",
    "load_data": "data",
    "load_model": "checkpoints",
    "load_record": "results",
    "load_records": "results",
    "read_classes": "folds",
    "read_mask": "predict",
    "read_picture": "predict",
    "run": "experiment",
    "run_config": "config",
    "save_model": "checkpoints",
    "segment_image": "predict",
    "split_classes": "folds",
    "train": "training",
}

__all__ = [
    "ClassFolds",
    "CocoInstances",
    "Episode",
    "EpisodeSampler",
    "FeatureBank",
    "Mixture",
    "ModelConfig",
    "PConv",
    "PMatch",
    "PartsVOC",
    "PascalVOC",
    "Prediction",
    "Protocol",
    "Result",
    "RunConfig",
    "RunRecord",
    "TrainConfig",
    "build_backbone",
    "build_model",
    "evaluate",
    "feature_bank",
    "fit_mixture",
    "load_data",
    "load_model",
    "load_record",
    "load_records",
    "read_classes",
    "read_mask",
    "read_picture",
    "run",
    "run_config",
    "save_model",
    "segment_image",
    "split_classes",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"pmms.{_HOME[name]}"), name)
    raise AttributeError(f"module 'pmms' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
