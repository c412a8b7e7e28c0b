"""Run records: what is written, what is read, what is refused."""

import getpass
import json
import math
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pmms import results as module
from pmms.files import write_atomically
from pmms.results import (
    SCHEMA,
    RunRecord,
    environment,
    load_record,
    load_records,
    peak_memory_mb,
    record_name,
)


def record(name: str = "parts-fold0", **changes: Any) -> RunRecord:
    parameters = {"dataset": "parts", "fold": 0, "k": (1, 3, 6), "kappa": 20.0, "flip": True}
    parameters |= changes.pop("parameters", {})
    values: dict[str, Any] = {
        "parameters": parameters,
        "protocol": {"name": "ours", "seeds": (0, 1), "void": "ignore"},
        "scores": {"model": {"miou": 51.25, "class_iou": {1: 50.0, 2: 52.5}}},
        "loss": ((20, 0.5), (40, 0.25)),
        "seconds": {"train": 12.3456789},
        "peak_memory_mb": 812.5,
        "environment": {"python": "3.11"},
    }
    return RunRecord(name=name, **(values | changes))


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    path = record().save(tmp_path / "new")
    assert path == tmp_path / "new" / "parts-fold0.json"
    assert load_record(path) == record()
    assert load_record(str(path)) == record()


def test_values_are_those_of_json() -> None:
    built = record()
    assert built.scores["model"]["class_iou"] == {"1": 50.0, "2": 52.5}
    assert built.parameters["k"] == [1, 3, 6]
    assert built.parameters["flip"] is True
    assert built.seconds["train"] == 12.345679
    assert record(loss=[[np.int64(1), np.float64(0.1) + 0.2]]).loss == ((1, 0.3),)


def test_a_file_is_text_that_a_person_can_read(tmp_path: Path) -> None:
    text = record(status="complete", environment={"device": "Ünïcode"}).save(tmp_path).read_text()
    assert json.loads(text)["schema"] == SCHEMA
    assert text.endswith("}\n")
    assert len(text.splitlines()) > 20
    assert "Ünïcode" in text


def test_a_second_run_replaces_its_own_record(tmp_path: Path) -> None:
    record().save(tmp_path)
    record("other").save(tmp_path)
    record(scores={"model": {"miou": 1.0}}).save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other.json", "parts-fold0.json"]
    assert load_record(tmp_path / "parts-fold0.json").scores == {"model": {"miou": 1.0}}


@pytest.mark.parametrize("name", ["", "a b", "a/b", "../a", "ä", "a\n"])
def test_names_are_file_stems(name: str) -> None:
    with pytest.raises(ValueError, match="the name of a record"):
        record(name)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_are_finite(value: float) -> None:
    for change in (
        {"scores": {"model": {"interval": [1.0, value]}}},
        {"loss": ((1, value),)},
        {"parameters": {"kappa": value}},
    ):
        with pytest.raises(ValueError, match="finite"):
            record(**change)


def test_a_missing_record_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone\.json; run the experiment"):
        load_record(tmp_path / "gone.json")


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"{}", b"null", b"\xff\xfe", b'{"schema": 1}',
        b'{"schema": 1, "name": "x", "parameters": {}, "protocol": {}, "scores": {}, "more": 1}',
        b'{"schema": 1, "name": "x", "parameters": {}, "protocol": {}, "scores": {}, "loss": [1]}',
        b'{"schema": 1, "name": "x", "parameters": {}, "protocol": {}, "scores": []}x',
        b'{"schema": 1, "name": "/x", "parameters": {}, "protocol": {}, "scores": {}}',
        b'{"schema": 1, "name": "x", "parameters": 3, "protocol": {}, "scores": {}}',
        b'{"schema": 1, "name": "x", "parameters": {}, "protocol": {}, "scores": {"a": NaN}}',
    ],
)  # fmt: skip
def test_what_is_no_record_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"broken\.json is no run record .*delete it"):
        load_record(path)


@pytest.mark.parametrize("version", [0, SCHEMA + 1, "1", None])
def test_another_version_is_refused(tmp_path: Path, version: Any) -> None:
    path = record().save(tmp_path)
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"schema": version}))
    with pytest.raises(ValueError, match=f"has format {version}, this package reads {SCHEMA}"):
        load_record(path)


