"""What the records say about a claim: differences one by one, a verdict, and how many it takes.

A claim says that one row of a table scores higher than another. Its interval is a 95 % t interval
of the mean difference (mIoU, percent points). What is counted depends on the table:

- *pairs* where networks are trained: two runs of one fold and one training seed, tested on the
  same episodes. Which of them count, and what the interval covers, says :mod:`pmms.comparison`;
- *classes* where nothing is trained. Runs that differ in where EM starts share everything else, so
  they would count as many and be nearly one. The IoU of a class is averaged over starts first.
"""

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Literal

from pmms.comparison import Comparison, balanced, compare
from pmms.grid_rows import Table
from pmms.intervals import LEAST, t_interval
from pmms.rendering import NONE, NOT_RUN, Sheet, signed
from pmms.results import RunRecord

Verdict = Literal["holds", "does not hold", "undecided", "not run"]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """That ``row`` scores higher than ``than``.

    Attributes:
        text: the claim in words.
        table: name of the table in :func:`pmms.grid.tables`.
        row, than: labels of its rows.
        than_table: the table of ``than``, where it is another. Their protocols may differ in the
            number of shots alone.
    """

    text: str
    table: str
    row: str
    than: str
    than_table: str = ""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What the records say about a claim.

    Attributes:
        claim: in question.
        unit: what ``values`` are of, "pairs" or "classes".
        values: fold -> differences, percent points; a fold without any is missing.
        folds: those that a verdict needs.
        planned: how many pairs there are when all runs are made; 0 where classes are counted.
        whole: whether all runs are made.
        paper: the paper's difference; None where it gives none.
    """

    claim: Claim
    unit: Literal["pairs", "classes"]
    values: Mapping[int, tuple[float, ...]]
    folds: tuple[int, ...]
    planned: int = 0
    whole: bool = True
    paper: float | None = None

    @property
    def all_values(self) -> list[float]:
        """The differences of all folds."""
        return list(chain.from_iterable(self.values.values()))

    @property
    def mean(self) -> float | None:
        """Mean difference; None without any."""
        return statistics.fmean(self.all_values) if self.values else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Ends of the 95 % t interval of the mean; None for fewer than ``LEAST`` differences.

        See :mod:`pmms.intervals`.
        """
        if len(self.all_values) < LEAST:
            return None
        found = t_interval(self.all_values, over="pairs")
        return found.low, found.high

    @property
    def complete(self) -> bool:
        """Whether every fold is there, and ``LEAST`` differences are."""
        return set(self.folds) <= self.values.keys() and len(self.all_values) >= LEAST

    @property
    def early(self) -> bool:
        """Whether it holds or does not, and runs are missing.

        To look again after each run, and to stop when the interval leaves zero, finds differences
        where there are none.
        """
        return "hold" in self.verdict and not self.whole

    @property
    def folds_for(self) -> int:
        """Number of folds whose mean difference is above zero."""
        return sum(statistics.fmean(values) > 0 for values in self.values.values())

    @property
    def verdict(self) -> Verdict:
        """See :func:`verdict`."""
        return verdict(self.interval, count=len(self.all_values), complete=self.complete)


def verdict(interval: tuple[float, float] | None, *, count: int, complete: bool) -> Verdict:
    """The rule of all verdicts.

    Args:
        interval: of the mean difference, percent points; None if there is none.
        count: of the differences.
        complete: False where folds or runs are missing that a verdict needs.

    Returns:
        "not run" without any difference. "undecided" if it is not complete, or if the interval
        holds zero. Else "holds" if the interval lies above zero, "does not hold" if below.
    """
    if count == 0:
        return "not run"
    if not complete or interval is None:
        return "undecided"
    low, high = interval
    return "holds" if low > 0 else "does not hold" if high < 0 else "undecided"


