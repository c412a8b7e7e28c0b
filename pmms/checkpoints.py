"""Trained models as one file: weights and configuration together, in the safetensors format.

Such a file holds tensors and text, no code, so that it can be loaded from anywhere without risk.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from pmms.backbones import weights_digest
from pmms.files import write_atomically
from pmms.model_config import ModelConfig
from pmms.models import FewShotSegmenter, model_of

FORMAT = "pmms-model-1"
BACKBONE = "backbone."


def check_ending(path: Path | str) -> Path:
    """The path of a model file; ValueError if it does not end in ".safetensors"."""
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"a model file ends in .safetensors, got {path.name!r}")
    return path


def save_model(
    model: FewShotSegmenter, path: Path | str, *, size: int, backbone: bool = True, **notes: Any
) -> Path:
    """Write a model, atomically.

    Args:
        model: any model of this package.
        path: ends in ".safetensors".
        size: side in pixels that its images are resized to.
        backbone: False leaves the backbone out, for one that was frozen with its ImageNet weights:
            a small file, which names them by a hash.
        notes: JSON values to keep beside it, for example the parameters of the run.

    Raises:
        ValueError: for another ending.
    """
    path = check_ending(path)
    tensors = {
        name: value.detach().cpu().contiguous()
        for name, value in model.state_dict().items()
        if backbone or not name.startswith(BACKBONE)
    }
    texts = {"model": asdict(model.config), "size": size, "notes": notes}
    if not backbone:
        texts["backbone"] = weights_digest(model.backbone)
    metadata = {"format": FORMAT, **{key: json.dumps(text) for key, text in texts.items()}}
    write_atomically(path, save(tensors, metadata))
    return path


def load_model(path: Path | str) -> tuple[FewShotSegmenter, int]:
    """Read a model, in eval mode on the CPU, and the size in pixels of its images.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, no model file of this package, or was trained on another
            backbone than the ImageNet weights that are here.
        RuntimeError: if those must be downloaded and cannot be.
    """
    path = Path(path)
    with _opened(path) as (file, metadata):
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    try:
        config = ModelConfig(**json.loads(metadata["model"]))
        size = int(json.loads(metadata["size"]))
        backbone = json.loads(metadata.get("backbone", "null"))
        # The first weights are drawn, and then replaced; the caller's generator stays as it is.
        with torch.random.fork_rng(devices=[]):
            weights = None if backbone is None else "imagenet"
            model = model_of(config, weights=weights)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} holds a configuration that this package does not know ({error}); it may come "
            "from another version"
        ) from error
    if backbone is not None:
        if weights_digest(model.backbone) != backbone:
            raise ValueError(
                f"{path} was trained on other weights of {model.config.backbone} than those that "
                "are installed; train it anew"
            )
        tensors |= {BACKBONE + name: v for name, v in model.backbone.state_dict().items()}
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(
            f"the weights in {path} do not fit its own configuration: {error}"
        ) from error
    return model.eval(), size


def load_notes(path: Path | str) -> dict[str, Any]:
    """The notes that :func:`save_model` was given.

    Raises:
        FileNotFoundError, ValueError: no such file, or no model, as :func:`load_model`.
    """
    with _opened(Path(path)) as (_, metadata):
        notes: dict[str, Any] = json.loads(metadata["notes"])
    return notes


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, dict[str, str]]]:
    """A model file and its texts."""
    if not path.is_file():
        raise FileNotFoundError(f"no model at {path}; train one with `python -m pmms train`")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise ValueError(
                    f"{path} is no model of this package (format {metadata.get('format')!r}, "
                    f"expected {FORMAT!r}); the authors' checkpoints are read by pmms.authors"
                )
            yield file, metadata
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or no safetensors file: {error}") from error
