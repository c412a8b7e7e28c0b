"""Build the HTML edition: gather pages and executed notebooks in one folder, then run Sphinx on it.

python book/tools/build_book.py [--notebooks FOLDER] [--output FOLDER]

The pages of book/ link to ../notebooks/NAME.ipynb and ../figures/NAME, and the notebooks to
../book/PAGE.md, so that links work in the repository and in JupyterLab. Gathered, the pages stand
one level higher, and the links are rewritten to match. MathJax comes from the installed package
django-static-mathjax, so that no page asks a server for anything.
"""

import argparse
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from binascii import a2b_base64
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from clean_notebooks import NOTEBOOKS, ROOT
from run_notebooks import RECORD

BOOK = ROOT / "book"
sys.path.insert(0, str(BOOK / "_ext"))

from launch import BRANCH, repository_address  # noqa: E402

MATHJAX = "es5/tex-svg-full.js"  # one file, all of TeX's packages, glyphs drawn: no font to load


def gather(source: Path, *, notebooks: Path = NOTEBOOKS) -> None:
    """Fill `source`, emptied first, with all that Sphinx reads."""
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(BOOK, source, ignore=shutil.ignore_patterns("tools", "__pycache__"))
    for page in source.glob("*.md"):
        text = page.read_text(encoding="utf-8")
        page.write_text(_links_from_pages(text), encoding="utf-8")
    if (ROOT / "figures").is_dir():
        shutil.copytree(ROOT / "figures", source / "figures")
    _copy_mathjax(source / "_static" / "mathjax")

    (source / "notebooks").mkdir()
    alt_texts: dict[str, str] = {}
    for path in sorted(notebooks.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = _links_from_notebooks(cell.source)
        notebook.metadata.pop("widgets", None)  # the state of widgets, which need a kernel
        alt_texts |= alt_texts_of(notebook)
        nbformat.write(notebook, source / "notebooks" / path.name)
    if not any((source / "notebooks").iterdir()):  # Sphinx wants a page where chapters belong
        (source / "notebooks" / "none.md").write_text("# No chapter yet\n", encoding="utf-8")
    (source / "alt_texts.json").write_text(json.dumps(alt_texts, indent=1), encoding="utf-8")

    # The record of the very run whose notebooks are shown, or else that of the committed ones.
    record = notebooks / "status.json"
    record = record if record.exists() else RECORD
    if record.exists():
        shutil.copy(record, source / "status.json")


def alt_texts_of(notebook: NotebookNode) -> dict[str, str]:
    """SHA-256 of each picture's bytes -> its alt text, where the output's metadata has one.

    MyST-NB names a picture's file by this sum and looks for alt texts in the cell's metadata alone;
    nbconvert looks in the output's, where `display(figure, metadata=...)` puts it.
    """
    alt_texts = {}
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            for kind, data in output.get("data", {}).items():
                alt = output.get("metadata", {}).get(kind, {}).get("alt")
                if alt and kind.startswith("image/"):
                    is_text = kind == "image/svg+xml"
                    content = (
                        os.linesep.join(data.splitlines()).encode() if is_text else a2b_base64(data)
                    )
                    alt_texts[hashlib.sha256(content).hexdigest()] = alt
    return alt_texts


def build(source: Path, output: Path) -> int:
    """Run Sphinx with warnings as errors; its exit code."""
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    return subprocess.run(
        [*command, "-d", str(output.parent / "doctrees"), str(source), str(output)], check=False
    ).returncode


def _links_from_pages(text: str) -> str:
    return re.sub(r"(\]\(|\]: +)\.\./(notebooks|figures)/", r"\1\2/", _links_to_files(text))


def _links_from_notebooks(text: str) -> str:
    return re.sub(r"(\]\(|\]: +)\.\./book/", r"\1../", _links_to_files(text))


def _links_to_files(text: str) -> str:
    """Links to other files lead to the repository if it has an address, and else are mere text."""
    address = repository_address(ROOT)
    link = rf"[\1]({address}/blob/{BRANCH}/\2)" if address else r"\1"
    return re.sub(r"\[([^\]]+)\]\(\.\./(?!book/|notebooks/|figures/)([^)\s]+)\)", link, text)


def _copy_mathjax(target: Path) -> None:
    package = importlib.util.find_spec("mathjax")
    if package is None or package.origin is None:
        raise FileNotFoundError("django-static-mathjax is not installed: run make setup")
    static = Path(package.origin).parent / "static" / "mathjax"
    target.mkdir(parents=True)
    for name in (MATHJAX, "LICENSE"):
        shutil.copy(static / name, target)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Build the HTML edition of the book.")
    parser.add_argument("--notebooks", type=Path, default=NOTEBOOKS, help="executed ones")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "book")
    options = parser.parse_args(arguments)
    source, html = options.output / "source", options.output / "html"
    gather(source, notebooks=options.notebooks)
    shutil.rmtree(html, ignore_errors=True)
    code = build(source, html)
    if code == 0:
        print(f"The book: {(html / 'index.html').resolve()}")
    return code


if __name__ == "__main__":
    sys.exit(main())
