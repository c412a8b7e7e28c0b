"""The page of places names everything that the paper numbers, and its links lead somewhere."""

import json
import re
from pathlib import Path

import nbformat
import pytest

BOOK = Path(__file__).resolve().parents[1] / "book"
PAGE = (BOOK / "places.md").read_text("utf-8")
NUMBERED = [
    *(f"Eq. {n}" for n in range(1, 10)),
    "Algorithm 1",
    *(f"Fig. {n}" for n in range(1, 8)),
    *(f"Table {n}" for n in range(1, 7)),
]


def rows(page: str) -> dict[str, str]:
    """What a table row's first cell names -> the row."""
    return {line.split("|")[1].strip(): line for line in page.splitlines() if line[:2] == "| "}


def links(text: str) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", text)


def anchors(path: Path) -> set[str]:
    """Targets in a page or notebook: its headings, and labels such as ``(name)=``."""
    if path.suffix == ".ipynb":
        cells = nbformat.read(path, as_version=4).cells
        text = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    else:
        text = path.read_text("utf-8")
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return slugs | set(re.findall(r"^\(([\w-]+)\)=$", text, re.MULTILINE))


def missing(link: str) -> bool:
    """Whether a link of the page leads nowhere."""
    name, _, anchor = link.partition("#")
    target = BOOK / name if name else BOOK / "places.md"
    return not target.is_file() or (bool(anchor) and anchor not in anchors(target))


@pytest.mark.parametrize("name", NUMBERED)
def test_everything_with_a_number_has_a_place(name: str) -> None:
    row = rows(PAGE)[name]
    notebooks = [link for link in links(row) if "/notebooks/" in link]
    assert notebooks, f"{name} names no chapter"
    assert [link for link in links(row) if missing(link)] == []


def test_nothing_else_claims_a_number() -> None:
    assert set(rows(PAGE)) - {"Number"} == set(NUMBERED)


def test_every_figure_shows_ours() -> None:
    for number in range(1, 8):
        section = PAGE.split(f"### Fig. {number}:")[1].split("\n## ")[0].split("\n(places")[0]
        pictures = re.findall(r"!\[([^\]]+)\]\(([^)]+)\)", section)
        drawn_in_text = re.search(r"^    \S", section, re.MULTILINE)
        assert pictures or drawn_in_text, f"Fig. {number} shows nothing"
        assert [path for _, path in pictures if missing(path)] == []
        assert [alt for alt, _ in pictures if len(alt.split()) < 5] == []


def test_all_links_of_the_page_lead_somewhere() -> None:
    assert [link for link in links(PAGE) if missing(link)] == []


def test_a_link_to_nothing_is_noticed() -> None:
    assert missing("../notebooks/99_nothing.ipynb")
    assert missing("tables.md#no-such-table")
    assert not missing("tables.md#table-3-kernel")


def test_notebooks_that_are_linked_have_run() -> None:
    record = json.loads((BOOK / "status.json").read_text("utf-8"))
    stems = {Path(link.partition("#")[0]).stem for link in links(PAGE) if "/notebooks/" in link}
    assert stems <= record.keys()
