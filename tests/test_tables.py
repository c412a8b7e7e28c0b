"""Tables are what the records say, and the README shows what the tables say."""

import re
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
from made_records import made_record

from pmms.__main__ import main
from pmms.comparison import compare
from pmms.config import PROFILES
from pmms.grid import tables
from pmms.rendering import comparison_html
from pmms.results import RunRecord, load_record
from pmms.tables import (
    PAGES,
    blocks,
    fill,
    fill_files,
    table_files,
    write_tables,
)

ROOT = Path(__file__).parents[1]
RECORDS = [
    path
    for path in sorted((ROOT / "results").glob("*.json"))
    if not path.stem.startswith(("bench-", "trust-"))  # see test_benchmarks.py, test_trust_page.py
]


def test_fill_replaces_between_marks_only_and_is_stable() -> None:
    text = "a\n<!-- t -->\nold\n<!-- /t -->\nb\n"
    filled = fill(text, {"t": r"new \1 line"})
    assert filled == "a\n<!-- t -->\nnew \\1 line\n<!-- /t -->\nb\n"
    assert fill(filled, {"t": r"new \1 line"}) == filled
    with pytest.raises(ValueError, match="no place marked"):
        fill(text, {"other": ""})


def grid_record(label: str, miou: float) -> RunRecord:
    """A record that has all entries that tables ask for."""
    made = made_record(tables("mini")["table-1"], label, 0, 0, miou)
    entries = ("model", "untrained", "wrong_support", "everything", "all_objects", "seen_classes")
    return replace(made, scores=dict.fromkeys(entries, made.scores["model"]))


def test_fill_files_changes_only_what_is_old(tmp_path: Path) -> None:
    grid_record("PMMs", 42.0).save(tmp_path / "results")
    page, other = tmp_path / "page.md", tmp_path / "other.md"
    page.write_text("<!-- mini:table-1 -->\n<!-- /mini:table-1 -->\n")
    other.write_text("nothing to fill\n")
    assert fill_files(tmp_path / "results", [page, other]) == [page]
    assert "| PMMs | 42.00 |" in page.read_text()
    assert fill_files(tmp_path / "results", [page, other]) == []


def test_blocks_are_made_by_name(tmp_path: Path) -> None:
    grid_record("PMMs", 42.0).save(tmp_path)
    found = blocks(tmp_path, ["mini:table-1", "contradictions"])
    assert list(found) == ["mini:table-1", "contradictions"]
    assert "| PMMs | 42.00 | not run |" in found["mini:table-1"]
    assert "55.27; Table 4 gives 55.22" in found["contradictions"]
    with pytest.raises(KeyError):
        blocks(tmp_path, ["mini:table-9"])


def test_write_tables_writes_three_forms_and_only_what_changed(tmp_path: Path) -> None:
    results, output = tmp_path / "results", tmp_path / "out"
    grid_record("PMMs", 42.0).save(results)
    output.mkdir()
    (output / "README.md").write_text("not a table\n")
    changed = write_tables(results, output)
    names = {path.name for path in changed}
    assert {f"{name}.{kind}" for name in tables("mini") for kind in ("md", "tex", "csv")} < names
    assert write_tables(results, output) == []
    grid_record("PMMs", 43.0).save(results)
    assert {path.stem for path in write_tables(results, output)} == {"table-1", "table-4",
        "kappa", "em-iterations", "init", "em-features", "gradient", "deviations", "controls",
    }  # fmt: skip
    assert (output / "README.md").read_text() == "not a table\n"


