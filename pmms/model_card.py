"""Trained weights with a model card beside them: what they are, how good, where not to use them."""

import hashlib
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pmms.checkpoints import save_model
from pmms.config import RunConfig, run_config
from pmms.data import Data
from pmms.files import write_atomically
from pmms.models import FewShotSegmenter
from pmms.protocols import Protocol
from pmms.results import RunRecord

TITLES = {
    "model": "this model, on novel classes",
    "seen_classes": "this model, on classes of its training",
    "wrong_support": "this model, shown the support of another class",
    "untrained": "the same network before training",
    "all_objects": "the true masks of all objects, whatever the class",
    "everything": "everything foreground",
}
"""Entries of a record's scores, and how the card calls them, in its order."""

IMAGES = {
    "parts": "PartsVOC, images drawn by code",
    "pascal": "Pascal-5i (VOC 2012 with the annotations of SBD)",
    "coco": "COCO-20i",
}

LIMITS = {
    "parts": "It has seen drawn images alone: flat shapes, 160 pixels, at most a few objects. It "
    "is made to compare models and to show how they work, and is of no use on photographs.",
    "pascal": "It has seen everyday photographs of the web, mostly taken in Europe and North "
    "America around 2007, of the classes of Pascal VOC. Other pictures (medical, from the air, at "
    "night) are another task.",
    "coco": "It has seen everyday photographs of the web, of the classes of COCO. Other pictures "
    "(medical, from the air, at night) are another task.",
}


def export_model(
    model: FewShotSegmenter, config: RunConfig, record: RunRecord, data: Data, *, folder: Path | str
) -> Path:
    """Write ``<training name>.safetensors`` and the card ``<training name>.md`` into a folder.

    A backbone that was frozen is left out of the file, which names its weights by a hash;
    :func:`pmms.checkpoints.load_model` adds them.

    Args:
        model: as trained.
        config: of the run.
        record: of the run, with the scores of these very weights.
        data: of the run.
        folder: is made if need be.

    Returns:
        Path of the weights.

    Raises:
        ValueError: a record of another run, or a model that was not trained.
    """
    if record.name != config.name:
        raise ValueError(f"record must be that of the run {config.name}, got {record.name}")
    if not config.model.learns:
        raise ValueError("training_free has no trained weights to keep")
    path = Path(folder) / f"{config.training_name}.safetensors"
    save_model(
        model, path, size=config.data.test_size, backbone=config.train.backbone_lr > 0,
        parameters=config.flat() | {"root": "", "classes": ""}, record=record.name,
    )  # fmt: skip
    card = model_card(config, record, data, weights=path)
    write_atomically(path.with_suffix(".md"), card.encode())
    return path


def model_card(config: RunConfig, record: RunRecord, data: Data, *, weights: Path) -> str:
    """The card of a trained model as Markdown, with the metadata that model hubs read.

    Args:
        config, record, data: as for :func:`export_model`.
        weights: the file that it describes.
    """
    parts = [
        _head(config, weights),
        _about_data(config, data),
        _about_training(config, record),
        _scores(record),
        _limits(config),
        _rebuild(config, record, weights),
    ]
    return "\n\n".join(parts) + "\n"


def _head(config: RunConfig, weights: Path) -> str:
    content = weights.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    backbone = (
        "with its backbone"
        if config.train.backbone_lr > 0
        else f"without its backbone: {config.model.backbone} was frozen with the ImageNet weights "
        "that the package installs or fetches"
    )
    return f"""\
---
license: apache-2.0
library_name: pmms
pipeline_tag: image-segmentation
tags: [few-shot-segmentation, prototype-mixture-models, {config.model.name}]
---

# {weights.stem}

A `{config.model.name}` network for few-shot segmentation: from one or a few images with the mask of
an object it finds objects of that class in another image. It belongs to the book on Prototype
Mixture Models (Yang et al., ECCV 2020); `{weights.name}` holds the weights, {backbone}.

```python
import pmms

model, size = pmms.load_model("{weights.name}")
```

Size {len(content) / 1e6:.2f} MB, SHA-256 `{digest}`."""


