"""What there is to fetch: addresses, sizes and checksums, and where each of these is documented.

Checksums were not taken on trust from a download of ours: each is published in the code of another
project, which is named beside it. A second project with the same sum is named where there is one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pmms.datasets.pascal_lists import AUTHORS_SHA256


@dataclass(frozen=True)
class Source:
    """One file to fetch.

    Attributes:
        name: file name.
        urls: addresses of the same file, tried in this order.
        size: bytes; None where nobody has published it.
        sha256: SHA-256 in hexadecimal; None where nobody has published it.
        unpacked: bytes that its wanted content takes on the disk, roughly.
        origin: who published size and checksum.
        folder: name of the folder that comes out of it, if that serves as well.
    """

    name: str
    urls: tuple[str, ...]
    size: int | None
    sha256: str | None
    unpacked: int
    origin: str
    folder: str = ""


VOC = Source(
    "VOCtrainval_11-May-2012.tar",
    (
        "https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
        "https://pjreddie.com/media/files/VOCtrainval_11-May-2012.tar",
    ),
    1_999_639_040,
    "e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb",
    2_100_000_000,
    "tensorflow/datasets, url_checksums/voc.txt; pytorch/vision, prototype/datasets (voc.py)",
    "VOCdevkit",
)
"""Images, label maps and lists of VOC 2012, training and validation."""

SBD = Source(
    "benchmark.tgz",
    (
        "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/"
        "benchmark.tgz",
    ),
    1_419_539_633,
    "6a5a2918d5c73ce032fdeba876574d150d9d04113ab87540a1304cbcc715be53",
    80_000_000,
    "pytorch/vision, prototype/datasets (sbd.py); the size as a public notebook printed it",
    "benchmark_RELEASE",
)
"""Semantic Boundaries Dataset: label maps for 11,355 images of VOC."""

_LISTS = "https://raw.githubusercontent.com/Yang-Bob/PMMs/{branch}/data_list/{part}/{name}"


def _list(fold: int, part: str, size: int) -> Source:
    name = f"split{fold}_{part}"
    urls = tuple(_LISTS.format(branch=b, part=part, name=f"{name}.txt") for b in ("HEAD", "master"))
    origin = "the files in Yang-Bob/PMMs as of 2020"
    return Source(f"{name}.txt", urls, size, AUTHORS_SHA256[name], size, origin)


LISTS = (
    _list(0, "train", 36_576),
    _list(1, "train", 54_800),
    _list(2, "train", 94_128),
    _list(3, "train", 33_376),
    _list(0, "val", 5_536),
    _list(1, "val", 7_216),
    _list(2, "val", 11_600),
    _list(3, "val", 5_536),
)
"""Which image shows which class, as the authors of the paper used it (``data_list`` there)."""

PASCAL = (*LISTS, VOC, SBD)
"""Everything for Pascal-5i; the small files first, so that a dead link is found out early."""


def _coco(name: str, size: int, unpacked: int, sha256: str) -> Source:
    folder = "annotations" if name.startswith("annotations") else "zips"
    # images.cocodataset.org has no certificate of its own; the bucket behind it does.
    urls = (f"https://s3.amazonaws.com/images.cocodataset.org/{folder}/{name}",)
    origin = "tensorflow/datasets, url_checksums/coco.txt"
    return Source(name, urls, size, sha256, unpacked, origin)


COCO = {
    (2017, "annotations"): _coco(
        "annotations_trainval2017.zip", 252_907_541, 500_000_000,
        "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
    ),
    (2017, "train"): _coco(
        "train2017.zip", 19_336_861_798, 19_600_000_000,
        "69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
    ),
    (2017, "val"): _coco(
        "val2017.zip", 815_585_330, 830_000_000,
        "4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
    ),
    (2014, "annotations"): _coco(
        "annotations_trainval2014.zip", 252_872_794, 500_000_000,
        "031296bbc80c45a1d1f76bf9a90ead27e94e99ec629208449507a4917a3bf009",
    ),
    (2014, "train"): _coco(
        "train2014.zip", 13_510_573_713, 13_700_000_000,
        "ede4087e640bddba550e090eae701092534b554b42b05ac33f0300b984b31775",
    ),
    (2014, "val"): _coco(
        "val2014.zip", 6_645_013_297, 6_800_000_000,
        "fe9be816052049c34717e077d9e34aa60814a55679f804cd043e3cbee3b9fde0",
    ),
}  # fmt: skip
"""COCO by year and part: images of "train" and "val", and the "annotations" of both."""


def mirrored(sources: Sequence[Source], mirror: str) -> tuple[Source, ...]:
    """The same files, all in one folder of another server; sizes and checksums stay."""
    base = mirror.rstrip("/")
    return tuple(replace(source, urls=(f"{base}/{source.name}",)) for source in sources)


def in_folder(source: Source, folder: Path | None) -> Path | None:
    """What a person has of a source in ``folder``: the file, or what came out of it; or None."""
    if folder is None:
        return None
    if (folder / source.name).is_file():
        return folder / source.name
    unpacked = folder / source.folder
    return unpacked if source.folder and unpacked.is_dir() else None
