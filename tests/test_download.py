"""Downloads over real HTTP on the loopback, with faults: cuts, wrong answers, a full disk."""

import errno
import hashlib
import json
import os
import random
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faulty_server import Faults, serving

from pmms import download as module
from pmms.arriving import ChecksumError, DownloadError, bytes_arrived, verify
from pmms.download import download

CONTENT = random.Random(0).randbytes(700_001)
SUM = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture
def url(tmp_path: Path, faults: Faults) -> Iterator[str]:
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "a.bin").write_bytes(CONTENT)
    with serving(folder, faults) as address:
        yield f"{address}/a.bin"


def fetch(url: str, path: Path, **options: object) -> str:
    defaults = {"size": len(CONTENT), "sha256": SUM, "wait": 0.0, "timeout": 5.0}
    return download([url], path, **{**defaults, **options})


def whole(path: Path) -> bool:
    """The file is right, and nothing else is left beside it."""
    return path.read_bytes() == CONTENT and os.listdir(path.parent) == [path.name]


def test_a_file_arrives_whole(url: str, tmp_path: Path, faults: Faults) -> None:
    path = tmp_path / "new" / "folder" / "a.bin"
    assert fetch(url, path) == SUM
    assert whole(path)
    assert len(faults.requests) == 1


@pytest.mark.parametrize(
    "known", [{}, {"sha256": None}, {"size": None}, {"size": None, "sha256": None}]
)
@pytest.mark.parametrize("chunked", [False, True])
def test_cut_at_random_bytes_and_taken_up_again(
    url: str, tmp_path: Path, faults: Faults, known: dict[str, None], chunked: bool
) -> None:
    rng = random.Random(len(known) + chunked)
    faults.chunked = chunked
    faults.cuts = [rng.randrange(1, 200_000) for _ in range(6)]
    path = tmp_path / "out" / "a.bin"
    assert fetch(url, path, attempts=2, **known) == SUM
    assert whole(path)
    asked = faults.asked("a.bin")
    assert len(asked) == 7
    # Bytes were not fetched twice: each request goes on where the one before ended.
    assert [headers.get("Range") is not None for headers in asked] == [False] + [True] * 6
    assert all(headers["If-Range"] == '"v1"' for headers in asked[1:])


@pytest.mark.parametrize("seed", range(5))
def test_a_later_call_goes_on(url: str, tmp_path: Path, faults: Faults, seed: int) -> None:
    cut = random.Random(seed).randrange(1, len(CONTENT))
    faults.cuts = [cut, 0]
    path = tmp_path / "out" / "a.bin"
    with pytest.raises(DownloadError, match=rf"{cut} bytes of it are kept"):
        fetch(url, path, attempts=1)
    assert not path.exists()
    assert bytes_arrived(path) == cut
    assert fetch(url, path) == SUM
    assert whole(path)
    assert faults.asked("a.bin")[-1]["Range"] == f"bytes={cut}-"
    assert bytes_arrived(path) == len(CONTENT)


def test_a_server_without_ranges_starts_again(url: str, tmp_path: Path, faults: Faults) -> None:
    faults.ranges = False
    faults.cuts = [300_000, 200_000]
    assert fetch(url, tmp_path / "out" / "a.bin") == SUM
    assert whole(tmp_path / "out" / "a.bin")


def test_another_version_on_the_server_starts_again(
    url: str, tmp_path: Path, faults: Faults
) -> None:
    path = tmp_path / "out" / "a.bin"
    (tmp_path / "served" / "a.bin").write_bytes(bytes(len(CONTENT)))
    faults.cuts = [300_000, 0]
    with pytest.raises(DownloadError):
        fetch(url, path, attempts=1)
    (tmp_path / "served" / "a.bin").write_bytes(CONTENT)
    faults.tag = '"v2"'
    assert fetch(url, path, sha256=None) == SUM
    assert whole(path)


