"""The records of a table: which are there, which failed, and whether they fit together."""

from collections.abc import Sequence
from pathlib import Path

from pmms.data import DataConfig
from pmms.grid_rows import Table
from pmms.protocols import Protocol
from pmms.results import RunRecord, load_record

FAILED = "failed"
"""Folder of the records of failed runs, below that of results."""

TEST_DATA = (
    "dataset", "validation", "test_split", "labels", "test_images", "test_size", "classes",
    "layout", "masks", "min_area", "min_images", "max_images", "year",
)  # fmt: skip
"""Parameters that, with fold and protocol, decide the test episodes."""


def load_named(folder: Path, names: Sequence[str]) -> tuple[dict[str, RunRecord], dict[str, str]]:
    """Complete records of a folder by name, and the status of those that failed.

    A run that failed has its record in the folder "failed" below, or, with that status, here.

    Raises:
        ValueError: if a file is no record, or holds that of another run.
    """
    records = _there(folder, names)
    failed = _failed(folder / FAILED, [name for name in names if name not in records])
    for name in [name for name, record in records.items() if record.status != "complete"]:
        failed[name] = records.pop(name).status
    return records, failed


def one_protocol(table: Table, records: Sequence[RunRecord]) -> Protocol | None:
    """The protocol of all records.

    Raises:
        ValueError: if there are several, or if they were tested on different images.
    """
    protocols = list(dict.fromkeys(Protocol.from_record(record.protocol) for record in records))
    if len(protocols) > 1:
        labels = ", ".join(f"{p.label}, {p.shots}-shot" for p in protocols)
        raise ValueError(f"one table holds one protocol; {table.name} has {labels}")
    defaults = DataConfig.__dataclass_fields__
    for name in TEST_DATA:
        values = {str(r.parameters.get(name, defaults[name].default)) for r in records}
        if len(values) > 1:
            raise ValueError(
                f"{table.name} has runs with {name} = {', '.join(sorted(values))}: other episodes, "
                "so their differences are not paired"
            )
    return protocols[0] if protocols else None


def _there(folder: Path, names: Sequence[str]) -> dict[str, RunRecord]:
    """The records that are there, by name.

    Raises:
        ValueError: if a file holds the record of another run.
    """
    found = {}
    for name in names:
        path = folder / f"{name}.json"
        if path.is_file():
            found[name] = load_record(path)
            if found[name].name != name:
                raise ValueError(f"{path} holds the record of {found[name].name}; rename it")
    return found


def _failed(folder: Path, names: Sequence[str]) -> dict[str, str]:
    paths = {name: folder / f"{name}.json" for name in names}
    return {name: load_record(path).status for name, path in paths.items() if path.is_file()}
