"""Data sets prepared over real HTTP on the loopback, from archives in the true layouts."""

import json
import multiprocessing
import os
import random
import shutil
import subprocess
import time
from collections import namedtuple
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_archives as tiny
from faulty_server import Faults, serving
from PIL import Image
from test_archives import make_tar, tree

from pmms.arriving import ChecksumError, DownloadError
from pmms.datasets import sources as published
from pmms.datasets.coco import CocoInstances
from pmms.datasets.pascal import PascalVOC
from pmms.datasets.pascal_lists import PAIR_LISTS, PairVOC
from pmms.datasets.prepare import INDEX, read_index
from pmms.datasets.prepare_coco import prepare_coco
from pmms.datasets.prepare_pascal import VOC_FOLDER, prepare_pascal
from pmms.datasets.sbd import labels_digest
from pmms.datasets.sources import COCO, LISTS, PASCAL, SBD, VOC, Source

REAL = Path(__file__).parents[2] / "shared" / "data"
Usage = namedtuple("Usage", "total used free")


class Served:
    """A mirror of tiny archives, and a log of what a preparation says."""

    def __init__(self, folder: Path, url: str, faults: Faults, sources: Any) -> None:
        self.folder, self.url, self.faults, self.sources = folder, url, faults, sources
        self.said: list[str] = []

    def prepare(self, root: Path, **options: Any) -> bool:
        function = prepare_coco if isinstance(self.sources, dict) else prepare_pascal
        given = {"mirror": self.url, "sources": self.sources, "say": self.said.append}
        return function(root, **{**given, **options})

    @property
    def text(self) -> str:
        return "\n".join(self.said)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr("pmms.download.time.sleep", lambda seconds: None)


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archives")
    tiny.write_pascal(folder / "pascal")
    for year in (2014, 2017):
        tiny.write_coco(folder / "coco", year)
    return folder


def served(folder: Path, sources: Any) -> Iterator[Served]:
    faults = Faults()
    with serving(folder, faults) as url:
        yield Served(folder, url, faults, sources)


@pytest.fixture
def pascal(archives: Path, tmp_path: Path) -> Iterator[Served]:
    folder = tmp_path / "served-pascal"
    shutil.copytree(archives / "pascal", folder)
    sources = tuple(tiny.pinned(s, folder / s.name) for s in PASCAL)
    yield from served(folder, sources)


@pytest.fixture
def coco(archives: Path, tmp_path: Path) -> Iterator[Served]:
    folder = tmp_path / "served-coco"
    shutil.copytree(archives / "coco", folder)
    sources = {key: tiny.pinned(s, folder / s.name) for key, s in COCO.items()}
    yield from served(folder, sources)


def content(root: Path) -> dict[str, bytes]:
    """Every file but the indexes, which hold times."""
    return {
        name: data
        for name, data in tree(root).items()
        if not name.endswith((".npz", INDEX, ".lock"))
    }


def labels(root: Path, folder: str, image_id: str) -> np.ndarray:
    with Image.open(root / VOC_FOLDER / folder / f"{image_id}.png") as picture:
        assert picture.mode == "P"
        return np.array(picture)


# Pascal


def test_pascal_from_nothing_to_a_tree_that_is_read(pascal: Served, tmp_path: Path) -> None:
    root = tmp_path / "root"
    assert pascal.prepare(root)
    assert sorted(os.listdir(root)) == [".prepare.lock", "VOCdevkit", INDEX]
    voc = root / VOC_FOLDER
    files = tree(voc)
    for name, data in tiny.voc_files().items():
        assert files[name.removeprefix(f"{VOC_FOLDER.as_posix()}/")] == data
    for source in LISTS:
        assert (voc / PAIR_LISTS / source.name).read_bytes() == (
            pascal.folder / source.name
        ).read_bytes()
    for fold in range(4):
        pairs = PairVOC(root, fold, "val", checked=False)
        assert pairs.pairs == ((0, 5 * fold + 1), (1, 5 * fold + 1))
    lengths = {"train": 3, "val": 2, "trainval": 5}
    for split, length in lengths.items():
        assert len(PascalVOC(root, split)) == length
    both = {"train_aug": 6, "val": 2}
    for split, length in both.items():
        dataset = PascalVOC(root, split, labels="SegmentationClassAug")
        assert len(dataset) == length
        assert all(dataset.classes_in(i) for i in range(length))
        assert dataset[0].image.shape == (3, *tiny.SHAPE)


