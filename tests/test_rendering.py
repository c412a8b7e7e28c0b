"""Tables in Markdown, HTML, LaTeX and CSV say the same, and what a reader needs stands below."""

import csv
import io
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_records import TABLE, made_comparison, made_record

from pmms.comparison import Comparison, compare
from pmms.grid import tables
from pmms.grid_rows import Row
from pmms.rendering import (
    Sheet,
    comparison_csv,
    comparison_html,
    comparison_latex,
    comparison_markdown,
    html_table,
    latex,
    markdown,
    sheets,
    signed,
)


def score(label: str, seed: int, fold: int) -> float:
    return {"Gaussian": 30.0, "vMF": 29.0}[label] + 10 * fold + seed


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    return made_comparison(tmp_path, score)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.replace("\u00a0", " ").strip("|").split("|")]


def test_markdown_has_a_row_for_each_setting(comparison: Comparison) -> None:
    lines = comparison_markdown(comparison).splitlines()
    assert lines[0] == "**Made. Two kernels & more**"
    assert cells(lines[2]) == [
        "kernel", "fold 0", "fold 1", "fold 2", "fold 3", "mean", "minus Gaussian", "pairs",
        "runs", "paper",
    ]  # fmt: skip
    # Seeds 0, 1, 2: standard deviation 1, so the half width is 4.3027 / sqrt(3).
    assert cells(lines[4]) == [
        "Gaussian", "31.00", "41.00", "51.00", "61.00", "46.00 ± 2.48", "–", "–", "12", "54.04",
    ]  # fmt: skip
    assert cells(lines[5])[5:] == [
        "45.00 ± 2.48", "−1.00 ± 0.00", "12", "12", "54.63 (+0.59)",
    ]  # fmt: skip
    assert not comparison_markdown(comparison, title=False).startswith("**")


def test_notes_say_unit_protocol_runs_pairs_and_time(comparison: Comparison) -> None:
    (sheet,) = sheets(comparison)
    text = " ".join(sheet.notes)
    for part in (
        "mIoU in percent on the novel classes of PartsVOC",
        "protocol `ours`, 1-shot, 5 x 1,000 episodes a run",
        "7 training steps.",
        "4 folds, 3 training seeds.",
        "± at a mean: 95 % t interval over the seeds' means",
        "pairs of runs with the same fold, seed and episodes",
        "± at a difference: 95 % t interval over the pairs",
        "Paper: Pascal-5i, ResNet-50, its own protocol, its difference in brackets",
        "24 runs, 12.0 hours in all on a processor, PyTorch 2.0.",
    ):
        assert part in text
    assert "Not run" not in text
    assert "†" not in text


def test_what_is_missing_stands_with_its_command(tmp_path: Path) -> None:
    made_record(TABLE, "Gaussian", 0, 0, 30.0).save(tmp_path)
    (sheet,) = sheets(compare(TABLE, results=tmp_path))
    assert sheet.rows[0][1:9] == (
        "30.00", "not run", "not run", "not run", "–", "–", "–", "1 of 12",
    )  # fmt: skip
    first = TABLE.config("mini", TABLE.rows[0], 0, 1).name
    text = " ".join(sheet.notes)
    assert "Not run: 23 of 24." in text
    assert "4 folds, 3 training seeds planned. A seed counts when it has all folds" in text
    assert (
        f"`make tables TABLES=made` runs what is missing, `python workflow/run_record.py {first}`"
        in text
    )
    of_paper = " ".join(sheets(compare("table-2", "paper", results=tmp_path))[0].notes)
    assert "`make tables TABLES=table-2 PROFILE=paper`" in of_paper
    command = r"run_record.py pascal-fold0-pmms_plus-\S+ --profile paper --device cuda --workers 4`"
    assert re.search(command, of_paper)


def test_two_seeds_have_no_interval_and_a_note_that_says_so(tmp_path: Path) -> None:
    def two(label: str, seed: int, fold: int) -> float | None:
        return None if label == "vMF" and seed == 2 else score(label, seed, fold)

    (sheet,) = sheets(made_comparison(tmp_path, two))
    assert re.fullmatch(r"\d+\.\d\d", sheet.rows[1][5])
    assert sheet.rows[1][7:9] == ("8 of 12", "8 of 12")
    assert "A mean without ±: two seeds." in " ".join(sheet.notes)


