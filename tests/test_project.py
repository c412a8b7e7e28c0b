"""The files around the package agree with each other and with what is installed."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from functools import cache
from importlib import metadata
from pathlib import Path

import nbformat
import papermill
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from clean_notebooks import cleaned_text

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# Marked, not skipped from inside, so that a run without notebooks says which tests they miss.
for_each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def _text(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def _requirements() -> list[Requirement]:
    extras = PROJECT["optional-dependencies"].values()
    return [Requirement(r) for r in PROJECT["dependencies"] + [r for e in extras for r in e]]


@cache
def _pins() -> dict[str, str]:
    lines = [line for line in _text("constraints.txt").splitlines() if line and line[0] != "#"]
    pairs = [line.split("==") for line in lines]
    assert all(len(pair) == 2 for pair in pairs), "a line of constraints.txt is no exact version"
    pins = {canonicalize_name(name): version for name, version in pairs}
    assert len(pins) == len(pairs), "constraints.txt names a package twice"
    return pins


def _tracked() -> list[Path]:
    git = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if git.returncode != 0:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in git.stdout.split("\0") if name and (ROOT / name).is_file()]


# dependencies


@pytest.mark.parametrize("requirement", _requirements(), ids=lambda r: r.name)
def test_every_direct_dependency_is_pinned_within_its_range(requirement: Requirement) -> None:
    pin = _pins().get(canonicalize_name(requirement.name))
    assert pin is not None, f"{requirement.name} is not in constraints.txt"
    assert requirement.specifier.contains(pin)


def test_pinned_versions_run_on_every_python_that_is_promised() -> None:
    """Debian's Python 3.11.2 among them: some packages ask for a later 3.11."""
    oldest = PROJECT["requires-python"].removeprefix(">=") + ".0"
    for name, version in _pins().items():
        try:
            installed = metadata.metadata(name)
        except metadata.PackageNotFoundError:  # of another system
            continue
        if installed["Version"].partition("+")[0] != version:  # as in make test-oldest
            continue
        needs = installed.get("Requires-Python")
        assert SpecifierSet(needs or "").contains(oldest), f"{name} needs Python {needs}"


def test_pins_name_no_local_build() -> None:
    assert [p for p in _pins().items() if "+" in p[1]] == []


def test_conda_environment_installs_what_make_does() -> None:
    dependencies = yaml.safe_load(_text("environment.yml"))["dependencies"]
    by_pip = next(entry["pip"] for entry in dependencies if isinstance(entry, dict))
    by_conda = [entry for entry in dependencies if isinstance(entry, str)]
    extras = re.search(r"^EXTRAS = (.*)$", _text("Makefile"), re.MULTILINE).group(1)

    assert by_pip == ["-c constraints.txt", f"-e .[{extras}]"]
    assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])
    # Conda brings Python, pip and make alone: a package from both would be installed twice.
    assert {entry.split("=")[0] for entry in by_conda} == {"python", "pip", "make"}
    python = next(entry for entry in by_conda if entry.startswith("python="))
    assert SpecifierSet(PROJECT["requires-python"]).contains(python.removeprefix("python="))


@pytest.mark.parametrize(
    "folder, extras",
    [
        ("pmms", []),
        ("book", ["book"]),
        ("workflow", ["book", "scale"]),
        ("tests", ["book", "test"]),
    ],
)
def test_every_import_is_a_declared_dependency(folder: str, extras: list[str]) -> None:
    declared = [Requirement(r).name for r in PROJECT["dependencies"]]
    declared += [Requirement(r).name for e in extras for r in PROJECT["optional-dependencies"][e]]
    if folder == "pmms":  # optional parts import their libraries where they are used
        declared += [Requirement(r).name for r in PROJECT["optional-dependencies"]["scale"]]
    declared = {canonicalize_name(name) for name in declared}
    # Installed by one of the declared packages as a part of itself.
    declared |= (
        {"nbformat", "jupyter-client", "jupyter-core", "traitlets", "docutils"} if extras else set()
    )
    own = {
        path.stem for top in ("book", "tests", "workflow") for path in (ROOT / top).rglob("*.py")
    } | {"pmms"}
    provider = metadata.packages_distributions()
    undeclared = {}
    for path in (ROOT / folder).rglob("*.py"):
        for module in _imports(path) - sys.stdlib_module_names - own:
            names = {canonicalize_name(name) for name in provider.get(module, [module])}
            if not names & declared:
                undeclared[module] = str(path.relative_to(ROOT))
    assert undeclared == {}


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module.split(".")[0])
    return found


