"""Make one run record: execute notebook 09 with the parameters of one run of a grid.

python workflow/run_record.py NAME                     a run of the book's tables, profile mini
python workflow/run_record.py --list                   the names of all of them
python workflow/run_record.py NAME --grid mine.json    a run of a grid of your own

The record appears in the results folder when the notebook has run to its end and what it wrote has
been checked, and not before. A record that is there is left as it is. A run that was stopped, in
whatever way, goes on from its last checkpoint when it is started again, with the same result. A run
that fails leaves the notebook as far as it came, and a record that says why in results/failed/; the
exit code is then 1. A wrong name or setting is refused with exit code 2.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "book" / "tools"), str(ROOT / "workflow")]

import torch  # noqa: E402
from filelock import FileLock, Timeout  # noqa: E402

import pmms  # noqa: E402, F401  (before torchvision)
import run_notebooks  # noqa: E402
import sweep  # noqa: E402
from pmms.config import RunConfig, run_config  # noqa: E402
from pmms.files import check_writable, write_atomically  # noqa: E402
from pmms.results import RunRecord, environment, load_record  # noqa: E402

NOTEBOOK = ROOT / "notebooks" / "09_full_training.ipynb"
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True, kw_only=True)
class Places:
    """Folders of a run, and where it computes."""

    results: Path
    runs: Path
    output: Path
    cache: Path
    models: Path | None = None
    device: str = "cpu"
    devices: int = 1
    threads: int = 1
    workers: int = 0


def make_record(profile: str, parameters: dict[str, Any], places: Places) -> bool:
    """Execute a run unless its record is there; whether there is one in the end."""
    config = run_config(profile, **parameters)
    path = places.results / f"{config.name}.json"
    places.output.mkdir(parents=True, exist_ok=True)
    with FileLock(places.output / f".{config.name}.lock"):
        if path.is_file():
            _check_finished(path, config)
            print(f"{path} exists; nothing to do")
            return True
        check_writable(places.results)  # before hours of work, not after them
        notebook = places.output / f"{config.name}.ipynb"
        staged = places.output / path.name
        staged.unlink(missing_ok=True)
        with own_gpus(places), run_notebooks.kernel_environment(_threads(places.threads)):
            seconds, error = run_notebooks.execute(
                NOTEBOOK, notebook, notebook_parameters(config, places), timeout=None
            )
        error = error or _fault(staged, config)
        failed = places.results / "failed" / path.name
        if error:
            _failed_record(config, seconds, error, places).save(failed.parent)
            print(f"failed after {seconds:.0f} s: {error}\nnotebook: {notebook}", file=sys.stderr)
            return False
        write_atomically(path, staged.read_bytes())
        staged.unlink()
        failed.unlink(missing_ok=True)
        print(f"{path} written after {seconds:.0f} s; notebook: {notebook}")
    return True


def notebook_parameters(config: RunConfig, places: Places) -> dict[str, Any]:
    """What the notebook gets: every setting of the run by name, and its folders."""
    flat = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in config.flat().items()
    }
    return {
        "profile": flat.pop("profile"),
        "other": flat,
        "results": str(places.output.resolve()),
        "runs": str(places.runs.resolve()),
        "cache": str(places.cache.resolve()),
        "pictures": str(places.output.resolve() / "figures" / config.name),
        "models": None if places.models is None else str(places.models.resolve()),
        "device": places.device,
        "devices": places.devices,
        "threads": places.threads,
        "workers": places.workers,
    }


@contextmanager
def own_gpus(places: Places) -> Iterator[None]:
    """Let the run see as many GPUs as it asks for, which no other run of this folder has meanwhile.

    A scheduler that hands out GPUs sets CUDA_VISIBLE_DEVICES itself; then nothing is done.

    Raises:
        ValueError: there are fewer.
    """
    count = torch.cuda.device_count() if places.device == "cuda" else 0
    if count and count < places.devices:
        raise ValueError(f"devices must be at most {count}, the GPUs here; got {places.devices}")
    if count <= places.devices or "CUDA_VISIBLE_DEVICES" in os.environ:
        yield
        return
    locks = _free_gpus(places.output, count, places.devices)
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, locks))
    try:
        yield
    finally:
        del os.environ["CUDA_VISIBLE_DEVICES"]
        for lock in locks.values():
            lock.release()


def _free_gpus(folder: Path, count: int, wanted: int) -> dict[int, FileLock]:
    """Locks on the first GPUs that no other process has; waits until there are enough."""
    while True:
        held: dict[int, FileLock] = {}
        for index in range(count):
            lock = FileLock(folder / f".gpu{index}.lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            held[index] = lock
            if len(held) == wanted:
                return held
        for lock in held.values():  # so that two runs with half of what they need do not block
            lock.release()
        time.sleep(1)


def _check_finished(path: Path, config: RunConfig) -> None:
    """Refuse a file that is no record, or that of another run or of a failed one."""
    record = load_record(path)
    if (record.name, record.status) != (config.name, "complete"):
        raise ValueError(f"{path} holds {record.name}, {record.status}; move or delete it")


def _fault(staged: Path, config: RunConfig) -> str | None:
    """What is wrong with the record that the notebook wrote, or None."""
    try:
        record = load_record(staged)
    except (FileNotFoundError, ValueError) as error:
        return f"the notebook ended without a record: {error}"
    if record.name != config.name:
        return f"the notebook wrote the record of another run: {record.name}"
    if record.status != "complete":
        return f"the record is not complete: {record.status}"
    return None


def _failed_record(config: RunConfig, seconds: float, error: str, places: Places) -> RunRecord:
    return RunRecord(
        name=config.name,
        parameters=config.portable(),
        protocol=config.protocol.record(),
        scores={},
        seconds={"until_failure": seconds},
        environment=environment(places.device),
        status=f"failed: {error}",
    )


def _threads(count: int) -> dict[str, str]:
    return dict.fromkeys(THREADS, str(count))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="of the record")
    parser.add_argument("--list", action="store_true", help="print all names and leave")
    parser.add_argument("--profile", default="mini", help="mini or paper (%(default)s)")
    parser.add_argument("--grid", default="", metavar="FILE", help="JSON list of parameters")
    parser.add_argument("--protocol", default="", help="of the paper profile (the grid's own)")
    folders = {
        "--results": ("results", "for the record"),
        "--runs": ("runs", "for checkpoints and logs"),
        "--output": ("build/runs", "for the executed notebook"),
        "--cache": (".cache/pmms", "for kept features"),
        "--data": ("data", "that holds pascal/ and coco/"),
    }
    for option, (folder, what) in folders.items():
        parser.add_argument(
            option, type=Path, default=ROOT / folder, help=f"folder {what} ({folder})"
        )
    parser.add_argument("--models", type=Path, help="folder for weights and model card; none")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (%(default)s)")
    parser.add_argument("--devices", type=int, default=1, help="that train one run (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU (%(default)s)")
    parser.add_argument("--workers", type=int, default=0, help="that load images (%(default)s)")
    options = parser.parse_args(arguments)
    if not options.list and options.name is None:
        parser.error("which record? --list prints the names")
    try:
        names = [] if options.list else [options.name]
        found = sweep.runs(
            options.profile,
            names=names,
            file=options.grid,
            protocol=options.protocol,
            root=options.data,
        )
        if options.list:
            print("\n".join(found))
            return 0
        places = Places(**{field.name: getattr(options, field.name) for field in fields(Places)})
        return 0 if make_record(options.profile, found[options.name], places) else 1
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
