"""Bad pictures: data roots, lists, photos, label maps, and a person's own pictures and masks."""

from pathlib import Path

import numpy as np
from bad_input import (
    IDS,
    Case,
    Deed,
    Table,
    check,
    cut,
    labels_of,
    list_of,
    photo_of,
    png_header,
    save_labels,
    save_photo,
    voc_tree,
)
from PIL import Image

from pmms.data import DataConfig
from pmms.datasets.base import images_of_class
from pmms.datasets.coco import CocoInstances
from pmms.datasets.pascal import PascalVOC
from pmms.datasets.pascal_lists import PairVOC
from pmms.pairs import Pair
from pmms.predict import read_mask, read_picture, segment_image

case = Table()


# the data root


@case("no data root", ValueError, "needs root", "VOCdevkit")
def _(folder: Path) -> Deed:
    return lambda: DataConfig(dataset="pascal")


@case("data root that is not there", FileNotFoundError, "does not exist", "VOCdevkit")
def _(folder: Path) -> Deed:
    return lambda: PascalVOC(folder / "nowhere")


@case(
    "data root of something else", FileNotFoundError, "no complete VOC tree", "JPEGImages", "give"
)
def _(folder: Path) -> Deed:
    (folder / "holiday").mkdir()
    return lambda: PascalVOC(folder / "holiday")


@case("COCO root that is not there", FileNotFoundError, "does not exist", "annotations/")
def _(folder: Path) -> Deed:
    return lambda: CocoInstances(folder / "nowhere", "val2017")


@case("COCO root without that split", FileNotFoundError, "no annotation file", "split")
def _(folder: Path) -> Deed:
    (folder / "annotations").mkdir()
    return lambda: CocoInstances(folder, "val2017")


@case("list that is not there", FileNotFoundError, "there is no list", "split must be one of: val")
def _(folder: Path) -> Deed:
    root = voc_tree(folder)
    return lambda: PascalVOC(root, "test")


@case("empty list", ValueError, "is empty", "one image id a line")
def _(folder: Path) -> Deed:
    root = voc_tree(folder)
    list_of(folder).write_text("\n")
    return lambda: PascalVOC(root)


@case("list with paths", ValueError, "expected one image id a line", "../../secret")
def _(folder: Path) -> Deed:
    root = voc_tree(folder)
    list_of(folder).write_text("../../secret\n")
    return lambda: PascalVOC(root)


@case("list with an image twice", ValueError, f"lists {IDS[0]} twice", "its own support")
def _(folder: Path) -> Deed:
    root = voc_tree(folder)
    list_of(folder).write_text(f"{IDS[0]}\n{IDS[1]}\n{IDS[0]}\n")
    return lambda: PascalVOC(root)


@case("photo that is missing", FileNotFoundError, "1 of the 3 images", IDS[0], "unpack the whole")
def _(folder: Path) -> Deed:
    root = voc_tree(folder)
    photo_of(folder).unlink()
    return lambda: PascalVOC(root)


@case("authors' list changed", ValueError, "is not the authors' list", "checked=False")
def _(folder: Path) -> Deed:
    root = voc_tree(folder)
    (folder / "split0_val.txt").write_text(f"{IDS[0]}__01\n")
    return lambda: PairVOC(root, (0,), "val", lists=folder, labels="SegmentationClass")


# images and label maps


@case("empty label map", ValueError, "cannot decode", "(0 bytes)", "unpack its archive again")
def _(folder: Path) -> Deed:
    root = voc_tree(folder)
    labels_of(folder).write_bytes(b"")
    return lambda: images_of_class(PascalVOC(root))


@case("truncated label map", ValueError, "cannot decode", f"{IDS[0]}.png", "copy it")
def _(folder: Path) -> Deed:
    root = voc_tree(folder)
    cut(labels_of(folder), 0.9)
    return lambda: images_of_class(PascalVOC(root))


@case("truncated photo", ValueError, "cannot decode", f"{IDS[0]}.jpg", "copy it")
def _(folder: Path) -> Deed:
    dataset = PascalVOC(voc_tree(folder))
    cut(photo_of(folder))
    return lambda: dataset[0]


@case("photo and label map of other sizes", ValueError, "41 x 30", "40 x 30", "must match")
def _(folder: Path) -> Deed:
    dataset = PascalVOC(voc_tree(folder))
    save_photo(photo_of(folder), width=41)
    return lambda: dataset[0]


@case("RGB label map", ValueError, "is no label map", "mode RGB", "save the labels themselves")
def _(folder: Path) -> Deed:
    root = voc_tree(folder)
    Image.open(labels_of(folder)).convert("RGB").save(labels_of(folder))
    return lambda: images_of_class(PascalVOC(root))


@case("16-bit label map", ValueError, "is no label map", "mode I;16", "8-bit")
def _(folder: Path) -> Deed:
    root = voc_tree(folder)
    Image.fromarray(np.full((30, 40), 300, dtype=np.uint16)).save(labels_of(folder))
    return lambda: images_of_class(PascalVOC(root))


@case("label above the classes", ValueError, "holds the label 77", "20 classes", "expected 0 to 20")
def _(folder: Path) -> Deed:
    root = voc_tree(folder)
    save_labels(labels_of(folder), np.full((30, 40), 77, dtype=np.uint8))
    names = tuple(map(str, range(1, 101)))
    images_of_class(PascalVOC(root, class_names=names))  # the index is kept
    return lambda: images_of_class(PascalVOC(root))


