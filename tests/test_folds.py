from pathlib import Path

import pytest

from pmms.folds import (
    COCO_CLASSES,
    FOLDS,
    PASCAL_CLASSES,
    ClassFolds,
    ClassSplit,
    class_names,
    fold_classes,
    fold_count,
    read_classes,
    split_classes,
)


def names(dataset: str, fold: int, **settings: str) -> list[str]:
    return [class_names(dataset)[i - 1] for i in fold_classes(dataset, fold, **settings)]


def test_pascal_folds_are_those_of_the_literature():
    assert names("pascal", 0) == ["aeroplane", "bicycle", "bird", "boat", "bottle"]
    assert names("pascal", 1) == ["bus", "car", "cat", "chair", "cow"]
    assert names("pascal", 2) == ["diningtable", "dog", "horse", "motorbike", "person"]
    assert names("pascal", 3) == ["pottedplant", "sheep", "sofa", "train", "tvmonitor"]


def test_pascal_ids_are_those_of_the_voc_palette():
    assert len(PASCAL_CLASSES) == 20
    assert PASCAL_CLASSES.index("person") + 1 == 15
    assert PASCAL_CLASSES.index("tvmonitor") + 1 == 20


def test_coco_names_are_the_80_official_ones():
    assert len(COCO_CLASSES) == len(set(COCO_CLASSES)) == 80
    # Positions known from the list that detectors use.
    for position, name in {
        0: "person",
        16: "dog",
        39: "bottle",
        72: "refrigerator",
        79: "toothbrush",
    }.items():
        assert COCO_CLASSES[position] == name


def test_coco_folds_stride_by_four():
    assert names("coco", 0)[:5] == ["person", "airplane", "boat", "parking meter", "dog"]
    assert fold_classes("coco", 3) == tuple(range(4, 81, 4))
    # Misplaced in the table of the authors' README.
    assert "refrigerator" in names("coco", 0)
    assert "sink" in names("coco", 3)


def test_coco_contiguous_layout():
    assert fold_classes("coco", 1, layout="contiguous") == tuple(range(21, 41))
    assert names("coco", 0, layout="contiguous")[0] == "person"
    assert names("coco", 3, layout="contiguous")[-1] == "toothbrush"


@pytest.mark.parametrize("dataset", ["pascal", "parts", "coco"])
@pytest.mark.parametrize("layout", [None, "contiguous", "strided"])
def test_folds_partition_the_classes(dataset, layout):
    every = [c for fold in range(FOLDS) for c in fold_classes(dataset, fold, layout=layout)]
    assert sorted(every) == list(range(1, len(class_names(dataset)) + 1))


@pytest.mark.parametrize("dataset", ["pascal", "parts", "coco"])
@pytest.mark.parametrize("fold", range(FOLDS))
@pytest.mark.parametrize("validation", [False, True])
def test_split_covers_all_classes_once(dataset, fold, validation):
    split = split_classes(dataset, fold, validation=validation)
    every = (*split.train, *split.validation, *split.novel)
    assert sorted(every) == list(range(1, len(class_names(dataset)) + 1))
    assert split.novel == fold_classes(dataset, fold)
    assert split.validation == (fold_classes(dataset, (fold + 1) % FOLDS) if validation else ())


def test_held_out_classes_are_validation_and_novel():
    split = split_classes("pascal", 3, validation=True)
    assert split.held_out == (1, 2, 3, 4, 5, 16, 17, 18, 19, 20)
    assert split.train == tuple(range(6, 16))
    assert split_classes("pascal", 3).held_out == (16, 17, 18, 19, 20)


def test_parts_has_the_classes_of_pascal():
    assert class_names("parts") == class_names("pascal") == PASCAL_CLASSES


@pytest.mark.parametrize("fold", [-1, 4, 1.0, "0", True])
def test_unknown_fold_is_refused(fold):
    with pytest.raises(ValueError, match="fold must be an integer from 0 to 3"):
        split_classes("pascal", fold)


def test_unknown_dataset_and_layout_are_refused():
    with pytest.raises(ValueError, match="pascal, parts, coco, got 'voc'"):
        class_names("voc")
    with pytest.raises(ValueError, match="contiguous, strided or None, got 'random'"):
        split_classes("coco", 0, layout="random")


