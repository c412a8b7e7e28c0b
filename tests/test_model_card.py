"""The weights of a run and the card beside them."""

import hashlib
import json
import re
import shlex
from pathlib import Path

import pytest
import torch
import yaml

import pmms
from parameter_types import cast
from pmms import experiment
from pmms.checkpoints import load_notes
from pmms.config import RunConfig
from pmms.data import Data
from pmms.model_card import TITLES, changed_parameters, export_model
from pmms.models import FewShotSegmenter
from pmms.results import RunRecord

TINY = {
    "iterations": 2, "train_images": 60, "test_images": 60, "extra_classes": 4, "episodes": 60,
    "episode_seeds": (0,), "train_size": 64, "test_size": 64, "views": 1, "fold": 1, "k": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def run() -> tuple[RunConfig, FewShotSegmenter, Data, RunRecord]:
    """A run, and its record."""
    config = pmms.run_config(**TINY)
    data = experiment.load_data(config.data)
    model = experiment.new_model(config)
    images = experiment.prepare_images(config, data, model.backbone)
    history = experiment.train_model(config, model, data, images)
    scores = experiment.score_controls(config, model, data, images)
    scores["model"] = experiment.evaluate_model(config, model, data, images).summary()
    return config, model, data, experiment.make_record(config, scores, history, {})


def test_weights_and_card_stand_side_by_side(run, tmp_path: Path) -> None:
    config, model, data, record = run
    path = export_model(model, config, record, data, folder=tmp_path / "models")
    assert path.name == f"{config.training_name}.safetensors"
    assert sorted(p.suffix for p in path.parent.iterdir()) == [".md", ".safetensors"]
    assert path.stat().st_size < 2_000_000  # without the frozen backbone

    again, size = pmms.load_model(path)
    assert size == 64
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    notes = load_notes(path)
    assert notes["record"] == record.name
    assert pmms.run_config(**notes["parameters"]).name == config.name


def test_the_card_tells_the_record(run, tmp_path: Path) -> None:
    config, model, data, record = run
    path = export_model(model, config, record, data, folder=tmp_path)
    card = path.with_suffix(".md").read_text("utf-8")
    _, front, text = card.split("---\n", 2)
    front = yaml.safe_load(front)
    assert (front["license"], front["library_name"]) == ("apache-2.0", "pmms")
    assert hashlib.sha256(path.read_bytes()).hexdigest() in text
    for title in ("Data", "Training", "Scores", "Limits", "Licence", "Rebuild"):
        assert f"\n## {title}\n" in text
    rows = dict(re.findall(r"^\| (.+?) \| ([\d.]+) \|", text, re.MULTILINE))
    assert rows == {TITLES[entry]: f"{s['miou']:.2f}" for entry, s in record.scores.items()}
    for c in data.test_classes:
        assert data.test.class_name(c) in text
    assert "`ours (episodes=60, seeds=0)`" in text
    assert record.name in text
    assert "of no use on photographs" in text


def test_the_command_of_the_card_makes_the_same_run(run, tmp_path: Path) -> None:
    config, model, data, record = run
    card = export_model(model, config, record, data, folder=tmp_path).with_suffix(".md")
    (command,) = re.findall(r"```sh\n(.*?)\n```", card.read_text("utf-8"), re.DOTALL)
    words = shlex.split(command)
    assert words[:3] == ["python", "book/tools/run_notebooks.py", "09"]
    given = {words[i + 1]: words[i + 2] for i, word in enumerate(words) if word == "-p"}
    again = pmms.run_config(given["profile"], **cast(given["other"], "dict"))
    assert again == config
    assert given["threads"] == str(record.environment["threads"])


@pytest.mark.parametrize(
    "profile, parameters",
    [
        ("mini", {"model": "rpmms", "k": (2, 3, 4), "shots": 5}),
        ("paper", {"root": "data/pascal", "protocol": "pfenet", "train_void": "background"}),
        ("paper", {"root": "data/coco", "dataset": "coco", "backbone": "vgg16"}),
    ],
)
def test_changed_parameters_name_the_same_run(profile: str, parameters: dict) -> None:
    config = pmms.run_config(profile, **parameters)
    changed = json.loads(json.dumps(changed_parameters(config)))
    assert "root" not in changed
    root = {"root": "elsewhere"} if "root" in parameters else {}
    assert pmms.run_config(profile, **root, **changed).name == config.name


def test_a_card_of_a_trained_backbone_keeps_it(run, tmp_path: Path) -> None:
    _, model, data, _ = run
    config = pmms.run_config(**TINY, backbone_lr=0.1)
    record = experiment.make_record(config, {}, [], {})
    path = export_model(model, config, record, data, folder=tmp_path)
    assert path.stat().st_size > 10_000_000
    card = path.with_suffix(".md").read_text("utf-8")
    assert "with its backbone" in card
    assert "trained with 0.1 of the learning rate" in card


def test_what_has_no_weights_or_another_record_is_refused(run, tmp_path: Path) -> None:
    _, model, data, record = run
    other = pmms.run_config(**TINY, seed=1)
    with pytest.raises(ValueError, match="record must be that of the run"):
        export_model(model, other, record, data, folder=tmp_path)
    free = pmms.run_config(**TINY, model="training_free")
    of_free = experiment.make_record(free, {}, [], {})
    with pytest.raises(ValueError, match="no trained weights"):
        export_model(model, free, of_free, data, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []
