"""The command line: help, a model's way from training to a mask, and answers to mistakes."""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny_archives
import torch
from fakes import with_tiny_backbone
from faulty_server import serving
from PIL import Image

from pmms import __main__ as command_line
from pmms.__main__ import main, parse
from pmms.checkpoints import load_model, load_notes
from pmms.config import run_config
from pmms.datasets.pascal import PascalVOC
from pmms.datasets.prepare_coco import prepare_coco
from pmms.datasets.prepare_pascal import prepare_pascal
from pmms.folds import PASCAL_CLASSES
from pmms.results import load_records

ROOT = Path(__file__).parents[1]
TINY = [
    "backbone=tiny", "width=8", "aspp_rates=(1, 2, 3)", "em_iterations=2", "train_images=16",
    "test_images=50", "extra_classes=3", "train_size=64", "test_size=64", "iterations=4",
    "batch_size=2", "log_every=2", "episodes=60", "episode_seeds=(0,)",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _tiny_backbone() -> Iterator[None]:
    with with_tiny_backbone():
        yield


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return ["--cache", str(tmp_path_factory.mktemp("cache")), "--workers", "0"]


def commands() -> dict[str, argparse.ArgumentParser]:
    (action,) = [
        a for a in command_line._parser()._actions if isinstance(a, argparse._SubParsersAction)
    ]
    return dict(action.choices)


# Help


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0
    text = capsys.readouterr().out
    assert {"train", "evaluate", "predict", "run", "prepare", "folds"} <= set(commands())
    for name in commands():
        assert re.search(rf"^    {name}  +\w", text, re.MULTILINE), name


@pytest.mark.parametrize("name", commands())
def test_help_names_and_explains_every_option(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main([name, "--help"])
    assert left.value.code == 0
    text = capsys.readouterr().out
    for action in commands()[name]._actions:
        assert action.help, action
        for option in action.option_strings:
            assert option in text
        assert action.help.split("%(")[0][:20] in re.sub(r"\s+", " ", text)


def test_no_command_and_an_unknown_one(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["segment"]):
        with pytest.raises(SystemExit) as left:
            main(arguments)
        assert left.value.code == 2
    assert "invalid choice: 'segment'" in capsys.readouterr().err


# Work


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, cache: list[str]) -> Path:
    """The folder of a model that was trained by the command line."""
    folder = tmp_path_factory.mktemp("trained")
    out = str(folder / "m.safetensors")
    with with_tiny_backbone():
        assert main(["train", "--set", *TINY, "--runs", str(folder), "--out", out, *cache]) == 0
    return folder


def test_train_writes_model_log_and_checkpoint(trained: Path) -> None:
    model, size = load_model(trained / "m.safetensors")
    assert size == 64
    assert model.config.width == 8
    parameters = load_notes(trained / "m.safetensors")["parameters"]
    config = run_config(**parameters)
    assert config.train.iterations == 4
    run = trained / config.training_name
    assert sorted(p.name for p in run.iterdir()) == ["checkpoint.pt", "loss.csv"]
    assert len((run / "loss.csv").read_text().splitlines()) == 3


def test_several_processes_do_the_same_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who starts them; what they do together is tested in test_distributed."""
    from pmms import together

    started: list[Any] = []
    monkeypatch.setattr(together, "in_processes", lambda *a, **k: started.append((a, k)))
    monkeypatch.setattr(together, "started_outside", lambda: False)
    words = ["evaluate", "m.safetensors", "--devices", "2", "--device", "cpu"]
    assert main(words) == 0
    ((function, arguments), options) = started[0]
    assert options == {"devices": 2, "nodes": 1, "device": "cpu"}
    first, second = (SimpleNamespace(global_rank=rank, world_size=2) for rank in (0, 1))
    for fabric in (first, second):  # what each of them does
        with pytest.raises(FileNotFoundError, match="no model at"):
            function(fabric, arguments)
    for fabric in (first, second):
        together.say(SimpleNamespace(fabric=fabric), f"by {fabric.global_rank}")
    assert capsys.readouterr().out == "by 0\n"


def test_precision_is_a_parameter_of_the_run() -> None:
    options = parse(["run", "--precision", "bfloat16", "--set", "fold=1"])
    assert command_line._config(options) == run_config(precision="bfloat16", fold=1)


def test_train_again_takes_the_checkpoint(
    trained: Path, cache: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(trained, runs)
    assert main(["train", "--set", *TINY, "--runs", str(runs), *cache]) == 0
    out = capsys.readouterr().out
    path = Path(re.search(r"model written to (.*)", out)[1])
    assert path.parent.parent == runs
    again, first = (load_model(p)[0].state_dict() for p in (path, trained / "m.safetensors"))
    assert all(torch.equal(again[name], first[name]) for name in first)
    assert load_notes(path) == load_notes(trained / "m.safetensors")
    assert re.search(r"loss \d\.\d{3} -> \d\.\d{3}", out)


def test_evaluate_prints_scores_and_protocol(
    trained: Path, cache: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    model = str(trained / "m.safetensors")
    outs = []
    for extra in ([], ["--set", "episodes=70"]):
        assert main(["evaluate", model, *extra, *cache]) == 0
        outs.append(capsys.readouterr().out)
    for class_id, name in enumerate(PASCAL_CLASSES[:5], 1):
        row = rf"^\| {class_id} \| {name} \| \d+ \| \d+\.\d\d \|$"
        assert re.search(row, outs[0], re.MULTILINE)
    assert re.search(r"^\| \| mean \(95 %: .*\| 60 \| \d+\.\d\d \|$", outs[0], re.MULTILINE)
    assert re.search(r"^\| \| FB-IoU \| 60 \|", outs[0], re.MULTILINE)
    assert re.search(r"^protocol ours \(episodes=60, .*\), 1-shot$", outs[0], re.MULTILINE)
    assert "episodes=70" in outs[1]


def drawn(folder: Path) -> dict[str, str]:
    """A picture with a bright square, its mask, and another one to segment."""
    rng = np.random.default_rng(0)
    paths = {}
    for name, place in (("support", 10), ("query", 40)):
        picture = rng.integers(0, 60, (80, 120, 3), dtype=np.uint8)
        picture[20:60, place : place + 50] += 180
        Image.fromarray(picture).save(folder / f"{name}.png")
        paths[name] = str(folder / f"{name}.png")
    mask = np.zeros((80, 120), dtype=np.uint8)
    mask[20:60, 10:60] = 7
    Image.fromarray(mask).save(folder / "mask.png")
    return paths | {"mask": str(folder / "mask.png")}


def test_predict_replaces_no_picture_that_it_was_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = drawn(tmp_path)
    mask = Path(paths["mask"]).rename(tmp_path / "query_found.png")
    before = mask.read_bytes()
    arguments = ["predict", "--support", paths["support"], str(mask), "--query", paths["query"]]
    assert main([*arguments, "--size", "64", "--out", str(tmp_path)]) != 0
    assert "name another folder with --out" in capsys.readouterr().err
    assert mask.read_bytes() == before
    assert main([*arguments, "--size", "64", "--out", str(tmp_path / "out")]) == 0


@pytest.mark.parametrize("with_model", [True, False])
def test_predict_writes_mask_and_overlay(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], with_model: bool
) -> None:
    paths = drawn(tmp_path)
    model = ["--model", str(trained / "m.safetensors")] if with_model else ["--size", "128"]
    arguments = ["predict", "--support", paths["support"], paths["mask"], "--label", "7"]
    arguments += ["--support", paths["support"], paths["mask"], "--query", paths["query"]]
    assert main([*arguments, *model, "--out", str(tmp_path / "out")]) == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "query_found.png", "query_overlay.png",
    ]  # fmt: skip
    mask = np.array(Image.open(tmp_path / "out" / "query_found.png"))
    assert mask.shape == (80, 120)
    assert set(np.unique(mask)) <= {0, 255}
    share = float(re.search(r"([\d.]+) % of", capsys.readouterr().out)[1])
    assert share == pytest.approx(100 * (mask == 255).mean(), abs=0.06)
    with Image.open(tmp_path / "out" / "query_overlay.png") as overlay:
        assert (overlay.size, overlay.mode) == ((120, 80), "RGB")
    if not with_model:
        inside = np.zeros_like(mask, dtype=bool)
        inside[20:60, 40:90] = True
        found = mask == 255
        assert (found & inside).sum() / (found | inside).sum() > 0.6


def test_run_writes_a_record_once(
    cache: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = ["--results", str(tmp_path / "results"), "--runs", str(tmp_path / "runs"), *cache]
    # Parameters given in two places go together.
    arguments = ["run", "--set", *TINY[:6], "--set", *TINY[6:], *folders]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    (record,) = load_records(tmp_path / "results", backbone="tiny", iterations=4)
    for name, values in record.scores.items():
        assert f"{name:>14}  mIoU {values['miou']:6.2f}" in out
    path = tmp_path / "results" / f"{record.name}.json"
    assert f"record written to {path}" in out
    written = path.stat().st_mtime_ns
    assert main(arguments) == 0
    assert "exists; nothing to do (--again runs it anew)" in capsys.readouterr().out
    assert path.stat().st_mtime_ns == written
    assert main([*arguments, "--again"]) == 0
    assert path.stat().st_mtime_ns > written
    again = json.loads(path.read_text())
    assert again["scores"] == record.scores


def test_prepare_writes_a_tree_that_the_reader_of_voc_reads(tmp_path: Path) -> None:
    root = tmp_path / "parts"
    arguments = ["prepare", "parts", "--root", str(root)]
    assert main([*arguments, "--train-images", "3", "--test-images", "2"]) == 0
    for split, length in (("train", 3), ("val", 2)):
        dataset = PascalVOC(root, split)
        assert len(dataset) == length
        image, labels = dataset[0]
        assert image.shape[1:] == labels.shape
        assert dataset.classes_in(0)


def test_prepare_pascal_from_a_mirror_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    sources = tiny_archives.write_pascal(tmp_path / "served")
    monkeypatch.setattr(prepare_pascal, "__kwdefaults__", {"sources": sources})
    arguments = ["prepare", "pascal", "--root", str(tmp_path / "root")]
    with serving(tmp_path / "served") as url:
        assert main([*arguments, "--mirror", url, "--keep-archives"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^  VOCtrainval_11-May-2012.tar +[\d.]+ kB  http://127", out, re.MULTILINE)
    assert re.search(r"^to download: .*; disk needed in ", out, re.MULTILINE)
    assert f"ready: {tmp_path / 'root' / 'VOCdevkit'} (" in out
    assert len(os.listdir(tmp_path / "root" / "downloads")) == 10
    assert len(PascalVOC(tmp_path / "root", "train_aug", labels="SegmentationClassAug")) == 6
    assert main(arguments) == 0
    assert capsys.readouterr().out.endswith("nothing to do\n")


def test_prepare_coco_from_archives_at_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sources = tiny_archives.write_coco(tmp_path / "given", 2014)
    defaults = {**prepare_coco.__kwdefaults__, "sources": sources}
    monkeypatch.setattr(prepare_coco, "__kwdefaults__", defaults)
    arguments = ["prepare", "coco", "--root", str(tmp_path / "root"), "--year", "2014"]
    arguments += ["--splits", "val", "--from", str(tmp_path / "given")]
    assert main([*arguments, "--dry-run"]) == 0
    assert f"given: {tmp_path / 'given' / 'val2014.zip'}" in capsys.readouterr().out
    assert not (tmp_path / "root").exists()
    assert main(arguments) == 0
    assert len(os.listdir(tmp_path / "root" / "val2014")) == 3
    assert "to download: 0 B" in capsys.readouterr().out


def test_folds_prints_the_classes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["folds", "pascal"]) == 0
    pascal = capsys.readouterr().out.splitlines()
    assert pascal[1] == "fold 1: bus (6), car (7), cat (8), chair (9), cow (10)"
    assert main(["folds", "parts"]) == 0
    assert capsys.readouterr().out.splitlines() == pascal
    assert main(["folds", "coco"]) == 0
    coco = capsys.readouterr().out.splitlines()
    assert coco[0].startswith("fold 0: person (1), airplane (5), boat (9), ")
    assert "refrigerator (73)" in coco[0]
    assert "sink (72)" in coco[3]
    assert main(["folds", "coco", "--layout", "contiguous"]) == 0
    assert capsys.readouterr().out.startswith("fold 0: person (1), bicycle (2), car (3), ")
    (tmp_path / "kitchen.txt").write_text("kettle\npan\n\ncup\n")
    assert main(["folds", "--classes", str(tmp_path / "kitchen.txt")]) == 0
    assert capsys.readouterr().out == "fold 0: kettle (1), pan (2)\nfold 1: cup (3)\n"


@pytest.mark.parametrize("data", ["parts", "pascal", "coco"])
def test_help_of_each_data_set(data: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["prepare", data, "--help"])
    assert left.value.code == 0
    text = capsys.readouterr().out
    assert f"default: data/{data}" in text
    assert ("--from" in text) == (data != "parts")


# Mistakes

NOT_THERE = "not/there.safetensors"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["run", "--set", "iteration=3"], r"unknown parameter\(s\) iteration; valid are .*kappa"),
        (["train", "--set", "fold=7"], "fold must be an integer from 0 to 3"),
        (["train", "--set", "model=pmm"], "model must be one of baseline"),
        (["train", "--set", "iterations=many"], "iterations must be int, got 'many'"),
        (["train", "--set", "fold"], "NAME=VALUE, got 'fold'"),
        (["train", "--set", "=3"], "NAME=VALUE, got '=3'"),
        (["train", "--profile", "paper"], "needs root"),
        (["run", "--profile", "paper", "--set", "root=nowhere"], "nowhere does not exist"),
        (["train", "--set", *TINY, "model=training_free"], "training_free has nothing to train"),
        (["evaluate", NOT_THERE], "no model at .*there.safetensors"),
        (["folds"], "either a data set .* or --classes"),
        (["folds", "coco", "--classes", "a.txt"], "either a data set .* or --classes"),
        (["folds", "--classes", "none.txt"], "no class file none.txt"),
        (["prepare", "coco", "--from", "none"], "no folder none to take archives from"),
        (["prepare", "pascal", "--mirror", "ftp://a"], "expected an address that starts with http"),
        (["predict", "--support", "a.png", "b.png", "--query", "c.png"], "no file at a.png"),
    ],
)
def test_a_mistake_is_answered_in_one_line(
    capsys: pytest.CaptureFixture[str],
    cache: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    if "training_free" in arguments[-1]:
        arguments = [*arguments, *cache]
    assert main(arguments) == 2
    captured = capsys.readouterr()
    last = captured.err.strip().splitlines()[-1]
    assert last.startswith("pmms: ")
    assert re.search(message, last)
    assert "Traceback" not in captured.err
    assert captured.out == ""


def test_a_damaged_model_and_one_without_parameters(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from pmms.checkpoints import save_model

    whole = (trained / "m.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[:-10])
    assert main(["evaluate", str(tmp_path / "cut.safetensors")]) == 2
    assert "is damaged" in capsys.readouterr().err
    model, size = load_model(trained / "m.safetensors")
    save_model(model, tmp_path / "bare.safetensors", size=size)
    assert main(["evaluate", str(tmp_path / "bare.safetensors")]) == 2
    assert "does not say what it was trained on" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written(
    tmp_path: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = drawn(tmp_path)
    arguments = ["predict", "--support", paths["support"], paths["mask"], "--query", paths["query"]]
    arguments += ["--model", str(trained / "m.safetensors"), "--out", paths["query"]]
    assert main(arguments) == 2
    assert re.search(r"^pmms: .*query\.png", capsys.readouterr().err, re.MULTILINE)


def test_values_are_literals_or_text() -> None:
    given = ["fold=1", "kappa=2.5", "k=(1, 3)", "model=rpmms", "root=/a=b", "p_conv_kappa=None"]
    expected: dict[str, Any] = {
        "fold": 1, "kappa": 2.5, "k": (1, 3), "model": "rpmms", "root": "/a=b",
        "p_conv_kappa": None,
    }  # fmt: skip
    assert command_line._parameters(given) == expected
    assert command_line._parameters([]) == {}


def test_an_error_of_the_program_itself_is_shown_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise AssertionError("a bug")

    monkeypatch.setattr("pmms.config.run_config", broken)
    with pytest.raises(AssertionError, match="a bug"):
        main(["run"])


def test_ctrl_c_before_training(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pmms.data.load_data", interrupted)
    assert main(["train"]) == 130
    assert capsys.readouterr().err == "pmms: stopped\n"


def test_ctrl_c_in_training_saves_and_the_same_command_goes_on(
    tmp_path: Path, cache: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The command as a person runs it, in a process of its own."""
    script = (
        "import sys, torch; sys.path.insert(0, 'tests'); torch.set_num_threads(1)\n"
        "from fakes import with_tiny_backbone\n"
        "from pmms.__main__ import main\n"
        "with with_tiny_backbone(): sys.exit(main(sys.argv[1:]))"
    )
    settings = [*TINY, "iterations=3000", "checkpoint_every=1"]
    arguments = ["train", "--set", *settings, "--runs", str(tmp_path), *cache]
    warnings = ["-W", "error"]
    if torch.__version__.startswith("2.6."):  # it leaves a folder of its own to be cleaned up
        warnings += ["-W", "ignore:Implicitly cleaning up:ResourceWarning"]
    process = subprocess.Popen(
        [sys.executable, *warnings, "-c", script, *arguments],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    end = time.monotonic() + 60
    while not list(tmp_path.glob("*/checkpoint.pt")):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    step = int(re.search(r"pmms: stopped after step (\d+) of 3000; the same call", err)[1])
    assert out == ""
    assert "Traceback" not in err
    (log,) = tmp_path.glob("*/loss.csv")
    assert len(log.read_text().splitlines()) == 1 + step // 2
