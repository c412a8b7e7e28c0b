"""Lists of pairs: reading them, the data set made of them, pairs derived from label maps."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pmms.datasets import images_of_class, without_classes
from pmms.datasets.pascal import PascalVOC
from pmms.datasets.pascal_lists import PAIR_LISTS, PairVOC, derived_pairs, read_pairs
from pmms.protocol_episodes import PFENET_AREA

SHOWN = {"2007_000001": (1, 3), "2007_000002": (3, 7), "2008_000003": (2,), "2008_000004": (12, 1)}
LIST = "2007_000002__03\n2007_000001__01\n2007_000001__03\n2008_000003__02\n"


@pytest.fixture
def devkit(tmp_path: Path) -> Path:
    """A VOC tree with four images, lists of pairs of fold 0 and of training images of fold 1."""
    voc = tmp_path / "VOCdevkit" / "VOC2012"
    lists = voc / PAIR_LISTS
    for folder in (voc / "JPEGImages", voc / "SegmentationClassAug", lists,
                   voc / "ImageSets" / "Segmentation"):  # fmt: skip
        folder.mkdir(parents=True)
    for name, classes in SHOWN.items():
        Image.new("RGB", (30, 20)).save(voc / "JPEGImages" / f"{name}.jpg")
        labels = np.zeros((20, 30), dtype=np.uint8)
        for place, class_id in enumerate(classes):
            labels[5 * place : 5 * place + 4] = class_id
        labels[-1] = 255
        Image.fromarray(labels).save(voc / "SegmentationClassAug" / f"{name}.png")
    (lists / "split0_val.txt").write_text(LIST)
    (lists / "split1_train.txt").write_text("2007_000002__07\n")
    (lists / "split2_train.txt").write_text("2008_000004__12\n2007_000002__12\n")
    return voc.parent


def test_images_are_those_of_the_list_once_in_its_order(devkit: Path) -> None:
    dataset = PairVOC(devkit, 0, checked=False)
    ids = [dataset.image_id(i) for i in range(len(dataset))]
    assert ids == ["2007_000002", "2007_000001", "2008_000003"]
    assert dataset.pairs == ((0, 3), (1, 1), (1, 3), (2, 2))
    assert [dataset.classes_in(i) for i in range(3)] == [{3}, {1, 3}, {2}]
    assert [dataset.classes_shown(i) for i in range(3)] == [{3, 7}, {1, 3}, {2}]
    assert images_of_class(dataset)[3] == (0, 1)
    image, labels = dataset[1]
    assert tuple(image.shape) == (3, 20, 30)
    assert set(labels.unique().tolist()) == {0, 1, 3, 255}
    assert dataset.label_map(1).equal(labels)


def test_several_folds_follow_one_another_and_an_image_stands_once(devkit: Path) -> None:
    dataset = PairVOC(devkit, (1, 2), "train", checked=False)
    assert [dataset.image_id(i) for i in range(2)] == ["2007_000002", "2008_000004"]
    assert dataset.pairs == ((0, 7), (1, 12), (0, 12))
    assert dataset.classes_in(0) == {7, 12}


def test_training_images_that_show_a_held_out_class_go(devkit: Path) -> None:
    """By all that an image shows, not by its pairs: image 2008_000004 shows class 1 too."""
    dataset = PairVOC(devkit, (1, 2), "train", checked=False)
    held_out = (1, 2, 3, 4, 5)
    assert not any(dataset.classes_in(i) & set(held_out) for i in range(2))
    assert len(without_classes(dataset, held_out)) == 0
    kept = without_classes(dataset, (1,))
    assert [kept.image_id(i) for i in range(len(kept))] == ["2007_000002"]


def test_lists_may_lie_elsewhere(devkit: Path, tmp_path: Path) -> None:
    folder = tmp_path / "lists"
    folder.mkdir()
    (folder / "split3_val.txt").write_text("2007_000001__16\r\n")
    dataset = PairVOC(devkit, 3, lists=folder, checked=False)
    assert dataset.pairs == ((0, 16),)
    dataset.classes_shown(0)
    assert [p.suffix for p in folder.iterdir() if p.stem.endswith(".index")] == [".npz"]


def test_the_index_lies_beside_the_lists(devkit: Path) -> None:
    dataset = PairVOC(devkit, 0, checked=False)
    before = set((devkit / "VOC2012" / PAIR_LISTS).iterdir())
    dataset.classes_shown(0)
    (new,) = set((devkit / "VOC2012" / PAIR_LISTS).iterdir()) - before
    assert new.name == "split0_val.SegmentationClassAug.index.npz"


def test_a_fingerprint_tells_lists_apart(devkit: Path) -> None:
    path = devkit / "VOC2012" / PAIR_LISTS / "split0_val.txt"
    first = PairVOC(devkit, 0, checked=False).fingerprint()
    assert first == PairVOC(devkit, 0, checked=False).fingerprint()
    path.write_text(LIST.replace("2007_000001__03\n", ""))
    second = PairVOC(devkit, 0, checked=False).fingerprint()
    assert first != second
    for text in (first, second):
        assert set(text) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


def test_other_lists_than_the_authors_are_named(devkit: Path) -> None:
    with pytest.raises(ValueError, match=r"split0_val\.txt is not the authors' list: SHA-256") as e:
        PairVOC(devkit, 0)
    assert hashlib.sha256(LIST.encode()).hexdigest() in str(e.value)
    assert "python -m pmms prepare pascal" in str(e.value)


def test_a_missing_list_says_what_to_do(devkit: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"split1_val\.txt; `python -m pmms prepare pascal`"
    ):
        PairVOC(devkit, 1)


def test_a_listed_image_must_be_there(devkit: Path) -> None:
    (devkit / "VOC2012" / "JPEGImages" / "2008_000003.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of the 3 images .* 2008_000003\.jpg"):
        PairVOC(devkit, 0, checked=False)


@pytest.mark.parametrize("folds", [4, -1, (), (0, 4)])
def test_folds_are_0_to_3(devkit: Path, folds: object) -> None:
    with pytest.raises(ValueError, match="folds must be one or more of 0 to 3"):
        PairVOC(devkit, folds, checked=False)  # type: ignore[arg-type]


def test_the_split_is_train_or_val(devkit: Path) -> None:
    with pytest.raises(ValueError, match="split must be 'train' or 'val', got 'test'"):
        PairVOC(devkit, 0, "test", checked=False)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "content, message",
    [
        ("", "is empty"),
        ("2007_000001__21\n", "line 1: expected an image id and a class from 01 to 20"),
        ("2007_000001__00\n", "line 1"),
        ("2007_000001__01\n\n2007_000002__01\n", "line 2"),
        ("2007_000001__01\n2007_000002 01\n", "line 2: .* got '2007_000002 01'"),
        ("../../x__01\n", "line 1"),
        ("2007_000001__1\n", "line 1"),
        ("2007_000001__01\n2007_000002__01\n2007_000001__01\n", "line 3: the pair .* twice"),
    ],
)
def test_a_malformed_list_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "split0_val.txt"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        read_pairs(path)


def test_a_last_line_without_an_end_is_read(tmp_path: Path) -> None:
    path = tmp_path / "split0_val.txt"
    path.write_bytes(LIST.rstrip().encode())
    assert read_pairs(path)[-1] == ("2008_000003", 2)
    assert len(read_pairs(path)) == 4


def test_pairs_from_label_maps_need_2048_pixels(tmp_path: Path) -> None:
    voc = tmp_path / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (voc / folder).mkdir(parents=True)
    areas = {"a": {3: 2048, 9: 2047}, "b": {3: 2047}, "c": {2: 3000, 3: 2500, 8: 4000}}
    for name, of_class in areas.items():
        labels = np.zeros(100 * 100, dtype=np.uint8)
        labels[-40:] = 255
        start = 0
        for class_id, area in of_class.items():
            labels[start : start + area] = class_id
            start += area
        Image.fromarray(labels.reshape(100, 100)).save(voc / "SegmentationClass" / f"{name}.png")
        Image.new("RGB", (100, 100)).save(voc / "JPEGImages" / f"{name}.jpg")
    (voc / "ImageSets" / "Segmentation" / "val.txt").write_text("a\nb\nc\n")
    dataset = PascalVOC(voc, min_area=PFENET_AREA)
    assert derived_pairs(dataset, (1, 2, 3, 4, 5)) == ((0, 3), (2, 2), (2, 3))
    assert derived_pairs(dataset, (6, 7, 8, 9, 10)) == ((2, 8),)