PAPER_CLAIMS = (
    Claim(text="PMMs+ over the baseline", table="table-1", row="PMMs+", than="baseline"),
    Claim(text="PMMs over PMMs+", table="table-1", row="PMMs", than="PMMs+"),
    Claim(text="PMMs over the baseline", table="table-1", row="PMMs", than="baseline"),
    Claim(text="RPMMs over PMMs", table="table-1", row="RPMMs", than="PMMs"),
    Claim(text="K = 2 over K = 1", table="table-2", row="K = 2", than="K = 1"),
    Claim(text="K = 3 over K = 1", table="table-2", row="K = 3", than="K = 1"),
    Claim(text="K = 3 over K = 5", table="table-2", row="K = 3", than="K = 5"),
    Claim(text="vMF over Gaussian", table="table-3", row="vMF", than="Gaussian"),
)
"""What the paper concludes from its Tables 1, 2 and 3."""

FREE_CLAIMS = (
    Claim(text="K = 3 over K = 1, drawings", table="free-k", row="K = 3", than="K = 1"),
    Claim(text="K = 5 over K = 3, drawings", table="free-k", row="K = 5", than="K = 3"),
    Claim(text="vMF over Gaussian, drawings", table="free-kernel", row="vMF", than="Gaussian"),
    Claim(text="K = 3 over K = 1, photographs", table="photos-1-shot", row="K = 3", than="K = 1"),
    Claim(text="K = 5 over K = 3, photographs", table="photos-1-shot", row="K = 5", than="K = 3"),
)
"""The same questions where nothing is trained."""


def find(claim: Claim, profile: str = "mini", *, results: Path | str = "results") -> Finding:
    """Read the records of a claim.

    Args:
        claim: in question.
        profile: "mini" or "paper".
        results: folder of run records.

    Raises:
        ValueError: an unknown table or row; or tables of protocols that differ in more than the
            number of shots.
    """
    of_row, of_than, pairs = _paired(claim, profile, results)
    row, than = of_row.row(claim.row).row, of_than.row(claim.than).row
    by_class = of_row.table.seed_name == "em_seed"
    values = {}
    for fold in of_row.table.folds:
        of_fold = [pairs[key] for key in sorted(pairs) if key[1] == fold]
        if of_fold:
            values[fold] = _by_class(of_fold) if by_class else _by_pair(of_fold, of_row.table)
    given = "mean" in row.paper and "mean" in than.paper
    planned = set(of_row.table.cells(row)) & set(of_than.table.cells(than))
    return Finding(
        claim=claim,
        unit="classes" if by_class else "pairs",
        values=values,
        folds=of_row.table.folds,
        planned=0 if by_class else len(planned),
        whole=pairs.keys() >= planned,
        paper=row.paper["mean"] - than.paper["mean"] if given else None,
    )


def gain_beyond(
    claim: Claim, other: Claim, profile: str = "mini", *, results: Path | str = "results"
) -> list[float]:
    """How much more the row of one claim gains than that of another: differences of differences.

    mIoU in percent points, for each seed and fold with runs of all four rows, which are of trained
    networks; of seeds that have every fold, if there are. Raises ValueError as :func:`find` does.
    """
    gains = []
    for one in (claim, other):
        of_row, _, pairs = _paired(one, profile, results)
        gains.append({key: _by_pair([pair], of_row.table)[0] for key, pair in pairs.items()})
    first, second = gains
    return [first[key] - second[key] for key in sorted(first.keys() & second.keys())]


def runs_of(comparison: Comparison, label: str) -> dict[tuple[int, int], RunRecord]:
    """(seed, fold) -> record of the runs of one row that are there."""
    table, row = comparison.table, comparison.row(label).row
    names = {key: table.config(comparison.profile, row, *key).name for key in table.cells(row)}
    return {
        key: comparison.records[name] for key, name in names.items() if name in comparison.records
    }


