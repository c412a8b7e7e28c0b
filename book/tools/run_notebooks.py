"""Execute the notebooks without a screen, by papermill, and record how long each took.

python book/tools/run_notebooks.py                          all of them, into build/notebooks/
python book/tools/run_notebooks.py 09 -p fold 2 -p k 5      one of them, with other parameters
python book/tools/run_notebooks.py 09 --list-parameters     what can be set, with types and defaults
python book/tools/run_notebooks.py --in-place               write outputs, cleaned, into notebooks/

A notebook runs with notebooks/ as its working directory, wherever its copy is written. The record
of a run, status.json beside the executed notebooks (book/status.json for --in-place), fills the
status page of the book. A failed notebook is kept as far as it came: in the output folder, or in
build/failed/ for --in-place, which never replaces a good notebook by a failed one.
"""

import argparse
import json
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import papermill
from jupyter_client.manager import AsyncKernelManager
from jupyter_core.paths import jupyter_runtime_dir
from papermill.exceptions import PapermillExecutionError
from traitlets import default

import environment_record
from clean_notebooks import NOTEBOOKS, ROOT, cleaned_text
from parameter_types import cast

RECORD = ROOT / "book" / "status.json"
CELL_TIMEOUT = 1800  # seconds


class FileKernelManager(AsyncKernelManager):
    """Talks to its kernel over socket files, not TCP ports.

    Free ports are found first and bound later; kernels started at the same time take them from each
    other (papermill issue 511). So do socket files of one name: each kernel has its own.
    """

    @default("connection_file")
    def _connection_file(self) -> str:
        return str(Path(jupyter_runtime_dir()) / f"k{secrets.token_hex(4)}.json")

    @default("transport")
    def _transport(self) -> str:
        return "tcp" if sys.platform == "win32" else "ipc"


def select(names: Sequence[str], folder: Path = NOTEBOOKS) -> list[Path]:
    """The notebooks that `names` name: by path, file name, stem or the start of a stem.

    No name means all, in reading order. Raises ValueError for a name that fits no notebook, or fits
    several, with the list of those there are.
    """
    present = sorted(folder.glob("*.ipynb"))
    if not names:
        return present
    chosen = []
    for name in names:
        stem = Path(name).name.removesuffix(".ipynb")
        fits = [p for p in present if p.stem == stem] or [
            p for p in present if p.stem.startswith(stem)
        ]
        if len(fits) != 1:
            known = ", ".join(p.stem for p in fits or present) or "none"
            kind = "several notebooks fit" if fits else "no notebook fits"
            raise ValueError(f"{kind} {name!r}; choose one of: {known}")
        chosen.append(fits[0])
    return chosen


def parameters_of(path: Path) -> dict[str, dict[str, Any]]:
    """Name -> type, default and help of each parameter, as papermill reads them."""
    return papermill.inspect_notebook(str(path))


def checked_parameters(path: Path, given: Mapping[str, str]) -> dict[str, Any]:
    """The given texts as values of the types that the notebook declares.

    Raises ValueError for a name that the notebook does not have (papermill itself would only warn
    and run without it), with the list of valid ones, and for a text that is no value of the type.
    """
    declared = parameters_of(path)
    unknown = sorted(set(given) - set(declared))
    if unknown:
        raise ValueError(
            f"{path.stem} has no parameter {', '.join(map(repr, unknown))}; "
            f"valid are: {', '.join(declared) or 'none'}"
        )
    values = {}
    for name, text in given.items():
        try:
            values[name] = cast(text, declared[name]["inferred_type_name"])
        except ValueError as error:
            raise ValueError(f"{path.stem}: parameter {name!r}: {error}") from None
    return values


