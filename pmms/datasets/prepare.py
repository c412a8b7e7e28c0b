"""From nothing to a data set on the disk: download, verify, unpack, merge, index.

One run at a time works in a root folder (a lock). A part of a data set is built in a folder beside
its place, written into the index file ``prepared.json``, and renamed into place. So a folder that
is there is whole, and one that the index does not name belongs to somebody else and is left alone.
What a killed run leaves behind is taken up (downloads) or cleared away (half-unpacked folders) by
the next one.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from pmms.addresses import check_address
from pmms.arriving import ChecksumError, DownloadError, verify
from pmms.datasets.prepare_plan import DOWNLOADS, Say, check_room, plan, size_text
from pmms.datasets.sources import Source, in_folder, mirrored
from pmms.download import download
from pmms.files import write_atomically

INDEX = "prepared.json"
_WORK = ".preparing"
_LOCK = ".prepare.lock"


class Fetched(NamedTuple):
    """A source on the disk.

    Attributes:
        path: the file, or the folder that came out of it.
        sha256: checksum; None for a folder.
        given: whether it is a person's own.
    """

    path: Path
    sha256: str | None
    given: bool


@dataclass(frozen=True)
class Part:
    """What is prepared as a whole: there, or not there.

    Attributes:
        name: key in the index file, e.g. "pascal" or "coco train2017".
        sources: files that it is made from.
        targets: files and folders that it consists of, relative to the root.
        build: called with the paths of the sources by their names and an empty folder; puts the
            targets into that folder and returns what the index file is to say of them.
    """

    name: str
    sources: tuple[Source, ...]
    targets: tuple[str, ...]
    build: Callable[[Mapping[str, Path], Path], dict[str, Any]]


def prepare(
    parts: Sequence[Part],
    root: Path,
    *,
    given: Path | None = None,
    mirror: str | None = None,
    keep_archives: bool = False,
    dry_run: bool = False,
    say: Say = print,
) -> bool:
    """Make those ``parts`` under ``root`` that are not there; return whether any was missing.

    Args:
        root: folder of the data set; made if needed. Downloads go to ``root/downloads``.
        given: folder of archives (or what came out of them) that a person has; never changed. What
            is not in it is downloaded.
        mirror: address of a folder that has all files, instead of the addresses of the sources.
        keep_archives: leave the downloaded archives there; else they go when all is done.
        dry_run: say what would be done, and do nothing.
        say: told what happens, line by line.

    Raises:
        DownloadError: a file cannot be had; says how to get it in by hand. Parts that were finished
            before stay.
        ChecksumError: a given file, or one that came, is not the expected one.
        FileNotFoundError: ``given`` does not exist.
        FileExistsError: something that was not prepared here, or is incomplete, is in the way.
        ValueError: a damaged archive, or a mirror that is not https.
        OSError: too little room on the disk, found out before anything is fetched.
    """
    if given is not None and not given.is_dir():
        raise FileNotFoundError(f"there is no folder {given} to take archives from")
    if mirror is not None:
        check_address(mirror)
        parts = [replace(part, sources=mirrored(part.sources, mirror)) for part in parts]
    if not _open_work(parts, root) and (keep_archives or not _left_over(parts, root)):
        say(_nothing_to_do(parts, root))
        return False
    if dry_run:
        plan(_sources(_open_work(parts, root)), root, given, say)
        return False
    root.mkdir(parents=True, exist_ok=True)
    with _alone(root, say):
        todo = _open_work(parts, root)  # another run may have done it while this one waited
        _clear_work(root)
        if todo:
            check_room(plan(_sources(todo), root, given, say), root)
            fetched = _fetch(todo, root, given, say)
            for part in todo:
                _build(part, root, fetched, say)
        else:
            say(_nothing_to_do(parts, root))
        if not keep_archives:
            for path in _left_over(parts, root):
                if given is None or not path.parent.samefile(given):
                    path.unlink()
            if (root / DOWNLOADS).is_dir() and not os.listdir(root / DOWNLOADS):
                (root / DOWNLOADS).rmdir()
    return bool(todo)


def read_index(root: Path) -> dict[str, Any]:
    """What the index file says of each part that was prepared; empty if there is none.

    Raises:
        ValueError: the file is damaged.
    """
    path = root / INDEX
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))["parts"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); remove it and {root}, or repair") from error


def _open_work(parts: Sequence[Part], root: Path) -> list[Part]:
    """The parts that are not there.

    Raises:
        FileExistsError: a target is there that nobody may touch.
    """
    index = read_index(root)
    todo = []
    for part in parts:
        record: dict[str, Any] | None = index.get(part.name)
        for target in part.targets:
            path = root / target
            if not path.exists():
                continue
            if record is None:
                raise FileExistsError(
                    f"{path} is there, but was not made by this command, so it is left alone. If "
                    "it is the data set, it can be read as it is; else choose another root folder"
                )
            if path.is_dir() and _count(path) < record["targets"][target]["files"]:
                raise FileExistsError(
                    f"{path} was prepared with {record['targets'][target]['files']} files, but has "
                    f"{_count(path)} now: files were removed. Remove the rest of it and start again"
                )
        if not all((root / target).exists() for target in part.targets):
            todo.append(part)
    return todo


def _nothing_to_do(parts: Sequence[Part], root: Path) -> str:
    names = ", ".join(part.name for part in parts)
    return f"{names}: prepared already in {root} (see {root / INDEX}); nothing to do"


def _fetch(todo: Sequence[Part], root: Path, given: Path | None, say: Say) -> dict[str, Fetched]:
    """All sources by name, verified; what is not given is downloaded."""
    fetched = {}
    for source in _sources(todo):
        have = in_folder(source, given)
        path = root / DOWNLOADS / source.name if have is None else have
        if path.is_dir():
            say(f"{path} is taken as it is; a folder has no checksum")
            digest = None
        elif path.is_file():
            try:
                digest = verify(path, size=source.size, sha256=source.sha256)
            except ChecksumError as error:
                raise ChecksumError(f"{error}; it is no whole {source.name}, replace it") from None
        else:
            try:
                digest = download(source.urls, path, size=source.size, sha256=source.sha256)
            except DownloadError as error:
                raise type(error)(
                    f"{error}. Offline, or a dead link? Get {source.name} by other means, e.g. "
                    f"from {source.urls[0]} on another machine, and put it into {path.parent}, or "
                    "into a folder of yours that you name with --from"
                ) from error
        if source.sha256 is None and digest is not None:
            say(f"{source.name}: nobody published a checksum; what came has SHA-256 {digest}")
        fetched[source.name] = Fetched(path, digest, have is not None)
    return fetched


def _build(part: Part, root: Path, fetched: Mapping[str, Fetched], say: Say) -> None:
    """Build one part beside its place, note it, and put it there."""
    work = root / _WORK
    work.mkdir()
    names = [source.name for source in part.sources]
    try:
        notes = part.build({name: fetched[name].path for name in names}, work)
        targets = {target: _extent(work / target) for target in part.targets}
        record = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "pmms": _version(),
            "sources": {name: _provenance(fetched[name]) for name in names},
            "targets": targets,
            **notes,
        }
        index = {"parts": {**read_index(root), part.name: record}}
        write_atomically(root / INDEX, (json.dumps(index, indent=1) + "\n").encode())
        for target in part.targets:
            (root / target).parent.mkdir(parents=True, exist_ok=True)
            os.replace(work / target, root / target)
    finally:
        _clear_work(root)
    for target, extent in targets.items():
        say(f"ready: {root / target} ({extent['files']} files, {size_text(extent['bytes'])})")


def _provenance(source: Fetched) -> dict[str, Any]:
    """What the index file keeps of a source; no path, which would name folders of a machine."""
    size = source.path.stat().st_size if source.path.is_file() else None
    return {"given": source.given, "size": size, "sha256": source.sha256}


@contextmanager
def _alone(root: Path, say: Say) -> Iterator[None]:
    """No other run works in ``root`` meanwhile; the system frees the lock when a process ends."""
    lock = FileLock(root / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"another run is at work in {root}; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _clear_work(root: Path) -> None:
    """Remove what a killed run was writing; the lock says that nobody writes it now."""
    if (root / _WORK).exists():
        shutil.rmtree(root / _WORK)
    for path in (*root.glob(f".{INDEX}.*"), *(root / DOWNLOADS).glob(".*.part.json.*")):
        path.unlink()  # what `write_atomically` had not renamed yet


def _left_over(parts: Sequence[Part], root: Path) -> list[Path]:
    paths = (root / DOWNLOADS / source.name for source in _sources(parts))
    return [path for path in paths if path.is_file()]


def _sources(parts: Sequence[Part]) -> list[Source]:
    return list({source.name: source for part in parts for source in part.sources}.values())


def _count(folder: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(folder))


def _extent(path: Path) -> dict[str, int]:
    files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
    return {"files": len(files), "bytes": sum(file.stat().st_size for file in files)}


def _version() -> str:
    try:
        return metadata.version("pmms")
    except metadata.PackageNotFoundError:
        return "unknown"
