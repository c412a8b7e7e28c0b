"""Every benchmark runs from beginning to end at small sizes, and leaves its record."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pmms.results import load_record

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
SCRIPTS = {path.stem.removeprefix("bench_") for path in FOLDER.glob("bench_*.py")}


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_a_quick_run_writes_a_record(name: str, tmp_path: Path) -> None:
    script = FOLDER / f"bench_{name}.py"
    done = subprocess.run(
        [sys.executable, script, "--quick", "--output", tmp_path],
        env=os.environ | {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("*.json")
    record = load_record(path)
    assert record.parameters["quick"] is True
    assert record.scores["machine"]["gflops"] > 0
    assert len(record.scores) > 1 or name == "data"  # whose data may not be there
    for row in record.scores.values():
        assert row.get("error", 0) <= row.get("error_goal", 0)
        assert sum(row.get("profile", {}).values()) <= 1
        assert row.get("counts_equal", True)
