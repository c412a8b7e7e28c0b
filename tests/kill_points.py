"""SIGKILL at random moments, and what the next start makes of what is left.

    python tests/kill_points.py                    30 moments of each work, and a record of each
    python tests/kill_points.py sweep              of one work
    python tests/kill_points.py --moments 3 sweep  fewer moments, without a record

training     40 steps with a checkpoint after each
evaluation   a run whose training is finished: its test and its record
preparation  Pascal VOC and SBD, small archives in the true layout, over HTTP
sweep        three runs of chapter 09 under Snakemake

A work is started in a folder, killed, and started again there; it is let go on to its end after
every third kill, and compared with one that was never killed. Each time what is left is read as a
reader would read it. The first difference, unreadable file or temporary file ends this script.
"""

import argparse
import multiprocessing
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), *(str(ROOT / f) for f in ("tests", "workflow", "book/tools"))]
os.environ |= {"TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1", "no_proxy": "127.0.0.1"}

import tiny_archives  # noqa: E402
import torch  # noqa: E402
from fakes import with_tiny_backbone  # noqa: E402
from faulty_server import Faults, serving  # noqa: E402
from test_archives import tree  # noqa: E402
from test_workflow import RUNS, Sweep  # noqa: E402
from tqdm.auto import tqdm  # noqa: E402

import pmms  # noqa: E402  (before torchvision)
from pmms import experiment  # noqa: E402
from pmms.results import RunRecord, environment, load_record, peak_memory_mb  # noqa: E402
from pmms.run_state import CHECKPOINT, load_checkpoint  # noqa: E402
from pmms.tables import fill_files  # noqa: E402
from pmms.trust_tables import KILL_POINTS, KILLED  # noqa: E402

MOMENTS = 30
TO_THE_END = 3  # every third start after a kill is not killed
SETTINGS: dict[str, Any] = {
    "model": "baseline", "backbone": "tiny", "width": 8, "aspp_rates": (1, 2, 3),
    "train_images": 24, "test_images": 50, "extra_classes": 5, "train_size": 64, "test_size": 64,
    "iterations": 40, "checkpoint_every": 1, "batch_size": 2, "episodes": 300,
    "episode_seeds": (0, 1),
}  # fmt: skip


@dataclass(frozen=True)
class Work:
    """What is killed.

    Attributes:
        start: begins it in a folder, in a process group of its own; gives the group's number.
        stage: how far it came, by what is left in the folder; reads all of it that others may.
        result: what must be the same in the end.
        ready: makes a folder to start in.
    """

    start: Callable[[Path], int]
    stage: Callable[[Path], str]
    result: Callable[[Path], Any]
    ready: Callable[[Path], object] = lambda folder: folder.mkdir()


def forked(work: Callable[[Path], object]) -> Callable[[Path], int]:
    """A start of ``work`` in a forked process, which needs no second import of everything."""

    def start(folder: Path) -> int:
        sys.stdout.flush()
        child = os.fork()
        if child:
            return child
        os.setpgrp()
        torch.set_num_threads(1)
        # A lock of its own: tqdm's is shared with children, and one killed while it draws keeps it.
        tqdm.set_lock(threading.RLock())
        code = 1
        try:
            work(folder)
            code = 0
        finally:
            os._exit(code)

    return start


def same(path: Path) -> dict[str, Any]:
    """A record without times, memory and machine."""
    record = load_record(path)
    return asdict(replace(record, seconds={}, peak_memory_mb=0.0, environment={}))


@contextmanager
def training(folder: Path) -> Iterator[Work]:
    config = pmms.run_config(**SETTINGS)
    data = experiment.load_data(config.data)
    model = experiment.new_model(config)
    images = experiment.prepare_images(config, data, model.backbone)

    def work(place: Path) -> None:
        experiment.train_model(
            config, experiment.new_model(config), data, images, folder=place / "run"
        )

    def checkpoint(place: Path) -> dict[str, Any] | None:
        path = place / "run" / CHECKPOINT
        return load_checkpoint(path) if path.is_file() else None

    def stage(place: Path) -> str:
        saved = checkpoint(place)
        return "no checkpoint" if saved is None else f"{saved['step'] // 10 * 10} steps or more"

    def result(place: Path) -> Any:
        saved = checkpoint(place)
        assert saved is not None
        weights = {name: value.numpy().tobytes() for name, value in saved["model"].items()}
        return weights, saved["history"], (place / "run" / "loss.csv").read_bytes()

    yield Work(forked(work), stage, result)


@contextmanager
def evaluation(folder: Path) -> Iterator[Work]:
    config = pmms.run_config(**SETTINGS)
    trained = folder / "trained"
    experiment.run(config, results=None, runs=trained, cache=folder / "cache")

    def work(place: Path) -> None:
        experiment.run(
            config, results=place / "results", runs=place / "runs", cache=folder / "cache"
        )

    def record(place: Path) -> Path:
        return place / "results" / f"{config.name}.json"

    def stage(place: Path) -> str:
        if not record(place).is_file():
            return "no record"
        load_record(record(place))
        return "record"

    def ready(place: Path) -> None:
        shutil.copytree(trained, place / "runs")

    yield Work(forked(work), stage, lambda place: same(record(place)), ready)


