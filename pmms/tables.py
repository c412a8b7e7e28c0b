"""Tables of the book and the README, written from run records; nobody types a number."""

import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pmms import paper
from pmms.comparison import compare
from pmms.config import PROFILES
from pmms.files import write_atomically
from pmms.folds import FOLDS
from pmms.grid import runs, tables
from pmms.protocols import PRESETS, Form, Protocol
from pmms.rendering import (
    comparison_csv,
    comparison_latex,
    comparison_markdown,
    csv_text,
    latex,
    markdown,
)
from pmms.results import RunRecord, load_record
from pmms.size_table import size_sheet

PAGES = ("README.md", "book/tables.md", "book/protocols.md")
"""Files with marked places, from the root of the repository."""

NOT_RUN = "not run"
OF_MODEL = (("model", ""), ("untrained", ", untrained"), ("wrong_support", ", wrong support"))
"""Entries of the scores with a row for each model, and what is added to its name."""
OF_IMAGES = (("everything", "everything foreground"), ("all_objects", "true mask of all objects"))
"""Entries that no model has a part in: one row each."""


def fold_table(records: Iterable[RunRecord]) -> str:
    """mIoU by fold as a Markdown table: a row for each model and each control.

    A cell holds the mean over seeds and, with two seeds or more, their standard deviation. The last
    column is the mean over folds of the fold means.

    Args:
        records: of one protocol; several models, folds and seeds.

    Raises:
        ValueError: for records of different protocols, which have no place in one table.
    """
    records = list(records)
    protocols = {Protocol.from_record(record.protocol) for record in records}
    if len(protocols) > 1:
        raise ValueError(f"one table holds one protocol; got {len(protocols)}")
    lines = ["| model | " + " | ".join(f"fold {fold}" for fold in range(FOLDS)) + " | mean |"]
    lines.append("|---|" + "---:|" * (FOLDS + 1))
    for model in dict.fromkeys(record.parameters["model"] for record in records):
        of_model = [record for record in records if record.parameters["model"] == model]
        lines += [_row(f"{model}{added}", of_model, entry) for entry, added in OF_MODEL]
    # The same episodes for all models, so any record of a fold will do.
    one_each = list({record.parameters["fold"]: record for record in records}.values())
    lines += [_row(title, one_each, entry) for entry, title in OF_IMAGES if one_each]
    return "\n".join(lines)


def describe(records: Iterable[RunRecord]) -> str:
    """One line that says how the numbers came about: protocol, seeds, versions, machine, time."""
    records = list(records)
    if not records:
        return "No run record yet."
    protocol = Protocol.from_record(records[0].protocol)
    seeds = sorted({record.parameters["seed"] for record in records})
    steps = sorted({record.parameters["iterations"] for record in records})
    minutes = sum(sum(record.seconds.values()) for record in records) / 60
    machines = sorted({record.environment["device"] for record in records})
    threads = sorted({record.environment["threads"] for record in records})
    torch = sorted({record.environment["versions"]["torch"] for record in records})
    commits = sorted({record.environment["commit"] for record in records})
    return (
        f"mIoU in percent on novel classes of PartsVOC; protocol `{protocol.label}`, "
        f"{protocol.shots}-shot, {len(protocol.seeds)} x {protocol.episodes} episodes; "
        f"{_listed(steps)} training steps; training seeds {_listed(seeds)}; {len(records)} runs, "
        f"{minutes:.0f} minutes in all on {_listed(machines)}, "
        f"threads: {_listed(threads)}; PyTorch {_listed(torch)}, commit {_listed(commits)}."
        + (" In parentheses: standard deviation over training seeds." if len(seeds) > 1 else "")
    )


