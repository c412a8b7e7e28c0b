"""Writing files so that nothing is lost or half-written."""

import errno
import glob
import os
import platform
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile

_FULL = "make room and run again; what was there before is kept"
_SHUT = "nothing can be written there: choose another folder, or make it writable"
_FILE = "a file is where a folder is needed: choose another folder, or move the file away"
_REMEDIES = {
    **{errno.ENOSPC: _FULL, errno.EDQUOT: _FULL, errno.EFBIG: _FULL},
    **{errno.EROFS: _SHUT, errno.EACCES: _SHUT, errno.EPERM: _SHUT},
    **{errno.ENOTDIR: _FILE, errno.EEXIST: _FILE},
}


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a name to write to; the file takes the place of ``path`` when the block ends well.

    A reader of ``path`` sees the old content or the new one, never a part of it. If the block
    fails, the old content stays and nothing is left of the new one. What a killed process left of
    it is removed by the next one on the same machine.

    Raises:
        OSError: as the file system says, for example for a full disk; the message says what to do.
    """
    # One name for each writer: machines that share the folder, processes and threads alike.
    writer = f"{platform.node()}-{os.getpid()}-{threading.get_ident()}"
    part = path.with_name(f".{path.name}.{writer}")
    with _remedies_told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear_after_killed(path)
        try:
            yield part
            os.replace(part, path)
        finally:
            with suppress(OSError):  # the first error tells more
                part.unlink()


def check_writable(folder: Path) -> None:
    """Raise OSError if no file can be made in a folder, or the folder itself cannot be made.

    Called before long work whose result goes there; leaves nothing.
    """
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    with _remedies_told(folder), TemporaryFile(dir=there):
        pass


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file as :func:`replacing` does, and have it on the disk before it takes its place.

    Raises:
        OSError: as :func:`replacing`; the old content stays.
    """
    with replacing(path) as part, part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def folder_beside(part: Path) -> Iterator[Path]:
    """A folder for the writer of a name of :func:`replacing`: for a library that makes files of its
    own beside the one it is told to write. It goes with the block, or is cleared as ``part`` is.
    """
    begin, *writer = part.name.rsplit("-", 2)
    folder = part.with_name("-".join([begin, "folder", *writer]))
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _remedies_told(path: Path) -> Iterator[None]:
    """Errors of the file system that a person can do something about say what."""
    try:
        yield
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0)
        if remedy is None:
            raise
        raise type(error)(error.errno, f"{error.strerror}; {remedy}", str(path)) from error


def _clear_after_killed(path: Path) -> None:
    """Remove what dead processes of this machine were writing in place of ``path``."""
    if os.name != "posix":  # elsewhere signal 0 ends a process
        return
    begins = glob.escape(f".{path.name}.{platform.node()}-")
    for part in path.parent.glob(f"{begins}*-*"):
        pid = part.name.split("-")[-2]
        if pid.isdecimal() and not _alive(int(pid)):
            if part.is_dir():
                shutil.rmtree(part, ignore_errors=True)
            else:
                part.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass  # somebody else's
    return True


def write_if_changed(path: Path, content: bytes) -> bool:
    """Write a file atomically unless it holds ``content`` already; return whether it did not."""
    if path.is_file() and path.read_bytes() == content:
        return False
    write_atomically(path, content)
    return True