def test_command_fills_pages_and_writes_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid_record("RPMMs", 42.0).save(tmp_path)
    page = tmp_path / "page.md"
    page.write_text("<!-- mini:table-1 -->\n<!-- /mini:table-1 -->\n")
    arguments = ["tables", str(page), "--results", str(tmp_path)]
    assert main(arguments) == 0
    assert "| RPMMs | 42.00 |" in page.read_text()
    assert (tmp_path / "tables" / "mini" / "table-1.tex").is_file()
    assert "table-1.csv" in capsys.readouterr().out
    assert main(arguments) == 0
    assert capsys.readouterr().out == "all tables are up to date\n"
    other = ["--profile", "paper", "--protocol", "hsnet"]
    for folder, more in (
        (tmp_path / "other", ["--output", str(tmp_path / "other")]),
        (tmp_path / "tables" / "paper-hsnet", []),
    ):
        assert main([*arguments, *other, *more]) == 0
        assert "protocol `hsnet`" in (folder / "table-1.md").read_text()
    assert not (tmp_path / "tables" / "paper").exists()
    assert main([*arguments, "--protocol", "hsnet"]) == 2
    assert "protocol must be" in capsys.readouterr().err


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_committed_records_are_complete_and_of_a_clean_commit(path: Path) -> None:
    committed = load_record(path)
    assert committed.status == "complete"
    assert re.fullmatch(r"[0-9a-f]{12}", committed.environment["commit"])
    assert committed.name == path.stem
    assert committed.protocol["name"] == "ours"
    assert sum(committed.seconds.values()) > 0


@pytest.mark.parametrize("page", PAGES)
def test_pages_show_the_records(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    names = re.findall(r"^<!-- ([\w:-]+) -->$", text, re.MULTILINE)
    assert names
    assert fill(text, blocks(ROOT / "results", names)) == text, "run `python -m pmms tables`"


def test_committed_tables_show_the_records() -> None:
    folder = ROOT / "results" / "tables" / "mini"
    committed = {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}
    assert committed == table_files(ROOT / "results"), "run `python -m pmms tables`"


def test_page_of_all_tables_has_a_place_for_each_and_no_score_of_its_own() -> None:
    text = (ROOT / "book" / "tables.md").read_text(encoding="utf-8")
    places = re.findall(r"^<!-- ([\w:-]+) -->$", text, re.MULTILINE)
    assert len(set(places)) == len(places)
    assert {f"mini:{name}" for name in tables("mini")} <= set(places)
    of_paper = {f"paper:{name}" for name in tables("paper") if name.startswith("table-")}
    assert of_paper <= set(places)
    typed = re.sub(r"<!-- ([\w:-]+) -->.*?<!-- /\1 -->", "", text, flags=re.DOTALL)
    assert re.findall(r"\d+\.\d+", typed) == []


def shown_tables(notebook: nbformat.NotebookNode) -> list[tuple[str, str, str]]:
    """(name, profile, HTML) of the tables among a notebook's outputs."""
    found = []
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            shown = "".join(output.get("data", {}).get("text/html", ""))
            for name, profile in re.findall(r'data-table="([^"]+)" data-profile="(\w+)"', shown):
                found.append((name, profile, shown))
    return found


def old_tables(notebook: nbformat.NotebookNode, results: Path) -> list[str]:
    """Names of the tables among a notebook's outputs that the records do not give."""
    return [
        name
        for name, profile, shown in shown_tables(notebook)
        if comparison_html(compare(name, profile, results=results)) != shown
    ]


def test_a_changed_number_in_a_notebook_is_noticed(tmp_path: Path) -> None:
    grid_record("PMMs", 42.0).save(tmp_path)
    shown = comparison_html(compare("table-1", results=tmp_path))
    assert 'data-table="table-1" data-profile="mini"' in shown
    for text, old in ((shown, []), (shown.replace("42.00", "43.00"), ["table-1"])):
        output = nbformat.v4.new_output("execute_result", {"text/html": text})
        cell = nbformat.v4.new_code_cell("table", outputs=[output])
        assert old_tables(nbformat.v4.new_notebook(cells=[cell]), tmp_path) == old


@pytest.mark.parametrize(
    "path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem
)
def test_tables_in_notebooks_show_the_records(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    assert old_tables(notebook, ROOT / "results") == [], "run make notebooks"


@pytest.mark.parametrize("profile", PROFILES)
def test_all_tables_can_be_made_without_any_record(profile: str, tmp_path: Path) -> None:
    for name, text in table_files(tmp_path, profile).items():
        runs = [row.parameters for t in tables(profile).values() if name == f"{t.name}.md"
                for row in t.rows if row.parameters is not None]  # fmt: skip
        if runs:
            assert "not run" in text
            assert "± 0" not in text