def fill(text: str, blocks: Mapping[str, str]) -> str:
    """Replace what stands between ``<!-- NAME -->`` and ``<!-- /NAME -->``, for each block.

    Raises:
        ValueError: if a block's marks are missing.
    """
    for name, content in blocks.items():
        marked = re.compile(f"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if not marked.search(text):
            raise ValueError(f"the text has no place marked <!-- {name} --> ... <!-- /{name} -->")
        text = marked.sub(lambda found: found[1] + content + "\n" + found[2], text)  # noqa: B023
    return text


SETTINGS = {
    "episodes": "episodes for each seed",
    "seeds": "episode seeds",
    "lists": "images and classes from",
    "sampler": "episodes drawn as",
    "size": "image side in pixels",
    "aspect": "images are",
    "void": "void pixels",
    "query_mask": "query mask",
    "resolution": "scored at",
    "fusion": "K shots",
    "fb_iou": "FB-IoU",
    "checkpoint": "weights",
}
"""Settings of a protocol and how the book calls them."""


def protocol_table(form: Form) -> str:
    """The presets side by side as a Markdown table, on Pascal-5i or COCO-20i."""
    presets = [Protocol(name=name, form=form) for name in PRESETS]
    lines = ["| | " + " | ".join(f"`{preset.name}`" for preset in presets) + " |"]
    lines.append("|---|" + "---|" * len(presets))
    for setting, title in SETTINGS.items():
        cells = [_setting(getattr(preset, setting)) for preset in presets]
        lines.append(f"| {title} (`{setting}`) | {' | '.join(cells)} |")
    return "\n".join(lines)


def protocol_notes() -> str:
    """Source, meaning and traps of every preset, in Markdown."""
    parts = []
    for name, preset in PRESETS.items():
        traps = "\n".join(f"- {trap}" for trap in preset.traps)
        parts.append(
            f"### `{name}`\n\n**Source**: {preset.source}.\n\n**A number under it** is "
            f"{preset.meaning}.\n\n{traps}"
        )
    return "\n\n".join(parts)


def blocks(results: Path | str, names: Iterable[str] | None = None) -> dict[str, str]:
    """Generated blocks by name, from the records in a folder.

    Every table of :func:`pmms.grid.tables` is one, "mini:table-1" for instance.

    Args:
        results: folder of run records.
        names: None makes all of them.

    Raises:
        KeyError: if there is no such block.
    """
    makers = _makers(results)
    return {name: makers[name]() for name in (makers if names is None else names)}


def _makers(results: Path | str) -> dict[str, Callable[[], str]]:
    makers: dict[str, Callable[[], str]] = {
        "mini-table": partial(_mini_table, results),
        "protocols-pascal": partial(protocol_table, "pascal"),
        "protocols-coco": partial(protocol_table, "coco"),
        "protocol-notes": protocol_notes,
        "size-and-speed": lambda: markdown(size_sheet(results), title=False),
        "contradictions": lambda: "\n".join(f"- {text}" for text in paper.CONTRADICTIONS),
    }
    for profile in PROFILES:
        for name in tables(profile):
            makers[f"{profile}:{name}"] = partial(_on_page, name, profile, results)
    return makers


def _on_page(name: str, profile: str, results: Path | str) -> str:
    return comparison_markdown(compare(name, profile, results=results), title=False)


def _mini_table(results: Path | str) -> str:
    paths = [Path(results) / f"{name}.json" for name in runs("mini", ("table-1", "controls"))]
    found = [load_record(path) for path in paths if path.is_file()]
    order = ("no_support", "baseline", "pmms_plus", "pmms", "rpmms")
    found.sort(key=lambda r: (order.index(r.parameters["model"]), r.name))
    return f"{fold_table(found)}\n\n{describe(found)}"


def fill_files(results: Path | str, files: Iterable[Path | str]) -> list[Path]:
    """Fill the blocks of some files in place; returns those that changed."""
    changed = []
    for path in map(Path, files):
        before = path.read_text(encoding="utf-8")
        wanted = [name for name in _makers(results) if f"<!-- {name} -->" in before]
        after = fill(before, blocks(results, wanted))
        if after != before:
            write_atomically(path, after.encode())
            changed.append(path)
    return changed


def table_files(
    results: Path | str, profile: str = "mini", *, protocol: str = "ours"
) -> dict[str, str]:
    """File name -> content: every table as .md, .tex and .csv.

    Args:
        results: folder of run records.
        profile, protocol: see :func:`pmms.grid.tables`.
    """
    files = {}
    for name, table in tables(profile, protocol=protocol).items():
        found = compare(table, profile, results=results)
        files[f"{name}.md"] = comparison_markdown(found) + "\n"
        files[f"{name}.tex"] = comparison_latex(found)
        files[f"{name}.csv"] = comparison_csv(found)
    sheet = size_sheet(results)
    files["size-and-speed.md"] = markdown(sheet) + "\n"
    files["size-and-speed.tex"] = latex(sheet, label="size-and-speed")
    lines = [dict(zip(sheet.header, row, strict=True)) for row in sheet.rows]
    files["size-and-speed.csv"] = csv_text(lines)
    return files


def write_tables(
    results: Path | str, output: Path | str, profile: str = "mini", *, protocol: str = "ours"
) -> list[Path]:
    """Write :func:`table_files` to a folder; returns the files that changed."""
    files = table_files(results, profile, protocol=protocol)
    changed = []
    for name, content in files.items():
        path = Path(output) / name
        if not path.is_file() or path.read_bytes() != content.encode():
            write_atomically(path, content.encode())
            changed.append(path)
    return changed


def _setting(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return "the run's" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _row(title: str, records: Sequence[RunRecord], entry: str) -> str:
    values = [_values(records, entry, fold) for fold in range(FOLDS)]
    return f"| {title} | {' | '.join(map(_cell, values))} | {_mean(values)} |"


def _values(records: Sequence[RunRecord], entry: str, fold: int) -> list[float]:
    return [
        record.scores[entry]["miou"]
        for record in records
        if record.parameters["fold"] == fold and entry in record.scores
    ]


def _cell(seeds: Sequence[float]) -> str:
    if not seeds:
        return NOT_RUN
    mean = f"{statistics.fmean(seeds):.1f}"
    return f"{mean} ({statistics.stdev(seeds):.1f})" if len(seeds) > 1 else mean


def _mean(folds: Sequence[Sequence[float]]) -> str:
    if not all(folds):
        return NOT_RUN
    return f"{statistics.fmean(statistics.fmean(seeds) for seeds in folds):.1f}"


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(str(value) for value in values)
