"""Pages of the book that are made of the package and of the chapters."""

import json
import re
import sys
from pathlib import Path

import pytest

import build_book
import pmms

sys.path.insert(0, str(build_book.BOOK / "_ext"))

from exercises import exercises_markdown

CHAPTERS = sorted(build_book.NOTEBOOKS.glob("*.ipynb"))


def test_every_public_name_is_described_once() -> None:
    text = (build_book.BOOK / "api.md").read_text("utf-8")
    described = re.findall(r"^\.\. auto(?:class|function):: pmms\.(\w+)$", text, re.MULTILINE)
    assert sorted(described) == sorted(pmms.__all__)


def test_exercises_stand_without_what_is_around_them(tmp_path: Path) -> None:
    cells = [
        ("markdown", "# 01 · Title\n\n**Aim.** None."),
        ("code", "## Exercises of code"),
        (
            "markdown",
            "## What to remember\n\nThis.\n\n## Exercises\n\n"
            "**1.** See [b](../b.md#x), [c](02_c.ipynb), [d](https://d.org).\n\n"
            "```{dropdown} Solution\nYes.\n```\n\n## Sources\n\nNone.",
        ),
    ]
    notebook = {"cells": [{"cell_type": kind, "source": [text]} for kind, text in cells]}
    path = tmp_path / "01_title.ipynb"
    path.write_text(json.dumps(notebook), "utf-8")
    assert exercises_markdown(path) == (
        "## 01 · Title\n\nOf the chapter [](notebooks/01_title.ipynb).\n\n"
        "**1.** See [b](b.md#x), [c](notebooks/02_c.ipynb), [d](https://d.org).\n\n"
        "```{admonition} Solution\nYes.\n```"
    )


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_chapters_have_exercises_with_solutions(path: Path) -> None:
    text = exercises_markdown(path)
    numbers = [int(n) for n in re.findall(r"^\*\*(\d+)\.\*\*", text, re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert 3 <= len(numbers) <= 6
    assert text.count("{admonition} Solution") == len(numbers)