# commands


def _own_make() -> dict[str, str]:
    """Environment of a make that tests start: as a child of another it would print more."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}


def _targets() -> set[str]:
    """Names that `make help` shows."""
    shown = subprocess.run(
        ["make", "help"], cwd=ROOT, env=_own_make(), capture_output=True, text=True, check=True
    )
    return {line.split()[1] for line in shown.stdout.splitlines() if line.strip()}


def test_make_help_shows_every_target() -> None:
    phony = re.search(r"^\.PHONY: (help .*)$", _text("Makefile"), re.MULTILINE).group(1)
    assert _targets() == set(phony.split())


def test_make_works_in_a_copy_of_a_checkout_that_cannot_be_written(tmp_path: Path) -> None:
    checkout, elsewhere = tmp_path / "checkout", tmp_path / "Bücher und mehr"
    shutil.copytree(ROOT / "book", checkout / "book", ignore=shutil.ignore_patterns("*.ipynb"))
    for name in ("Makefile", ".gitignore", ".pre-commit-config.yaml"):
        shutil.copy(ROOT / name, checkout)
    (checkout / ".ci").mkdir()
    for path in (*checkout.rglob("*"), checkout):
        path.chmod(path.stat().st_mode & ~0o222)
    before = sorted(checkout.rglob("*"))
    for _ in range(2):  # the second time the copy is there
        done = subprocess.run(
            ["make", "clean", f"BUILD={elsewhere}"],
            cwd=checkout, env=_own_make(), capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "rm -rf build" in done.stdout
    assert sorted(checkout.rglob("*")) == before
    assert (elsewhere / "book" / "index.md").stat().st_mode & 0o200


@pytest.mark.parametrize(
    "settings, expected",
    [
        ("", "--cores 2 --resources gpu=1"),
        ("PROFILE=paper GPUS=3", "--cores 15 --resources gpu=3"),  # five for each GPU
        ("PROFILE=paper GPUS=3 CORES=6", "--cores 6 --resources gpu=3"),
        ("PROFILE=paper WHERE=slurm", ""),  # cores here would be taken from the jobs there
    ],
)
def test_make_tables_asks_for_cores_on_this_machine_alone(settings: str, expected: str) -> None:
    done = subprocess.run(
        ["make", "-n", "tables", "VENV=", *settings.split()],
        cwd=ROOT, env=_own_make(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = re.search(r"workflow/profiles/\w+\s+(.*?)\s*--config", done.stdout, re.DOTALL)
    assert found.group(1) == expected


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "book/index.md", ".ci/run"])
def test_documented_make_commands_exist(name: str) -> None:
    commands = re.findall(
        r"(?:^|`|&& )make (?:[A-Z_]+=[^\s`]* )*([a-z-]+)", _text(name), re.MULTILINE
    )
    assert commands
    assert set(commands) <= _targets()


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_documented_files_exist(name: str) -> None:
    scripts = re.findall(r"python ([\w/]+\.py)", _text(name))
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", _text(name)) if "://" not in link]
    assert [path for path in scripts + links if not (ROOT / path).exists()] == []


def test_pre_commit_hooks_are_local_and_valid() -> None:
    subprocess.run(
        [sys.executable, "-m", "pre_commit", "validate-config"], cwd=ROOT, check=True, timeout=60
    )
    (repo,) = yaml.safe_load(_text(".pre-commit-config.yaml"))["repos"]
    assert repo["repo"] == "local"
    assert {hook["language"] for hook in repo["hooks"]} == {"system"}


# what is said of the project


def test_citation_names_this_version_and_the_paper() -> None:
    citation = yaml.safe_load(_text("CITATION.cff"))
    assert citation["version"] == PROJECT["version"]
    assert citation["authors"] == PROJECT["authors"]
    paper = citation["preferred-citation"]
    bibtex = re.search(
        r"@inproceedings\{yang2020pmms,.*?\n\}", _text("book/references.bib"), re.DOTALL
    )
    assert f"doi = {{{paper['doi']}}}" in bibtex.group()
    assert f"title = {{{paper['title']}}}" in bibtex.group()
    assert [a["family-names"] in bibtex.group() for a in paper["authors"]] == [True] * 5


def test_licences_are_complete() -> None:
    code, text = _text("LICENSE"), _text("LICENSE-TEXT")
    assert "Version 2.0, January 2004" in code
    assert "END OF TERMS AND CONDITIONS" in code
    assert "Creative Commons Attribution 4.0 International" in text
    assert [f"Section {n}" in text for n in range(1, 9)] == [True] * 8


def test_installed_version_is_the_one_here() -> None:
    try:
        installed = metadata.version("pmms")
    except metadata.PackageNotFoundError:
        pytest.skip("pmms is not installed, only on the path")
    assert installed == PROJECT["version"]


def test_tracked_files_hold_no_path_of_one_machine() -> None:
    # A folder of a person or of root, or a drive, spelt out; written so as not to match itself.
    pattern = re.compile(r"(?<![\w.$~-])(/(?:home|Users|root|tmp|work)/[\w.]+|[A-Z]:\\Users\\)")
    found = {}
    for path in _tracked():
        try:
            match = pattern.search(path.read_text("utf-8"))
        except UnicodeDecodeError:
            continue
        if match:
            found[str(path.relative_to(ROOT))] = match.group()
    assert found == {}


def test_no_tracked_file_is_large() -> None:
    large = {p.name: p.stat().st_size for p in _tracked() if p.stat().st_size > 3_000_000}
    assert large == {}


# notebooks


def _code_cells(path: Path) -> list[nbformat.NotebookNode]:
    cells = nbformat.read(path, as_version=4).cells
    return [c for c in cells if c.cell_type == "code" and c.source.strip()]


@for_each_notebook
def test_notebook_is_valid_and_clean(path: Path) -> None:
    nbformat.validate(nbformat.read(path, as_version=4))
    assert path.read_text("utf-8") == cleaned_text(path), "run book/tools/clean_notebooks.py"


@for_each_notebook
def test_notebook_ran_from_top_to_bottom(path: Path) -> None:
    # nbval passes a cell without an execution count, whatever it would print.
    counts = [cell.execution_count for cell in _code_cells(path)]
    assert counts == list(range(1, len(counts) + 1)), "run make notebooks"


@for_each_notebook
def test_notebook_shows_no_error_and_no_warning(path: Path) -> None:
    outputs = [output for cell in _code_cells(path) for output in cell.outputs]
    assert [o.evalue for o in outputs if o.output_type == "error"] == []
    assert [o.text for o in outputs if o.output_type == "stream" and o.name == "stderr"] == []
    texts = [o.data.get("text/plain", "") for o in outputs if "data" in o]
    assert [text for text in texts if "%|" in text] == [], "a progress bar among the outputs"


@for_each_notebook
def test_notebook_starts_with_its_one_title(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    assert cells[0].cell_type == "markdown"
    assert cells[0].source.startswith("# ")
    prose = [
        re.sub(r"```.*?```", "", c.source, flags=re.DOTALL)
        for c in cells
        if c.cell_type == "markdown"
    ]
    assert len(re.findall(r"^# ", "\n".join(prose), re.MULTILINE)) == 1


@for_each_notebook
def test_papermill_reads_every_parameter(path: Path) -> None:
    cells = [c for c in _code_cells(path) if "parameters" in c.metadata.get("tags", [])]
    assert len(cells) == 1, "one cell is to be tagged 'parameters'"
    names = []
    for node in ast.parse(cells[0].source).body:
        if isinstance(node, ast.AnnAssign):
            names.append(node.target.id)
        elif isinstance(node, ast.Assign):
            names += [target.id for target in node.targets]
    inspected = papermill.inspect_notebook(str(path))
    assert list(inspected) == names
    assert [n for n, p in inspected.items() if p["inferred_type_name"] == "None"] == [], "no type"
    assert [n for n, p in inspected.items() if not p["help"].strip()] == [], "no comment"


@for_each_notebook
def test_every_picture_has_an_alt_text(path: Path) -> None:
    for cell in _code_cells(path):
        of_cell = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
        for output in cell.outputs:
            for kind in output.get("data", {}):
                if kind.startswith("image/"):
                    alt = output.metadata.get(kind, {}).get("alt", of_cell)
                    assert len(alt.split()) >= 3, f"a picture of {cell.source[:60]!r} has none"


@for_each_notebook
def test_run_time_is_recorded(path: Path) -> None:
    record = json.loads(_text("book/status.json"))
    assert path.stem in record, "run make notebooks"
    assert record[path.stem]["status"] == "ok"
    assert record[path.stem]["parameters"] == {}
    assert record[path.stem]["seconds"] > 0


def test_status_record_names_no_notebook_that_is_gone() -> None:
    path = ROOT / "book" / "status.json"
    recorded = set(json.loads(path.read_text("utf-8"))) if path.exists() else set()
    assert recorded <= {notebook.stem for notebook in NOTEBOOKS}
