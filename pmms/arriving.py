"""The file that a download is filling, on the disk: its part, its note, and the check at the end.

What has arrived lies in ``<name>.part``, with a note of where it came from in
``<name>.part.json``. A file gets its name only when its size and checksum are right.
"""

import contextlib
import errno
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pmms.progress import progress_bar

BLOCK = 1 << 20
"""Bytes that are read at once, at most."""


class DownloadError(OSError):
    """A file could not be had from any of its addresses."""


class ChecksumError(DownloadError):
    """A whole file arrived, but not the expected one."""


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, 64 hexadecimal digits, with a progress bar."""
    digest = hashlib.sha256()
    bar = bytes_bar(path.stat().st_size, f"checking {path.name}")
    with bar, path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
            bar.update(len(block))
    return digest.hexdigest()


def verify(path: Path, *, size: int | None, sha256: str | None) -> str:
    """SHA-256 of a file that must have this size and checksum, where they are known.

    Raises:
        ChecksumError: it has another; names the file, what was expected and what is there.
    """
    found = path.stat().st_size
    if size is not None and found != size:
        raise ChecksumError(f"{path} has {found} bytes, expected {size}")
    digest = file_sha256(path)
    if sha256 is not None and digest != sha256:
        raise ChecksumError(f"{path} has the SHA-256 {digest}, expected {sha256}")
    return digest


def bytes_arrived(path: Path) -> int:
    """How many bytes of the download to ``path`` are on the disk already."""
    for candidate in (path, part_of(path)):
        if candidate.is_file():
            return candidate.stat().st_size
    return 0


def part_of(path: Path) -> Path:
    """Where the bytes of the download to ``path`` are gathered."""
    return path.with_name(f"{path.name}.part")


def note_of(path: Path) -> Path:
    """Where their address and version are noted."""
    return path.with_name(f"{path.name}.part.json")


def read_note(path: Path) -> dict[str, Any]:
    """Address ("url") and version of what has arrived; empty where they are not known."""
    try:
        note = json.loads(note_of(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def finish(path: Path, size: int | None, sha256: str | None) -> str:
    """Give the finished part its name, or put it aside; its SHA-256.

    Raises:
        ChecksumError: it is not the expected file; it is kept as ``<name>.wrong``.
    """
    part = part_of(path)
    try:
        digest = verify(part, size=size, sha256=sha256)
    except ChecksumError as error:
        aside = path.with_name(f"{path.name}.wrong")
        part.replace(aside)
        note_of(path).unlink(missing_ok=True)
        text = str(error).replace(str(part), "what came")
        raise ChecksumError(
            f"{text}; it is kept as {aside} to look at, and the next call starts afresh"
        ) from None
    # First the note: a run killed between the two would leave it beside the file, for good.
    note_of(path).unlink(missing_ok=True)
    part.replace(path)
    return digest


@contextlib.contextmanager
def full_disk_reported(part: Path) -> Iterator[None]:
    """Say of a full disk how much is kept, and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        kept = part.stat().st_size if part.is_file() else 0
        raise OSError(
            error.errno,
            f"the disk is full; {kept} bytes are kept, make room and start again to go on from "
            "there",
            str(part),
        ) from error


def bytes_bar(total: int | None, title: str, *, initial: int = 0) -> Any:
    """A progress bar that counts bytes."""
    bar = progress_bar(total or 0, title, unit="B", initial=initial)
    bar.unit_scale = True
    return bar
