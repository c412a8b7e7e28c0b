"""The page on trust names tests and commands that exist, and bounds that the tests hold."""

import re
from pathlib import Path
from typing import Any

import pytest
import test_bad_input_data
import test_bad_input_files
import test_bad_input_numbers
import test_bad_input_pictures

from pmms.results import RunRecord, environment, load_record
from pmms.trust_tables import KILL_POINTS, KILLED, kill_points, mutants

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "book" / "trust.md").read_text("utf-8")
RECORDS = sorted((ROOT / "results").glob("trust-*.json"))
TABLES = (
    test_bad_input_data,
    test_bad_input_files,
    test_bad_input_numbers,
    test_bad_input_pictures,
)


def test_named_tests_exist() -> None:
    named = set(re.findall(r"`(test_\w+\.py)`", PAGE))
    assert len(named) > 10
    assert [name for name in named if not (ROOT / "tests" / name).is_file()] == []
    assert {f"{table.__name__}.py" for table in TABLES} <= named


def test_named_commands_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z-]+)`", PAGE))
    assert {"search", "kills", "coverage", "audit"} <= named <= targets


def test_the_tables_of_bad_input_are_long_and_name_every_case_once() -> None:
    names = [case.name for table in TABLES for case in table.case.cases]
    assert len(set(names)) == len(names) >= 60


def test_bounds_on_the_page_are_those_of_the_tests() -> None:
    tests = (ROOT / "tests" / "test_properties_numbers.py").read_text("utf-8")
    for on_page, in_tests in (
        (r"$4 \cdot 10^{-7} (1 + \kappa)$", "< 4e-7 * (1 + kappa)"),
        (r"$10^{-3}$ nats", "/ n < 1e-3"),
        (r"$2^{-9} \kappa$", "<= kappa * 2**-9"),
        ("0.1 to 100", "kappa=st.floats(0.1, 100)"),
    ):
        assert on_page in PAGE
        assert in_tests in tests
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert "PMMS_SEARCH=20 PMMS_EPISODES=10000" in makefile
    assert "fail_under = 95" in (ROOT / "pyproject.toml").read_text("utf-8")


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_committed_records_are_of_whole_runs_without_a_loss(path: Path) -> None:
    committed = load_record(path)
    assert (committed.status, committed.name) == ("complete", path.stem)
    assert re.fullmatch(r"[0-9a-f]{12}", committed.environment["commit"])
    if path.stem == "trust-mutants":
        assert all(seen["not found"] == 0 for seen in committed.scores["modules"].values())
    else:
        assert committed.scores["kills"] == committed.parameters["moments"] == 30
        assert committed.scores["ends"] > 0  # one that differs ends the script


def record(name: str, scores: dict[str, Any], folder: Path) -> None:
    RunRecord(
        name=name, parameters={}, protocol={"name": "trust"}, scores=scores, seconds={"all": 90.0},
        environment=environment("cpu"),
    ).save(folder)  # fmt: skip


def test_what_was_not_run_is_said(tmp_path: Path) -> None:
    assert mutants(tmp_path) == "not run: `make mutants`."
    assert kill_points(tmp_path).count("| not run |") == len(KILLED) == 4


def test_kill_points_are_shown_as_recorded(tmp_path: Path) -> None:
    seen = {"kills": 30, "ends": 11, "seconds": 4.0, "first": 0.1, "last": 3.96, "left": {"b": 29}}
    record(KILL_POINTS.format("sweep"), seen, tmp_path)
    text = kill_points(tmp_path)
    assert "| sweep | 30 | 0.10 to 3.96 | b: 29 | 11 |" in text
    assert text.count("| not run |") == 3
    assert "`make kills`, 2 minutes on" in text


def test_mutants_are_shown_as_recorded(tmp_path: Path) -> None:
    counts = {"mutants": 110, "found": 99, "wording": 5, "the same": 5, "not found": 1}
    scores = {"modules": {"heads": counts, "metrics": counts}, "reasons": {"order": 10}}
    record("trust-mutants", scores, tmp_path)
    text = mutants(tmp_path)
    assert "| `heads` | 110 | 99 | 5 | 5 | 1 | 99.0 % |" in text
    assert "| all | 220 | 198 | 10 | 10 | 2 | 99.0 % |" in text
    assert "- order (10)" in text


def test_make_search_takes_every_test_that_searches() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    (names,) = re.findall(r"^SEARCHING = .*\.py,((?:.|\\\n)*?)\)\)$", makefile, re.MULTILINE)
    searching = [
        path.stem.removeprefix("test_")
        for path in (ROOT / "tests").glob("test_*.py")
        if re.search(r"^from searching import", path.read_text("utf-8"), re.MULTILINE)
    ]
    assert sorted([*searching, "random_episodes"]) == sorted(names.replace("\\", "").split())