def _about_data(config: RunConfig, data: Data) -> str:
    own = " (classes of one's own)" if config.data.classes else ""
    held_out = ", ".join(data.test.class_name(c) for c in data.test_classes)
    kind = "validation" if config.data.validation else "novel"
    leak = (
        "Training images may show them, unlabelled (`keep_novel`)."
        if config.data.keep_novel
        else "No training image shows them."
    )
    return f"""\
## Data

- {IMAGES[config.data.dataset]}{own}, fold {config.data.fold}.
- Training: {len(data.train):,} images, {len(data.train_classes)} classes, side
  {config.data.train_size} pixels.
- Scored on {len(data.test):,} test images; {kind} classes: {held_out}. {leak}
- The backbone's ImageNet classes contain most of these classes: "novel" is meant for what was
  trained here."""


def _about_training(config: RunConfig, record: RunRecord) -> str:
    train, where = config.train, record.environment
    loss = f"{record.loss[0][1]:.3f} to {record.loss[-1][1]:.3f}" if record.loss else "not kept"
    flat = {name: value for name, value in record.parameters.items() if name != "classes"}
    return f"""\
## Training

- {train.iterations:,} steps of {train.batch_size} one-shot episodes, SGD from learning rate
  {train.learning_rate:g} by the poly schedule, {train.precision}, seed {train.seed}; loss {loss}.
- Backbone: {_backbone(config)}.
- On {where.get("device")}, CPU threads: {where.get("threads")}, PyTorch
  {where.get("versions", {}).get("torch")}, commit {where.get("commit")}.

All settings: `{json.dumps(flat, ensure_ascii=False)}`"""


def _backbone(config: RunConfig) -> str:
    share = config.train.backbone_lr
    if share == 0:
        return f"{config.model.backbone}, frozen"
    return f"{config.model.backbone}, trained with {share:g} of the learning rate"


def _scores(record: RunRecord) -> str:
    protocol = Protocol.from_record(record.protocol)
    rows = [
        f"| {title} | {values['miou']:.2f} | {values['interval'][0]:.2f} to "
        f"{values['interval'][1]:.2f} | {values['fb_iou']:.2f} |"
        for entry, title in TITLES.items()
        if (values := record.scores.get(entry)) is not None
    ]
    return "\n".join(
        [
            "## Scores",
            "",
            f"Protocol `{protocol.label}`, {protocol.shots}-shot, {protocol.episodes:,} episodes "
            f"for each of {len(protocol.seeds)} episode seeds (controls: the first). "
            "Intervals: 95 %, over episodes; another training seed moves the score more.",
            "",
            "| | mIoU | interval | FB-IoU |",
            "|---|---:|---|---:|",
            *rows,
            "",
            f"Run record: `{record.name}`.",
        ]
    )


def _limits(config: RunConfig) -> str:
    return f"""\
## Limits

- {LIMITS[config.data.dataset]}
- It segments one class at a time and always answers: where the class is absent it still marks the
  most similar region. Confidence is not calibrated.
- One training run, one seed: whether another model is better, single runs do not tell.
- Do not use it for decisions about people, for diagnosis or for safety.

## Licence

Apache License 2.0, as the code. {_terms(config)}"""


def _terms(config: RunConfig) -> str:
    if config.data.dataset == "parts":
        return "The training images are drawn by the package: they have no other owner."
    return (
        "The training photographs have terms of their own (Flickr, and the data set's page): read "
        "them before commercial use."
    )


def _rebuild(config: RunConfig, record: RunRecord, weights: Path) -> str:
    changed = dict(changed_parameters(config))
    if config.data.classes:
        changed["classes"] = f"../{Path(config.data.classes).name}"
    other = json.dumps(changed, ensure_ascii=False)
    root = f" -p root {shlex.quote(f'../data/{config.data.dataset}')}" if config.data.root else ""
    threads = record.environment.get("threads", 1)
    return f"""\
## Rebuild

```sh
python book/tools/run_notebooks.py 09 -p profile {config.profile}{root} -p threads {threads} \\
    -p models ../models -p other {shlex.quote(other)}
```

The same machine, versions and number of threads give the same bits; others give scores within the
spread of training seeds. `make models` rebuilds the weights of whole tables."""


def changed_parameters(config: RunConfig) -> Mapping[str, Any]:
    """Parameters of a run that differ from its profile; folders and files are left out.

    ``run_config(config.profile, **changed_parameters(config))`` has the same name, given the same
    folder of data and file of classes.
    """
    plain = run_config(config.profile, root=config.data.root or "data").flat()
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in config.flat().items()
        if name not in ("profile", "root", "classes") and value != plain[name]
    }
