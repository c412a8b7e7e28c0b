"""The page on several GPUs and the paper's settings: its tables, its counts, its commands."""

import importlib
import re
import shlex
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from fakes import tiny_model

from pmms.__main__ import parse
from pmms.tables import fill

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "book" / "scale.md").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def _benchmarks_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")


def module(name: str) -> ModuleType:
    return importlib.import_module(name)


def test_the_page_shows_the_record() -> None:
    found = module("report").records(ROOT / "results")
    filled = fill(TEXT, module("report_paper").blocks(found))
    assert filled == TEXT, "run `python benchmarks/report.py`"


def test_commands_of_the_page_are_understood() -> None:
    lines = re.sub(r"\\\n\s*", " ", TEXT)
    commands = re.findall(r"-m pmms ((?:run|train|evaluate) .*?)(?:  #.*)?$", lines, re.MULTILINE)
    assert len(commands) == 7
    for command in commands:
        parse(shlex.split(command))


def test_kept_tensors_grow_by_the_same_for_every_episode() -> None:
    paper, model = module("bench_paper"), tiny_model("pmms").train()
    config = SimpleNamespace(data=SimpleNamespace(train_size=32))
    kept = [paper.kept_for_backward(model, config, n, "float32") for n in (1, 2, 3)]
    # EM stops at no set size, but the features kept for it are as many for every episode.
    assert kept[2] - kept[1] == pytest.approx(kept[1] - kept[0], rel=0.02)
    assert kept[0] > 4 * 12 * 4 * 4  # the features of one image at the least
    assert paper.kept_for_backward(model, config, 2, "bfloat16") < kept[1]


def test_tables_follow_from_the_record() -> None:
    report = module("report_paper")
    scores = {
        "pmms, tiny: measured": {
            "processor_seconds_per_step": 34.2, "processor_seconds_per_test_episode": 7.1,
            "peak_mb": 9000.0, "peak_mb_before": 700.0, "checkpoint_mb": 157.0,
            "seconds_to_save": 0.4, "killed_after_step": 1, "steps_logged": [1, 2],
        },
        "pmms, tiny: counted, float32": {
            "activations_mb_per_episode": 1000.0, "activations_mb_besides": 50.0,
            "weights_mb": 80.0, "gradients_and_momentum_mb": 170.0, "teraflops_per_step": 1.8,
        },
        "pmms, tiny: counted, bfloat16": {
            "activations_mb_per_episode": 500.0, "activations_mb_besides": 150.0,
        },
    }  # fmt: skip
    assert report.networks(scores) == ["pmms, tiny"]
    assert "| 34 | 7.1 | 8300 | 8220 | 157 | 0.4 | 1 | 1, 2 |" in report.measured(scores)
    table = report.memory(scores)
    assert "| float32 | 8.3 | 4.3 | 2.3 | 1.3 |" in table
    assert "| bfloat16 | 4.4 | 2.4 | 1.4 | 0.9 |" in table
    # 200,000 steps of 1.8e12 operations: 3.6e17, at 5e12 a second 72,000 s.
    assert "| 1.80 | 0.36 | 20 | 5 | 1 |" in report.hours(scores)
