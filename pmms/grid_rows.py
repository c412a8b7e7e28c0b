"""What a table of the book is made of: rows, and the runs behind them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from pmms.checks import choice
from pmms.config import RunConfig, run_config
from pmms.folds import FOLDS

ONE_PROTOTYPE = ("baseline", "no_support")
"""Models without a mixture."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One setting of a table.

    Attributes:
        label: what stands in the first column.
        parameters: of :func:`pmms.run_config`, beside those that the table's rows share, fold and
            seed. None where nothing is run: the row has published numbers only.
        paper: "0" to "3" and "mean" -> what the paper gives for it, mIoU in percent.
        entry: which scores of the record: "model", or one of its controls.
        seeds: those of the row where they are not the table's.
        paired: False where the episodes are others than those of the rows above.
    """

    label: str
    parameters: Mapping[str, Any] | None = field(default_factory=dict)
    paper: Mapping[str, float] = field(default_factory=dict)
    entry: str = "model"
    seeds: tuple[int, ...] | None = None
    paired: bool = True


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table.

    Attributes:
        name: of its files, and of its place on a page.
        title: says what is compared.
        header: of the first column.
        rows: see :class:`Row`.
        shared: parameters of all rows.
        against: label of the row that the others are compared with, run by run.
        folds, seeds: every row is run with all of them.
        seed_name: the parameter that is the seed: "seed" of the training, or "em_seed", the start
            of EM, where nothing is trained. A trained run takes its seed for both, so that no
            comparison hangs on one start.
        first_episodes: compare on the episodes of the first episode seed only: those of the
            controls.
        paper_setting: what the paper's numbers are of; "" if it has none.
        paper_table: number of the paper's table that is shown beside it, fold by fold; None shows
            none.
        paper_group: of that table only the rows whose name starts so.
        folder: of its records, below the folder of results. Records of another folder are made
            elsewhere than by the sweep.
        notes: sentences that belong below the table.

    Raises:
        ValueError: if two rows have one label, or ``against`` is none of them.
    """

    name: str
    title: str
    header: str
    rows: tuple[Row, ...]
    shared: Mapping[str, Any] = field(default_factory=dict)
    against: str
    folds: tuple[int, ...] = tuple(range(FOLDS))
    seeds: tuple[int, ...] = (0,)
    seed_name: str = "seed"
    first_episodes: bool = False
    paper_setting: str = ""
    paper_table: int | None = None
    paper_group: str = ""
    folder: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        labels = [row.label for row in self.rows]
        if len(set(labels)) < len(labels):
            raise ValueError(f"rows must have different labels in {self.name}, got {labels}")
        choice("against", self.against, labels)

    def row(self, label: str) -> Row:
        """The row of that label."""
        return next(row for row in self.rows if row.label == label)

    def cells(self, row: Row) -> list[tuple[int, int]]:
        """(seed, fold) of all runs of a row, seed by seed."""
        if row.parameters is None:
            return []
        return list(product(self.seeds if row.seeds is None else row.seeds, self.folds))

    def parameters(self, row: Row, seed: int, fold: int) -> dict[str, Any]:
        """What :func:`pmms.run_config` takes for one run of a row that is run."""
        given = {**self.shared, **(row.parameters or {}), "fold": fold, self.seed_name: seed}
        # One prototype is the mean of its samples, wherever EM starts.
        one = given.get("k") == 1 or given.get("model") in ONE_PROTOTYPE
        return {**given, "em_seed": 0 if one else seed}

    def config(self, profile: str, row: Row, seed: int, fold: int) -> RunConfig:
        """Settings of one run; its ``name`` is that of the record."""
        return run_config(profile, **self.parameters(row, seed, fold))