def test_the_merge_takes_voc_where_there_is_one_else_sbd(pascal: Served, tmp_path: Path) -> None:
    pascal.prepare(tmp_path)
    voc = tmp_path / VOC_FOLDER
    merged = sorted(path.stem for path in (voc / "SegmentationClassAug").glob("*.png"))
    assert merged == sorted({*tiny.TRAIN, *tiny.VAL, *tiny.SBD_IDS})
    for image_id in merged:
        own = image_id in (*tiny.TRAIN, *tiny.VAL)
        found = labels(tmp_path, "SegmentationClassAug", image_id)
        np.testing.assert_array_equal(found, tiny.labels_of(image_id, void=own))
        assert (255 in found) == own
    aug = (voc / "ImageSets" / "Segmentation" / "train_aug.txt").read_text().split()
    assert aug == sorted({*tiny.TRAIN, *tiny.SBD_IDS} - set(tiny.VAL))
    record = read_index(tmp_path)["pascal"]
    assert record["labels_digest"] == labels_digest(voc / "SegmentationClassAug")
    assert record["same_as_published"] is False
    assert "differs from the published merge" in pascal.text


def test_lists_are_pinned_to_the_real_ones() -> None:
    folder = REAL / "pascal5i_lists"
    if not folder.is_dir():
        pytest.skip("needs the real lists in ../shared/data")
    for source in LISTS:
        assert tiny.pinned(source, folder / source.name).sha256 == source.sha256
        assert (folder / source.name).stat().st_size == source.size


