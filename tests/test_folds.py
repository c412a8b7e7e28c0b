import pytest

from pmms.folds import (
    COCO_CLASSES,
    FOLDS,
    PASCAL_CLASSES,
    ClassSplit,
    class_names,
    fold_classes,
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
