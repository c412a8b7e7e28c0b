"""Bad data: classes, folds, episodes, COCO annotations, what is fetched, what is scored."""

import json
from pathlib import Path

import pytest
import torch
from bad_input import (
    Case,
    Deed,
    Table,
    check,
    cut,
    save_photo,
    voc_tree,
)
from fakes import FakeDataset, fake_dataset

from pmms.data import DataConfig, load_data
from pmms.datasets.base import images_of_class, keep_images
from pmms.datasets.coco import CocoInstances
from pmms.datasets.parts import PartsVOC
from pmms.datasets.pascal import PascalVOC
from pmms.datasets.prepare_coco import prepare_coco
from pmms.download import download
from pmms.episodes import EpisodeSampler, check_no_leak, class_mask
from pmms.folds import fold_classes, read_classes, split_classes
from pmms.metrics import episode_counts, scores
from pmms.transforms import EvalTransform

case = Table()


# classes, folds, episodes


@case("fold that does not exist", ValueError, "fold must be an integer from 0 to 3", "4")
def _(folder: Path) -> Deed:
    return lambda: split_classes("pascal", 4)


@case("fold below zero", ValueError, "fold must be an integer from 0 to 3", "-1")
def _(folder: Path) -> Deed:
    return lambda: fold_classes("coco", -1)


@case("fold that is no number", ValueError, "fold must be an integer", "True")
def _(folder: Path) -> Deed:
    return lambda: fold_classes("parts", True)


@case("data set that does not exist", ValueError, "dataset must be one of", "parts, pascal, coco")
def _(folder: Path) -> Deed:
    return lambda: DataConfig(dataset="imagenet")


@case("class that does not exist", ValueError, "class ids 1 to 6", "9")
def _(folder: Path) -> Deed:
    return lambda: EpisodeSampler(fake_dataset(), [9])


@case("background as a class", ValueError, "class ids 1 to 6", "0")
def _(folder: Path) -> Deed:
    return lambda: EpisodeSampler(fake_dataset(), [0])


@case("class twice", ValueError, "must not repeat", "class 2")
def _(folder: Path) -> Deed:
    return lambda: EpisodeSampler(fake_dataset(), [2, 2])


@case("no class", ValueError, "at least one class")
def _(folder: Path) -> Deed:
    return lambda: EpisodeSampler(fake_dataset(), [])


@case("more shots than images", ValueError, "needs 6 images", "has 5", "fewer shots")
def _(folder: Path) -> Deed:
    dataset = FakeDataset([{1: 8}] * 5)
    return lambda: EpisodeSampler(dataset, [1], shots=5)


@case("no shot", ValueError, "shots must be an integer of at least 1", "0")
def _(folder: Path) -> Deed:
    return lambda: EpisodeSampler(fake_dataset(), [1], shots=0)


@case("duplicate supports", ValueError, "must not repeat", "its own support")
def _(folder: Path) -> Deed:
    return lambda: keep_images(fake_dataset(), [0, 1, 1])


@case("episode past the end", IndexError, "has 10 episodes", "10")
def _(folder: Path) -> Deed:
    sampler = EpisodeSampler(fake_dataset(), [1], length=10)
    return lambda: sampler[10]


@case("held-out class in training", ValueError, "show a held-out class", "without_classes")
def _(folder: Path) -> Deed:
    return lambda: check_no_leak(fake_dataset(), [2])


@case("class file that is not there", FileNotFoundError, "no class file", "a class name a line")
def _(folder: Path) -> Deed:
    return lambda: read_classes(folder / "classes.txt")


@case("class file of one fold", ValueError, "at least 2 folds", "held out")
def _(folder: Path) -> Deed:
    (folder / "classes.txt").write_text("cup\nspoon\n")
    return lambda: read_classes(folder / "classes.txt")


@case("class file with a class twice", ValueError, "class names must differ", "cup")
def _(folder: Path) -> Deed:
    (folder / "classes.txt").write_text("cup\n\ncup\n")
    return lambda: read_classes(folder / "classes.txt")


@case("class file that is no text", ValueError, "no text file in UTF-8")
def _(folder: Path) -> Deed:
    (folder / "classes.txt").write_bytes(b"\xff\xfe\x00cup")
    return lambda: read_classes(folder / "classes.txt")


@case("own data without enough images", ValueError, "a class needs 2 test images", "min_images=2")
def _(folder: Path) -> Deed:
    root = voc_tree(folder)
    (folder / "classes.txt").write_text("one\n\ntwo\n\nthree\n")
    config = DataConfig(
        dataset="pascal", root=str(root), classes=str(folder / "classes.txt"), fold=2,
        train_split="val", test_split="val", labels="SegmentationClass",
    )  # fmt: skip
    cache = folder / "cache"
    images_of_class(PascalVOC(root, cache=cache))  # its index is kept
    return lambda: load_data(config, cache=cache)


