"""Archives in the true layouts of VOC 2012, SBD and COCO, with a few tiny pictures."""

import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat
from scipy.sparse import csc_matrix
from test_archives import make_tar, make_zip

from pmms.datasets.parts_voc import voc_colour_map
from pmms.datasets.prepare_coco import prepare_coco
from pmms.datasets.prepare_pascal import prepare_pascal
from pmms.datasets.sources import COCO, LISTS, SBD, VOC, Source

SHAPE = (40, 60)
TRAIN = ["2007_000032", "2007_000039", "2008_000008"]
VAL = ["2007_000033", "2007_000042"]
ONLY_SBD = ["2008_000002", "2009_000015", "2011_003275"]
SBD_IDS = [*TRAIN[1:], VAL[0], *ONLY_SBD]
UNLABELLED = ["2012_000001"]


def labels_of(image_id: str, *, void: bool) -> np.ndarray:
    """A label map that the id decides: two objects, with void borders or without."""
    rng = np.random.default_rng(int(image_id.replace("_", "")))
    labels = np.zeros(SHAPE, dtype=np.uint8)
    for left in (5, 32):
        if void:
            labels[8:32, left : left + 22] = 255
        labels[10:30, left + 2 : left + 20] = rng.integers(1, 21)
    return labels


def png(labels: np.ndarray) -> bytes:
    picture = Image.fromarray(labels)
    picture.putpalette(voc_colour_map().ravel().tolist())
    return encoded(picture, "PNG")


def jpg(image_id: str) -> bytes:
    rng = np.random.default_rng(int(image_id.replace("_", "")) + 1)
    return encoded(Image.fromarray(rng.integers(0, 256, (*SHAPE, 3), dtype=np.uint8)), "JPEG")


def encoded(picture: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format=kind)
    return buffer.getvalue()


def mat(labels: np.ndarray) -> bytes:
    """As in SBD's folder cls: a struct with sparse boundaries of 20 classes and the label map."""
    boundaries = np.empty((20, 1), dtype=object)
    for position in range(20):
        boundaries[position, 0] = csc_matrix((labels == position + 1).astype(float))
    present = np.unique(labels[labels > 0]).astype(np.uint8)[:, None]
    struct = {"Boundaries": boundaries, "Segmentation": labels, "CategoriesPresent": present}
    buffer = io.BytesIO()
    savemat(buffer, {"GTcls": struct}, do_compression=True)
    return buffer.getvalue()


def lines(ids: Iterable[str]) -> bytes:
    return "".join(f"{i}\n" for i in ids).encode()


def voc_files() -> dict[str, bytes]:
    files = {}
    for image_id in (*TRAIN, *VAL, *ONLY_SBD, *UNLABELLED):
        files[f"JPEGImages/{image_id}.jpg"] = jpg(image_id)
        files[f"Annotations/{image_id}.xml"] = b"<annotation/>"
    for image_id in (*TRAIN, *VAL):
        files[f"SegmentationClass/{image_id}.png"] = png(labels_of(image_id, void=True))
        files[f"SegmentationObject/{image_id}.png"] = png(labels_of(image_id, void=True))
    for name, ids in (("train", TRAIN), ("val", VAL), ("trainval", sorted(TRAIN + VAL))):
        files[f"ImageSets/Segmentation/{name}.txt"] = lines(ids)
    files["ImageSets/Main/train.txt"] = lines(TRAIN)
    return {f"VOCdevkit/VOC2012/{name}": content for name, content in files.items()}


def sbd_files() -> dict[str, bytes]:
    files = {"README.txt": b"SBD"}
    for image_id in SBD_IDS:
        files[f"dataset/img/{image_id}.jpg"] = jpg(image_id)
        files[f"dataset/cls/{image_id}.mat"] = mat(labels_of(image_id, void=False))
        files[f"dataset/inst/{image_id}.mat"] = mat(labels_of(image_id, void=False))
    files["dataset/train.txt"] = lines(SBD_IDS[:4])
    files["dataset/val.txt"] = lines(SBD_IDS[4:])
    return {f"benchmark_RELEASE/{name}": content for name, content in files.items()}


def pinned(source: Source, path: Path) -> Source:
    """A source with size and checksum of the tiny file that stands for it."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return replace(source, size=path.stat().st_size, sha256=digest, unpacked=10_000)


def write_pascal(folder: Path) -> tuple[Source, ...]:
    """All files of Pascal-5i in ``folder``, with their sources."""
    folder.mkdir(parents=True, exist_ok=True)
    make_tar(folder / VOC.name, voc_files())
    make_tar(folder / SBD.name, sbd_files())
    for source in LISTS:
        fold, part = int(source.name[5]), source.name[7:-4]
        ids = VAL if part == "val" else [*TRAIN, *ONLY_SBD]
        rows = (f"{i}__{5 * fold + 1:02d}" for i in ids)
        (folder / source.name).write_bytes(lines(rows))
    return tuple(pinned(s, folder / s.name) for s in (*LISTS, VOC, SBD))


def coco_json(ids: Iterable[int], prefix: str = "") -> bytes:
    annotations = [
        {
            "id": i, "image_id": i, "category_id": 1, "iscrowd": 0, "area": 400.0,
            "bbox": [5, 5, 20, 20], "segmentation": [[5, 5, 25, 5, 25, 25, 5, 25]],
        }
        for i in ids
    ]  # fmt: skip
    images = [
        {"id": i, "file_name": f"{prefix}{i:012d}.jpg", "height": 40, "width": 60} for i in ids
    ]
    categories = [{"id": 1, "name": "person", "supercategory": "person"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    return json.dumps(content).encode()


def write_coco(folder: Path, year: int = 2017) -> dict[tuple[int, str], Source]:
    """All files of one year of COCO in ``folder``, with their sources."""
    folder.mkdir(parents=True, exist_ok=True)
    ids = {"train": range(1, 6), "val": range(6, 9)}
    annotations = {}
    for split, numbers in ids.items():
        prefix = "" if year == 2017 else f"COCO_{split}{year}_"
        photos = {f"{split}{year}/{prefix}{i:012d}.jpg": jpg(str(i)) for i in numbers}
        make_zip(folder / COCO[year, split].name, photos)
        for kind in ("instances", "captions", "person_keypoints"):
            annotations[f"annotations/{kind}_{split}{year}.json"] = coco_json(numbers, prefix)
    make_zip(folder / COCO[year, "annotations"].name, annotations)
    return {
        key: pinned(source, folder / source.name) for key, source in COCO.items() if key[0] == year
    }


def run_pascal(sources: tuple[Source, ...], root: Path, mirror: str, log: Path) -> None:
    """Prepare in a process of its own; what it says goes to ``log``."""

    def say(line: str) -> None:
        with log.open("a") as file:
            file.write(f"{line}\n")

    prepare_pascal(root, sources=sources, mirror=mirror, say=say)


def run_coco(sources: Mapping[tuple[int, str], Source], root: Path, mirror: str) -> None:
    prepare_coco(root, sources=sources, mirror=mirror, say=lambda line: None)
