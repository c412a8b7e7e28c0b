"""Statistics of the runs of a table: means, intervals, paired differences.

All scores are mIoU in percent.

- A *fold's* score is the mean over seeds; the *mean* is that of the folds. Seeds that lack a fold
  are left out of everything as long as one seed has all of them: else the folds that were run
  first would count more than the others.
- The interval of the mean is a 95 % t interval over the seeds: each seed gives one number, its
  mean over folds. It says what another training seed would have given. With one seed there is no
  such thing; the interval is then over episodes, from the records' bootstrap intervals, taken as
  normal and independent between folds, and it is labelled so.
- A *difference* is paired: the same fold, the same seed, the same episodes. Its 95 % t interval is
  over all pairs, taken as independent. It speaks of other seeds on these folds, for which it is
  wide enough however much the folds differ. For folds of other classes it is too narrow: four
  folds stay four, with any number of seeds. Intervals are not corrected for the number of rows.
- Rows under different protocols, or tested on different images, do not get into one table.
"""

import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pmms.grid import tables
from pmms.grid_rows import Row, Table
from pmms.intervals import LEAST, Interval, mean_interval, t_interval
from pmms.protocols import Protocol
from pmms.results import RunRecord
from pmms.table_records import load_named, one_protocol


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Mean of paired differences, percent points; no interval with one or two of them.

    Attributes:
        mean, interval: of the pairs.
        pairs, planned: how many there are, and will be with all runs.
    """

    mean: float
    interval: Interval | None
    pairs: int
    planned: int


@dataclass(frozen=True, kw_only=True)
class RowResult:
    """What the records say about one row.

    Attributes:
        row: of the table.
        folds: fold -> mean over seeds; a fold without a run is missing.
        mean: over folds; None while a fold is missing.
        interval: of the mean; None where it is.
        difference: from the table's ``against``; None without pairs, or for that row itself.
        runs, wanted: how many runs there are, and should be.
        missing: names of the records that are not there, failed ones included.
        failed: name -> status of the runs that failed.
        failed_folds: the folds of these.
    """

    row: Row
    folds: Mapping[int, float]
    mean: float | None
    interval: Interval | None
    difference: Difference | None
    runs: int
    wanted: int
    missing: tuple[str, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    failed_folds: frozenset[int] = frozenset()

    def paper_difference(self, against: Row) -> float | None:
        """The paper's mean minus its mean of ``against``; None where it gives one of them only."""
        if self.row is against or not {"mean"} <= self.row.paper.keys() & against.paper.keys():
            return None
        return self.row.paper["mean"] - against.paper["mean"]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A table with its numbers; :mod:`pmms.rendering` writes it down, a notebook displays it.

    Attributes:
        table, profile: what was compared.
        rows: one result for each row of the table.
        protocol: of all runs; None while there is no run.
        records: all records behind it, by name.
    """

    table: Table
    profile: str
    rows: tuple[RowResult, ...]
    protocol: Protocol | None
    records: Mapping[str, RunRecord]

    def row(self, label: str) -> RowResult:
        """The result of the row of that label.

        Raises:
            ValueError: if there is none.
        """
        for result in self.rows:
            if result.row.label == label:
                return result
        raise ValueError(f"{self.table.name} has no row {label!r}")

    def _repr_markdown_(self) -> str:
        from pmms.rendering import comparison_markdown

        return comparison_markdown(self)

    def _repr_html_(self) -> str:
        from pmms.rendering import comparison_html

        return comparison_html(self)


def compare(
    table: str | Table, profile: str = "mini", *, results: Path | str = "results", **options: Any
) -> Comparison:
    """Read the records of a table and compare its rows.

    Args:
        table: of :func:`pmms.grid.tables`, by name, or one of your own.
        profile: "mini" or "paper".
        results: folder of run records.
        options: ``protocol`` and ``root`` of :func:`pmms.grid.tables`.

    Raises:
        ValueError: an unknown table; or records of different protocols, or tested on different
            images, which have no place in one table.
    """
    if isinstance(table, str):
        known = tables(profile, **options)
        if table not in known:
            raise ValueError(f"table must be one of {', '.join(known)}; got {table!r}")
        table = known[table]
    names = {
        (row.label, seed, fold): table.config(profile, row, seed, fold).name
        for row in table.rows
        for seed, fold in table.cells(row)
    }
    folder = Path(results) / table.folder
    wanted = list(dict.fromkeys(names.values()))
    records, failed = load_named(folder, wanted)
    protocol = one_protocol(table, list(records.values()))
    if protocol is not None and table.first_episodes:
        protocol = replace(protocol, seeds=protocol.seeds[:1])
    against = _runs(table, table.row(table.against), names, records)
    rows = []
    for row in table.rows:
        own = {key: names[row.label, *key] for key in table.cells(row)}
        rows.append(_result(table, row, own, _runs(table, row, names, records), against, failed))
    return Comparison(
        table=table, profile=profile, rows=tuple(rows), protocol=protocol, records=records
    )


Cell = tuple[int, int]
"""(seed, fold) of a run."""

Scores = dict[Cell, tuple[float, tuple[float, float]]]
"""(seed, fold) -> mIoU, and its interval over episodes."""


def _runs(
    table: Table,
    row: Row,
    names: Mapping[tuple[str, int, int], str],
    records: Mapping[str, RunRecord],
) -> Scores:
    found = {}
    for seed, fold in table.cells(row):
        record = records.get(names[row.label, seed, fold])
        if record is not None:
            scores = record.scores.get(row.entry)
            if scores is None:
                raise ValueError(f"{record.name} has no scores of {row.entry!r}; run it again")
            # The interval of a control is over its one episode seed; the model's is over all.
            miou = scores["by_seed"][0] if table.first_episodes else scores["miou"]
            found[seed, fold] = (miou, tuple(scores["interval"]))
    return found


def _result(
    table: Table,
    row: Row,
    names: Mapping[tuple[int, int], str],
    runs: Scores,
    against: Scores,
    failed: Mapping[str, str],
) -> RowResult:
    whole = _whole_seeds(runs, table.folds)
    of_folds: dict[int, list[float]] = {}
    for seed, fold in balanced(runs, table.folds):
        of_folds.setdefault(fold, []).append(runs[seed, fold][0])
    of_seeds = [statistics.fmean(runs[s, fold][0] for fold in table.folds) for s in whole]
    wanted = list(dict.fromkeys(names.values()))  # one run may stand for several seeds
    missing = list(dict.fromkeys(name for key, name in names.items() if key not in runs))
    return RowResult(
        row=row,
        folds={fold: statistics.fmean(values) for fold, values in sorted(of_folds.items())},
        mean=statistics.fmean(of_seeds) if whole else None,
        interval=_interval(table, runs, whole, of_seeds, distinct=len(wanted)),
        difference=None if row.label == table.against else _difference(table, row, runs, against),
        runs=len(wanted) - len(missing),
        wanted=len(wanted),
        missing=tuple(missing),
        failed={name: failed[name] for name in missing if name in failed},
        failed_folds=frozenset(fold for (_, fold), name in names.items() if name in failed),
    )


def _interval(
    table: Table, runs: Scores, whole: Sequence[int], of_seeds: Sequence[float], *, distinct: int
) -> Interval | None:
    repeated = distinct == len(table.folds)  # the same runs for every seed: no spread to speak of
    if len(whole) > 1 and not repeated:
        return t_interval(of_seeds, over="seeds") if len(whole) >= LEAST else None
    if not whole or table.first_episodes:
        return None
    of_folds = [runs[whole[0], fold][1] for fold in table.folds]
    return mean_interval(of_seeds[0], of_folds)


def _difference(table: Table, row: Row, runs: Scores, against: Scores) -> Difference | None:
    shared = balanced(runs.keys() & against.keys(), table.folds)
    if not shared or not row.paired:
        return None
    planned = len(set(table.cells(row)) & set(table.cells(table.row(table.against))))
    differences = [runs[key][0] - against[key][0] for key in shared]
    if table.seed_name == "em_seed":  # the same images and weights: starts are no samples of them
        folds = dict.fromkeys(fold for _, fold in shared)
        differences = [
            statistics.fmean(
                d for d, key in zip(differences, shared, strict=True) if key[1] == fold
            )
            for fold in folds
        ]
        planned = len(table.folds)
    count = len(differences)
    return Difference(
        mean=statistics.fmean(differences),
        interval=t_interval(differences, over="pairs") if count >= LEAST else None,
        pairs=count,
        planned=planned,
    )


def balanced(cells: Collection[Cell], folds: Sequence[int]) -> list[Cell]:
    """(seed, fold) of the seeds that have every fold, in order; all, while no seed has."""
    whole = _whole_seeds(cells, folds)
    return sorted(cell for cell in cells if not whole or cell[0] in whole)


def _whole_seeds(cells: Collection[Cell], folds: Sequence[int]) -> list[int]:
    seeds = sorted({seed for seed, _ in cells})
    return [seed for seed in seeds if all((seed, fold) in cells for fold in folds)]
