"""The tools that run, clean and gather notebooks."""

import json
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import (
    new_code_cell,
    new_markdown_cell,
    new_notebook,
    new_output,
)

import build_book
import clean_notebooks
import run_notebooks
from parameter_types import cast

PARAMETERS = """\
k: int = 3  # number of prototypes
kappa: float = 20.0  # concentration
model = "pmms"  # type: Literal['pmms','rpmms']  which network
seed = None  # type: int|None  drawn anew where None
"""


def _write(path: Path, *cells: NotebookNode) -> Path:
    kernel = {"display_name": "Any (ipykernel)", "language": "python", "name": "python3"}
    notebook = new_notebook(cells=list(cells), metadata={"kernelspec": kernel})
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two notebooks: one with parameters, and one that fails halfway."""
    parameters = new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})
    printing = new_code_cell(
        "import os, sys\n"
        "print('one')\nsys.stdout.flush()\nprint('two')\n"
        "print(os.path.basename(os.getcwd()), os.environ['TQDM_DISABLE'])\n"
        "k, kappa, model, seed"
    )
    _write(tmp_path / "notebooks" / "00_good.ipynb", new_markdown_cell("# G"), parameters, printing)
    _write(
        tmp_path / "notebooks" / "01_bad.ipynb",
        new_code_cell("print('before')"),
        new_code_cell("raise ValueError('asked for')"),
        new_code_cell("print('after')"),
    )
    return tmp_path / "notebooks"


# types of parameters


@pytest.mark.parametrize(
    "text, declared, value",
    [
        ("3", "int", 3),
        ("10_000", "int", 10_000),
        ("3", "float", 3.0),
        ("1e-3", "float", 1e-3),
        ("20", "str", "20"),
        ("False", "bool", False),
        ("on", "bool", True),
        ("none", "int|None", None),
        ("7", "int | None", 7),
        ("x", "str|None", "x"),
        ("None", "Optional[str]", None),
        ("rpmms", "Literal['pmms','rpmms']", "rpmms"),
        ("5", "Literal[1,5]", 5),
        ("0,1,2", "list[int]", [0, 1, 2]),
        ("[0.5, 1]", "tuple[float, ...]", (0.5, 1.0)),
        ("a, b", "list[str]", ["a", "b"]),
        ("", "list[int]", []),
        ('{"k": [3, 5], "root": null}', "dict", {"k": [3, 5], "root": None}),
        ("{'em_features': 'raw'}", "dict", {"em_features": "raw"}),
        ("12", "None", 12),
        ("plain", "None", "plain"),
    ],
)
def test_cast_gives_the_declared_type(text: str, declared: str, value: object) -> None:
    result = cast(text, declared)
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    "text, declared, message",
    [
        ("3.5", "int", "expected an integer"),
        ("many", "float", "expected a number"),
        ("maybe", "bool", "expected true or false"),
        ("vgg", "Literal['pmms','rpmms']", "expected one of pmms, rpmms"),
        ("x", "int|None", r"expected int \| None"),
        ("1,b", "list[int]", "expected an integer"),
        ("1", "dict[str, int]", "cannot be given on a command line"),
        ("1", "list[", "cannot be read"),
        ("kappa=3", "dict", "expected names and values"),
        ("[1]", "dict", "expected names and values"),
        ("{1: 2}", "dict", "expected names and values"),
    ],
)
def test_cast_says_what_it_expected(text: str, declared: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cast(text, declared)


# choice and checks


def test_select_takes_stems_starts_and_paths(folder: Path) -> None:
    good, bad = folder / "00_good.ipynb", folder / "01_bad.ipynb"
    assert run_notebooks.select([], folder) == [good, bad]
    assert run_notebooks.select(["01", "notebooks/00_good.ipynb"], folder) == [bad, good]


@pytest.mark.parametrize("name", ["02", "0"])
def test_select_lists_what_there_is(folder: Path, name: str) -> None:
    with pytest.raises(ValueError, match="choose one of: 00_good, 01_bad"):
        run_notebooks.select([name], folder)


def test_parameters_are_cast(folder: Path) -> None:
    given = {"k": "5", "kappa": "10", "model": "rpmms", "seed": "none"}
    values = run_notebooks.checked_parameters(folder / "00_good.ipynb", given)
    assert values == {"k": 5, "kappa": 10.0, "model": "rpmms", "seed": None}
    assert type(values["kappa"]) is float


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("K", "5", "no parameter 'K'; valid are: k, kappa, model, seed"),
        ("k", "few", "parameter 'k': expected an integer"),
        ("model", "vgg", "parameter 'model': expected one of pmms, rpmms"),
    ],
)
def test_wrong_parameters_are_refused_before_anything_runs(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str, value: str, message: str
) -> None:
    output = folder.parent / "out"
    arguments = ["00", "-p", name, value, "--notebooks", str(folder), "--output-dir", str(output)]
    assert run_notebooks.main(arguments) == 2
    assert message in capsys.readouterr().err
    assert not output.exists()


def test_list_parameters_shows_types_defaults_and_help(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_notebooks.main(["00", "--list-parameters", "--notebooks", str(folder)]) == 0
    assert "k: int = 3  number of prototypes" in capsys.readouterr().out


def test_no_notebook_is_no_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_notebooks.main(["--notebooks", str(tmp_path)]) == 0
    assert "no notebook" in capsys.readouterr().out


# execution


def test_run_passes_parameters_and_records_time(folder: Path) -> None:
    output = folder.parent / "out"
    arguments = ["00", "-p", "kappa", "5", "--notebooks", str(folder), "--output-dir", str(output)]
    assert run_notebooks.main(arguments) == 0
    cells = nbformat.read(output / "00_good.ipynb", as_version=4).cells
    assert cells[-1].outputs[0].text == "one\ntwo\nnotebooks 1\n"
    assert cells[-1].outputs[1].data["text/plain"] == "(3, 5.0, 'pmms', None)"
    record = json.loads((output / "status.json").read_text("utf-8"))["00_good"]
    assert (record["status"], record["error"]) == ("ok", None)
    assert record["parameters"] == {"kappa": 5.0}
    assert 0 < record["seconds"] < 120
    assert {"processor", "cores"} <= set(record["machine"])
    assert {"python", "torch"} <= set(record["versions"])


@pytest.mark.parametrize("given", [[], ["-p", "kappa", "5"]])
def test_a_run_with_other_parameters_leaves_the_book_s_figures_alone(
    folder: Path, given: list[str]
) -> None:
    output = folder.parent / "out"
    asks = new_code_cell("import os\nprint(os.environ.get('PMMS_FIGURES'))")
    notebook = nbformat.read(folder / "00_good.ipynb", as_version=4)
    notebook.cells.append(asks)
    nbformat.write(notebook, folder / "00_good.ipynb")
    arguments = ["00", *given, "--notebooks", str(folder), "--output-dir", str(output)]
    assert run_notebooks.main(arguments) == 0
    said = nbformat.read(output / "00_good.ipynb", as_version=4).cells[-1].outputs[0].text.strip()
    assert said == (str(output / "figures") if given else "None")


def test_a_failure_is_kept_reported_and_does_not_stop_the_rest(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "01_bad.ipynb").rename(folder / "00_bad.ipynb")  # runs before the good one
    output = folder.parent / "out"
    assert run_notebooks.main(["--notebooks", str(folder), "--output-dir", str(output)]) == 1
    record = json.loads((output / "status.json").read_text("utf-8"))
    assert record["00_bad"]["status"] == "failed"
    assert "ValueError: asked for" in record["00_bad"]["error"]
    assert record["00_good"]["status"] == "ok"
    assert "before" in (output / "00_bad.ipynb").read_text("utf-8")
    assert "as far as it came" in capsys.readouterr().err


def test_in_place_runs_repeat_to_the_byte_and_keep_what_fails_out(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = tmp_path / "status.json"
    record.write_text('{"00_gone": {}}', "utf-8")
    monkeypatch.setattr(run_notebooks, "RECORD", record)
    monkeypatch.setattr(run_notebooks, "ROOT", tmp_path)
    good, bad = folder / "00_good.ipynb", folder / "01_bad.ipynb"
    before = bad.read_bytes()
    arguments = ["--in-place", "--notebooks", str(folder)]
    assert run_notebooks.main(arguments) == 1
    first = good.read_bytes()
    assert b'"execution_count": 2' in first
    assert clean_notebooks.main(["--check", str(good)]) == 0
    assert bad.read_bytes() == before
    assert (tmp_path / "build" / "failed" / "01_bad.ipynb").exists()
    assert run_notebooks.main([*arguments, "00"]) == 0
    assert good.read_bytes() == first
    assert set(json.loads(record.read_text("utf-8"))) == {"00_good"}


def test_in_place_takes_no_parameters() -> None:
    with pytest.raises(SystemExit):
        run_notebooks.main(["--in-place", "-p", "k", "3"])


# cleaning


def test_cleaning_drops_what_varies_and_keeps_the_rest(tmp_path: Path) -> None:
    cell = new_code_cell(
        "work()",
        id="stays",
        execution_count=4,
        metadata={
            "tags": [],
            "papermill": {"duration": 1.5},
            "execution": {"iopub.execute_input": "now"},
            "collapsed": False,
            "mystnb": {"image": {"alt": "a red car"}},
        },
        outputs=[
            new_output("stream", name="stdout", text="a"),
            new_output("stream", name="stdout", text="b\n"),
            new_output("stream", name="stderr", text="c"),
            new_output(
                "display_data", data={"text/plain": "d"}, metadata={"image/png": {"alt": "x"}}
            ),
        ],
    )
    path = _write(tmp_path / "a.ipynb", cell)
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata |= {"papermill": {}, "widgets": {}, "language_info": {"name": "python"}}
    nbformat.write(notebook, path)

    assert clean_notebooks.main(["--check", str(path)]) == 1
    assert clean_notebooks.main([str(path)]) == 1
    assert clean_notebooks.main([str(path)]) == 0

    cleaned = nbformat.read(path, as_version=4)
    assert cleaned.metadata == {"kernelspec": clean_notebooks.KERNEL}
    (cell,) = cleaned.cells
    assert (cell.id, cell.execution_count) == ("stays", 4)
    assert cell.metadata == {"mystnb": {"image": {"alt": "a red car"}}}
    assert [o.get("text") for o in cell.outputs] == ["ab\n", "c", None]
    assert cell.outputs[2].metadata == {"image/png": {"alt": "x"}}


# gathering


def test_gathered_links_alt_texts_and_record(tmp_path: Path) -> None:
    picture = new_output(
        "display_data", data={"image/png": "aGVsbG8="}, metadata={"image/png": {"alt": "a wheel"}}
    )
    notebooks = tmp_path / "notebooks"
    _write(
        notebooks / "00_a.ipynb",
        new_markdown_cell(
            "# A\n\n[n](../book/notation.md) [b](01_b.ipynb) [`c`](../pmms/mixture.py)"
        ),
        new_code_cell("'[n](../book/notation.md)'", outputs=[picture]),
    )
    (notebooks / "status.json").write_text("{}", "utf-8")
    source = tmp_path / "source"
    build_book.gather(source, notebooks=notebooks)
    build_book.gather(source, notebooks=notebooks)  # over a gathered folder as well

    cells = nbformat.read(source / "notebooks" / "00_a.ipynb", as_version=4).cells
    assert cells[0].source.startswith("# A\n\n[n](../notation.md) [b](01_b.ipynb) ")
    assert "(../pmms/" not in cells[0].source  # code is no page: its text, or a link to it
    assert cells[1].source == "'[n](../book/notation.md)'"
    of_hello = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    assert json.loads((source / "alt_texts.json").read_text("utf-8")) == {of_hello: "a wheel"}
    assert (source / "status.json").read_text("utf-8") == "{}"
    assert (source / "_static" / "mathjax" / "tex-svg-full.js").stat().st_size > 1_000_000
    assert not (source / "tools").exists()


def test_kernels_started_at_once_have_sockets_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    managers = [run_notebooks.FileKernelManager() for _ in range(2)]
    files = [Path(manager.connection_file) for manager in managers]
    assert len(set(files)) == 2
    # The sockets lie beside the connection file, not in the kernel's working folder.
    assert [m.ip for m in managers] == [f"{file.with_suffix('')}-ipc" for file in files]
