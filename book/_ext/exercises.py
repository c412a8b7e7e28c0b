"""All exercises of the chapters on one page, with their solutions open."""

import json
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

HEADING = "## Exercises"


class AllExercises(SphinxDirective):
    """The cells of the notebooks that begin with the heading of the exercises."""

    def run(self) -> list[nodes.Node]:
        folder = Path(self.env.srcdir) / "notebooks"
        paths = sorted(folder.glob("*.ipynb"))
        for path in paths:
            self.env.note_dependency(str(path))
        self.env.note_reread()  # for notebooks that are new
        text = "\n\n".join(exercises_markdown(path) for path in paths)
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def exercises_markdown(path: Path) -> str:
    """The exercises of one notebook, for a page in the folder above it, under its title."""
    cells = json.loads(path.read_text("utf-8"))["cells"]
    texts = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    title = next(line for line in texts[0].splitlines() if line.startswith("# "))
    parts = [f"#{title}", f"Of the chapter [](notebooks/{path.name})."]
    for text in texts:
        start = text.find(HEADING)
        if start >= 0:
            # What comes after them, such as the sources, has the next heading of this level.
            parts.append(re.split(r"^## ", text[start + len(HEADING) :], flags=re.MULTILINE)[0])
    body = "\n\n".join(part.strip() for part in parts)
    body = body.replace("{dropdown} Solution", "{admonition} Solution")
    return re.sub(r"\]\((?!\w+:|notebooks/|#)([^)\s]+)\)", _from_above, body)


def _from_above(link: re.Match[str]) -> str:
    target = link[1]
    return f"]({target[3:]})" if target.startswith("../") else f"](notebooks/{target})"


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("all-exercises", AllExercises)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
