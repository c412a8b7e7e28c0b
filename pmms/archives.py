"""Unpacking tar and zip archives from elsewhere: nothing is written outside the target folder."""

import gzip
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from pmms.progress import progress_bar

_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, EOFError, zlib.error)

_BLOCK = 1 << 20


def unpack(
    archive: Path, folder: Path, *, wanted: Callable[[str], bool] = lambda name: True
) -> int:
    """Unpack the files of a tar (also compressed) or zip archive; return how many there were.

    Args:
        archive: the archive; its content decides what it is, not its name.
        folder: where to unpack to; made if it is not there.
        wanted: told the name of a file in the archive, decides whether it is unpacked.

    Raises:
        ValueError: damaged or cut off; or a member that is a link or a device, has an absolute name
            or leads out of the folder. Names the archive and the member.
        OSError: as the file system says, for example for a full disk.
    """
    count = 0
    bar = progress_bar(archive.stat().st_size, f"unpacking {archive.name}", unit="B")
    bar.unit_scale = True
    with bar:
        for name, content, position in members(archive):
            bar.update(position - bar.n)
            if not wanted(name):
                continue
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            # "x": a name that comes twice is an error, not an overwriting.
            try:
                with target.open("xb") as file:
                    for block in _blocks(content, archive):
                        file.write(block)
            except FileExistsError:
                raise ValueError(f"{archive} holds {name} twice; get the archive anew") from None
            count += 1
    return count


def members(archive: Path) -> Iterator[tuple[str, IO[bytes], int]]:
    """The plain files of an archive: name, content, bytes of the archive passed.

    One pass, so that a compressed tar is decompressed once: read a content before the next one is
    asked for, inside ``damage_reported``.

    Raises:
        ValueError: as ``unpack``.
    """
    with archive.open("rb") as file:
        is_zip = file.read(4) in (b"PK\3\4", b"PK\5\6")
    yield from _zip_members(archive) if is_zip else _tar_members(archive)


@contextmanager
def damage_reported(archive: Path) -> Iterator[None]:
    """Turn what the readers of tar, gzip and zip raise on damage into ValueError with the name."""
    try:
        yield
    except _DAMAGE as error:
        raise ValueError(
            f"{archive} ({archive.stat().st_size} bytes) is damaged or cut off: "
            f"{error or type(error).__name__}; get it anew"
        ) from error


def _zip_members(archive: Path) -> Iterator[tuple[str, IO[bytes], int]]:
    with damage_reported(archive), zipfile.ZipFile(archive) as file:
        for member in file.infolist():  # all names before the first byte is written
            kind = stat.S_IFMT(member.external_attr >> 16)
            _check(archive, member.filename, kind in (0, stat.S_IFREG, stat.S_IFDIR))
        for member in file.infolist():
            if not member.is_dir():
                with file.open(member) as content:
                    yield member.filename, content, member.header_offset


def _tar_members(archive: Path) -> Iterator[tuple[str, IO[bytes], int]]:
    with damage_reported(archive), archive.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        # GzipFile checks the sum at the end of its stream, tarfile's own reader does not.
        stream = gzip.GzipFile(fileobj=raw) if packed else raw
        with tarfile.open(fileobj=stream, mode="r|") as file:
            for member in file:
                _check(archive, member.name, member.isreg() or member.isdir())
                if member.isreg():
                    content = file.extractfile(member)
                    assert content is not None  # as for every plain file
                    yield member.name, content, raw.tell()
            # tarfile takes the end of the file for the end of the archive, which is a zero block.
            if file.fileobj.tell() < file.offset + tarfile.BLOCKSIZE:
                raise EOFError("the end of the archive is missing")
        while stream.read(_BLOCK):
            pass


def _check(archive: Path, name: str, plain: bool) -> None:
    path = PurePosixPath(name)
    drive = os.name == "nt" and ":" in name
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or drive:
        raise ValueError(f"{archive} is not unpacked: its member {name!r} leads out of the folder")
    if not plain:
        raise ValueError(
            f"{archive} is not unpacked: its member {name!r} is a link or a device, expected plain "
            "files and folders alone"
        )


def _blocks(content: IO[bytes], archive: Path) -> Iterator[bytes]:
    with damage_reported(archive):
        while block := content.read(_BLOCK):
            yield block
