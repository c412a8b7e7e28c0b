"""Whole runs, and their parts: data without leaks, models from seeds, records."""

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import with_tiny_backbone

from pmms import experiment as module
from pmms.backbones import weights_digest
from pmms.config import RunConfig, run_config
from pmms.datasets import coco
from pmms.datasets.parts import PartsVOC
from pmms.datasets.pascal import PascalVOC
from pmms.datasets.pascal_lists import PAIR_LISTS, derived_pairs
from pmms.experiment import (
    Stopwatch,
    evaluate_model,
    load_data,
    new_model,
    prepare_images,
    run,
    score_controls,
)
from pmms.feature_computing import bank_megabytes
from pmms.features import FeatureBank
from pmms.folds import split_classes
from pmms.protocols import Protocol
from pmms.results import load_record
from pmms.run_state import CHECKPOINT, LOG

COCO128 = Path(__file__).parents[2] / "shared" / "data" / "coco128"
TINY: dict[str, Any] = {
    "backbone": "tiny", "width": 8, "aspp_rates": (1, 2, 3), "em_iterations": 3,
    "train_images": 24, "test_images": 50, "extra_classes": 5, "train_size": 64, "test_size": 64,
    "iterations": 4, "batch_size": 2, "log_every": 2, "episodes": 60, "episode_seeds": (0, 1),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _tiny_backbone() -> Iterator[None]:
    with with_tiny_backbone():
        yield


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features of all runs here, so that each image is drawn once."""
    return tmp_path_factory.mktemp("cache")


def tiny(**changes: Any) -> RunConfig:
    return run_config(**(TINY | changes))


@pytest.mark.parametrize("validation", [False, True])
@pytest.mark.parametrize("fold", range(4))
def test_training_opens_no_photo_of_a_held_out_class(
    fold: int, validation: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On real photographs, by the annotation file alone: not an object of any size, not a crowd."""
    if not COCO128.is_dir():
        pytest.skip("needs the photos of coco128 in ../shared/data")
    config = tiny(
        dataset="coco", root=str(COCO128), train_split="train", test_split="train", fold=fold,
        validation=validation, min_images=2, iterations=12,
    )  # fmt: skip
    data, opened = load_data(config.data, cache=tmp_path), []
    as_before = coco.open_image

    def noted(path: Path) -> object:
        opened.append(int(path.stem))
        return as_before(path)

    monkeypatch.setattr(coco, "open_image", noted)
    module.train_model(config, new_model(config), data, module.Images(data.train, data.test))
    annotations = json.loads((COCO128 / "annotations" / "instances_train2017.json").read_text())
    ids = sorted(category["id"] for category in annotations["categories"])
    held_out = {ids[c - 1] for c in split_classes("coco", fold).novel}
    if validation:
        held_out |= {ids[c - 1] for c in split_classes("coco", (fold + 1) % 4).novel}
    found = annotations["annotations"]
    hidden = {entry["image_id"] for entry in found if entry["category_id"] in held_out}
    assert len(set(opened)) >= 4
    assert len(hidden) > 10
    assert not set(opened) & hidden


@pytest.mark.parametrize("validation", [False, True])
@pytest.mark.parametrize("fold", range(4))
def test_training_images_show_no_held_out_class(fold: int, validation: bool) -> None:
    """By the pixels of the label maps, not by what the data set says of itself."""
    config = tiny(fold=fold, validation=validation, train_images=6).data
    data = load_data(config)
    split = split_classes("parts", fold, validation=validation)
    assert len(data.train) == 6
    shown = {int(value) for _, labels in data.train for value in labels.unique()}
    assert not shown & set(split.held_out)
    assert not set(data.train_classes) & set(split.held_out)
    assert data.test_classes == (split.validation if validation else split.novel)
    assert len(data.test_classes) == 5


@pytest.mark.parametrize("fold", range(4))
def test_data_of_the_default_size(fold: int) -> None:
    """Nothing is drawn; the classes of the plans are what the label maps show (test_parts)."""
    for validation in (False, True):
        data = load_data(run_config(fold=fold, validation=validation).data)
        split = split_classes("parts", fold, validation=validation)
        assert len(data.train) == 500
        assert len(data.test) == 300
        assert data.train_classes == (*split.train, *range(21, 81))
        assert not any(data.train.classes_shown(i) & set(split.held_out) for i in range(500))
        ids = {data.train.image_id(i) for i in range(500)}
        assert not ids & {data.test.image_id(i) for i in range(300)}


def test_classes_with_a_single_image_are_left_out_of_training() -> None:
    data = load_data(tiny(train_images=12, extra_classes=100).data)
    for class_id in data.train_classes:
        assert sum(class_id in data.train.classes_in(i) for i in range(12)) >= 2
    assert len(data.train_classes) < 20


@pytest.fixture(scope="module")
def voc(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Settings for a VOC tree of small pictures."""
    root = tmp_path_factory.mktemp("voc")
    for split, length in (("train", 24), ("val", 50)):
        PartsVOC(split, length=length, size=64).write_voc(root, progress=False)
    return {"dataset": "pascal", "root": str(root), "labels": "SegmentationClass"}


def test_a_voc_tree(voc: dict[str, Any]) -> None:
    config = tiny(**voc, fold=1)
    data = load_data(config.data)
    assert 0 < len(data.train) < 24
    assert len(data.test) == 50
    assert data.test_classes == (6, 7, 8, 9, 10)
    assert not any(set(labels.unique().tolist()) & {6, 7, 8, 9, 10} for _, labels in data.train)
    backbone = new_model(config).backbone
    needed = bank_megabytes(data.test, backbone, size=64)
    assert prepare_images(config, data, backbone, limit_mb=0) == (data.train, data.test)
    images = prepare_images(config, data, backbone, limit_mb=1.01 * needed)
    assert isinstance(images.test, FeatureBank)
    assert images.train is data.train  # no room is left for it
    assert images.test.megabytes == pytest.approx(needed)
    images = prepare_images(config, data, backbone)
    assert isinstance(images.train, FeatureBank)
    assert isinstance(images.test, FeatureBank)
    assert images.test.dataset is data.test
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_data(tiny(dataset="pascal", root=voc["root"] + "-none").data)


def test_models_follow_from_the_seed() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    models = [new_model(tiny(seed=seed)) for seed in (0, 0, 1)]
    assert torch.equal(torch.random.get_rng_state(), before)
    digests = [weights_digest(model) for model in models]
    assert digests[0] == digests[1] != digests[2]
    assert models[0].config == tiny().model


def test_a_whole_run(tmp_path: Path, cache: Path) -> None:
    config = tiny()
    where = {"runs": tmp_path / "runs", "cache": cache}
    before = torch.random.get_rng_state()
    record = run(config, results=tmp_path / "results", **where)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert load_record(tmp_path / "results" / f"{config.name}.json") == record
    assert set(record.scores) == {
        "model", "untrained", "everything", "all_objects", "wrong_support", "seen_classes",
    }  # fmt: skip
    for name, values in record.scores.items():
        assert 0 <= values["interval"][0] <= values["miou"] <= values["interval"][1] <= 100, name
        assert values["episodes"] == (120 if name == "model" else 60)
    assert [int(c) for c in record.scores["model"]["class_iou"]] == [1, 2, 3, 4, 5]
    assert [int(c) for c in record.scores["seen_classes"]["class_iou"]] == list(range(6, 21))
    assert len(record.scores["model"]["by_seed"]) == 2
    assert record.scores["all_objects"]["miou"] > record.scores["everything"]["miou"]
    assert [step for step, _ in record.loss] == [2, 4]
    assert set(record.seconds) == {"images", "evaluate", "train"}
    assert record.protocol["name"] == "ours (episodes=60, seeds=0+1)"
    assert Protocol.from_record(record.protocol) == config.protocol
    names = split_classes("parts", 0).novel
    assert [int(c) for c in record.scores["model"]["class_names"]] == list(names)
    assert "root" not in record.parameters
    assert run_config(**record.parameters) == config
    assert sorted(p.name for p in (tmp_path / "runs" / config.training_name).iterdir()) == [
        CHECKPOINT,
        LOG,
    ]

    again = run(config, results=None, cache=cache)
    assert again.scores == record.scores
    assert again.loss == record.loss
    resumed = run(config, results=None, **where)
    assert resumed.scores == record.scores
    assert resumed.loss == record.loss


def test_runs_that_differ_in_their_test_share_a_training(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where: dict[str, Any] = {"results": None, "runs": tmp_path, "cache": cache}
    first = run(tiny(episode_seeds=0), **where)

    def no_step(*_: Any, **__: Any) -> None:
        raise AssertionError("a step was made")

    monkeypatch.setattr("pmms.training.segmentation_loss", no_step)
    second = run(tiny(episode_seeds=1, shots=2, test_images=90, episodes=90), **where)
    assert second.loss == first.loss
    assert second.name != first.name
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 1
    with pytest.raises(AssertionError, match="a step was made"):
        run(tiny(episode_seeds=0, seed=1), **where)


def test_controls_are_what_they_say(cache: Path) -> None:
    """Those that need no model, against the label maps of the episodes."""
    from pmms.episodes import EpisodeSampler

    config = tiny(episode_seeds=(0,))
    data = load_data(config.data)
    model = new_model(config)
    images = prepare_images(config, data, model.backbone, cache=cache)
    assert isinstance(images.test, FeatureBank)
    scores = score_controls(config, model, data, images)
    met = {c: torch.zeros(3, dtype=torch.int64) for c in data.test_classes}
    for episode in EpisodeSampler(data.test, data.test_classes, length=60, seed=0):
        labels = images.test.labels[episode.query, 0]
        inside, void = labels == episode.class_id, labels == 255
        anything = (labels > 0) & ~void
        met[episode.class_id] += torch.stack([inside.sum(), (~void).sum(), anything.sum()])
    for name, column in (("everything", 1), ("all_objects", 2)):
        by_hand = [100 * float(m[0] / m[column]) for m in met.values()]
        assert scores[name]["miou"] == pytest.approx(sum(by_hand) / 5)
    direct = evaluate_model(config, model, data, images)
    assert scores["wrong_support"]["miou"] != direct.scores.miou
    seen = evaluate_model(config, model, data, images, classes=range(6, 21))
    assert scores["seen_classes"] == seen.summary()


def test_a_run_without_training(cache: Path) -> None:
    config = tiny(model="training_free")
    record = run(config, results=None, cache=cache)
    assert set(record.scores) == {"model", "everything", "all_objects", "wrong_support"}
    assert record.loss == ()
    assert "train" not in record.seconds


def test_a_validation_run_scores_validation_classes(cache: Path) -> None:
    record = run(tiny(validation=True, fold=3, iterations=2), results=None, cache=cache)
    validation = set(split_classes("parts", 3, validation=True).validation)
    novel = set(split_classes("parts", 3).novel)
    for name, values in record.scores.items():
        scored = {int(c) for c in values["class_iou"]}
        assert not scored & novel
        if name == "seen_classes":
            assert not scored & validation
        else:
            assert scored == validation


def test_a_run_on_images_with_a_trained_backbone(
    voc: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way of the profile "paper": no features are kept, controls and all."""
    monkeypatch.setattr(module, "feature_bank", None)
    config = tiny(**voc, backbone_lr=0.1, iterations=2, episode_seeds=0, em_iterations=1)
    record = run(config, results=None)
    assert len(record.scores) == 6
    assert record.scores["wrong_support"]["episodes"] == 60
    assert record.scores["wrong_support"]["miou"] != record.scores["model"]["miou"]


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Settings for a VOC tree of large pictures with lists of pairs, not the authors'."""
    root = tmp_path_factory.mktemp("listed")
    for split, length in (("train", 12), ("val", 60)):
        PartsVOC(split, length=length, size=160).write_voc(root, progress=False)
    images = PascalVOC(root, "val", min_area=600)
    lists = images.root / PAIR_LISTS
    lists.mkdir()
    for fold in range(4):
        pairs = derived_pairs(images, split_classes("pascal", fold).novel)
        lines = [f"{images.image_id(i)}__{c:02d}" for i, c in pairs]
        (lists / f"split{fold}_val.txt").write_text("\n".join(lines) + "\n")
    return {"dataset": "pascal", "root": str(root), "labels": "SegmentationClass"}


@pytest.mark.parametrize("name", ["authors", "hsnet", "pfenet"])
def test_a_run_under_a_published_protocol(
    listed: dict[str, Any], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    files = Path(listed["root"]).rglob(f"{PAIR_LISTS.name}/*.txt")
    known = {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    monkeypatch.setattr("pmms.datasets.pascal_lists.AUTHORS_SHA256", known)
    settings = {name: value for name, value in TINY.items() if name != "episode_seeds"}
    settings |= listed | {"protocol": name, "model": "training_free", "shots": 2, "fold": 0}
    config = run_config(**settings)
    record = run(config, results=None)
    assert record.protocol["name"] == f"{name} (episodes=60, size=64)"
    assert record.parameters["protocol"] == name
    assert record.scores["model"]["episodes"] == 60
    assert ("fb_iou" in record.scores["model"]) == (name != "authors")
    assert run_config(**record.parameters, root=listed["root"]) == config


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"test_images": 8}, "needs 2 images of its class"),
        ({"shots": 20}, "needs 21 images of its class"),
        ({"episodes": 12}, "episodes must be more than 12: none of them is of "),
        ({"fold": 1, "episodes": 3}, "episodes must be more than 3: none of them is of "),
    ],
)
def test_what_cannot_be_scored_is_refused_before_training(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr(module, "prepare_images", None)
    with pytest.raises(ValueError, match=message):
        run(tiny(**changes), results=None)


def test_a_stopwatch_adds_up(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([10.0, 11.0, 13.5, 14.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(times))
    watch = Stopwatch()
    for name in ("a", "b", "a"):
        watch.lap(name)
    assert watch.seconds == {"a": 1.5, "b": 2.5}
