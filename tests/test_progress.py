"""Progress bars: shown, or silent where outputs are compared."""

import os
import subprocess
import sys

import pytest
import tqdm.notebook
import tqdm.std

from pmms import progress
from pmms.progress import progress_bar

# In a notebook without widgets tqdm warns; only whether the bar is on matters here.
KINDS = [tqdm.std.tqdm, tqdm.notebook.tqdm]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", ["1", "true"])
def test_silent_on_request_on_the_terminal_and_in_notebooks(monkeypatch, kind, value):
    monkeypatch.setattr(progress, "tqdm", kind)
    monkeypatch.setenv("TQDM_DISABLE", value)
    with progress_bar(3, "work", unit="step") as bar:
        bar.update()
    assert bar.disable


@pytest.mark.parametrize("value", [None, "", "0"])
def test_shown_otherwise(value):
    # In a process of its own: tqdm reads its variables when it is imported.
    environment = {k: v for k, v in os.environ.items() if k != "TQDM_DISABLE"}
    if value is not None:
        environment["TQDM_DISABLE"] = value
    code = (
        "from pmms.progress import progress_bar\n"
        "with progress_bar(3, 'work', unit='step', initial=1) as bar: bar.update()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert "work" in done.stderr
    assert "2/3" in done.stderr
