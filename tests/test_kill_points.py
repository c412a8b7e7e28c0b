"""The script that kills at random moments, with a few of them; `make kills` has thirty of each."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("kill_points.py")


@pytest.mark.skipif(sys.platform == "win32", reason="processes cannot be forked")
def test_work_that_is_killed_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--moments", "4", "training", "evaluation", "preparation"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    for work in ("training", "evaluation", "preparation"):
        assert f"{work}: {{'kills': 4, " in done.stdout
