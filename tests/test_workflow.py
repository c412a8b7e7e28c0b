"""Run records by the hundred: one by papermill, many by Snakemake, killed and resumed."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import nbformat
import pytest
import torch

import pmms
import run_notebooks
import run_record
import sweep
from pmms import experiment
from pmms.results import RunRecord, load_record

ROOT = Path(__file__).resolve().parents[1]
TINY = {
    "iterations": 4, "train_images": 60, "test_images": 60, "extra_classes": 4, "episodes": 60,
    "episode_seeds": [0], "train_size": 64, "test_size": 64, "views": 1,
}  # fmt: skip
# The second shares the training of the first.
RUNS = [TINY, {**TINY, "episodes": 80}, {**TINY, "model": "baseline"}]
FAILING = {"dataset": "pascal", "root": "nowhere"}
FOLDERS = ("results", "runs", "output", "models")


def _grid(path: Path, runs: list[dict[str, Any]]) -> list[str]:
    """Write a grid file; the names of its records."""
    path.write_text(json.dumps(runs), "utf-8")
    return list(sweep.runs("mini", file=path))


def _same(record: RunRecord) -> dict[str, Any]:
    """What has to repeat: all but times, memory and the machine."""
    return asdict(replace(record, seconds={}, peak_memory_mb=0.0, environment={}))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def expected(cache: Path) -> dict[str, dict[str, Any]]:
    """The records of RUNS by name, made without notebook and scheduler."""
    configs = [pmms.run_config(**parameters) for parameters in RUNS]
    records = [experiment.run(config, results=None, cache=cache) for config in configs]
    return {record.name: _same(record) for record in records}


# the list of runs


def test_a_grid_file_names_its_runs(tmp_path: Path) -> None:
    names = _grid(tmp_path / "grid.json", RUNS)
    assert names == [pmms.run_config(**parameters).name for parameters in RUNS]
    found = sweep.runs("mini", file=tmp_path / "grid.json", names=names[1:2])
    assert found == {names[1]: RUNS[1]}


def test_folders_and_files_of_a_grid_are_found_from_the_notebook_s_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("classes.txt").write_text("a\nb\n\nc\nd\n", "utf-8")
    own = {"dataset": "coco", "root": "mine", "classes": "classes.txt", "model": "training_free"}
    Path("grid.json").write_text(json.dumps([own]), "utf-8")
    (found,) = sweep.runs("mini", file=tmp_path / "grid.json").values()
    assert (found["root"], found["classes"]) == (f"{tmp_path}/mine", f"{tmp_path}/classes.txt")


def test_runs_that_share_a_training_follow_each_other(tmp_path: Path) -> None:
    free = {**TINY, "model": "training_free"}
    runs = [*RUNS, {**TINY, "episodes": 90}, free, {**free, "episodes": 80}]
    names = _grid(tmp_path / "grid.json", runs)
    found = sweep.runs("mini", file=tmp_path / "grid.json")
    assert sweep.previous("mini", found) == {names[1]: names[0], names[3]: names[1]}
    assert list(sweep.trainings("mini", found).values()) == [names[0], names[2]]


@pytest.mark.parametrize("profile", ["mini", "paper"])
def test_the_grid_of_the_book_is_complete_and_known_by_name(profile: str) -> None:
    found = sweep.runs(profile)
    assert len(found) > 100
    for name, parameters in list(found.items())[::20]:
        config = pmms.run_config(profile, **parameters)
        assert config.name == name
        assert not config.data.root or Path(config.data.root).is_absolute()


@pytest.mark.parametrize(
    "content, message",
    [
        ("{", "is no JSON file"),
        ('{"model": "pmms"}', "must hold a list of objects"),
        ("[1]", "must hold a list of objects"),
        ('[{"modle": "pmms"}]', "modle"),
    ],
)
def test_a_wrong_grid_file_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "grid.json"
    path.write_text(content, "utf-8")
    with pytest.raises(ValueError, match=message):
        sweep.runs("mini", file=path)
    with pytest.raises(FileNotFoundError, match="no grid file"):
        sweep.runs("mini", file=tmp_path / "other.json")


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"profile": "tiny"}, "profile must be one of mini, paper"),
        ({"profile": "mini", "tables": ["table-9"]}, "table must be one of table-1"),
        ({"profile": "mini", "names": ["parts-fold0-pmms"]}, "no run named .*for example parts-"),
        ({"profile": "mini", "file": "a.json", "tables": ["table-1"]}, "leave them out"),
    ],
)
def test_unknown_profiles_tables_and_names_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sweep.runs(wrong.pop("profile"), **wrong)


def test_an_unknown_record_is_refused_with_its_own_exit_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_record.main(["parts-fold9"]) == 2
    assert "no run named 'parts-fold9'" in capsys.readouterr().err


def test_a_run_that_is_stopped_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_notebooks, "execute", stopped)
    (name,) = _grid(tmp_path / "grid.json", [TINY])
    options = [f"--{folder}={tmp_path / folder}" for folder in FOLDERS]
    assert run_record.main([name, f"--grid={tmp_path / 'grid.json'}", *options]) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


# one record, with a notebook that is replaced


@pytest.fixture
def places(tmp_path: Path) -> run_record.Places:
    folders = {name: tmp_path / name for name in (*FOLDERS, "cache")}
    return run_record.Places(**folders | {"models": None})


def _record(parameters: Mapping[str, Any], **changes: Any) -> RunRecord:
    config = pmms.run_config(**parameters)
    record = RunRecord(
        name=config.name,
        parameters=config.portable(),
        protocol=config.protocol.record(),
        scores={},
    )
    return replace(record, **changes)


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Callable[[RunRecord | None], list[dict]]:
    """Have the notebook do nothing but write a record; the parameters that it was given."""

    def use(record: RunRecord | None) -> list[dict]:
        calls: list[dict] = []

        def execute(path: Path, output: Path, parameters: dict, **_: Any) -> tuple[float, None]:
            calls.append({**parameters, "OMP": os.environ["OMP_NUM_THREADS"]})
            if record is not None:
                record.save(parameters["results"])
            return 1.0, None

        monkeypatch.setattr(run_notebooks, "execute", execute)
        return calls

    return use


def test_the_notebook_gets_every_setting_of_the_run(
    places: run_record.Places, notebook: Callable[[RunRecord | None], list[dict]]
) -> None:
    settings = {**TINY, "em_features": "raw", "k": [2, 3, 4], "model": "rpmms", "shots": 5}
    calls = notebook(_record(settings))
    assert run_record.make_record("mini", settings, places)
    (given,) = calls
    declared = run_notebooks.parameters_of(run_record.NOTEBOOK)
    assert set(given) - {"OMP"} <= set(declared)
    config = pmms.run_config(given["profile"], **given["other"])
    assert config == pmms.run_config(**settings)
    assert (given["threads"], given["OMP"], given["models"]) == (1, "1", None)
    assert Path(given["pictures"]).parent.parent == places.output.resolve()


def test_a_record_that_exists_is_left_alone(
    places: run_record.Places,
    notebook: Callable[[RunRecord | None], list[dict]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = _record(TINY).save(places.results)
    before = path.stat().st_mtime_ns, path.read_bytes()
    calls = notebook(_record(TINY))
    assert run_record.make_record("mini", TINY, places)
    assert "nothing to do" in capsys.readouterr().out
    assert calls == []
    assert (path.stat().st_mtime_ns, path.read_bytes()) == before


@pytest.mark.parametrize("changes", [{"status": "failed: asked for"}, {"name": "other"}])
def test_what_is_no_finished_record_of_the_run_does_not_pass_for_one(
    places: run_record.Places,
    notebook: Callable[[RunRecord | None], list[dict]],
    changes: dict[str, str],
) -> None:
    path = _record(TINY, **changes).save(places.results)
    path.rename(places.results / f"{_record(TINY).name}.json")
    notebook(_record(TINY))
    with pytest.raises(ValueError, match=r"holds .*; move or delete it"):
        run_record.make_record("mini", TINY, places)


@pytest.mark.parametrize(
    "written, fault",
    [
        (None, "ended without a record"),
        (_record({**TINY, "seed": 1}), "ended without a record"),
        (_record(TINY, status="failed: asked for"), "not complete: failed: asked for"),
    ],
)
def test_what_the_notebook_wrote_is_checked(
    places: run_record.Places,
    notebook: Callable[[RunRecord | None], list[dict]],
    capsys: pytest.CaptureFixture[str],
    written: RunRecord | None,
    fault: str,
) -> None:
    name = _record(TINY).name
    notebook(written)
    assert not run_record.make_record("mini", TINY, places)
    assert fault in capsys.readouterr().err
    assert not (places.results / f"{name}.json").exists()
    failed = places.results / "failed" / f"{name}.json"
    assert fault in load_record(failed).status
    assert pmms.load_records(places.results) == []

    notebook(_record(TINY))  # and when it succeeds in the end
    assert run_record.make_record("mini", TINY, places)
    assert not failed.exists()
    assert load_record(places.results / f"{name}.json").status == "complete"


def test_a_record_of_another_run_is_refused(
    places: run_record.Places, notebook: Callable[[RunRecord | None], list[dict]]
) -> None:
    record = _record({**TINY, "seed": 1})
    renamed = places.output / f"{_record(TINY).name}.json"
    notebook(record)

    def fault() -> str | None:
        return run_record._fault(renamed, pmms.run_config(**TINY))

    record.save(places.output).rename(renamed)
    assert "the record of another run" in fault()


def test_runs_at_once_take_different_gpus(
    places: run_record.Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    places.output.mkdir()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    on_gpu = replace(places, device="cuda")
    locks = run_record._free_gpus(places.output, 3, 1)
    assert list(locks) == [0]
    with run_record.own_gpus(on_gpu):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"
    with run_record.own_gpus(replace(on_gpu, devices=2)):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "1,2"
    locks[0].release()
    with run_record.own_gpus(on_gpu):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"
    with run_record.own_gpus(replace(on_gpu, devices=3)):  # all: nothing to choose
        assert "CUDA_VISIBLE_DEVICES" not in os.environ
    with (
        pytest.raises(ValueError, match="at most 3"),
        run_record.own_gpus(replace(on_gpu, devices=4)),
    ):
        pass
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")  # as a scheduler does
    with run_record.own_gpus(on_gpu):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "5"


# one record, in earnest


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_that_fails_says_why_and_leaves_its_notebook(tmp_path: Path, cache: Path) -> None:
    (name,) = _grid(tmp_path / "grid.json", [FAILING])
    options = [f"--{folder}={tmp_path / folder}" for folder in FOLDERS]
    done = _python(
        "workflow/run_record.py", name, f"--grid={tmp_path / 'grid.json'}", f"--cache={cache}",
        *options,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout
    assert "FileNotFoundError" in done.stdout
    record = load_record(tmp_path / "results" / "failed" / f"{name}.json")
    assert record.status.startswith("failed: cell 5: FileNotFoundError: the folder")
    assert record.parameters["dataset"] == "pascal"
    cells = nbformat.read(tmp_path / "output" / f"{name}.ipynb", as_version=4).cells
    errors = [o for c in cells if c.cell_type == "code" for o in c.outputs if "ename" in o]
    assert [error.ename for error in errors] == ["FileNotFoundError"]
    assert not (tmp_path / "results" / f"{name}.json").exists()


# a sweep


def _python(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, text=True, timeout=600, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options,
    )  # fmt: skip


class Sweep:
    """Runs in a folder of their own, under Snakemake."""

    def __init__(self, folder: Path, cache: Path, runs: list[dict[str, Any]]) -> None:
        self.folder = folder
        self.names = _grid(folder / "grid.json", runs)
        settings = {name: folder / name for name in FOLDERS}
        settings |= {"cache": cache, "grid": folder / "grid.json"}
        self.settings = [f"{name}={value}" for name, value in settings.items()]

    def command(
        self, *options: str, profile: str = "local", more: tuple[str, ...] = ()
    ) -> list[str]:
        # Its own notes, in .snakemake, belong to this sweep alone.
        return [
            "-m", "snakemake", "-s", str(ROOT / "workflow" / "Snakefile"),
            "--workflow-profile", str(ROOT / "workflow" / "profiles" / profile),
            "--directory", str(self.folder), *options, "--config", *self.settings, *more,
        ]  # fmt: skip

    def records(self) -> dict[str, Path]:
        return {path.stem: path for path in (self.folder / "results").glob("*.json")}

    def start_and_kill(self, *, after: float) -> None:
        """Kill the sweep and all its children, some seconds after the first record appeared."""
        command = [sys.executable, *self.command("--cores", "1")]
        with (self.folder / "first.log").open("w") as log:
            process = subprocess.Popen(
                command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True
            )
            try:
                give_up = time.monotonic() + 400
                while not self.records() and time.monotonic() < give_up:
                    assert process.poll() is None, (self.folder / "first.log").read_text()
                    time.sleep(0.1)
                time.sleep(after)
            finally:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, cache: Path, expected: Any) -> Sweep:
    """A sweep that was killed in the middle; the features are there from `expected`."""
    sweep = Sweep(tmp_path_factory.mktemp("sweep"), cache, RUNS)
    moment = random.uniform(0, 10)
    print(f"killed {moment:.2f} s after the first record")
    sweep.start_and_kill(after=moment)
    return sweep


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_sweep_goes_on_and_repeats_nothing(
    killed: Sweep, expected: dict[str, dict[str, Any]]
) -> None:
    finished = {n: (p.stat().st_mtime_ns, p.read_bytes()) for n, p in killed.records().items()}
    assert 1 <= len(finished) < len(RUNS)
    done = _python(*killed.command("--cores", "1"))
    assert done.returncode == 0, done.stdout
    found = killed.records()
    assert {n: (found[n].stat().st_mtime_ns, found[n].read_bytes()) for n in finished} == finished
    # Notebook and scheduler change no bit of what a run gives, nor does the kill.
    assert {name: _same(load_record(path)) for name, path in found.items()} == expected
    assert not (killed.folder / "results" / "failed").exists()
    # The second run found the weights of the first.
    trainings = {path.name for path in (killed.folder / "runs").iterdir() if path.is_dir()}
    assert len(trainings) == 2

    done = _python(*killed.command("--cores", "1", "--dry-run"))
    assert "Nothing to be done" in done.stdout

    # Dates decide nothing, and another setting is one more run.
    for age, path in enumerate(found.values()):
        os.utime(path, (1e9 - age, 1e9 - age))
    more = Sweep(killed.folder, Path("unused"), [*RUNS, {**TINY, "kappa": 10.0}])
    done = _python(*more.command("--cores", "1", "--dry-run"))
    assert more.names[-1] in done.stdout
    assert len([line for line in done.stdout.splitlines() if "    output: " in line]) == 1


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_record_made_by_another_process_during_the_sweep_is_left_alone(
    tmp_path: Path, cache: Path
) -> None:
    sweep = Sweep(tmp_path, cache, [FAILING, TINY])
    with subprocess.Popen(
        [sys.executable, *sweep.command("--cores", "1")],
        cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        while not list((tmp_path / "output").glob("*.log")):  # the first run has begun
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.05)
        path = _record(TINY).save(tmp_path / "results")
        before = path.read_bytes()
        said, _ = process.communicate(timeout=400)
    assert process.returncode != 0  # of the run that fails
    assert path.read_bytes() == before, said
    assert "nothing to do" in (tmp_path / "output" / f"{path.stem}.log").read_text()


def test_a_setting_of_the_workflow_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, tmp_path / "cache", [TINY])
    done = _python(*sweep.command("--dry-run", more=("profil=paper",)))
    assert done.returncode != 0
    assert "no setting profil; there are: profile, tables" in done.stdout


def _slurm_answers() -> bool:
    if shutil.which("sbatch") is None:
        return False
    asked = subprocess.run(["scontrol", "ping"], capture_output=True, text=True, check=False)
    return asked.returncode == 0 and "UP" in asked.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(
    not _slurm_answers(), reason="no SLURM here: sudo sh workflow/slurm/one_node.sh"
)
def test_a_sweep_under_slurm(
    tmp_path: Path, cache: Path, expected: dict[str, dict[str, Any]]
) -> None:
    sweep = Sweep(tmp_path, cache, RUNS[2:])
    quick = ("--slurm-init-seconds-before-status-checks=2", "--seconds-between-status-checks=2")
    done = _python(*sweep.command("--jobs", "1", *quick, profile="slurm"))
    assert done.returncode == 0, done.stdout
    found = {name: _same(load_record(path)) for name, path in sweep.records().items()}
    assert found == {name: expected[name] for name in sweep.names}