def execute(
    path: Path, output: Path, parameters: Mapping[str, Any], *, timeout: int | None = CELL_TIMEOUT
) -> tuple[float, str | None]:
    """Execute `path` into `output`; seconds taken, and what went wrong (None if nothing did).

    `timeout` of one cell in seconds; None: none.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    error = None
    try:
        papermill.execute_notebook(
            str(path),
            str(output),
            parameters=dict(parameters),
            cwd=str(path.parent),
            progress_bar=sys.stderr.isatty(),
            execution_timeout=timeout,
            kernel_manager_class=FileKernelManager,
            coalesce_streams=True,
        )
    except PapermillExecutionError as failure:
        error = f"cell {failure.exec_count}: {failure.ename}: {failure.evalue}"
    except (TimeoutError, RuntimeError) as failure:  # a cell ran too long, or its kernel died
        error = f"{type(failure).__name__}: {failure}".strip().splitlines()[0]
    return time.perf_counter() - start, error


def run(
    notebooks: Sequence[Path],
    given: Mapping[str, str],
    *,
    output_dir: Path,
    in_place: bool = False,
    record_path: Path,
    timeout: int = CELL_TIMEOUT,
) -> bool:
    """Execute the notebooks one after the other; True if all of them ran to their ends.

    Parameters are checked for every notebook before the first one starts. A failure does not stop
    the notebooks after it.
    """
    parameters = {path: checked_parameters(path, given) for path in notebooks}
    record = json.loads(record_path.read_text(encoding="utf-8")) if record_path.exists() else {}
    present = {path.stem for folder in {p.parent for p in notebooks} for path in folder.iterdir()}
    record = {name: entry for name, entry in record.items() if name in present}
    where = environment_record.collect()
    width = max((len(path.stem) for path in notebooks), default=0)
    failed = []
    for number, path in enumerate(notebooks, 1):
        print(f"[{number}/{len(notebooks)}] {path.stem:<{width}}  ", end="", flush=True)
        output = output_dir / path.name
        seconds, error = execute(path, output, parameters[path], timeout=timeout)
        print(f"{seconds:7.1f} s  {'failed: ' + error if error else 'ok'}", flush=True)
        record[path.stem] = {
            "status": "failed" if error else "ok",
            "error": error,
            "seconds": round(seconds, 1),
            "date": datetime.now(UTC).date().isoformat(),
            "parameters": parameters[path],
            **where,
        }
        if error:
            failed.append(output)
        elif in_place:
            path.write_text(cleaned_text(output), encoding="utf-8")
            output.unlink()
        if not (error and in_place):  # the record in book/ tells of the notebooks as committed
            record_path.write_text(
                json.dumps(dict(sorted(record.items())), indent=1) + "\n", encoding="utf-8"
            )
    for output in failed:
        print(f"failed notebook, as far as it came: {output}", file=sys.stderr)
    return not failed


@contextmanager
def kernel_environment(more: Mapping[str, str] = MappingProxyType({})) -> Iterator[None]:
    """Variables, `more` among them, that kernels started inside inherit."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="pmms-") as runtime:
        # Socket files need a short path: the system allows about 100 characters.
        os.environ["JUPYTER_RUNTIME_DIR"] = runtime
        os.environ["TQDM_DISABLE"] = "1"  # bars with rates would differ between runs
        os.environ.update(more)
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


def list_parameters(notebooks: Sequence[Path]) -> None:
    for path in notebooks:
        print(path.stem)
        for name, declared in parameters_of(path).items():
            kind, default_value = declared["inferred_type_name"], declared["default"]
            print(f"  {name}: {kind} = {default_value}  {declared['help']}".rstrip())


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="e.g. 09; default: all")
    parser.add_argument(
        "-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE")
    )
    parser.add_argument("--list-parameters", action="store_true", help="show them and leave")
    parser.add_argument("--output-dir", type=Path, default=ROOT / "build" / "notebooks")
    parser.add_argument("--in-place", action="store_true", help="write cleaned outputs back")
    parser.add_argument(
        "--timeout", type=int, default=CELL_TIMEOUT, help="of one cell, in seconds (%(default)s)"
    )
    parser.add_argument("--notebooks", type=Path, default=NOTEBOOKS, help="their folder")
    options = parser.parse_args(arguments)
    if options.in_place and options.parameter:
        parser.error("--in-place keeps the notebooks at their defaults: leave out -p")

    try:
        notebooks = select(options.names, options.notebooks)
        if options.list_parameters:
            list_parameters(notebooks)
            return 0
        if not notebooks:
            print(f"no notebook in {options.notebooks}")
            return 0
        given = dict(options.parameter)
        output_dir = ROOT / "build" / "failed" if options.in_place else options.output_dir
        # The book's figures are those of the notebooks as they stand.
        aside = {"PMMS_FIGURES": str(output_dir.resolve() / "figures")} if given else {}
        with kernel_environment(aside):
            good = run(
                notebooks,
                given,
                output_dir=output_dir,
                in_place=options.in_place,
                record_path=RECORD if options.in_place else output_dir / "status.json",
                timeout=options.timeout,
            )
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