@case("photo with a header of 10^10 pixels", ValueError, "cannot decode", "copy it")
def _(folder: Path) -> Deed:
    dataset = PascalVOC(voc_tree(folder))
    photo_of(folder).write_bytes(png_header(100_000, 100_000))
    return lambda: dataset[0]


@case("own picture with a header of 10^10 pixels", ValueError, "cannot be read as a picture")
def _(folder: Path) -> Deed:
    (folder / "own.png").write_bytes(png_header(100_000, 100_000))
    return lambda: read_picture(folder / "own.png")


@case("data that changed under the index", ValueError, "x", "must match")
def _(folder: Path) -> Deed:
    dataset = PascalVOC(voc_tree(folder))
    save_labels(labels_of(folder), np.zeros((10, 10), dtype=np.uint8))
    return lambda: dataset[0]


# pictures and masks of a person's own


def _picture(side: int = 24) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)


@case("picture that is not there", FileNotFoundError, "no file at", "own.jpg")
def _(folder: Path) -> Deed:
    return lambda: read_picture(folder / "own.jpg")


@case("empty picture", ValueError, "own.png", "cannot be read as a picture")
def _(folder: Path) -> Deed:
    (folder / "own.png").write_bytes(b"")
    return lambda: read_picture(folder / "own.png")


@case("truncated picture", ValueError, "own.jpg", "cannot be read as a picture", "truncated")
def _(folder: Path) -> Deed:
    own = cut(save_photo(folder / "own.jpg"), 0.9)
    return lambda: read_picture(own)


@case("picture of 32 bits", ValueError, "32 bits", "save it with 8 bits")
def _(folder: Path) -> Deed:
    Image.fromarray(np.ones((8, 8), dtype=np.int32)).save(folder / "own.tiff")
    return lambda: read_picture(folder / "own.tiff")


@case("mask in colour", ValueError, "is a colour picture", "palette PNG")
def _(folder: Path) -> Deed:
    mask = save_photo(folder / "mask.png")
    return lambda: read_mask(mask)


@case("mask with several labels", ValueError, "the labels [1, 2]", "label")
def _(folder: Path) -> Deed:
    mask = save_labels(folder / "mask.png", np.array([[0, 1], [2, 255]], dtype=np.uint8))
    return lambda: read_mask(mask)


@case("mask without the class", ValueError, "does not hold the label 5", "[1]")
def _(folder: Path) -> Deed:
    mask = save_labels(folder / "mask.png", np.eye(4, dtype=np.uint8))
    return lambda: read_mask(mask, label=5)


@case("16-bit mask without the class", ValueError, "does not hold the label 300", "[500]")
def _(folder: Path) -> Deed:
    Image.fromarray(np.eye(4, dtype=np.uint16) * 500).save(folder / "mask.png")
    return lambda: read_mask(folder / "mask.png", label=300)


@case("mask of zeros", ValueError, "only 0, an empty mask", "label")
def _(folder: Path) -> Deed:
    mask = save_labels(folder / "mask.png", np.zeros((4, 4), dtype=np.uint8))
    return lambda: read_mask(mask)


@case("no support", ValueError, "at least one support picture")
def _(folder: Path) -> Deed:
    return lambda: segment_image([], _picture())


@case("support mask of another size", ValueError, "mask 1 must be bool (24, 24)", "(20, 24)")
def _(folder: Path) -> Deed:
    return lambda: segment_image([(_picture(), np.ones((20, 24), dtype=bool))], _picture())


@case("support mask that is empty", ValueError, "mask 1 is empty", "must show the object")
def _(folder: Path) -> Deed:
    return lambda: segment_image([(_picture(), np.zeros((24, 24), dtype=bool))], _picture())


@case("support mask of numbers", ValueError, "must be bool", "float64")
def _(folder: Path) -> Deed:
    return lambda: segment_image([(_picture(), np.ones((24, 24)))], _picture())


@case("grey query", ValueError, "query must be uint8 (H, W, 3)", "read_picture")
def _(folder: Path) -> Deed:
    support = [(_picture(), np.ones((24, 24), dtype=bool))]
    return lambda: segment_image(support, _picture()[..., 0])


@case("pair with an empty mask", ValueError, "the mask is empty", "must show the object")
def _(folder: Path) -> Deed:
    return lambda: Pair("own", _picture(), np.zeros((24, 24), dtype=bool), _picture())


@case.parametrize()
def test_bad_pictures_are_refused(case: Case, tmp_path: Path) -> None:
    check(case, tmp_path)


# what is not refused, because it is an answer


def test_a_palette_mask_is_read_by_its_labels_not_its_colours(tmp_path: Path) -> None:
    path = save_labels(tmp_path / "mask.png", np.eye(4, dtype=np.uint8) * 7)
    assert (read_mask(path) == np.eye(4, dtype=bool)).all()


def test_a_mask_of_16_bits_keeps_labels_above_255(tmp_path: Path) -> None:
    Image.fromarray(np.eye(4, dtype=np.uint16) * 300).save(tmp_path / "mask.png")
    assert (read_mask(tmp_path / "mask.png", label=300) == np.eye(4, dtype=bool)).all()
