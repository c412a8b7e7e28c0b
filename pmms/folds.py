"""Which classes are trained on and which are held out: the folds of Pascal-5i and COCO-20i.

Pascal-5i cuts the 20 Pascal classes into four contiguous folds of five (Shaban et al., One-Shot
Learning for Semantic Segmentation, BMVC 2017). COCO-20i cuts the 80 COCO classes into four folds
of twenty; its usual reading strides, so that fold 0 holds positions 0, 4, 8, ... (Nguyen and
Todorovic, Feature Weighting and Boosting for Few-Shot Segmentation, ICCV 2019; the paper of this
book does the same). Other work cuts COCO contiguously: numbers of the two layouts do not compare.
"""

from dataclasses import dataclass

VOID = 255
"""Label of pixels without a certain class: object borders, difficult or crowded areas."""

FOLDS = 4
"""Number of folds of every data set here."""

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


def class_names(dataset: str) -> tuple[str, ...]:
    """Names of the classes of ``dataset``: "pascal", "parts" (the same 20) or "coco".

    Raises:
        ValueError: another name.
    """
    if dataset not in _CLASSES:
        raise ValueError(f"dataset must be one of {', '.join(_CLASSES)}, got {dataset!r}")
    return _CLASSES[dataset]


def fold_classes(dataset: str, fold: int, *, layout: str | None = None) -> tuple[int, ...]:
    """Class ids of one fold, 1-based and ascending.

    Args:
        dataset: "pascal", "parts" or "coco".
        fold: 0 to 3.
        layout: "contiguous" or "strided"; None takes the data set's usual one (contiguous for the
            20 Pascal classes, strided for COCO).

    Raises:
        ValueError: an unknown data set, fold or layout.
    """
    count = len(class_names(dataset))
    if isinstance(fold, bool) or not isinstance(fold, int) or not 0 <= fold < FOLDS:
        raise ValueError(f"fold must be an integer from 0 to {FOLDS - 1}, got {fold!r}")
    layout = _DEFAULT_LAYOUT[dataset] if layout is None else layout
    if layout not in LAYOUTS:
        raise ValueError(f"layout must be one of {', '.join(LAYOUTS)} or None, got {layout!r}")
    if layout == "strided":
        return tuple(range(fold + 1, count + 1, FOLDS))
    per_fold = count // FOLDS
    return tuple(range(fold * per_fold + 1, (fold + 1) * per_fold + 1))


def split_classes(
    dataset: str, fold: int, *, validation: bool = False, layout: str | None = None
) -> ClassSplit:
    """Training, validation and novel classes of one fold.

    The novel classes are those of ``fold``. With ``validation``, the classes of the next fold,
    (fold + 1) % 4, are held out of training as well: settings and checkpoints are chosen on them,
    so that the novel classes are looked at once. Without it, ``validation`` is empty and training
    uses the other three folds, as in the paper.

    Args:
        dataset: "pascal", "parts" or "coco".
        fold: 0 to 3.
        validation: hold one more fold out of training.
        layout: see ``fold_classes``.

    Raises:
        ValueError: an unknown data set, fold or layout.
    """
    novel = fold_classes(dataset, fold, layout=layout)
    held = fold_classes(dataset, (fold + 1) % FOLDS, layout=layout) if validation else ()
    every = range(1, len(class_names(dataset)) + 1)
    train = tuple(i for i in every if i not in novel and i not in held)
    return ClassSplit(train=train, validation=held, novel=novel)
