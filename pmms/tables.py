"""Tables of the book and the README, written from run records; nobody types a number."""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pmms import paper
from pmms.comparison import compare
from pmms.config import PROFILES
from pmms.files import write_if_changed
from pmms.grid import tables
from pmms.protocols import PRESETS, Form, Protocol
from pmms.rendering import (
    comparison_csv,
    comparison_latex,
    comparison_markdown,
    csv_text,
    latex,
    markdown,
)
from pmms.size_table import size_sheet
from pmms.trust_tables import kill_points, mutants

PAGES = ("README.md", "book/tables.md", "book/protocols.md", "book/trust.md")
"""Files with marked places, from the root of the repository."""


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
        "protocols-pascal": partial(protocol_table, "pascal"),
        "protocols-coco": partial(protocol_table, "coco"),
        "protocol-notes": protocol_notes,
        "size-and-speed": lambda: markdown(size_sheet(results), title=False),
        "kill-points": partial(kill_points, results),
        "mutants": partial(mutants, results),
        "contradictions": lambda: "\n".join(f"- {text}" for text in paper.CONTRADICTIONS),
    }
    for profile in PROFILES:
        for name in tables(profile):
            makers[f"{profile}:{name}"] = partial(_on_page, name, profile, results)
    return makers


def _on_page(name: str, profile: str, results: Path | str) -> str:
    return comparison_markdown(compare(name, profile, results=results), title=False)


def fill_files(results: Path | str, files: Iterable[Path | str]) -> list[Path]:
    """Fill the blocks of some files in place; returns those that changed."""
    makers = _makers(results)
    changed = []
    for path in map(Path, files):
        text = path.read_text(encoding="utf-8")
        wanted = {name: make() for name, make in makers.items() if f"<!-- {name} -->" in text}
        if write_if_changed(path, fill(text, wanted).encode()):
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
    paths = {Path(output) / name: content.encode() for name, content in files.items()}
    return [path for path, content in paths.items() if write_if_changed(path, content)]


def _setting(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return "the run's" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