def test_the_length_of_training_is_said_where_a_row_has_its_own(tmp_path: Path) -> None:
    longer = Row(label="longer", parameters={"iterations": 9})
    mixed = replace(TABLE, rows=(*TABLE.rows, longer))
    (sheet,) = sheets(made_comparison(tmp_path, lambda *_: 40.0, mixed))
    assert "7 training steps where the row says nothing else." in sheet.notes[0]
    own = replace(TABLE, rows=(longer,), against="longer")
    (sheet,) = sheets(made_comparison(tmp_path, lambda *_: 40.0, own))
    assert "training steps" not in sheet.notes[0]


def test_code_of_several_commits_is_said(tmp_path: Path, comparison: Comparison) -> None:
    name, record = next(iter(comparison.records.items()))
    other = replace(record, environment=dict(record.environment) | {"commit": "other"})
    mixed = replace(comparison, records=dict(comparison.records) | {name: other})
    assert "PyTorch 2.0, 2 commits of the code." in " ".join(sheets(mixed)[0].notes)


def test_failed_runs_are_named(tmp_path: Path) -> None:
    failed = made_record(TABLE, "vMF", 0, 0, 0.0, status="failed: no memory", scores={})
    failed.save(tmp_path / "failed")
    (sheet,) = sheets(compare(TABLE, results=tmp_path))
    assert sheet.rows[1][1:6] == ("failed", "not run", "not run", "not run", "–")
    assert sheet.rows[0][1:6] == ("not run",) * 5
    assert f"`{failed.name}` failed: no memory." in sheet.notes[-1]


def test_one_seed_is_marked_as_an_interval_over_episodes(tmp_path: Path) -> None:
    (sheet,) = sheets(made_comparison(tmp_path, score, replace(TABLE, seeds=(1,))))
    assert sheet.rows[0][5] == "46.00 ± 0.50 †"
    text = " ".join(sheet.notes)
    assert "† No seeds to compare: 95 % interval over the draw of episodes alone." in text
    assert "over the seeds" not in text
    assert "4 folds, one training seed." in text


def test_the_papers_folds_stand_in_a_table_of_their_own(tmp_path: Path) -> None:
    ours, of_paper = sheets(compare("table-3", results=tmp_path))
    assert ours.header[-1] == "paper"
    assert of_paper.title == "Table 3 of the paper"
    assert of_paper.rows[1] == ("VMF", "51.88", "66.72", "51.14", "48.80", "54.63")
    (coco,) = sheets(compare("table-6-1-shot", results=tmp_path))
    assert coco.rows[0] == ("PANet", "–", "–", "–", "–", "20.90")
    assert "PROFILE=paper" in " ".join(coco.notes)
    vgg = sheets(compare("table-4-vgg16", "paper", results=tmp_path))[1]
    assert [row[0] for row in vgg.rows] == ["OSLSM", "co-FCN", "SG-One", "PANet", "FWB", "RPMMs"]


def test_tables_without_numbers_of_the_paper_have_no_column_for_them(tmp_path: Path) -> None:
    (sheet,) = sheets(compare("kappa", results=tmp_path))
    assert sheet.header[-1] == "runs"
    assert sheet.header[6] == "minus κ = 20"


class Cells(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1] and data.strip():
            self.rows[-1][-1] += data


def test_html_has_the_same_cells(comparison: Comparison) -> None:
    (sheet,) = sheets(comparison)
    table = html_table(sheet)
    shown = Cells(table.split("</tbody>")[0].replace("\u00a0", " ")).rows
    assert shown == [list(sheet.header), *map(list, sheet.rows)]
    assert "<caption>Made. Two kernels &amp; more</caption>" in table
    assert "<code>ours</code>" in table
    whole = comparison._repr_html_()
    assert whole == comparison_html(comparison)
    assert "46.00\u00a0±\u00a02.48" in whole  # unbroken
    assert whole.startswith('<div class="pmms-table" data-table="made" data-profile="mini">')
    assert comparison._repr_markdown_() == comparison_markdown(comparison)


