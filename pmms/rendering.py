"""Tables written down: Markdown, HTML, LaTeX with booktabs, CSV."""

import csv
import html
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pmms import paper
from pmms.comparison import Comparison, RowResult
from pmms.intervals import Interval
from pmms.table_notes import EPISODES_MARK, notes

NOT_RUN = "not run"
FAILED = "failed"
NONE = "–"


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A table of texts: a title, a header, rows of as many cells, and paragraphs below it.

    The first column is aligned to the left, the others to the right. Texts may hold `code`.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if any(len(row) != len(self.header) for row in self.rows):
            raise ValueError(f"every row of {self.title!r} must have {len(self.header)} cells")


def sheets(comparison: Comparison) -> list[Sheet]:
    """What is shown of a comparison: our runs, and the paper's folds where it gives them."""
    found = []
    if any(result.row.parameters is not None for result in comparison.rows):
        found.append(_ours(comparison))
    if of_paper := _papers(comparison):
        found.append(of_paper)
    return found


def _ours(comparison: Comparison) -> Sheet:
    table = comparison.table
    against = table.row(table.against)
    in_paper = any(result.row.paper for result in comparison.rows if result.row.parameters)
    header = [table.header, *(f"fold {fold}" for fold in table.folds), "mean"]
    header += [f"minus {_plain_label(table.against)}", "pairs", "runs"]
    header += ["paper"] if in_paper else []
    rows = []
    for result in comparison.rows:
        if result.row.parameters is None:
            continue
        cells = [
            _score(result.folds.get(fold), None, FAILED if fold in result.failed_folds else NOT_RUN)
            for fold in table.folds
        ]
        empty = NONE if result.folds or result.failed else NOT_RUN
        cells.append(_score(result.mean, result.interval, empty))
        cells += _difference(result)
        cells.append(_of(result.runs, result.wanted))
        if in_paper:
            cells.append(_of_paper(result.row.paper.get("mean"), result.paper_difference(against)))
        rows.append((result.row.label, *cells))
    return Sheet(title=table.title, header=tuple(header), rows=tuple(rows), notes=notes(comparison))


def _papers(comparison: Comparison) -> Sheet | None:
    table = comparison.table
    if table.paper_table is None:
        return None
    alone = all(result.row.parameters is None for result in comparison.rows)
    of_paper = paper.TABLES[table.paper_table]
    rows = [
        (
            name.removeprefix(table.paper_group),
            *(NONE if value is None else f"{value:.2f}" for value in values),
        )
        for name, values in of_paper.rows.items()
        if name.startswith(table.paper_group)
    ]
    published = f"Published numbers: mIoU in percent. {of_paper.caption}."
    folds = (column if column == "mean" else f"fold {column}" for column in paper.COLUMNS)
    return Sheet(
        title=table.title if alone else f"Table {table.paper_table} of the paper",
        header=(table.header, *folds),
        rows=tuple(rows),
        notes=(" ".join([published, *(table.notes if alone else ())]),),
    )


def _plain_label(label: str) -> str:
    return re.sub(r" \(.*\)$", "", label)


def _score(value: float | None, interval: Interval | None, empty: str) -> str:
    if value is None:
        return empty
    if interval is None:
        return f"{value:.2f}"
    mark = f" {EPISODES_MARK}" if interval.over == "episodes" else ""
    return f"{value:.2f} ± {(interval.high - interval.low) / 2:.2f}{mark}"


def _difference(result: RowResult) -> tuple[str, str]:
    found = result.difference
    if found is None:
        return NONE, NONE
    half = "" if found.interval is None else f" ± {found.interval.high - found.mean:.2f}"
    return f"{signed(found.mean)}{half}", _of(found.pairs, found.planned)


def _of(count: int, planned: int) -> str:
    return f"{count}" if count == planned else f"{count} of {planned}"


def _of_paper(mean: float | None, difference: float | None) -> str:
    if mean is None:
        return NONE
    return f"{mean:.2f}" + ("" if difference is None else f" ({signed(difference)})")


def signed(value: float, digits: int = 2) -> str:
    """A difference with its sign, the minus as long as the plus."""
    text = f"{value:+.{digits}f}"
    return text.replace("-", "−")


def markdown(sheet: Sheet, *, title: bool = True) -> str:
    """A sheet in Markdown; ``title=False`` where the page has a heading already."""
    lines = [f"**{sheet.title}**", ""] if title else []
    lines.append("| " + " | ".join(sheet.header) + " |")
    lines.append("|---|" + "---:|" * (len(sheet.header) - 1))
    lines += ["| " + " | ".join(map(_unbroken, row)) + " |" for row in sheet.rows]
    for paragraph in sheet.notes:
        lines += ["", paragraph]
    return "\n".join(lines)