@case("drawn image of no size", ValueError, "size must be from 64 to 1024", "0")
def _(folder: Path) -> Deed:
    return lambda: PartsVOC(length=1, size=0)


@case("extra classes in a test", ValueError, "for training only", "use 0")
def _(folder: Path) -> Deed:
    return lambda: PartsVOC("val", length=1, extra_classes=3)


# COCO annotations and what is fetched


def _coco(folder: Path, **changes: object) -> Path:
    annotation = {"id": 7, "image_id": 1, "category_id": 3, "segmentation": [[1, 1, 9, 1, 9, 9]]}
    content = {
        "images": [{"id": 1, "file_name": "1.jpg", "width": 40, "height": 30}],
        "categories": [{"id": 3, "name": "cup"}],
        "annotations": [annotation | changes],
    }
    (folder / "annotations").mkdir()
    (folder / "annotations" / "instances_val.json").write_text(json.dumps(content))
    save_photo(folder / "1.jpg")
    return folder


def _read_coco(root: Path) -> Deed:
    return lambda: CocoInstances(root, "val", class_names=("cup",))


@case("annotations cut off", ValueError, "as JSON", "unpack its archive again")
def _(folder: Path) -> Deed:
    cut(_coco(folder) / "annotations" / "instances_val.json")
    return _read_coco(folder)


@case("annotations of boxes", ValueError, "annotation 7", "has no segmentation", "boxes")
def _(folder: Path) -> Deed:
    return _read_coco(_coco(folder, segmentation=None))


@case("polygon outside its image", ValueError, "annotation 7", "outside", "another size")
def _(folder: Path) -> Deed:
    return _read_coco(_coco(folder, segmentation=[[1, 1, 900, 1, 900, 900]]))


@case("damaged run-length code", ValueError, "annotation 7", "damaged RLE")
def _(folder: Path) -> Deed:
    return _read_coco(_coco(folder, segmentation={"size": [30, 40], "counts": "99"}))


@case("annotation of an unknown image", ValueError, "annotation 7", "image 5", "not listed")
def _(folder: Path) -> Deed:
    return _read_coco(_coco(folder, image_id=5))


@case("class that no name was given for", ValueError, "no class: cup", "the classes are spoon")
def _(folder: Path) -> Deed:
    root = _coco(folder)
    _read_coco(root)()  # the index of the file is kept, whatever the classes are
    return lambda: CocoInstances(root, "val", class_names=("spoon",))


@case("address that is no address", ValueError, "starts with https://", "file:///etc/passwd")
def _(folder: Path) -> Deed:
    return lambda: download(["file:///etc/passwd"], folder / "archive.tar")


@case("COCO of another year", ValueError, "year must be one of", "2016")
def _(folder: Path) -> Deed:
    return lambda: prepare_coco(folder, year=2016)


# metrics


@case("prediction of another size", ValueError, "same shape (B, H, W)", "(1, 4, 4)", "(1, 4, 5)")
def _(folder: Path) -> Deed:
    return lambda: episode_counts(torch.ones(1, 4, 4).long(), torch.ones(1, 4, 5).long())


@case("prediction of probabilities", TypeError, "prediction must hold integers", "float32")
def _(folder: Path) -> Deed:
    return lambda: episode_counts(torch.ones(1, 4, 4), torch.ones(1, 4, 4).long())


@case("target of all classes", ValueError, "0, 1 and the void label", "reduced to one class")
def _(folder: Path) -> Deed:
    return lambda: episode_counts(torch.ones(1, 4, 4).long(), torch.full((1, 4, 4), 7))


@case("score of no episode", ValueError, "no episodes to score")
def _(folder: Path) -> Deed:
    return lambda: scores(torch.empty(0, dtype=torch.int64), torch.empty(0, 4, dtype=torch.int64))


@case("score of a class that was not drawn", ValueError, "no episode of class [3]", "more episodes")
def _(folder: Path) -> Deed:
    return lambda: scores(torch.tensor([1]), torch.tensor([[1, 2, 3, 4]]), classes=[1, 3])


@case.parametrize()
def test_bad_data_is_refused(case: Case, tmp_path: Path) -> None:
    check(case, tmp_path)


# what is not refused, because it has an answer


def test_an_object_that_vanishes_when_resized_keeps_one_pixel() -> None:
    labels = torch.zeros(300, 300, dtype=torch.uint8)
    labels[151, 77] = 1
    small = EvalTransform(16).mask(class_mask(labels, 1))
    assert int((small == 1).sum()) == 1
    assert small[151 * 16 // 300, 77 * 16 // 300] == 1


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_mask_of_all_or_nothing_passes_the_transform(share: float) -> None:
    mask = torch.full((20, 20), int(share), dtype=torch.uint8)
    assert (EvalTransform(8).mask(mask) == int(share)).all()