def test_bytes_of_unknown_version_go_on_only_with_a_checksum(
    url: str, tmp_path: Path, faults: Faults
) -> None:
    faults.tag = None
    for known, ranges in (({"sha256": None}, [False, False]), ({}, [False, True])):
        faults.requests.clear()
        faults.cuts = [300_000]
        path = tmp_path / str(len(known)) / "a.bin"
        assert fetch(url, path, **known) == SUM
        assert whole(path)
        assert [("Range" in headers) for headers in faults.asked("a.bin")] == ranges


def test_a_part_that_is_longer_than_the_file(url: str, tmp_path: Path) -> None:
    path = tmp_path / "out" / "a.bin"
    path.parent.mkdir()
    for known in ({}, {"size": None}):
        (path.parent / "a.bin.part").write_bytes(CONTENT + b"more")
        assert fetch(url, path, **known) == SUM
        assert whole(path)


def test_a_part_that_is_the_whole_file(url: str, tmp_path: Path, faults: Faults) -> None:
    path = tmp_path / "out" / "a.bin"
    path.parent.mkdir()
    for known, requests in (({}, 0), ({"size": None}, 1)):
        (path.parent / "a.bin.part").write_bytes(CONTENT)
        assert fetch(url, path, **known) == SUM
        assert whole(path)
        assert len(faults.requests) == requests


def test_a_wrong_checksum_is_told_and_nothing_is_deleted(url: str, tmp_path: Path) -> None:
    path = tmp_path / "out" / "a.bin"
    with pytest.raises(ChecksumError, match=rf"SHA-256 {SUM}, expected {'0' * 64}.*a\.bin\.wrong"):
        fetch(url, path, sha256="0" * 64)
    assert os.listdir(path.parent) == ["a.bin.wrong"]
    assert (path.parent / "a.bin.wrong").read_bytes() == CONTENT
    assert fetch(url, path) == SUM


def test_a_wrong_beginning_is_found_by_the_checksum(url: str, tmp_path: Path) -> None:
    path = tmp_path / "out" / "a.bin"
    path.parent.mkdir()
    (path.parent / "a.bin.part").write_bytes(bytes(1000))
    with pytest.raises(ChecksumError, match="starts afresh"):
        fetch(url, path)
    assert fetch(url, path) == SUM
    assert path.read_bytes() == CONTENT


def test_another_size_is_refused_before_the_transfer(
    url: str, tmp_path: Path, faults: Faults
) -> None:
    with pytest.raises(DownloadError, match=f"has {len(CONTENT)} bytes, expected 5"):
        fetch(url, tmp_path / "out" / "a.bin", size=5)
    assert os.listdir(tmp_path / "out") == []
    assert len(faults.requests) == 1


def test_passing_errors_are_asked_again_and_final_ones_are_not(
    url: str, tmp_path: Path, faults: Faults
) -> None:
    faults.codes = [503, 429]
    assert fetch(url, tmp_path / "out" / "a.bin") == SUM
    assert len(faults.requests) == 3
    with pytest.raises(DownloadError, match=r"none\.bin: HTTP 404 Not Found"):
        fetch(url.replace("a.bin", "none.bin"), tmp_path / "none.bin")
    assert len(faults.requests) == 4
    faults.codes = [500] * 9
    with pytest.raises(DownloadError, match="HTTP 500"):
        fetch(url, tmp_path / "two" / "a.bin", attempts=3)
    assert len(faults.requests) == 7


def test_the_next_address_is_tried(url: str, tmp_path: Path, faults: Faults) -> None:
    (tmp_path / "served" / "other.bin").write_bytes(bytes(len(CONTENT)))
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{closed.getsockname()[1]}/a.bin"
        urls = [dead, url.replace("a.bin", "none.bin"), url.replace("a.bin", "other.bin")]
        options = {"size": len(CONTENT), "sha256": SUM, "wait": 0.0}
        path = tmp_path / "out" / "a.bin"
        with pytest.raises(ChecksumError) as raised:
            download(urls, path, **options)
        for address, reason in zip(urls, ("refused", "404", "SHA-256"), strict=True):
            assert address in str(raised.value)
            assert reason in str(raised.value)
        assert download([*urls, url], path, **options) == SUM
    assert path.read_bytes() == CONTENT


