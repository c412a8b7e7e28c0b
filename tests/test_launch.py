"""Launch links: where the repository has an address, and where it has none."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from test_book_pages import Page

import build_book
import launch

GITHUB = "https://github.com/someone/pmms-book"
CHAPTER = "notebooks/07_explorer.ipynb"
ROOT = build_book.ROOT


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with a project that has an address."""
    text = f'[project]\nname = "x"\n[project.urls]\nRepository = "{GITHUB}/"\n'
    (tmp_path / "pyproject.toml").write_text(text, encoding="utf-8")
    return tmp_path


def test_the_address_is_one_setting(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(launch.VARIABLE, raising=False)
    assert launch.repository_address(root) == GITHUB
    assert launch.repository_address(None) == ""
    monkeypatch.setenv(launch.VARIABLE, "https://gitlab.com/group/book.git")
    assert launch.repository_address(root) == "https://gitlab.com/group/book"
    monkeypatch.setenv(launch.VARIABLE, "")
    assert launch.repository_address(root) == ""


@pytest.mark.parametrize("wrong", ["github.com/a/b", "http://github.com/a/b", "https://github.com"])
def test_a_wrong_address_is_refused(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(launch.VARIABLE, wrong)
    with pytest.raises(ValueError, match="must look like https://github"):
        launch.repository_address(None)


def test_links_open_the_notebook_itself() -> None:
    links = launch.launch_links(GITHUB, CHAPTER)
    assert links == {
        "Binder": f"https://mybinder.org/v2/gh/someone/pmms-book/main?urlpath=lab/tree/{CHAPTER}",
        "Colab": "https://colab.research.google.com/github/someone/pmms-book/blob/main/" + CHAPTER,
    }
    assert (ROOT / CHAPTER).is_file()


def test_other_hosts_have_binder_alone() -> None:
    links = launch.launch_links("https://gitlab.com/a/b", CHAPTER)
    assert list(links) == ["Binder"]
    assert "/v2/gl/a%2Fb/main" in links["Binder"]
    other = launch.launch_links("https://git.example.org/a/b", CHAPTER)["Binder"]
    assert unquote(urlsplit(other).path) == "/v2/git/https://git.example.org/a/b/main"


def test_no_address_no_links() -> None:
    assert launch.launch_links("", CHAPTER) == {}
    assert launch.theme_options("") == {}


def test_the_theme_is_told_where_notebooks_lie() -> None:
    options = launch.theme_options(GITHUB)
    assert options["path_to_docs"] == ""  # pages of the build are notebooks/NAME, as the files are
    assert options["repository_branch"] == launch.BRANCH
    assert set(options["launch_buttons"]) == {"notebook_interface", "binderhub_url", "colab_url"}
    assert "colab_url" not in launch.theme_options("https://gitlab.com/a/b")["launch_buttons"]


def test_links_to_files_use_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "[x](../pmms/mixture.py) and [y](../notebooks/00_few_shot_segmentation.ipynb)"
    monkeypatch.setenv(launch.VARIABLE, GITHUB)
    linked = build_book._links_from_pages(text)
    assert f"[x]({GITHUB}/blob/main/pmms/mixture.py)" in linked
    monkeypatch.setenv(launch.VARIABLE, "")
    assert build_book._links_from_pages(text).startswith("x and [y](notebooks/")


def test_binder_finds_an_environment() -> None:
    """Binder builds from environment.yml, which installs the package with what notebooks need."""
    assert "-e .[" in (ROOT / "environment.yml").read_text("utf-8")


# built


def built(folder: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> Page:
    """The page of one chapter in a book of that chapter alone, with the book's own settings."""
    monkeypatch.setenv(launch.VARIABLE, address)
    source = folder / "source"
    (source / "notebooks").mkdir(parents=True)
    for name in ("conf.py", "references.bib"):
        shutil.copy(build_book.BOOK / name, source / name)
    for name in ("_ext", "_static"):
        shutil.copytree(build_book.BOOK / name, source / name)
    cells = [new_markdown_cell("# Chapter\n\nText."), new_code_cell("1 + 1")]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    chapter = new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(chapter, source / "notebooks" / "chapter.ipynb")
    (source / "index.md").write_text(
        "# Book\n\nText.\n\n```{toctree}\nnotebooks/chapter\n```\n", encoding="utf-8"
    )
    python = [sys.executable, "-W", "error:::launch"]
    command = [*python, "-m", "sphinx", "-W", "-q", "-b", "html", source, folder / "html"]
    subprocess.run(command, check=True, timeout=120)
    assert "launch-line" not in (folder / "html" / "index.html").read_text("utf-8")
    return Page(folder / "html" / "notebooks" / "chapter.html")


def services(page: Page) -> set[str]:
    hosts = {"mybinder.org", "colab.research.google.com"}
    return {urlsplit(link).netloc for link in page.links} & hosts


def test_a_chapter_has_links_where_the_address_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = built(tmp_path, GITHUB, monkeypatch)
    assert services(page) == {"mybinder.org", "colab.research.google.com"}
    ours = launch.launch_links(GITHUB, "notebooks/chapter.ipynb")
    assert set(ours.values()) <= set(page.links)
    # The theme's button and our line lead to the same places.
    for service in ("mybinder.org", "colab.research.google.com"):
        assert len({link for link in page.links if urlsplit(link).netloc == service}) == 1
    # A link asks nobody for anything: what a page loads stays local.
    assert [address for address in page.loaded if urlsplit(address).netloc] == []
    text = (tmp_path / "html" / "notebooks" / "chapter.html").read_text("utf-8")
    assert f"git clone {GITHUB} " in re.sub(r"<[^>]+>", "", text)


def test_a_chapter_has_none_where_it_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = built(tmp_path, "", monkeypatch)
    assert services(page) == set()
    assert "launch-line" not in (tmp_path / "html/notebooks/chapter.html").read_text("utf-8")


def test_the_setting_is_valid_as_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(launch.VARIABLE, raising=False)
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"].get("urls", {})
    assert launch.repository_address(ROOT) == urls.get("Repository", "").rstrip("/")
