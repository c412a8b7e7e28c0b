"""Made-up records of the runs of a table."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pmms.comparison import compare
from pmms.grid_rows import Row, Table
from pmms.results import RunRecord

Score = Callable[[str, int, int], float | None]
"""(label, seed, fold) -> mIoU of a run, or None for a run that is not there."""

TABLE = Table(
    name="made",
    title="Made. Two kernels & more",
    header="kernel",
    rows=(
        Row(label="Gaussian", parameters={"kernel": "gaussian"}, paper={"mean": 54.04}),
        Row(label="vMF", parameters={}, paper={"0": 51.88, "mean": 54.63}),
    ),
    shared={"model": "pmms_plus", "iterations": 7},
    against="Gaussian",
    seeds=(0, 1, 2),
    paper_setting="Pascal-5i, ResNet-50",
)


def made_record(
    table: Table, label: str, seed: int, fold: int, miou: float, **changes: Any
) -> RunRecord:
    """The record of one run; ``changes`` replace its fields."""
    config = table.config("mini", table.row(label), seed, fold)
    summary = {"miou": miou, "interval": [miou - 1, miou + 1], "by_seed": [miou + 0.5, miou - 0.5]}
    fields = {
        "name": config.name,
        "parameters": config.portable(),
        "protocol": config.protocol.record(),
        "scores": {"model": summary},
        "seconds": {"train": 1800.0},
        "environment": {
            "device": "a processor", "threads": 1, "commit": "abc", "versions": {"torch": "2.0"},
        },
    }  # fmt: skip
    return RunRecord(**fields | changes)


def made_comparison(folder: Path, score: Score, table: Table = TABLE, **options: Any) -> Any:
    """Save the records and compare them."""
    for row in table.rows:
        for seed, fold in table.cells(row):
            miou = score(row.label, seed, fold)
            if miou is not None:
                made_record(table, row.label, seed, fold, miou).save(folder)
    return compare(table, results=folder, **options)