def whole_cells(comparison: Comparison) -> dict[tuple[int, int], dict[str, float]]:
    """(seed, fold) -> label -> mIoU, where every row has been run; of whole seeds, if there are."""
    runs = {row.row.label: runs_of(comparison, row.row.label) for row in comparison.rows}
    shared = set.intersection(*(set(of_row) for of_row in runs.values()))
    cells = balanced(shared, comparison.table.folds)
    return {
        cell: {label: runs[label][cell].scores["model"]["miou"] for label in runs} for cell in cells
    }


def spread(findings: Iterable[Finding]) -> float | None:
    """Standard deviation of the differences about their own means, pooled over findings.

    None where no finding has two differences.
    """
    several = [found.all_values for found in findings if len(found.all_values) > 1]
    if not several:
        return None
    squares = sum(statistics.variance(values) * (len(values) - 1) for values in several)
    return math.sqrt(squares / sum(len(values) - 1 for values in several))


def claims_sheet(findings: Iterable[Finding], *, title: str = "Claims") -> Sheet:
    """Findings as a table: the paper's difference, ours, how many, and the verdict."""
    rows = []
    for found in findings:
        known = found.verdict
        missing = known == "undecided" and not found.complete
        rows.append((
            found.claim.text,
            NONE if found.paper is None else signed(found.paper),
            _measured(found),
            _counted(found),
            f"{found.folds_for} of {len(found.values)}" if found.values else NONE,
            f"{known}, runs missing" if missing else f"{known}{' so far' * found.early}",
        ))  # fmt: skip
    return Sheet(
        title=title, header=("claim", "paper", "ours", "from", "folds above 0", "verdict"),
        rows=tuple(rows),
    )  # fmt: skip


def _measured(found: Finding) -> str:
    if found.mean is None:
        return NOT_RUN
    half = "" if found.interval is None else f" ± {found.interval[1] - found.mean:.2f}"
    return f"{signed(found.mean)}{half}"


def _counted(found: Finding) -> str:
    count = len(found.all_values)
    unit = {"pairs": "pair", "classes": "class"}[found.unit] if count == 1 else found.unit
    of_planned = f" of {found.planned}" if count < found.planned else ""
    return f"{count}{of_planned} {found.unit if of_planned else unit}" if count else NONE


def _paired(
    claim: Claim, profile: str, results: Path | str
) -> tuple[Comparison, Comparison, dict[tuple[int, int], tuple[RunRecord, RunRecord]]]:
    """The tables of a claim's two rows, and (seed, fold) -> the runs of both that are there."""
    of_row = compare(claim.table, profile, results=results)
    of_than = compare(claim.than_table, profile, results=results) if claim.than_table else of_row
    _same_but_shots(of_row, of_than)
    runs, others = runs_of(of_row, claim.row), runs_of(of_than, claim.than)
    shared = balanced(runs.keys() & others.keys(), of_row.table.folds)
    return of_row, of_than, {key: (runs[key], others[key]) for key in shared}


def _by_pair(pairs: list[tuple[RunRecord, RunRecord]], table: Table) -> tuple[float, ...]:
    if table.first_episodes:
        raise ValueError(f"{table.name} compares entries of one record, not runs")
    miou = [tuple(record.scores["model"]["miou"] for record in pair) for pair in pairs]
    return tuple(one - other for one, other in miou)


def _by_class(pairs: list[tuple[RunRecord, RunRecord]]) -> tuple[float, ...]:
    ious = [tuple(record.scores["model"]["class_iou"] for record in pair) for pair in pairs]
    classes = sorted(ious[0][0], key=int)
    return tuple(statistics.fmean(one[c] - other[c] for one, other in ious) for c in classes)


def _same_but_shots(one: Comparison, other: Comparison) -> None:
    if one.protocol is None or other.protocol is None:
        return
    if replace(one.protocol, shots=1) != replace(other.protocol, shots=1):
        raise ValueError(
            f"{one.table.name} and {other.table.name} have protocols that differ in more than "
            f"the number of shots: {one.protocol.label} and {other.protocol.label}"
        )
