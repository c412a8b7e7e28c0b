"""Files that are whole or not there, and what a killed writer leaves."""

import multiprocessing
import os
import platform
import signal
from pathlib import Path

import pytest

from pmms.files import replacing, write_atomically, write_if_changed

posix = pytest.mark.skipif(os.name != "posix", reason="processes are asked after by signal 0")


def dead_process() -> int:
    """The number of a process that has ended."""
    child = multiprocessing.get_context("fork").Process(target=os.getpid)
    child.start()
    child.join()
    assert child.pid is not None
    return child.pid


def test_a_failure_leaves_the_old_content_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "a.txt"
    write_atomically(path, b"old")

    def fail() -> None:
        with replacing(path) as part:
            part.write_bytes(b"half")
            raise RuntimeError("on the way")

    with pytest.raises(RuntimeError, match="on the way"):
        fail()
    assert path.read_bytes() == b"old"
    assert os.listdir(path.parent) == ["a.txt"]


def test_a_file_that_is_the_same_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    assert write_if_changed(path, b"1")
    os.utime(path, (1e9, 1e9))
    assert not write_if_changed(path, b"1")
    assert path.stat().st_mtime == 1e9
    assert write_if_changed(path, b"2")
    assert path.read_bytes() == b"2"


@posix
def test_what_a_killed_process_was_writing_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "a [1].txt"  # a name with characters that mean something to glob

    def die() -> None:
        with replacing(path) as part:
            part.write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)

    child = multiprocessing.get_context("fork").Process(target=die)
    child.start()
    child.join()
    assert not path.exists()
    assert len(os.listdir(tmp_path)) == 1
    write_atomically(path, b"whole")
    assert os.listdir(tmp_path) == [path.name]


@posix
def test_files_of_living_writers_and_other_machines_stay(tmp_path: Path) -> None:
    path, node, dead = tmp_path / "a.txt", platform.node(), dead_process()
    kept = {
        f".a.txt.{node}-{os.getppid()}-1",  # lives
        f".a.txt.another-{node}-{dead}-1",  # on a machine whose processes are not known here
        f".a.txt.{node}-no_number-1",
        f".b.txt.{node}-{dead}-1",  # of another file
    }
    for name in (*kept, f".a.txt.{node}-{dead}-1"):
        (tmp_path / name).write_bytes(b"half")
    write_atomically(path, b"whole")
    assert set(os.listdir(tmp_path)) == kept | {"a.txt"}