def test_waiting_doubles(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                         faults: Faults) -> None:  # fmt: skip
    waited: list[float] = []
    monkeypatch.setattr(module.time, "sleep", waited.append)
    faults.codes = [500] * 9
    with pytest.raises(DownloadError):
        fetch(url, tmp_path / "a.bin", attempts=9, wait=1.0)
    assert [w for w in waited if w] == [1, 2, 4, 8, 16, 32, 60, 60]


def test_a_server_that_cannot_go_on_is_given_up(url: str, tmp_path: Path, faults: Faults) -> None:
    """Each answer begins anew and breaks somewhere else: more than before is not more than ever."""
    faults.ranges = False
    faults.cuts = [100_000, 50_000, 80_000, 40_000, 70_000, 60_000, 90_000]
    with pytest.raises(DownloadError):
        fetch(url, tmp_path / "out" / "a.bin", attempts=4)
    assert len(faults.requests) == 5


def test_a_silent_server_counts_as_cut(tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/a.bin"
        with pytest.raises(DownloadError, match="timed out"):
            fetch(url, tmp_path / "a.bin", attempts=2, timeout=0.2)


def test_addresses_are_http(tmp_path: Path) -> None:
    for urls in ([], ["ftp://host/a.bin"], ["file:///etc/passwd"]):
        with pytest.raises(ValueError, match="address"):
            download(urls, tmp_path / "a.bin")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    command = [mount or "", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if mount is None or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("mounting a small tmpfs needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_told_and_what_came_is_kept(
    url: str, small_disk: Path, tmp_path: Path, faults: Faults
) -> None:
    path = small_disk / "a.bin"
    with pytest.raises(OSError, match=r"the disk is full; \d{6} bytes are kept") as raised:
        fetch(url, path)
    assert raised.value.errno == errno.ENOSPC
    assert len(faults.requests) == 1, "asking again does not make room"
    kept = bytes_arrived(path)
    assert 200_000 < kept <= 256 * 1024
    for name in os.listdir(small_disk):
        shutil.copy(small_disk / name, tmp_path / name)
    assert fetch(url, tmp_path / "a.bin") == SUM
    assert faults.asked("a.bin")[-1]["Range"] == f"bytes={kept}-"


def test_a_damaged_note_is_no_harm(url: str, tmp_path: Path) -> None:
    path = tmp_path / "out" / "a.bin"
    path.parent.mkdir()
    for note in ("{", "[]", json.dumps({"url": url, "version": '"old"'})):
        (path.parent / "a.bin.part").write_bytes(CONTENT[:1000])
        (path.parent / "a.bin.part.json").write_text(note)
        assert fetch(url, path) == SUM
        assert whole(path)


class Killed(BaseException):
    """In place of a signal, at a moment of the test's choice."""


def test_killed_before_any_change_of_names(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next run finds the file, or fetches it; nothing else is left beside it."""
    left = 0

    def killed_at_last(change: Any) -> Any:
        def step(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1
            return change(*args, **kwargs)

        return step

    for moment in range(100):
        path = tmp_path / f"out{moment}" / "a.bin"
        left = moment
        with monkeypatch.context() as patch:
            for owner, name in ((os, "replace"), (Path, "replace"), (Path, "unlink")):
                patch.setattr(owner, name, killed_at_last(getattr(owner, name)))
            try:
                fetch(url, path)
            except Killed:
                ended = False
            else:
                ended = True
        if not path.is_file():
            fetch(url, path)
        assert whole(path), moment
        if ended:
            break
    assert moment >= 3, "the note, its name, the note removed, the file's name"


def test_verify(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(CONTENT)
    assert verify(path, size=None, sha256=None) == SUM
    with pytest.raises(ChecksumError, match=f"a.bin has {len(CONTENT)} bytes, expected 3"):
        verify(path, size=3, sha256=None)
