"""Settings of all tests."""

import os
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING

# Set before anything imports what reads them.
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("TQDM_DISABLE", "1")

import pytest
import torch
from hypothesis import settings

import pmms  # noqa: F401  (before torchvision, see pmms/_torchvision.py)

# A shell that starts a command in the background has it ignore Ctrl-C; tests of Ctrl-C need it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Several test processes share the cores, and sums depend on how threads split them.
torch.set_num_threads(1)

# The examples that hypothesis tries are the same in every run, and no slow machine fails a test.
settings.register_profile("repository", deadline=None, derandomize=True, database=None)
settings.load_profile("repository")

if TYPE_CHECKING:
    from selenium.webdriver import Chrome


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Chrome"]:
    """A browser for the tests of a file; they are skipped where there is none."""
    import chromium

    driver = chromium.start(tmp_path_factory.mktemp("profile"))
    yield driver
    driver.quit()
