"""Downloading one large file over HTTPS so that it arrives whole, whatever happens on the way.

What has arrived is kept, see :mod:`pmms.arriving`. A broken connection is taken up again from there
(HTTP Range, RFC 9110 section 14), in the same call or in a later one. ``If-Range`` makes a server
that has another version by now send all of it.
"""

import contextlib
import http.client
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pmms.addresses import check_address, opener
from pmms.arriving import (
    BLOCK,
    ChecksumError,
    DownloadError,
    bytes_arrived,
    bytes_bar,
    finish,
    full_disk_reported,
    note_of,
    part_of,
    read_note,
)
from pmms.files import write_atomically

_PASSING = {408, 425, 429, 500, 502, 503, 504}
"""HTTP answers after which the same question may be answered well a little later."""


class _CutError(Exception):
    """The connection failed in a way that may pass."""


class _RefusedError(Exception):
    """This address does not have the file; asking again is of no use."""


class _Answer(NamedTuple):
    """What a server sends.

    Attributes:
        start: offset in the file that the answer starts at.
        total: size of the whole file, if the server tells.
        version: what names this version of the file: strong ETag or date, if the server tells.
    """

    start: int
    total: int | None
    version: str | None


def download(
    urls: Sequence[str],
    path: Path,
    *,
    size: int | None = None,
    sha256: str | None = None,
    attempts: int = 4,
    wait: float = 1.0,
    timeout: float = 60.0,
) -> str:
    """Fetch a file from the first of ``urls`` that has it; return its SHA-256.

    An attempt that brought bytes does not count: a connection that breaks every hundred megabytes
    gets there.

    Args:
        urls: addresses of the same file, see :func:`pmms.addresses.check_address`, tried in
            this order.
        path: file to write; its folder is made.
        size: expected size in bytes; None accepts the size that the server names.
        sha256: expected checksum, 64 hexadecimal digits; None accepts any.
        attempts: fruitless attempts at one address before the next one is tried, at least 1.
        wait: seconds before the second attempt, doubled each time, at most 60.
        timeout: seconds without a byte after which a connection counts as broken.

    Raises:
        DownloadError: no address gave the file; says why for each, and what is kept.
        ChecksumError: what came is not the expected file; it is kept as ``<name>.wrong``.
        ValueError: no address, or one that is not https.
        OSError: the file cannot be written, for example because the disk is full; what has arrived
            is kept, and the next call goes on from there.
    """
    if not urls:
        raise ValueError(f"no address for {path.name}")
    for url in urls:
        check_address(url)
    path.parent.mkdir(parents=True, exist_ok=True)
    failures: list[str] = []
    wrong = False
    for url in urls:
        try:
            _fetch(url, path, size, sha256, attempts, wait, timeout)
            return finish(path, size, sha256)
        except ChecksumError as error:
            wrong = True
            failures.append(f"{url}: {error}")
        except (_CutError, _RefusedError) as error:
            failures.append(f"{url}: {error}")
    part = part_of(path)
    kept = part.stat().st_size if part.is_file() else 0
    text = f"{path.name} could not be downloaded. " + "; ".join(failures)
    if kept:
        text += f". {kept} bytes of it are kept in {part}, a new attempt goes on from there"
    raise (ChecksumError if wrong else DownloadError)(text)


def _fetch(
    url: str,
    path: Path,
    size: int | None,
    sha256: str | None,
    attempts: int,
    wait: float,
    timeout: float,
) -> None:
    """Fill the part file from one address, however often the connection breaks."""
    fruitless, most = 0, bytes_arrived(path)
    while True:
        try:
            return _attempt(url, path, size, sha256, timeout)
        except _CutError:
            # Beside the most so far: a server that cannot go on begins anew each time.
            arrived = bytes_arrived(path)
            fruitless = 0 if arrived > most else fruitless + 1
            most = max(most, arrived)
            if fruitless >= attempts:
                raise
        time.sleep(min(wait * 2 ** max(fruitless - 1, 0), 60.0))


def _attempt(url: str, path: Path, size: int | None, sha256: str | None, timeout: float) -> None:
    """One connection: what it brings is written behind what is there."""
    part = part_of(path)
    offset = part.stat().st_size if part.is_file() else 0
    if size is not None and offset == size:
        return
    note = read_note(path)
    version = note.get("version") if note.get("url") == url else None
    # Bytes of unknown version may only be continued where the checksum tells if that went wrong.
    if (not version and not sha256) or (size is not None and offset > size):
        offset = 0
    with contextlib.closing(_ask(url, offset, version, timeout)) as stream:
        answer = _read_answer(stream, offset)
        if answer is None:
            part.unlink(missing_ok=True)
            raise _CutError("the server has no continuation of what was kept; starting again")
        if size is not None and answer.total not in (None, size):
            raise _RefusedError(f"the server has {answer.total} bytes, expected {size}")
        total = size if answer.total is None else answer.total
        if offset and answer.start == total:
            return
        with full_disk_reported(part):
            write_atomically(
                note_of(path), json.dumps({"url": url, "version": answer.version}).encode()
            )
            _receive(stream, part, start=answer.start, total=total, title=path.name)


def _ask(url: str, offset: int, version: str | None, timeout: float) -> Any:
    """The server's answer, an open stream with ``status`` and ``headers``."""
    headers = {"User-Agent": "pmms", "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
        if version:
            headers["If-Range"] = version
    request = urllib.request.Request(url, headers=headers)
    try:
        return opener.open(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        if offset and error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return error  # it has the form of an answer as well
        error.close()
        text = f"HTTP {error.code} {error.reason}"
        raise (_CutError if error.code in _PASSING else _RefusedError)(text) from error
    except urllib.error.URLError as error:
        raise _CutError(str(error.reason)) from error
    except (OSError, http.client.HTTPException) as error:
        raise _CutError(str(error) or type(error).__name__) from error


def _read_answer(stream: Any, offset: int) -> _Answer | None:
    """What the headers say; None if the server cannot continue at ``offset``."""
    tag = stream.headers.get("ETag", "")
    # A weak tag does not promise the same bytes (RFC 9110, section 13.1.5).
    version = tag if tag and not tag.startswith("W/") else stream.headers.get("Last-Modified")
    span = stream.headers.get("Content-Range", "")
    if stream.status == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        total = re.fullmatch(r"bytes \*/(\d+)", span)
        complete = total is not None and int(total[1]) == offset
        return _Answer(offset, offset, version) if complete else None
    if stream.status == http.HTTPStatus.PARTIAL_CONTENT:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", span)
        if match is None or int(match[1]) != offset:
            return None
        return _Answer(offset, None if match[2] == "*" else int(match[2]), version)
    length = stream.headers.get("Content-Length")
    return _Answer(0, None if length is None else int(length), version)


def _receive(stream: Any, part: Path, *, start: int, total: int | None, title: str) -> None:
    position = start
    bar = bytes_bar(total, title, initial=start)
    with bar, part.open("ab" if start else "wb", buffering=0) as file:
        for block in _blocks(stream):
            view = memoryview(block)
            while view:  # unbuffered, so that every byte that was written counts
                written = file.write(view)
                view = view[written:]
                position += written
                bar.update(written)
    if total is not None and position < total:
        raise _CutError(f"the connection ended after {position} of {total} bytes")


def _blocks(stream: Any) -> Iterator[bytes]:
    while True:
        try:
            block = stream.read1(BLOCK)
        except (OSError, http.client.HTTPException) as error:
            raise _CutError(str(error) or type(error).__name__) from error
        if not block:
            return
        yield block
