"""Which classes are trained on and which are held out: the folds of Pascal-5i and COCO-20i.

Pascal-5i cuts the 20 Pascal classes into four contiguous folds of five (Shaban et al., One-Shot
Learning for Semantic Segmentation, BMVC 2017). COCO-20i cuts the 80 COCO classes into four folds
of twenty; its usual reading strides, so that fold 0 holds positions 0, 4, 8, ... (Nguyen and
Todorovic, Feature Weighting and Boosting for Few-Shot Segmentation, ICCV 2019; the paper of this
book does the same). Other work cuts COCO contiguously: numbers of the two layouts do not compare.
By the stride, refrigerator is a class of fold 0 and sink one of fold 3; the table in the README of
the authors (github.com/Yang-Bob/PMMs) has both elsewhere, their code (``data/coco_val.py``) has
them here.

A person's own classes and folds come from a text file, see ``read_classes``.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from pmms.checks import whole

VOID = 255
"""Label of pixels without a certain class: object borders, difficult or crowded areas."""

FOLDS = 4
"""Number of folds of Pascal-5i and COCO-20i."""

PASCAL_CLASSES: tuple[str, ...] = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle"),
    *("bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person"),
    *("pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""The 20 Pascal VOC classes in their official order; class id = position + 1, 0 is background."""

COCO_CLASSES: tuple[str, ...] = (
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat"),
    *("traffic light", "fire hydrant", "stop sign", "parking meter", "bench"),
    *("bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe"),
    *("backpack", "umbrella", "handbag", "tie", "suitcase"),
    *("frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove"),
    *("skateboard", "surfboard", "tennis racket"),
    *("bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl"),
    *("banana", "apple", "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza"),
    *("donut", "cake"),
    *("chair", "couch", "potted plant", "bed", "dining table", "toilet"),
    *("tv", "laptop", "mouse", "remote", "keyboard", "cell phone"),
    *("microwave", "oven", "toaster", "sink", "refrigerator"),
    *("book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush"),
)
"""The 80 COCO categories by official id; class id = position + 1 (official ids have gaps)."""

LAYOUTS = ("contiguous", "strided")
"""How a fold takes its classes: a run of neighbours, or every fourth one."""

MAX_CLASSES = VOID - 1
"""Class ids are 1 to 254: label maps have 8 bits, 0 is background and 255 void."""

_CLASSES = {"pascal": PASCAL_CLASSES, "parts": PASCAL_CLASSES, "coco": COCO_CLASSES}
_DEFAULT_LAYOUT = {"pascal": "contiguous", "parts": "contiguous", "coco": "strided"}


@dataclass(frozen=True)
class ClassSplit:
    """Class ids of one fold, 1-based, ascending, pairwise disjoint.

    Attributes:
        train: classes that training episodes are drawn from.
        validation: classes on which settings and checkpoints are chosen; may be empty.
        novel: classes on which the final figures are measured, and nothing else is done.

    Raises:
        ValueError: an id below 1, a repeated id, or an id in two of the three parts.
    """

    train: tuple[int, ...]
    validation: tuple[int, ...]
    novel: tuple[int, ...]

    def __post_init__(self) -> None:
        ids = [*self.train, *self.validation, *self.novel]
        if any(i < 1 for i in ids):
            raise ValueError(f"class ids start at 1 (0 is background), got {sorted(ids)[0]}")
        repeated = sorted({i for i in ids if ids.count(i) > 1})
        if repeated:
            raise ValueError(
                f"train, validation and novel classes must be disjoint, but {repeated} occur twice"
            )

    @property
    def held_out(self) -> tuple[int, ...]:
        """Classes that training must not see: validation and novel, ascending."""
        return tuple(sorted((*self.validation, *self.novel)))


@dataclass(frozen=True)
class ClassFolds:
    """A person's own classes and how they are cut into folds; made by ``read_classes``.

    Attributes:
        names: names of the classes in the order of their ids, which start at 1.
        folds: for each fold the ids of its classes, ascending; every class is in one fold.

    Raises:
        ValueError: fewer than two folds, an empty fold, no or more than 254 classes, an empty or
            repeated name, or folds that do not hold every class once.
    """

    names: tuple[str, ...]
    folds: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.names) <= MAX_CLASSES:
            raise ValueError(f"expected 1 to {MAX_CLASSES} classes, got {len(self.names)}")
        if "" in self.names:
            raise ValueError(f"class {self.names.index('') + 1} has an empty name")
        repeated = sorted({name for name in self.names if self.names.count(name) > 1})
        if repeated:
            raise ValueError(f"class names must differ, but {', '.join(repeated)} occur(s) twice")
        if len(self.folds) < 2 or not all(self.folds):
            raise ValueError(
                f"expected at least 2 folds with a class each, got {list(map(list, self.folds))}; "
                "one fold is held out, the others are trained on"
            )
        ids = sorted(class_id for fold in self.folds for class_id in fold)
        if ids != list(range(1, len(self.names) + 1)):
            raise ValueError(
                f"the folds must hold each class id from 1 to {len(self.names)} once, got {ids}"
            )
        if any(list(fold) != sorted(fold) for fold in self.folds):
            raise ValueError(f"class ids of a fold must ascend, got {self.folds}")


