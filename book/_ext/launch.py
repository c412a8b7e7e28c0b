"""Links that open a chapter where it can be run, on Binder and in Colab.

They need the public address of the repository, which is one setting: ``Repository`` under
``[project.urls]`` in pyproject.toml, or, for a single build, the environment variable
``BOOK_REPOSITORY``. Where it is empty there are no links. They are links and nothing more: no page
loads a picture or a script from these services.
"""

import os
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from docutils import nodes
from sphinx.application import Sphinx

BRANCH = "main"
BINDER = "https://mybinder.org"
COLAB = "https://colab.research.google.com"
VARIABLE = "BOOK_REPOSITORY"


def repository_address(root: Path | None) -> str:
    """The repository's address without a slash at its end; "" where it has none.

    Args:
        root: folder of the pyproject.toml; None if there is none.

    Raises:
        ValueError: an address that is no https address of a repository.
    """
    project: dict[str, Any] = {}
    if root is not None:
        project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    given = os.environ.get(VARIABLE, project.get("urls", {}).get("Repository", ""))
    address = given.strip().rstrip("/").removesuffix(".git")
    parts = urlsplit(address)
    if address and (parts.scheme != "https" or parts.path.count("/") < 2):
        raise ValueError(
            f"the repository's address must look like https://github.com/NAME/REPOSITORY; got "
            f"{given!r}. It stands in pyproject.toml, or in the variable {VARIABLE}"
        )
    return address


def launch_links(address: str, notebook: str) -> dict[str, str]:
    """Service -> link that opens a notebook there.

    Args:
        address: of the repository; "" gives no links.
        notebook: path in the repository, such as "notebooks/02_mixtures_and_em.ipynb".

    Returns:
        "Binder", and "Colab" for a repository on GitHub, the only ones that it opens.
    """
    if not address:
        return {}
    host, name = urlsplit(address).netloc, urlsplit(address).path.strip("/")
    where = {"github.com": f"gh/{name}", "gitlab.com": f"gl/{quote(name, safe='')}"}.get(
        host, f"git/{quote(address, safe='')}"
    )
    links = {"Binder": f"{BINDER}/v2/{where}/{BRANCH}?urlpath=lab/tree/{quote(notebook)}"}
    if host == "github.com":
        links["Colab"] = f"{COLAB}/github/{name}/blob/{BRANCH}/{quote(notebook)}"
    return links


def theme_options(address: str) -> dict[str, Any]:
    """What the theme needs for its own buttons; nothing without an address."""
    if not address:
        return {}
    services = {"notebook_interface": "jupyterlab", "binderhub_url": BINDER}
    if urlsplit(address).netloc == "github.com":
        services["colab_url"] = COLAB
    return {
        "repository_url": address,
        "repository_branch": BRANCH,
        "use_repository_button": True,
        "path_to_docs": "",  # a chapter is notebooks/NAME.ipynb, in the repository as in the book
        "launch_buttons": services,
    }


def add_launch_line(app: Sphinx, doctree: nodes.document) -> None:
    """Put a line with the links below the title of a chapter."""
    page, address = app.env.docname, app.config.repository
    if not page.startswith("notebooks/") or Path(app.env.doc2path(page)).suffix != ".ipynb":
        return
    links = launch_links(address, f"{page}.ipynb")
    title = next(iter(doctree.findall(nodes.title)), None)
    if not links or title is None:
        return
    line = nodes.paragraph(classes=["launch-line"])
    line += nodes.Text("Run this chapter on ")
    for number, (service, link) in enumerate(links.items()):
        if number:
            line += nodes.Text(" or in ")
        line += nodes.reference("", service, refuri=link, internal=False)
    line += nodes.Text(".")
    if "Colab" in links:
        name = address.rsplit("/", 1)[-1]
        line += nodes.Text(" Colab opens the notebook alone; run this in its first cell: ")
        line += nodes.literal("", f"!git clone {address} && pip install -q ./{name}")
        line += nodes.Text(", then ")
        line += nodes.literal("", f"%cd {name}/notebooks")
        line += nodes.Text(".")
    title.parent.insert(title.parent.index(title) + 1, line)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_config_value("repository", "", "env", types=[str])
    app.connect("doctree-read", add_launch_line)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
