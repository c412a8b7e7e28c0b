"""Writing files so that nothing is lost or half-written."""

import glob
import os
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a name to write to; the file takes the place of ``path`` when the block ends well.

    A reader of ``path`` sees the old content or the new one, never a part of it. If the block
    fails, the old content stays and nothing is left of the new one. What a killed process left of
    it is removed by the next one on the same machine.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _clear_after_killed(path)
    # One name for each writer: machines that share the folder, processes and threads alike.
    writer = f"{platform.node()}-{os.getpid()}-{threading.get_ident()}"
    part = path.with_name(f".{path.name}.{writer}")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file as :func:`replacing` does, and have it on the disk before it takes its place.

    Raises:
        OSError: as the file system says, for example for a full disk; the old content stays.
    """
    with replacing(path) as part, part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _clear_after_killed(path: Path) -> None:
    """Remove what dead processes of this machine were writing in place of ``path``."""
    if os.name != "posix":  # elsewhere signal 0 ends a process
        return
    begins = glob.escape(f".{path.name}.{platform.node()}-")
    for part in path.parent.glob(f"{begins}*-*"):
        pid = part.name.split("-")[-2]
        if pid.isdecimal() and not _alive(int(pid)):
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
