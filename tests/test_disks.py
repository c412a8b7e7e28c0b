"""Disks that are full or read-only while something is saved: told so, and nothing half-written."""

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from bad_input import listing
from fakes import TinyBackbone, fake_dataset, tiny_model

from pmms import experiment, feature_computing
from pmms.__main__ import main
from pmms.checkpoints import save_model
from pmms.config import run_config
from pmms.episodes import EpisodeSampler
from pmms.feature_computing import feature_bank
from pmms.files import check_writable, write_atomically, write_if_changed
from pmms.results import RunRecord
from pmms.train_config import TrainConfig
from pmms.training import train
from pmms.transforms import TrainTransform

Save = Callable[[Path], object]

ROOM = 96 * 1024  # bytes of the small disk; every file below is larger


def _save_record(folder: Path) -> None:
    numbers = {str(i): i / 7 for i in range(9000)}
    RunRecord(name="made", parameters={}, protocol={}, scores=numbers).save(folder)


def _save_model(folder: Path) -> None:
    save_model(tiny_model("pmms", width=64), folder / "m.safetensors", size=32)


def _keep_features(folder: Path) -> None:
    feature_bank(fake_dataset(48), TinyBackbone(), size=64, cache=folder)


def _train(folder: Path) -> None:
    sampler = EpisodeSampler(fake_dataset(), [1, 2, 3], length=4)
    config = TrainConfig(iterations=2, batch_size=2, checkpoint_every=1)
    model = tiny_model("baseline", width=64)
    train(model, TrainTransform(32), sampler, config, folder=folder / "run")


def _write(folder: Path) -> None:
    write_atomically(folder / "large", bytes(2 * ROOM))


SAVES: dict[str, Save] = {
    "a record": _save_record,
    "a model": _save_model,
    "kept features": _keep_features,
    "a training": _train,
    "a file": _write,
}

all_saves = pytest.mark.parametrize("save", SAVES.values(), ids=SAVES)


@contextmanager
def _mounted(folder: Path, options: str) -> Iterator[Path]:
    """A disk in memory at a folder, for those who may mount one."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command here")
    if done.returncode:
        pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def _without_locks(folder: Path) -> dict[str, str]:
    """What is there; locks stay by design, empty."""
    return {name: of for name, of in listing(folder).items() if not name.endswith(".lock")}


# a small disk that is really there


@all_saves
def test_a_full_disk(save: Save, tmp_path: Path) -> None:
    with _mounted(tmp_path / "disk", f"size={ROOM}") as disk:
        with pytest.raises(OSError, match=r"No space left on device; make room") as raised:
            save(disk)
        assert raised.value.errno == errno.ENOSPC
        assert {n for n, of in _without_locks(disk).items() if of != "folder"} == set()


@all_saves
def test_a_read_only_disk(save: Save, tmp_path: Path) -> None:
    with (
        _mounted(tmp_path / "disk", "ro") as disk,
        pytest.raises(OSError, match="choose another folder, or make it writable") as raised,
    ):
        save(disk)
    assert raised.value.errno == errno.EROFS


# disks that only behave so


# Kept features are written by safetensors, which Python cannot hinder; the mounted disk does.
@pytest.mark.parametrize("save", [save for save in SAVES.values() if save is not _keep_features])
def test_the_disk_fills_while_a_file_is_written(
    save: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _without_locks(tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="make room and run again; what was there before is kept"):
        save(tmp_path)
    assert {n for n, of in _without_locks(tmp_path).items() if of != "folder"} == set(before)


@all_saves
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_the_file_cannot_take_its_place(
    save: Save, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(source: Path, target: Path) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(OSError, match=r"make room|make it writable"):
        save(tmp_path)
    assert {n for n, of in _without_locks(tmp_path).items() if of != "folder"} == set()


@all_saves
def test_a_file_where_the_folder_should_be(save: Save, tmp_path: Path) -> None:
    (tmp_path / "results").write_text("I was here first")
    before = listing(tmp_path)
    with pytest.raises(OSError, match="a file is where a folder is needed: choose another folder"):
        save(tmp_path / "results")
    assert listing(tmp_path) == before


def test_looking_at_a_folder_leaves_nothing(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b")
    check_writable(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_was_there_survives_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "kept"
    write_atomically(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="what was there before is kept"):
        write_if_changed(path, b"new")
    assert listing(tmp_path).keys() == {"kept"}
    assert path.read_bytes() == b"old"


def test_what_a_killed_process_left_of_kept_features_is_cleared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """safetensors makes a file of its own beside the one it writes."""
    dead = subprocess.Popen(["true"])
    dead.wait()
    parts: list[Path] = []
    real = feature_computing.save_file

    def killed(content: object, path: Path) -> None:
        begin, _, thread = path.parent.name.rsplit("-", 2)
        parts.append(path.with_name(".tmpA1b2C3"))
        parts[0].write_bytes(b"half")
        path.parent.rename(path.parent.with_name(f"{begin}-{dead.pid}-{thread}"))
        raise KeyboardInterrupt

    monkeypatch.setattr(feature_computing, "save_file", killed)
    with pytest.raises(KeyboardInterrupt):
        _keep_features(tmp_path)
    assert [path.name for path in tmp_path.rglob(".tmp*")] == [".tmpA1b2C3"]
    monkeypatch.setattr(feature_computing, "save_file", real)
    _keep_features(tmp_path)
    assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"]


def test_an_error_without_a_remedy_stays_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match=r"^\[Errno 5\] Input/output error$"):
        write_atomically(tmp_path / "file", b"content")


@pytest.mark.parametrize("option", ["results", "runs", "cache"])
def test_a_run_looks_at_its_folders_before_it_works(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_late(*arguments: object, **options: object) -> None:
        raise AssertionError("work was done before the folders were looked at")

    monkeypatch.setattr(experiment, "load_data", too_late)
    (tmp_path / "file").touch()
    folders = {"results": tmp_path / "results", option: tmp_path / "file"}
    with pytest.raises(OSError, match="a file is where a folder is needed"):
        experiment.run(run_config("mini"), **folders)


@pytest.mark.parametrize(
    "out, message", [("file/m.safetensors", "a file is where a folder is needed"),
                     ("m.pth", "ends in .safetensors")],
)  # fmt: skip
def test_the_command_line_looks_where_the_model_goes_before_it_trains(
    out: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr("pmms.data.load_data", None)
    options = ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / out)]
    assert main(["train", *options]) == 2
    assert message in capsys.readouterr().err
    assert listing(tmp_path).keys() == {"file"}


def test_the_weights_before_a_full_disk_are_gone_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fills up after the first checkpoint costs one step, not the run."""
    sampler = EpisodeSampler(fake_dataset(), [1, 2, 3], length=8)
    config = TrainConfig(iterations=4, batch_size=2, checkpoint_every=1)
    whole, halved = tiny_model("baseline"), tiny_model("baseline")
    train(whole, TrainTransform(32), sampler, config)
    real, calls = os.fsync, iter(range(100))

    def filling(descriptor: int) -> None:
        if next(calls) > 3:  # a checkpoint is two files
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", filling)
    with pytest.raises(OSError, match="make room"):
        train(halved, TrainTransform(32), sampler, config, folder=tmp_path / "run")
    monkeypatch.undo()
    again = tiny_model("baseline")
    train(again, TrainTransform(32), sampler, config, folder=tmp_path / "run")
    weights = whole.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in again.state_dict().items())
