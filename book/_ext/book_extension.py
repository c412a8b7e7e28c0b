"""What the book needs of Sphinx and no extension gives: the status table, alt texts of outputs."""

import json
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class StatusTable(SphinxDirective):
    """A table of all notebooks with run time, result and machine, from status.json."""

    def run(self) -> list[nodes.Node]:
        folder = Path(self.env.srcdir)
        notebooks = [path.stem for path in sorted((folder / "notebooks").glob("*.ipynb"))]
        record_path = folder / "status.json"
        record = json.loads(record_path.read_text("utf-8")) if record_path.exists() else {}
        self.env.note_dependency(str(record_path))
        # A new notebook changes the table too, and Sphinx cannot know: read this page every time.
        self.env.note_reread()
        return self.parse_text_to_nodes(
            status_markdown(notebooks, record), allow_section_headings=False
        )


def status_markdown(notebooks: list[str], record: dict[str, Any]) -> str:
    """The status table and the list of machines under it, in Markdown."""
    if not notebooks:
        return "No notebook belongs to this build."
    machines: list[str] = []
    rows = ["| Notebook | Run time | Result | Run on | Machine |", "|---|--:|---|---|---|"]
    for name in notebooks:
        link = f"[](notebooks/{name}.ipynb)"
        run = record.get(name)
        if run is None:
            rows.append(f"| {link} | – | not recorded | – | – |")
            continue
        machine = _machine(run)
        if machine not in machines:
            machines.append(machine)
        result = "ran to its end" if run["status"] == "ok" else f"failed: {run['error']}"
        if run["parameters"]:
            result += ", with " + ", ".join(f"{k} = {v}" for k, v in run["parameters"].items())
        letter = chr(ord("A") + machines.index(machine))
        rows.append(
            f"| {link} | {_duration(run['seconds'])} | {result} | {run['date']} | {letter} |"
        )
    lettered = [f"- **{chr(ord('A') + i)}**: {machine}" for i, machine in enumerate(machines)]
    return "\n".join([*rows, "", *lettered])


def _machine(run: dict[str, Any]) -> str:
    machine, versions = run["machine"], run["versions"]
    accelerator = machine["accelerator"].replace("none", "no accelerator")
    hardware = (
        f"{machine['processor']}, {machine['cores']} cores, {accelerator}, {machine['system']}"
    )
    return f"{hardware}; " + ", ".join(f"{name} {version}" for name, version in versions.items())


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def set_alt_texts(app: Sphinx, doctree: nodes.document) -> None:
    """Give pictures among a notebook's outputs the alt text that their metadata holds.

    build_book.py collected the texts under the checksums that MyST-NB uses as file names.
    """
    path = Path(app.srcdir) / "alt_texts.json"
    alt_texts = json.loads(path.read_text("utf-8")) if path.exists() else {}
    for image in doctree.findall(nodes.image):
        alt = alt_texts.get(Path(image["uri"]).stem)
        if alt and not image.get("alt"):
            image["alt"] = alt


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("status-table", StatusTable)
    app.connect("doctree-read", set_alt_texts)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
