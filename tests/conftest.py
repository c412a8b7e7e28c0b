"""Settings of all tests."""

import os

# Set before anything imports what reads them.
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("TQDM_DISABLE", "1")

import torch
from hypothesis import settings

import pmms  # noqa: F401  (before torchvision, see pmms/_torchvision.py)

# Several test processes share the cores, and sums depend on how threads split them.
torch.set_num_threads(1)

# The examples that hypothesis tries are the same in every run, and no slow machine fails a test.
settings.register_profile("repository", deadline=None, derandomize=True, database=None)
settings.load_profile("repository")