def test_an_index_is_there_at_once(
    pascal: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pascal.prepare(tmp_path)

    def decoded(*_: Any) -> None:
        raise AssertionError("a label map was decoded")

    monkeypatch.setattr("pmms.datasets.label_index.open_labels", decoded)
    for split in ("train_aug", "val"):
        assert PascalVOC(tmp_path, split, labels="SegmentationClassAug").classes_in(0)
    assert PairVOC(tmp_path, (0, 1, 2), "train", checked=False).classes_shown(0)


# COCO


def test_coco_val_alone_then_train(coco: Served, tmp_path: Path) -> None:
    assert coco.prepare(tmp_path, splits=["val"])
    listed = sorted(path.name for path in (tmp_path / "annotations").glob("*.json"))
    assert listed == ["instances_train2017.json", "instances_val2017.json"]
    assert not (tmp_path / "train2017").exists()
    asked = [path for path, _ in coco.faults.requests]
    assert asked == ["/annotations_trainval2017.zip", "/val2017.zip"]
    assert coco.prepare(tmp_path)
    assert [path for path, _ in coco.faults.requests[2:]] == ["/train2017.zip"]
    for split in ("train", "val"):
        listed = json.loads((tmp_path / f"annotations/instances_{split}2017.json").read_text())
        names = sorted(image["file_name"] for image in listed["images"])
        assert sorted(os.listdir(tmp_path / f"{split}2017")) == names
        dataset = CocoInstances(tmp_path, f"{split}2017")
        assert len(dataset) == len(names)
        assert dataset.classes_in(0) == {1}
        assert int((dataset[0].labels == 1).sum()) == 400
    assert list(read_index(tmp_path)) == [
        "coco annotations2017", "coco val2017", "coco train2017",
    ]  # fmt: skip


def test_both_years_of_coco_in_one_folder(coco: Served, tmp_path: Path) -> None:
    for year in (2017, 2014):
        assert coco.prepare(tmp_path, year=year)
        assert not coco.prepare(tmp_path, year=year)
    assert len(list((tmp_path / "annotations").glob("*.json"))) == 4
    assert (tmp_path / "val2014" / "COCO_val2014_000000000006.jpg").is_file()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"year": 2015}, "year must be one of 2017, 2014, got 2015"),
        ({"splits": ["test"]}, "splits must be some of train, val"),
        ({"splits": []}, "splits must be some of"),
    ],
)
def test_coco_refuses(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prepare_coco(tmp_path, **options)


# Again, and beside others


def test_a_second_run_asks_nothing_and_says_so(pascal: Served, tmp_path: Path) -> None:
    assert pascal.prepare(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    pascal.said.clear()
    pascal.faults.requests.clear()
    assert not pascal.prepare(tmp_path)
    assert pascal.faults.requests == []
    assert pascal.said == [
        f"pascal: prepared already in {tmp_path} (see {tmp_path / INDEX}); nothing to do"
    ]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_archives_are_kept_on_demand_and_dropped_later(pascal: Served, tmp_path: Path) -> None:
    pascal.prepare(tmp_path, keep_archives=True)
    downloads = tmp_path / "downloads"
    assert sorted(os.listdir(downloads)) == sorted(s.name for s in PASCAL)
    assert not pascal.prepare(tmp_path, keep_archives=True)
    assert downloads.is_dir()
    assert not pascal.prepare(tmp_path)
    assert not downloads.exists()


def test_the_index_tells_what_was_prepared(pascal: Served, tmp_path: Path) -> None:
    pascal.prepare(tmp_path)
    record = read_index(tmp_path)["pascal"]
    for source in pascal.sources:
        assert record["sources"][source.name] == {
            "given": False, "size": source.size, "sha256": source.sha256,
        }  # fmt: skip
    files = tree(tmp_path / "VOCdevkit")
    assert record["targets"]["VOCdevkit"] == {
        "files": len(files), "bytes": sum(map(len, files.values())),
    }  # fmt: skip
    assert str(tmp_path) not in (tmp_path / INDEX).read_text()


def test_folders_of_others_are_left_alone(pascal: Served, tmp_path: Path) -> None:
    (tmp_path / "VOCdevkit").mkdir()
    with pytest.raises(FileExistsError, match="not made by this command, so it is left alone"):
        pascal.prepare(tmp_path)
    assert pascal.faults.requests == []
    (tmp_path / "VOCdevkit").rmdir()
    pascal.prepare(tmp_path)
    (tmp_path / VOC_FOLDER / "JPEGImages" / f"{tiny.VAL[0]}.jpg").unlink()
    with pytest.raises(FileExistsError, match=r"files were removed\. Remove the rest"):
        pascal.prepare(tmp_path)


def test_a_damaged_index_is_named(pascal: Served, tmp_path: Path) -> None:
    (tmp_path / INDEX).write_text("{")
    with pytest.raises(ValueError, match=f"{INDEX} is damaged"):
        pascal.prepare(tmp_path)


def test_dry_run_changes_nothing(pascal: Served, tmp_path: Path) -> None:
    assert not pascal.prepare(tmp_path / "root", dry_run=True)
    assert not (tmp_path / "root").exists()
    assert pascal.faults.requests == []
    for source in pascal.sources:
        assert any(source.name in line and f"{pascal.url}/{source.name}" in line
                   for line in pascal.said)  # fmt: skip
    assert "disk needed" in pascal.said[-1]


# A person's own archives


def test_given_archives_are_used_and_not_touched(pascal: Served, tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.mkdir()
    for name in (VOC.name, SBD.name):
        (pascal.folder / name).rename(given / name)
    before = tree(given)
    pascal.prepare(tmp_path / "root", given=given)
    assert tree(given) == before
    assert sorted(path for path, _ in pascal.faults.requests) == sorted(f"/{s.name}" for s in LISTS)
    assert read_index(tmp_path / "root")["pascal"]["sources"][VOC.name]["given"] is True


def test_given_folders_that_came_out_of_the_archives(pascal: Served, tmp_path: Path) -> None:
    pascal.prepare(tmp_path / "usual")
    given = tmp_path / "given"
    for name, data in {**tiny.voc_files(), **tiny.sbd_files()}.items():
        (given / name).parent.mkdir(parents=True, exist_ok=True)
        (given / name).write_bytes(data)
    before = tree(given)
    pascal.prepare(tmp_path / "root", given=given)
    assert tree(given) == before
    unused = ("Annotations", "SegmentationObject", "Main")
    assert content(tmp_path / "root") == {
        name: data
        for name, data in content(tmp_path / "usual").items()
        if not any(folder in name for folder in unused)
    }


def test_a_given_archive_that_is_wrong_is_named(pascal: Served, tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.mkdir()
    (given / SBD.name).write_bytes(b"x" * (pascal.folder / SBD.name).stat().st_size)
    with pytest.raises(ChecksumError, match=r"given/benchmark\.tgz has the SHA-256 .*expected"):
        pascal.prepare(tmp_path / "root", given=given)
    assert (given / SBD.name).exists()
    with pytest.raises(FileNotFoundError, match=r"no folder .*none"):
        pascal.prepare(tmp_path / "root", given=tmp_path / "none")


def test_a_file_put_by_hand_into_downloads(pascal: Served, tmp_path: Path) -> None:
    (tmp_path / "downloads").mkdir()
    (pascal.folder / SBD.name).rename(tmp_path / "downloads" / SBD.name)
    assert pascal.prepare(tmp_path)


# Faults


def test_cut_connections(pascal: Served, tmp_path: Path) -> None:
    rng = random.Random(3)
    pascal.faults.cuts = [rng.randrange(1, 4000) for _ in range(12)]
    assert pascal.prepare(tmp_path / "cut")
    assert pascal.faults.cuts == []
    pascal.prepare(tmp_path / "whole")
    assert content(tmp_path / "cut") == content(tmp_path / "whole")


@pytest.mark.parametrize("offline", [False, True])
def test_a_dead_link_tells_what_to_do(pascal: Served, tmp_path: Path, offline: bool) -> None:
    url = "http://127.0.0.1:9" if offline else pascal.url
    (pascal.folder / LISTS[0].name).unlink()
    with pytest.raises(DownloadError) as raised:
        pascal.prepare(tmp_path, mirror=url)
    text = str(raised.value)
    assert f"{url}/{LISTS[0].name}: " in text
    assert ("refused" if offline else "HTTP 404") in text
    assert f"put it into {tmp_path / 'downloads'}" in text
    assert "--from" in text


def test_a_wrong_checksum(pascal: Served, tmp_path: Path) -> None:
    wrong = [replace(s, sha256="0" * 64) if s.name == SBD.name else s for s in pascal.sources]
    with pytest.raises(ChecksumError, match=rf"expected {'0' * 64}.*benchmark\.tgz\.wrong"):
        pascal.prepare(tmp_path, sources=wrong)
    assert not (tmp_path / "VOCdevkit").exists()
    assert pascal.prepare(tmp_path)
    assert os.listdir(tmp_path / "downloads") == ["benchmark.tgz.wrong"]


@pytest.mark.parametrize("name", [VOC.name, SBD.name])
def test_an_archive_cut_off_at_the_source(pascal: Served, tmp_path: Path, name: str) -> None:
    """Right length and checksum of what was published, but the publisher's archive is damaged."""
    path = pascal.folder / name
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    sources = [tiny.pinned(s, pascal.folder / s.name) for s in pascal.sources]
    with pytest.raises(ValueError, match=rf"{name} .* is damaged or cut off"):
        pascal.prepare(tmp_path / "root", sources=sources)
    assert sorted(os.listdir(tmp_path / "root")) == [".prepare.lock", "downloads"]


def test_other_archives_by_the_right_names(pascal: Served, coco: Served, tmp_path: Path) -> None:
    for name, message in ((SBD.name, "not SBD's"), (VOC.name, "it is not VOC 2012")):
        make_tar(pascal.folder / name, {"readme.txt": b"other"})
        sources = [tiny.pinned(s, pascal.folder / s.name) for s in pascal.sources]
        with pytest.raises(ValueError, match=message):
            pascal.prepare(tmp_path / name, sources=sources)
    shutil.copy(coco.folder / "val2017.zip", coco.folder / "train2017.zip")
    sources = {key: tiny.pinned(s, coco.folder / s.name) for key, s in coco.sources.items()}
    with pytest.raises(ValueError, match=r"holds no train2017; it is not COCO's train2017\.zip"):
        coco.prepare(tmp_path / "coco", sources=sources)


def test_too_little_room_is_found_out_first(
    pascal: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(10, 9_000, 1_000))
    with pytest.raises(
        OSError, match=r"too little room: \d+\.\d kB are needed .* 1\.0 kB are free"
    ):
        pascal.prepare(tmp_path)
    assert pascal.faults.requests == []


def test_a_disk_that_fills_up_while_unpacking(pascal: Served, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a small tmpfs needs root")
    try:
        with pytest.raises(OSError, match="No space left"):
            pascal.prepare(disk, sources=[replace(s, unpacked=1) for s in pascal.sources])
        assert sorted(os.listdir(disk)) == [".prepare.lock", "downloads"], "no half tree"
        subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
        assert pascal.prepare(disk)
        assert (disk / "VOCdevkit").is_dir()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


# Processes: two at once, and killed ones


@pytest.fixture(scope="module")
def processes() -> Any:
    """Processes that start quickly: forked from one that has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tiny_archives"])
    # The server of the forks looks for what it preloads there alone.
    path = os.pathsep.join(map(str, (Path(__file__).parent, Path(__file__).parents[1])))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", path)
        context.Process(target=os.getpid).start()
    return context


def test_two_runs_at_once(pascal: Served, tmp_path: Path, processes: Any) -> None:
    pascal.faults.slow = 0.005
    root = tmp_path / "root"
    logs = [tmp_path / "log0", tmp_path / "log1"]
    runs = [
        processes.Process(target=tiny.run_pascal, args=(pascal.sources, root, pascal.url, log))
        for log in logs
    ]
    for run in runs:
        run.start()
    for run in runs:
        run.join(60)
        assert run.exitcode == 0
    first, second = sorted((log.read_text() for log in logs), key=lambda text: "waiting" in text)
    assert "ready: " in first
    assert "waiting for it" in second
    assert "nothing to do" in second
    assert sorted(path for path, _ in pascal.faults.requests) == sorted(
        f"/{s.name}" for s in PASCAL
    )
    pascal.prepare(tmp_path / "alone")
    assert content(root) == content(tmp_path / "alone")


def test_what_a_killed_run_was_writing_is_cleared_away(pascal: Served, tmp_path: Path) -> None:
    (tmp_path / "root" / "downloads").mkdir(parents=True)
    (tmp_path / "root" / ".preparing" / "VOCdevkit").mkdir(parents=True)
    for name in (f".{INDEX}.77", f"downloads/.{VOC.name}.part.json.77"):
        (tmp_path / "root" / name).write_text("half")
    pascal.prepare(tmp_path / "root")
    assert sorted(os.listdir(tmp_path / "root")) == [".prepare.lock", "VOCdevkit", INDEX]


def test_killed_at_any_moment_and_run_again(pascal: Served, tmp_path: Path, processes: Any) -> None:
    pascal.prepare(tmp_path / "whole")
    whole = content(tmp_path / "whole")
    pascal.faults.slow = 0.01

    def start(root: Path) -> Any:
        arguments = (pascal.sources, root, pascal.url, tmp_path / "log")
        run = processes.Process(target=tiny.run_pascal, args=arguments)
        run.start()
        return run

    start(tmp_path / "first").join()
    started = time.monotonic()
    start(tmp_path / "timed").join()
    duration = time.monotonic() - started
    rng = random.Random(5)
    phases = set()
    for moment in range(6):
        root = tmp_path / f"root{moment}"
        run = start(root)
        run.join((moment + rng.random()) / 6 * duration)
        run.kill()
        run.join()
        names = set(os.listdir(root)) if root.is_dir() else set()
        phases.add(frozenset(names & {"downloads", ".preparing", "VOCdevkit"}))
        if "VOCdevkit" in names:
            assert content(root / "VOCdevkit") == content(tmp_path / "whole" / "VOCdevkit")
        pascal.said.clear()
        pascal.prepare(root)
        assert content(root) == whole
        assert sorted(os.listdir(root)) == [".prepare.lock", "VOCdevkit", INDEX]
    assert len(phases) >= 2, phases


# The table of sources


@pytest.mark.parametrize("source", [*PASCAL, *COCO.values()], ids=lambda s: s.name)
def test_sources_are_complete(source: Source) -> None:
    assert source.sha256 is not None
    assert len(source.sha256) == 64
    assert int(source.sha256, 16)
    assert source.size
    assert source.unpacked > 0
    assert source.origin
    assert source.urls
    assert all(url.endswith(f"/{source.name}") for url in source.urls)
    assert source.urls[0].startswith("https://")
    mirror = published.mirrored([source], "http://host/folder/")[0]
    assert mirror.urls == (f"http://host/folder/{source.name}",)


@pytest.mark.parametrize(
    "row, sources",
    [
        ("`pascal`", PASCAL),
        ("`coco`", [s for (year, _), s in COCO.items() if year == 2017]),
        ("`coco --splits val`", [COCO[2017, "annotations"], COCO[2017, "val"]]),
        ("`coco --year 2014`", [s for (year, _), s in COCO.items() if year == 2014]),
    ],
)
def test_the_book_gives_the_sizes_of_the_table(row: str, sources: list[Source]) -> None:
    page = Path(__file__).parents[1] / "book" / "data.md"
    (line,) = [text for text in page.read_text("utf-8").splitlines() if f"| {row} |" in text]
    download, unpacked = (sum(getattr(s, of) for s in sources) for of in ("size", "unpacked"))
    sizes = [download, download + 1.03 * unpacked, unpacked]
    assert line.endswith(" | ".join(["", *(f"{size / 1e9:.1f} GB" for size in sizes)]) + " |")


def test_a_source_without_a_checksum_prints_its_own(pascal: Served, tmp_path: Path) -> None:
    sources = [replace(s, sha256=None) if s.name == SBD.name else s for s in pascal.sources]
    pascal.prepare(tmp_path, sources=sources)
    digest = next(s.sha256 for s in pascal.sources if s.name == SBD.name)
    assert f"what came has SHA-256 {digest}" in pascal.text
    assert read_index(tmp_path)["pascal"]["sources"][SBD.name]["sha256"] == digest
