"""Clean notebooks for the repository: outputs and counts stay, what differs between two runs goes.

python book/tools/clean_notebooks.py [--check] [NOTEBOOK ...]     (default: all of notebooks/)

nbstripout does the work, as a library. Added to it: no empty tag lists (papermill leaves one in
every cell), one fixed kernel entry, and text that a cell printed in pieces joined into one piece,
because where it breaks depends on timing. Cell ids are kept, so that inserting a cell changes that
cell alone.
"""

import argparse
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbstripout import strip_output

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "notebooks"

# Without its state a widget is an error in JupyterLab; its id differs in every run. Its text stays.
WIDGET = "application/vnd.jupyter.widget-view+json"

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}

# Metadata that an editor or a run leaves and that says nothing to a reader. Widget state is large
# and changes with every run.
VOLATILE = [
    "metadata.language_info",
    "metadata.papermill",
    "metadata.signature",
    "metadata.toc-autonumbering",
    "metadata.vscode",
    "metadata.widgets",
    "cell.metadata.ExecuteTime",
    "cell.metadata.collapsed",
    "cell.metadata.execution",
    "cell.metadata.heading_collapsed",
    "cell.metadata.jp-MarkdownHeadingCollapsed",
    "cell.metadata.papermill",
    "cell.metadata.scrolled",
    "cell.metadata.vscode",
]


def clean(notebook: NotebookNode) -> NotebookNode:
    """Clean a notebook (nbformat 4) in place and return it; cleaning twice changes nothing more."""
    strip_output(notebook, keep_output=True, keep_count=True, keep_id=True, extra_keys=VOLATILE)
    notebook.metadata["kernelspec"] = NotebookNode(KERNEL)
    for cell in notebook.cells:
        if cell.metadata.get("tags") == []:
            del cell.metadata["tags"]
        if cell.cell_type == "code":
            cell.outputs = _join_streams(cell.outputs)
            for output in cell.outputs:
                output.get("data", {}).pop(WIDGET, None)
    return notebook


def cleaned_text(path: Path) -> str:
    """The text of the cleaned notebook, as Jupyter would write it."""
    notebook = nbformat.read(path, as_version=4)
    if notebook.nbformat_minor < 5:  # 4.5 brought cell ids
        notebook = nbformat.v4.upgrade(notebook, 4, notebook.nbformat_minor)
    return nbformat.writes(clean(notebook)).rstrip("\n") + "\n"


def _join_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
    joined: list[NotebookNode] = []
    for output in outputs:
        last = joined[-1] if joined else None
        if (
            last is not None
            and output.output_type == last.output_type == "stream"
            and output.name == last.name
        ):
            last.text += output.text
        else:
            joined.append(output)
    return joined


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Clean notebooks for the repository.")
    parser.add_argument("--check", action="store_true", help="change nothing; fail if needed")
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all of notebooks/")
    options = parser.parse_args(arguments)

    unclean = []
    for path in options.notebooks or sorted(NOTEBOOKS.glob("*.ipynb")):
        text = cleaned_text(path)
        if text != path.read_text(encoding="utf-8"):
            unclean.append(path)
            if not options.check:
                path.write_text(text, encoding="utf-8")
    for path in unclean:
        print(f"{'unclean' if options.check else 'cleaned'}: {path}")
    if unclean and options.check:
        print("python book/tools/clean_notebooks.py cleans them", file=sys.stderr)
    # As pre-commit expects of a hook: a change fails the commit, so that it can be looked at.
    return 1 if unclean else 0


if __name__ == "__main__":
    sys.exit(main())
