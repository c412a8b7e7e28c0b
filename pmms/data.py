"""Which images a run uses: settings, and training and test sets made from them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NamedTuple

from pmms.datasets.base import SegmentationDataset, images_of_class, keep_images, without_classes
from pmms.episodes import check_no_leak
from pmms.folds import ClassFolds, ClassSplit, class_names, fold_count, read_classes, split_classes

DATASETS = ("parts", "pascal", "coco")

OWN = "own"
"""Name of a data set whose classes come from a file of the user's."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which images.

    Attributes:
        dataset: "parts" (drawn by code), "pascal" (a VOC folder tree under ``root``) or "coco"
            (COCO instance annotations under ``root``). With ``classes``, the last two name the
            layout of a person's own data.
        fold: 0 to 3; its classes are novel. With ``classes``, up to the number of its folds - 1.
        validation: hold the classes of the next fold out of training too and test on them instead
            of the novel ones: for choosing settings.
        root: folder of the data; not used by "parts".
        classes: path of a file with a person's own classes and folds, see
            :func:`pmms.folds.read_classes`; "" takes those of ``dataset``.
        layout: how folds take their classes, see :func:`pmms.folds.fold_classes`; "" is the usual
            way.
        train_split, test_split: names of the image lists of a VOC tree, or of the annotation files
            ``annotations/instances_<split>.json``.
        year: COCO's, 2014 or 2017: "train" and "val" stand for train2017 and val2017, for
            instance. Not used with ``classes``, nor for a split of another name.
        train_lists: "split" trains on the images of ``train_split``, each for the classes that it
            shows; "authors" on the pairs of the authors' lists of Pascal-5i.
        labels: folder of the label maps of a VOC tree, "SegmentationClass" or
            "SegmentationClassAug".
        masks: how COCO instances are drawn, "all" or "first_polygon", see
            :class:`pmms.datasets.coco.CocoInstances`.
        min_area: pixels that a class needs for an image to count as one of the class, at the
            original size; not used by "parts", nor for ``train_lists="authors"``.
        keep_novel: keep training images that show held-out classes, unlabelled. It lets a network
            see what it must not know (BAM measured 67.8 mIoU with such images, 64.7 without), and
            is there to repeat work that did so: the authors on COCO, PFENet.
        min_images: test classes with fewer test images are left out, by name in :class:`Data`; 0
            leaves none out and refuses a class with a single image. K-shot needs K + 1.
        train_images, test_images: how many images of "parts" there are.
        max_images: at most this many training and test images, the first ones; 0 takes all. Not
            used by "parts".
        extra_classes: training-only classes of "parts", drawn by a random part grammar.
        train_size, test_size: side that images are brought to, in pixels; "parts" is drawn at it.
        views: kept views of a training image, the plain one included (frozen backbones only).
    """

    dataset: str = "parts"
    fold: int = 0
    validation: bool = False
    root: str = ""
    classes: str = ""
    layout: Literal["", "contiguous", "strided"] = ""
    train_split: str = "train"
    test_split: str = "val"
    year: int = 2017
    train_lists: Literal["split", "authors"] = "split"
    labels: str = "SegmentationClassAug"
    masks: Literal["all", "first_polygon"] = "all"
    min_area: int = 1
    keep_novel: bool = False
    min_images: int = 0
    train_images: int = 500
    test_images: int = 300
    max_images: int = 0
    extra_classes: int = 60
    train_size: int = 160
    test_size: int = 160
    views: int = 2

    def __post_init__(self) -> None:
        if self.dataset not in DATASETS:
            raise ValueError(f"dataset must be one of {', '.join(DATASETS)}; got {self.dataset!r}")
        if self.dataset == "parts" and self.classes:
            raise ValueError("classes must be '' for dataset='parts'; own data is pascal or coco")
        self.split()  # refuses a fold or a layout that does not exist
        if self.dataset != "parts" and not self.root:
            holds = {"pascal": "VOCdevkit", "coco": "annotations/ and the photos"}[self.dataset]
            raise ValueError(f"dataset={self.dataset!r} needs root, the folder that holds {holds}")
        if self.dataset == "coco" and self.year not in (2014, 2017):
            raise ValueError(f"year must be 2014 or 2017, got {self.year}")
        for name, choices in (
            ("train_lists", ("split", "authors")),
            ("masks", ("all", "first_polygon")),
        ):
            if getattr(self, name) not in choices:
                listed = " or ".join(map(repr, choices))
                raise ValueError(f"{name} must be {listed}, got {getattr(self, name)!r}")
        usual = self.dataset == "pascal" and not self.classes and self.layout != "strided"
        if self.train_lists == "authors" and not usual:
            raise ValueError(
                "train_lists must be 'split' except for the usual folds of dataset='pascal': the "
                "authors' lists are of those"
            )
        for name in ("train_images", "test_images", "views", "train_size", "test_size", "min_area"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("extra_classes", "min_images", "max_images"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")

    def class_source(self) -> str | ClassFolds:
        """What :func:`pmms.folds.split_classes` takes: the data set's name, or own classes.

        Raises:
            FileNotFoundError, ValueError: as :func:`pmms.folds.read_classes`.
        """
        return read_classes(self.classes) if self.classes else self.dataset

    def split(self) -> ClassSplit:
        """Training, validation and novel classes of the run."""
        return split_classes(
            self.class_source(), self.fold, validation=self.validation, layout=self.layout or None
        )


class Data(NamedTuple):
    """Images of a run.

    Attributes:
        train: training images; none shows a held-out class, unless ``keep_novel`` says so.
        test: test images.
        train_classes: classes that training episodes are drawn from: those with two images.
        test_classes: classes that are scored: the novel ones, or the validation classes.
        seen_classes: classes trained on that can be scored on the test images, as a control.
        left_out: novel (or validation) classes that are not scored for want of test images: name
            -> number of images. Empty unless ``min_images`` is given.
    """

    train: SegmentationDataset
    test: SegmentationDataset
    train_classes: tuple[int, ...]
    test_classes: tuple[int, ...]
    seen_classes: tuple[int, ...] = ()
    left_out: Mapping[str, int] = MappingProxyType({})


def load_data(config: DataConfig, *, cache: Path | str | None = None) -> Data:
    """Training and test images, with every image that shows a held-out class taken out of training.

    Args:
        config: which images.
        cache: folder for the index files of data on disk; None puts them beside the data.

    Raises:
        FileNotFoundError: if the data are not where ``root`` says.
        ValueError: if they are damaged (see the data set's class), no training image is left, or a
            class to be tested has too few images.
    """
    split = config.split()
    train, test = _parts(config) if config.dataset == "parts" else _on_disk(config, cache)
    if not config.keep_novel:
        train = without_classes(train, split.held_out)
    limit = config.train_images if config.dataset == "parts" else config.max_images
    if limit:
        train = keep_images(train, range(min(limit, len(train))))
    if not len(train):
        names = ", ".join(test.class_name(c) for c in split.held_out)
        raise ValueError(f"no training image is left: each one shows a held-out class ({names})")
    if not config.keep_novel:
        check_no_leak(train, split.held_out)
    images = images_of_class(train)
    extra = range(len(class_names(config.class_source())) + 1, len(train.class_names) + 1)
    classes = tuple(c for c in (*split.train, *extra) if len(images[c]) >= 2)
    scored = split.validation if config.validation else split.novel
    counts = {c: len(indices) for c, indices in images_of_class(test).items()}
    left_out = _left_out(config, test, {c: counts[c] for c in scored})
    return Data(
        train,
        test,
        train_classes=classes,
        test_classes=tuple(c for c in scored if test.class_name(c) not in left_out),
        seen_classes=tuple(c for c in split.train if counts[c] >= config.min_images),
        left_out=left_out,
    )


def _parts(config: DataConfig) -> tuple[SegmentationDataset, SegmentationDataset]:
    from pmms.datasets.parts import PartsVOC

    # Planned, not drawn; an image in five at least shows no held-out class.
    drawn = 8 * config.train_images
    train = PartsVOC(
        "train", length=drawn, size=config.train_size, extra_classes=config.extra_classes
    )
    return train, PartsVOC("val", length=config.test_images, size=config.test_size)


def _on_disk(
    config: DataConfig, cache: Path | str | None
) -> tuple[SegmentationDataset, SegmentationDataset]:
    """All training and test images of a VOC tree or of COCO annotations."""
    root, source = config.root, config.class_source()
    names, name = class_names(source), OWN if config.classes else config.dataset
    splits = [config.train_split, config.test_split]
    train: SegmentationDataset
    test: SegmentationDataset
    if config.dataset == "coco":
        from pmms.datasets.coco import CocoInstances

        if not config.classes:
            splits = [f"{s}{config.year}" if s in ("train", "val") else s for s in splits]
        of_coco = partial(
            CocoInstances, root, masks=config.masks,
            class_names=names, min_area=config.min_area, cache=cache, name=name,
        )  # fmt: skip
        train = of_coco(splits[0])
        test = train if splits[0] == splits[1] else of_coco(splits[1])
    else:
        from pmms.datasets.pascal import PascalVOC

        of_voc = partial(
            PascalVOC, root, labels=config.labels,
            class_names=names, min_area=config.min_area, cache=cache, name=name,
        )  # fmt: skip
        test = of_voc(splits[1])
        if config.train_lists == "authors":
            from pmms.datasets.pascal_lists import PairVOC

            held_out = config.split().held_out
            folds = [
                fold
                for fold in range(fold_count(source))
                if not set(split_classes(source, fold).novel) & set(held_out)
            ]
            train = PairVOC(root, folds, "train", labels=config.labels, cache=cache)
        else:
            train = of_voc(splits[0])
    if config.max_images:
        test = keep_images(test, range(min(config.max_images, len(test))))
    return train, test


def _left_out(
    config: DataConfig, test: SegmentationDataset, counts: Mapping[int, int]
) -> dict[str, int]:
    """Classes with too few test images, by name. They are refused unless ``min_images`` is given.

    What K shots need beyond two images, the sampler of the episodes knows.
    """
    needed = config.min_images or 2
    few = {test.class_name(c): n for c, n in counts.items() if n < needed}
    listed = ", ".join(f"{name} has {n}" for name, n in few.items())
    if config.min_images == 0:
        if few and config.dataset != "parts":
            raise ValueError(
                f"a class needs 2 test images at least, K + 1 in K-shot, but in {test.name} "
                f"{listed}; min_images=2 (or more) leaves such classes out, and the record names "
                "them"
            )
        return {}
    if len(few) == len(counts):
        raise ValueError(
            f"min_images is {needed}, and no class to be tested has as many test images: in "
            f"{test.name} {listed}"
        )
    return few