@contextmanager
def preparation(folder: Path) -> Iterator[Work]:
    served = folder / "served"
    sources = tiny_archives.write_pascal(served)
    with serving(served, Faults(slow=0.01)) as url:

        def work(place: Path) -> None:
            tiny_archives.run_pascal(sources, place / "data", url, place / "said")

        def stage(place: Path) -> str:
            names = {path.name for path in (place / "data").glob("*")}
            if "VOCdevkit" in names:
                assert result(place) == whole, "a tree in its place that is not whole"
                return "tree in its place"
            return "unpacking" if ".preparing" in names else "loading" if names else "nothing"

        def result(place: Path) -> dict[str, bytes]:
            return {
                name: content
                for name, content in tree(place / "data" / "VOCdevkit").items()
                if not name.endswith(".npz")  # holds times
            }

        (folder / "first").mkdir()
        work(folder / "first")
        whole = result(folder / "first")
        yield Work(forked(work), stage, result)


@contextmanager
def sweep(folder: Path) -> Iterator[Work]:
    cache = folder / "cache"
    configs = [pmms.run_config(**parameters) for parameters in RUNS]
    for config in configs:  # so that a start is not mostly features
        data = experiment.load_data(config.data)
        model = experiment.new_model(config)
        experiment.prepare_images(config, data, model.backbone, cache=cache)

    def start(place: Path) -> int:
        command = Sweep(place, cache, RUNS).command("--cores", "1")
        with (place / "log").open("a") as log:
            process = subprocess.Popen(
                [sys.executable, *command], cwd=ROOT, stdout=log, stderr=log, start_new_session=True
            )
        return process.pid

    def result(place: Path) -> dict[str, Any]:
        return {path.stem: same(path) for path in (place / "results").glob("*.json")}

    def stage(place: Path) -> str:
        return f"{len(result(place))} of {len(RUNS)} records"

    yield Work(start, stage, result)


WORKS = {w.__name__: w for w in (training, evaluation, preparation, sweep)}
assert tuple(WORKS) == KILLED


def ended(group: int, *, within: float | None) -> bool:
    """Wait for the first process of a group; False if it takes longer than ``within`` seconds.

    Raises:
        AssertionError: it failed.
    """
    give_up = time.monotonic() + (1e9 if within is None else within)
    while True:
        pid, status = os.waitpid(group, os.WNOHANG)
        if pid:
            assert os.waitstatus_to_exitcode(status) == 0, f"exit status {status}"
            return True
        if time.monotonic() >= give_up:
            return False
        time.sleep(0.002)


def kill(group: int) -> None:
    os.killpg(group, signal.SIGKILL)
    os.waitpid(group, 0)


def temporary_files(place: Path) -> list[str]:
    """Files that a writer had not renamed yet, and folders that nobody cleared away."""
    passing = (f".*.{platform.node()}-*-*", "*.part", "*.part.json", ".preparing")
    found = {path for pattern in passing for path in place.rglob(pattern)}
    return sorted(str(path.relative_to(place)) for path in found)


def survives(name: str, *, moments: int, folder: Path) -> dict[str, Any]:
    """Kill a work at so many moments; what was seen.

    Raises:
        AssertionError: something was lost, differs, or is left over.
    """
    rng = random.Random(name)
    folder.mkdir()
    with WORKS[name](folder) as work:
        places = (folder / f"place{n}" for n in range(10**6))
        place = next(places)
        work.ready(place)
        began = time.monotonic()
        assert ended(work.start(place), within=None)
        duration = time.monotonic() - began
        expected = work.result(place)
        stages: Counter[str] = Counter()
        kills = ends = since = 0
        seconds: list[float] = []
        fresh = True
        while kills < moments or since:
            if fresh:
                place = next(places)
                work.ready(place)
            group = work.start(place)
            moment = (kills % 10 + rng.random()) / 10 * duration
            last = since == TO_THE_END or kills == moments
            fresh = ended(group, within=None if last else moment)
            if fresh:
                assert work.result(place) == expected, f"{name}: the result differs in {place}"
                left = temporary_files(place)
                assert not left, f"{name}: left over in {place}: {left}"
                shutil.rmtree(place)
                ends, since = ends + 1, 0
                continue
            kill(group)
            kills, since = kills + 1, since + 1
            seconds.append(moment)
            stages[work.stage(place)] += 1
            print(f"{name}: killed {kills} of {moments}, after {moment:.2f} s", flush=True)
    return {
        "kills": kills, "ends": ends, "seconds": duration, "first": min(seconds),
        "last": max(seconds), "left": dict(sorted(stages.items())),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("works", nargs="*", metavar="WORK", help=f"of {', '.join(WORKS)}; all")
    parser.add_argument("--moments", type=int, default=MOMENTS, help="of each (%(default)s)")
    options = parser.parse_args()
    if unknown := set(options.works) - set(WORKS):
        parser.error(f"no work {', '.join(sorted(unknown))}; there are {', '.join(WORKS)}")
    if "fork" not in multiprocessing.get_all_start_methods():
        parser.error("needs a system that can fork processes")
    with with_tiny_backbone(), tempfile.TemporaryDirectory() as folder:
        for name in options.works or WORKS:
            began = time.monotonic()
            seen = survives(name, moments=options.moments, folder=Path(folder) / name)
            print(f"{name}: {seen}")
            if options.moments == MOMENTS:
                record = RunRecord(
                    name=KILL_POINTS.format(name),
                    parameters={"work": name, "moments": MOMENTS},
                    protocol={"name": "kill points"},
                    scores=seen,
                    seconds={"kill points": time.monotonic() - began},
                    peak_memory_mb=peak_memory_mb(),
                    environment=environment("cpu"),
                )
                print(record.save(ROOT / "results"))
    if options.moments == MOMENTS:
        fill_files(ROOT / "results", [ROOT / "book" / "trust.md"])


if __name__ == "__main__":
    main()