def html_table(sheet: Sheet) -> str:
    """A sheet in HTML, its title as the caption."""

    def cells(tag: str, texts: Sequence[str]) -> str:
        sides = ["left"] + ["right"] * (len(texts) - 1)
        return "".join(
            f'<{tag} style="text-align: {side}">{_html(_unbroken(text))}</{tag}>'
            for side, text in zip(sides, texts, strict=True)
        )

    lines = ["<table>", f"<caption>{_html(sheet.title)}</caption>"]
    lines.append(f"<thead><tr>{cells('th', sheet.header)}</tr></thead>")
    lines += ["<tbody>", *(f"<tr>{cells('td', row)}</tr>" for row in sheet.rows), "</tbody>"]
    lines.append("</table>")
    lines += [f"<p>{_html(paragraph)}</p>" for paragraph in sheet.notes]
    return "\n".join(lines)


def latex(sheet: Sheet, *, label: str) -> str:
    """A sheet as a LaTeX table environment; needs the package booktabs.

    The caption has the title and the first paragraph below the table; others become comments.
    """
    columns = "l" + "r" * (len(sheet.header) - 1)
    title = sheet.title if sheet.title.endswith(".") else f"{sheet.title}."
    lines = [
        *(f"% {_latex(paragraph)}" for paragraph in sheet.notes[1:]),
        r"\begin{table}",
        r"\centering",
        r"\footnotesize\setlength{\tabcolsep}{3pt}",
        rf"\caption{{{_latex(' '.join((title, *sheet.notes[:1])))}}}",
        rf"\label{{tab:{label}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        " & ".join(map(_latex, sheet.header)) + r" \\",
        r"\midrule",
        *(" & ".join(map(_latex, row)) + r" \\" for row in sheet.rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def comparison_markdown(comparison: Comparison, *, title: bool = True) -> str:
    """All sheets of a comparison in Markdown."""
    first, *others = sheets(comparison)
    return "\n\n".join([markdown(first, title=title), *map(markdown, others)])


def comparison_html(comparison: Comparison) -> str:
    """All sheets of a comparison in HTML, marked with the table's name and profile."""
    inside = "\n".join(map(html_table, sheets(comparison)))
    return (
        f'<div class="pmms-table" data-table="{comparison.table.name}" '
        f'data-profile="{comparison.profile}">\n{inside}\n</div>'
    )


def comparison_latex(comparison: Comparison) -> str:
    """All sheets of a comparison in LaTeX."""
    label = f"{comparison.profile}-{comparison.table.name}"
    labels = [label, f"{label}-paper"]
    return "\n".join(
        latex(sheet, label=name) for sheet, name in zip(sheets(comparison), labels, strict=False)
    )


def comparison_csv(comparison: Comparison) -> str:
    """A comparison as CSV, four decimals, one line a row; ``missing`` names the records to make."""
    table = comparison.table
    against = table.row(table.against)
    lines = []
    for result in comparison.rows:
        line: dict[str, Any] = {"table": table.name, "row": result.row.label}
        line |= {f"fold_{fold}": _number(result.folds.get(fold)) for fold in table.folds}
        line |= {"mean": _number(result.mean), **_ends("mean", result.interval)}
        line["mean_interval_over"] = result.interval.over if result.interval else ""
        found = result.difference
        line["difference_to"] = table.against if found else ""
        line["difference"] = _number(found.mean if found else None)
        line |= _ends("difference", found.interval if found else None)
        line |= {"pairs": found.pairs if found else ""}
        line |= {"pairs_wanted": found.planned if found else "", "runs": result.runs}
        line |= {"runs_wanted": result.wanted, "failed": len(result.failed)}
        line["protocol"] = comparison.protocol.label if comparison.protocol else ""
        for column in paper.COLUMNS:
            name = "paper_mean" if column == "mean" else f"paper_fold_{column}"
            line[name] = _number(result.row.paper.get(column))
        line["paper_difference"] = _number(result.paper_difference(against))
        line["missing"] = " ".join(result.missing)
        lines.append(line)
    return csv_text(lines)


def csv_text(lines: Sequence[dict[str, Any]]) -> str:
    """Lines with the same keys as CSV, with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _ends(name: str, interval: Interval | None) -> dict[str, str]:
    low, high = (None, None) if interval is None else (interval.low, interval.high)
    return {f"{name}_low": _number(low), f"{name}_high": _number(high)}


def _unbroken(text: str) -> str:
    """The text of a cell with spaces that do not break beside signs: "40.1 ± 0.5", "K = 3"."""
    return re.sub(r" (?=[±=†])|(?<=[±=]) | of (?=\d)", lambda m: m[0].replace(" ", "\u00a0"), text)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _html(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text, quote=False))


LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "κ": r"$\kappa$", "±": r"$\pm$", "−": "$-$", "†": r"\textdagger{}", "–": "--",
}  # fmt: skip


def _latex(text: str) -> str:
    escaped = "".join(LATEX.get(character, character) for character in text)
    return re.sub(r"`([^`]+)`", r"\\texttt{\1}", escaped)