def test_records_are_chosen_by_parameters(tmp_path: Path) -> None:
    record("b", parameters={"fold": 1}).save(tmp_path)
    record("a", parameters={"fold": 1, "kappa": 5.0}).save(tmp_path)
    record("c").save(tmp_path)
    record("d", parameters={"fold": 1}, status="failed: out of memory").save(tmp_path)
    (tmp_path / "notes.txt").write_text("no record")

    def names(**wanted: Any) -> list[str]:
        return [r.name for r in load_records(tmp_path, **wanted)]

    assert names() == ["a", "b", "c"]
    assert names(fold=1) == ["a", "b"]
    assert names(fold=1, kappa=20.0) == names(fold=1, kappa=20) == ["b"]
    assert names(k=(1, 3, 6)) == names(k=[1, 3, 6]) == ["a", "b", "c"]
    assert names(fold=2) == names(unheard_of=1) == []
    assert load_records(tmp_path / "none") == []


def test_names_of_parameters(tmp_path: Path) -> None:
    parameters = {"dataset": "parts", "fold": "fold0", "k": (1, 3), "kappa": 20.0, "note": "a b/c"}
    name = record_name(parameters, ("dataset", "fold", "note"))
    assert re.fullmatch(r"parts-fold0-a-b-c-[0-9a-f]{8}", name)
    assert record_name(parameters | {"k": [1, 3]}, ("dataset", "fold", "note")) == name
    assert record_name(dict(reversed(parameters.items())), ("dataset", "fold", "note")) == name
    changed = [
        parameters | change
        for change in ({"k": (3, 1)}, {"kappa": 20.5}, {"more": None}, {"note": "a-b-c"})
    ]
    assert len({name, *(record_name(p, ("dataset", "fold", "note")) for p in changed)}) == 5
    record(name).save(tmp_path)


def test_names_are_the_same_in_every_process() -> None:
    code = (
        "from pmms.results import record_name;"
        "print(record_name({'a': 1, 'b': (2, 'x'), 'c': {'d': 0.1}}, ('a',)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=True, env=os.environ | {"PYTHONHASHSEED": "7"},
        cwd=Path(__file__).parents[1],
    )  # fmt: skip
    here = record_name({"a": 1, "b": (2, "x"), "c": {"d": 0.1}}, ("a",))
    assert done.stdout.strip() == here


def test_environment_tells_the_machine_and_nobody_s_name() -> None:
    found = environment()
    text = json.dumps(found)
    assert found == json.loads(text)
    assert set(found) == {"commit", "python", "versions", "device", "threads", "cores"}
    assert re.fullmatch(r"[0-9a-f]{12}(-dirty)?|unknown", found["commit"])
    assert found["versions"]["torch"].startswith("2.")
    assert found["threads"] == 1
    for private in (getpass.getuser(), str(Path.home()), os.getcwd(), os.uname().nodename):
        assert not re.search(rf"(?<![a-z]){re.escape(private)}(?![a-z])", text)
    assert not re.search(r'"/|[A-Z]:\\\\', text)


def test_commit_is_unknown_without_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert environment()["commit"] == "unknown"


def test_commit_is_unknown_outside_a_repository(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "__file__", str(tmp_path / "results.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert environment()["commit"] == "unknown"


def test_commit_is_unknown_in_another_project_s_repository(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As where the package was installed into an environment inside that project."""
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    commit = ["git", *who, "commit", "-q", "--allow-empty", "-m", "first"]
    subprocess.run(commit, cwd=tmp_path, check=True)
    monkeypatch.setattr(module, "__file__", str(tmp_path / "results.py"))
    assert environment()["commit"] == "unknown"


def test_peak_memory_grows_with_use() -> None:
    before = peak_memory_mb()
    held = np.ones(int(before * 1.2e6 / 8))
    assert 50 < before < peak_memory_mb()
    assert held.nbytes / 1e6 < peak_memory_mb()


def test_an_atomic_write_is_whole_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "made" / "file"
    write_atomically(path, b"old")
    seen: list[bytes] = []

    def fails(descriptor: int) -> None:
        seen.append(path.read_bytes())
        raise OSError("no space left on device")

    monkeypatch.setattr("pmms.files.os.fsync", fails)
    with pytest.raises(OSError, match="no space"):
        write_atomically(path, b"new")
    assert seen == [b"old"]
    assert path.read_bytes() == b"old"
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_a_changed_record_is_a_new_one() -> None:
    assert replace(record(), status="failed: x") != record()
