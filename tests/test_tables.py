"""Tables are what the records say, and the README shows what the tables say."""

import re
from pathlib import Path

import pytest

from pmms.results import RunRecord, load_record
from pmms.tables import blocks, describe, fill, fill_files, fold_table

ROOT = Path(__file__).parents[1]
RECORDS = [
    path
    for path in sorted((ROOT / "results").glob("*.json"))
    if not path.stem.startswith("bench-")  # see test_benchmarks.py
]


def record(model: str, fold: int, seed: int, miou: float, *, protocol: str = "ours") -> RunRecord:
    return RunRecord(
        name=f"{model}-{fold}-{seed}",
        parameters={
            "profile": "mini", "dataset": "parts", "shots": 1, "validation": False,
            "model": model, "fold": fold, "seed": seed, "iterations": 5,
        },
        protocol={"name": protocol, "shots": 1, "episodes": 10, "seeds": [0, 1]},
        scores={"model": {"miou": miou}, "everything": {"miou": 10.0}},
        seconds={"train": 60.0},
        environment={
            "device": "a processor", "threads": 2, "commit": "abc", "versions": {"torch": "2.0"},
        },
    )  # fmt: skip


def test_cells_hold_means_and_deviations_over_seeds() -> None:
    records = [
        record("pmms", fold, seed, 20 + 10 * fold + 2 * seed) for fold in (0, 1) for seed in (0, 1)
    ]
    lines = fold_table(records).splitlines()
    assert lines[2] == "| pmms | 21.0 (1.4) | 31.0 (1.4) | not run | not run | not run |"
    assert lines[5] == "| everything foreground | 10.0 | 10.0 | not run | not run | not run |"
    assert [line.split(" | ")[0] for line in lines[3:]] == [
        "| pmms, untrained", "| pmms, wrong support",
        "| everything foreground", "| true mask of all objects",
    ]  # fmt: skip


def test_mean_is_over_folds_and_one_seed_has_no_deviation() -> None:
    records = [record("pmms", fold, 0, 10 * fold) for fold in range(4)]
    assert fold_table(records).splitlines()[2] == "| pmms | 0.0 | 10.0 | 20.0 | 30.0 | 15.0 |"


def test_two_protocols_have_no_place_in_one_table() -> None:
    with pytest.raises(ValueError, match="one protocol"):
        fold_table([record("pmms", 0, 0, 1), record("pmms", 1, 0, 1, protocol="hsnet")])


def test_description_names_protocol_seeds_machine() -> None:
    text = describe([record("pmms", 0, seed, 1) for seed in (0, 1)])
    for part in (
        "`ours (episodes=10, seeds=0+1)`",
        "1-shot",
        "2 x 10 episodes",
        "seeds 0, 1",
        "2 minutes",
        "a processor",
    ):
        assert part in text
    assert describe([]) == "No run record yet."


def test_fill_replaces_between_marks_only_and_is_stable() -> None:
    text = "a\n<!-- t -->\nold\n<!-- /t -->\nb\n"
    filled = fill(text, {"t": r"new \1 line"})
    assert filled == "a\n<!-- t -->\nnew \\1 line\n<!-- /t -->\nb\n"
    assert fill(filled, {"t": r"new \1 line"}) == filled
    with pytest.raises(ValueError, match="no place marked"):
        fill(text, {"other": ""})


def test_fill_files_changes_only_what_is_old(tmp_path: Path) -> None:
    record("pmms", 0, 0, 42.0).save(tmp_path / "results")
    page, other = tmp_path / "page.md", tmp_path / "other.md"
    page.write_text("<!-- mini-table -->\n<!-- /mini-table -->\n")
    other.write_text("nothing to fill\n")
    assert fill_files(tmp_path / "results", [page, other]) == [page]
    assert "| pmms | 42.0 |" in page.read_text()
    assert fill_files(tmp_path / "results", [page, other]) == []


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_committed_records_are_complete_and_of_a_clean_commit(path: Path) -> None:
    committed = load_record(path)
    assert committed.status == "complete"
    assert re.fullmatch(r"[0-9a-f]{12}", committed.environment["commit"])
    assert committed.name == path.stem
    assert committed.protocol["name"] == "ours"
    assert sum(committed.seconds.values()) > 0


def test_readme_shows_the_records() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = {"mini-table": blocks(ROOT / "results")["mini-table"]}
    assert fill(text, shown) == text, "run `python -m pmms tables`"