def test_overlapping_split_is_refused():
    with pytest.raises(ValueError, match=r"\[2\] occur twice"):
        ClassSplit(train=(1, 2), validation=(2,), novel=(3,))
    with pytest.raises(ValueError, match=r"start at 1"):
        ClassSplit(train=(0, 2), validation=(), novel=(3,))


KITCHEN = """\
# kitchen
kettle
frying pan   # label 2

cup
# not a fold of its own
fork

C# book
"""


def class_file(folder: Path, text: str) -> Path:
    path = folder / "classes.txt"
    path.write_text(text, encoding="utf-8")
    return path


def test_own_classes_are_read_in_the_order_of_their_ids(tmp_path):
    own = read_classes(class_file(tmp_path, KITCHEN))
    assert own.names == ("kettle", "frying pan", "cup", "fork", "C# book")
    assert own.folds == ((1, 2), (3, 4), (5,))
    assert class_names(own) == own.names
    assert fold_count(own) == 3
    assert fold_count("coco") == 4


@pytest.mark.parametrize(
    "text", ["\n\na\nb\n\n\n \t\nc\n\n", "\ufeffa\nb\n\nc", "a\r\nb\r\n\r\nc\r\n"]
)
def test_empty_lines_and_line_ends_do_not_matter(tmp_path, text):
    path = tmp_path / "classes.txt"
    path.write_bytes(text.encode())
    assert read_classes(path) == ClassFolds(("a", "b", "c"), ((1, 2), (3,)))


def test_own_folds_are_split_like_the_others(tmp_path):
    own = read_classes(class_file(tmp_path, KITCHEN))
    assert fold_classes(own, 1) == (3, 4)
    assert split_classes(own, 0) == ClassSplit(train=(3, 4, 5), validation=(), novel=(1, 2))
    split = split_classes(own, 2, validation=True)
    assert split == ClassSplit(train=(3, 4), validation=(1, 2), novel=(5,))
    with pytest.raises(ValueError, match="fold must be an integer from 0 to 2, got 3"):
        split_classes(own, 3)
    with pytest.raises(ValueError, match="layout must be None where the class file"):
        fold_classes(own, 0, layout="strided")


def test_two_folds_leave_none_for_validation():
    own = ClassFolds(("a", "b"), ((1,), (2,)))
    assert split_classes(own, 1).train == (1,)
    with pytest.raises(ValueError, match="validation needs a third fold"):
        split_classes(own, 1, validation=True)


@pytest.mark.parametrize(
    "text, message",
    [
        ("", r"expected 1 to 254 classes, got 0"),
        ("# a\n\n# b\n", r"expected 1 to 254 classes, got 0"),
        ("a\nb\nc\n", r"at least 2 folds with a class each, got \[\[1, 2, 3\]\]"),
        ("a\nb\n\nc\na\n", r"class names must differ, but a occur\(s\) twice"),
        ("\n".join(f"c{i}" for i in range(200)) + "\n\n" + "\n".join("x" * i for i in range(1, 56)),
         r"expected 1 to 254 classes, got 255"),
    ],
)  # fmt: skip
def test_malformed_class_file_is_refused_by_name(tmp_path, text, message):
    with pytest.raises(ValueError, match=rf"classes\.txt: .*{message}"):
        read_classes(class_file(tmp_path, text))


def test_class_file_that_is_missing_or_no_text(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no class file \S+none\.txt; write one"):
        read_classes(tmp_path / "none.txt")
    (tmp_path / "classes.txt").write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(ValueError, match=r"classes\.txt is no text file in UTF-8"):
        read_classes(tmp_path / "classes.txt")


@pytest.mark.parametrize(
    "names, folds, message",
    [
        (("a", ""), ((1,), (2,)), "class 2 has an empty name"),
        (("a", "b"), ((1,), (1, 2)), r"each class id from 1 to 2 once, got \[1, 1, 2\]"),
        (("a", "b"), ((1, 2), ()), "at least 2 folds"),
        (("a", "b", "c"), ((2, 1), (3,)), "must ascend"),
    ],
)
def test_impossible_folds_are_refused(names, folds, message):
    with pytest.raises(ValueError, match=message):
        ClassFolds(names, folds)