def test_latex_escapes_and_keeps_the_cells(comparison: Comparison) -> None:
    text = comparison_latex(comparison)
    assert r"\caption{Made. Two kernels \& more. mIoU in percent" in text
    assert r"\label{tab:mini-made}" in text
    assert r"vMF & 30.00 & 40.00 & 50.00 & 60.00 & 45.00 $\pm$ 2.48 & $-$1.00 $\pm$ 0.00" in text
    assert r"protocol \texttt{ours}" in text
    assert r"95 \% t interval" in text
    sheet = Sheet(title="a_b", header=("κ", "x"), rows=(("50 %", "–"), ("{#$~^\\}", "†")))
    out = latex(sheet, label="t")
    assert r"\caption{a\_b.}" in out
    assert "$\\kappa$ & x \\\\" in out
    assert r"50 \% & -- \\" in out
    assert r"\{\#\$\textasciitilde{}\textasciicircum{}\textbackslash{}\} & \textdagger{} \\" in out
    assert out.isascii()


@pytest.mark.parametrize("profile", ["mini", "paper"])
def test_latex_of_all_tables_is_plain_text_for_any_engine(profile: str, tmp_path: Path) -> None:
    for name in tables(profile):
        text = comparison_latex(compare(name, profile, results=tmp_path))
        assert text.isascii(), name
        assert text.count(r"\begin{table}") == text.count(r"\end{table}") >= 1


def test_latex_compiles(comparison: Comparison, tmp_path: Path) -> None:
    if shutil.which("pdflatex") is None:
        pytest.skip("pdflatex is not installed")
    body = comparison_latex(comparison)
    page = (
        rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}{body}\end{{document}}"
    )
    (tmp_path / "t.tex").write_text(page)
    command = ["pdflatex", "-halt-on-error", "-interaction=batchmode", "t.tex"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == 0


def test_csv_has_the_numbers_and_the_names_of_missing_records(tmp_path: Path) -> None:
    made_comparison(tmp_path, score)
    lacking = TABLE.config("mini", TABLE.rows[1], 2, 3).name
    (tmp_path / f"{lacking}.json").unlink()
    first, second = csv.DictReader(io.StringIO(comparison_csv(compare(TABLE, results=tmp_path))))
    assert (first["table"], first["row"], first["mean"]) == ("made", "Gaussian", "46.0000")
    assert (first["difference"], first["pairs"], first["missing"]) == ("", "", "")
    assert float(first["mean_high"]) - float(first["mean"]) == pytest.approx(2.4842, abs=2e-4)
    assert (second["difference"], second["difference_to"]) == ("-1.0000", "Gaussian")
    assert (second["runs"], second["runs_wanted"], second["pairs"]) == ("11", "12", "8")
    assert second["pairs_wanted"] == "12"
    assert (second["paper_fold_0"], second["paper_difference"]) == ("51.8800", "0.5900")
    assert (second["protocol"], second["missing"]) == ("ours", lacking)


def test_rows_that_are_not_run_stand_in_no_column_of_ours(tmp_path: Path) -> None:
    other = Row(label="of others", parameters=None, paper={"mean": 50.0})
    table = replace(TABLE, rows=(*TABLE.rows, other))
    (sheet,) = sheets(compare(table, results=tmp_path))
    assert [row[0] for row in sheet.rows] == ["Gaussian", "vMF"]


def test_sheets_are_checked_and_signs_are_as_long_as_each_other() -> None:
    with pytest.raises(ValueError, match="must have 2 cells"):
        Sheet(title="t", header=("a", "b"), rows=(("1",),))
    assert [signed(1.005), signed(-2.5), signed(0.0)] == ["+1.00", "−2.50", "+0.00"]
    sheet = Sheet(title="t", header=("a", "b"), rows=(("1", "2"),))
    assert markdown(sheet) == "**t**\n\n| a | b |\n|---|---:|\n| 1 | 2 |"