def read_classes(path: str | Path) -> ClassFolds:
    """Classes and folds of a person's own data, from a text file.

    One class name a line, in the order of the class ids: the first name is label 1 of the label
    maps. An empty line ends a fold. ``#`` starts a comment, at the start of a line or after a
    space; a line that is only a comment counts as no line at all. For COCO JSON the names are those
    of the file's categories.

        # kitchen.txt
        kettle
        pan

        cup      # label 3, fold 1
        fork

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no text in UTF-8, or what ``ClassFolds`` refuses; names the file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no class file {path}; write one with a class name a line and an empty line "
            "between folds"
        )
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text file in UTF-8: {error}") from error
    names: list[str] = []
    folds: list[list[int]] = [[]]
    for line in lines:
        name = re.sub(r"(^|\s)#.*", "", line).strip()
        if name:
            names.append(name)
            folds[-1].append(len(names))
        elif not line.strip() and folds[-1]:
            folds.append([])
    try:
        return ClassFolds(tuple(names), tuple(tuple(fold) for fold in folds if fold))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def class_names(dataset: str | ClassFolds) -> tuple[str, ...]:
    """Names of the classes of ``dataset``: "pascal", "parts" (the same 20), "coco", or one's own.

    Raises:
        ValueError: another name.
    """
    if isinstance(dataset, ClassFolds):
        return dataset.names
    if dataset not in _CLASSES:
        raise ValueError(f"dataset must be one of {', '.join(_CLASSES)}, got {dataset!r}")
    return _CLASSES[dataset]


def fold_count(dataset: str | ClassFolds) -> int:
    """How many folds ``dataset`` has: 4, or as many as a person's own class file has."""
    return len(dataset.folds) if isinstance(dataset, ClassFolds) else FOLDS


def fold_classes(
    dataset: str | ClassFolds, fold: int, *, layout: str | None = None
) -> tuple[int, ...]:
    """Class ids of one fold, 1-based and ascending.

    Args:
        dataset: "pascal", "parts", "coco", or one's own classes.
        fold: 0 to 3; with own classes from 0 to the number of folds - 1.
        layout: "contiguous" or "strided"; None takes the data set's usual one (contiguous for the
            20 Pascal classes, strided for COCO). Own classes have their folds already.

    Raises:
        ValueError: an unknown data set, fold or layout, or a layout for own classes.
    """
    count, folds = len(class_names(dataset)), fold_count(dataset)
    if not whole(fold, least=0) or fold >= folds:
        raise ValueError(f"fold must be an integer from 0 to {folds - 1}, got {fold!r}")
    if isinstance(dataset, ClassFolds):
        if layout is not None:
            raise ValueError(
                f"layout must be None where the class file sets the folds, got {layout!r}"
            )
        return dataset.folds[fold]
    layout = _DEFAULT_LAYOUT[dataset] if layout is None else layout
    if layout not in LAYOUTS:
        raise ValueError(f"layout must be one of {', '.join(LAYOUTS)} or None, got {layout!r}")
    if layout == "strided":
        return tuple(range(fold + 1, count + 1, FOLDS))
    per_fold = count // FOLDS
    return tuple(range(fold * per_fold + 1, (fold + 1) * per_fold + 1))


def split_classes(
    dataset: str | ClassFolds, fold: int, *, validation: bool = False, layout: str | None = None
) -> ClassSplit:
    """Training, validation and novel classes of one fold.

    The novel classes are those of ``fold``. With ``validation``, the classes of the next fold,
    (fold + 1) % 4, are held out of training as well: settings and checkpoints are chosen on them,
    so that the novel classes are looked at once. Without it, ``validation`` is empty and training
    uses the other three folds, as in the paper.

    Args:
        dataset: "pascal", "parts", "coco", or one's own classes.
        fold: 0 to 3; with own classes from 0 to the number of folds - 1, and the next fold is
            counted round that number.
        validation: hold one more fold out of training.
        layout: see ``fold_classes``.

    Raises:
        ValueError: an unknown data set, fold or layout, or ``validation`` with own classes in two
            folds, which would leave none to train on.
    """
    novel = fold_classes(dataset, fold, layout=layout)
    folds = fold_count(dataset)
    if validation and folds < 3:
        raise ValueError(
            f"validation needs a third fold to train on, but the class file has {folds} folds"
        )
    held = fold_classes(dataset, (fold + 1) % folds, layout=layout) if validation else ()
    every = range(1, len(class_names(dataset)) + 1)
    train = tuple(i for i in every if i not in novel and i not in held)
    return ClassSplit(train=train, validation=held, novel=novel)
