"""Tables of the book and the README, written from run records; nobody types a number."""

import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pmms.files import write_atomically
from pmms.folds import FOLDS
from pmms.protocols import PRESETS, Form, Protocol
from pmms.results import RunRecord, load_records

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


def blocks(results: Path | str) -> dict[str, str]:
    """All generated blocks by name, from the records in a folder."""
    mini = load_records(results, profile="mini", dataset="parts", shots=1, validation=False)
    order = ("no_support", "baseline", "pmms_plus", "pmms", "rpmms")
    mini = [r for name in order for r in mini if r.parameters["model"] == name]
    return {
        "mini-table": f"{fold_table(mini)}\n\n{describe(mini)}",
        "protocols-pascal": protocol_table("pascal"),
        "protocols-coco": protocol_table("coco"),
        "protocol-notes": protocol_notes(),
    }


def fill_files(results: Path | str, files: Iterable[Path | str]) -> list[Path]:
    """Fill the blocks of some files in place; returns those that changed."""
    changed = []
    for path in map(Path, files):
        before = path.read_text(encoding="utf-8")
        wanted = {
            name: text for name, text in blocks(results).items() if f"<!-- {name} -->" in before
        }
        after = fill(before, wanted)
        if after != before:
            write_atomically(path, after.encode())
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
