"""Unpacking: nothing outside the folder, nothing half, damage named."""

import gzip
import io
import os
import random
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from pmms.archives import damage_reported, members, unpack

FILES = {
    "a/one.txt": b"one",
    "a/deep/two.bin": random.Random(0).randbytes(300_000),
    "b/empty": b"",
}


def make_tar(path: Path, files: dict[str, bytes], *, folders: bool = True) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w") as archive:
        for folder in {str(Path(name).parent) for name in files} if folders else ():
            entry = tarfile.TarInfo(folder)
            entry.type = tarfile.DIRTYPE
            archive.addfile(entry)
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def make_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/", b"")
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def make(path: Path, files: dict[str, bytes] = FILES) -> Path:
    return make_zip(path, files) if path.suffix == ".zip" else make_tar(path, files)


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


for_each_kind = pytest.mark.parametrize("name", ["x.tar", "x.tgz", "x.zip"])


@for_each_kind
def test_files_come_out_as_they_went_in(tmp_path: Path, name: str) -> None:
    archive = make(tmp_path / name)
    assert unpack(archive, tmp_path / "out") == 3
    assert tree(tmp_path / "out") == FILES


@for_each_kind
def test_only_what_is_wanted(tmp_path: Path, name: str) -> None:
    archive = make(tmp_path / name)
    assert unpack(archive, tmp_path / "out", wanted=lambda n: n.startswith("a/deep/")) == 1
    assert list(tree(tmp_path / "out")) == ["a/deep/two.bin"]


@for_each_kind
def test_the_content_decides_not_the_name(tmp_path: Path, name: str) -> None:
    archive = make(tmp_path / name).rename(tmp_path / "archive")
    assert unpack(archive, tmp_path / "out") == 3


@for_each_kind
@pytest.mark.parametrize("bad", ["../x.txt", "a/../../x.txt", "/x.txt", "a\\..\\x.txt"])
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str, bad: str) -> None:
    archive = make(tmp_path / name, {"first.txt": b"1", bad: b"2"})
    (tmp_path / "out").mkdir()
    with pytest.raises(ValueError, match=rf"{name} is not unpacked.*leads out of the folder"):
        unpack(archive, tmp_path / "out" / "in")
    assert not (tmp_path / "x.txt").exists()
    assert not (tmp_path / "out" / "x.txt").exists()
    assert "2" not in {content.decode() for content in tree(tmp_path / "out").values()}


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_in_a_tar_are_refused(tmp_path: Path, kind: bytes) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as archive:
        entry = tarfile.TarInfo("link")
        entry.type, entry.linkname = kind, "/etc/passwd"
        archive.addfile(entry)
    with pytest.raises(ValueError, match="'link' is a link or a device"):
        unpack(path, tmp_path / "out")
    assert not os.path.lexists(tmp_path / "out" / "link")


def test_links_in_a_zip_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        entry = zipfile.ZipInfo("link")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(entry, "/etc/passwd")
    with pytest.raises(ValueError, match="'link' is a link or a device"):
        unpack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_name_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as archive:
        for content in (b"1", b"2"):
            entry = tarfile.TarInfo("same")
            entry.size = 1
            archive.addfile(entry, io.BytesIO(content))
    with pytest.raises(ValueError, match="holds same twice"):
        unpack(path, tmp_path / "out")


@for_each_kind
def test_cut_anywhere_is_found(tmp_path: Path, name: str) -> None:
    whole = make(tmp_path / name).read_bytes()
    rng = random.Random(1)
    # A tar ends with two zero blocks and padding; one of the blocks is enough to know the end.
    end = len(whole) if name != "x.tar" else 512 * 7 + 300_032 + 512
    cuts = {rng.randrange(1, end) for _ in range(25)} | {512, 1024, 2048, end - 1}
    for cut in sorted(cuts):
        (tmp_path / "cut").write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=rf"cut \({cut} bytes\) is damaged or cut off"):
            unpack(tmp_path / "cut", tmp_path / f"out{cut}")


@pytest.mark.parametrize("name", ["x.tgz", "x.zip"])
def test_flipped_bits_are_found(tmp_path: Path, name: str) -> None:
    whole = bytearray(make(tmp_path / name).read_bytes())
    whole[len(whole) // 2] ^= 0x55
    (tmp_path / "flipped").write_bytes(whole)
    with pytest.raises(ValueError, match="damaged"):
        unpack(tmp_path / "flipped", tmp_path / "out")


@pytest.mark.parametrize(
    "content",
    [b"", b"no archive at all" * 100, gzip.compress(b"no tar", mtime=0)],
    ids=["empty", "text", "gzip"],
)
def test_what_is_no_archive(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ValueError, match="damaged or cut off"):
        unpack(tmp_path / "x", tmp_path / "out")


@for_each_kind
def test_members_are_read_in_one_pass(tmp_path: Path, name: str) -> None:
    archive = make(tmp_path / name)
    read = {}
    positions = []
    with damage_reported(archive):
        for member, content, position in members(archive):
            read[member] = content.read()
            positions.append(position)
    assert read == FILES
    assert positions == sorted(positions)
    assert positions[-1] <= archive.stat().st_size
