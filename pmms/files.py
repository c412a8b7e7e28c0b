"""Writing files so that nothing is lost or half-written."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a name to write to; the file takes the place of ``path`` when the block ends well.

    A reader of ``path`` sees the old content or the new one, never a part of it. If the block
    fails, the old content stays and nothing is left of the new one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # One name for each writer, processes and threads alike.
    part = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
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


def write_if_changed(path: Path, content: bytes) -> bool:
    """Write a file atomically unless it holds ``content`` already; return whether it did not."""
    if path.is_file() and path.read_bytes() == content:
        return False
    write_atomically(path, content)
    return True
