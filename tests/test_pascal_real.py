"""The authors' lists on all real label maps of VOC 2012 with SBD; photos are not needed.

The photos here are one blank file under 12,031 names.
"""

import os
import shutil
import tarfile
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pmms.datasets import images_of_class, label_index, without_classes
from pmms.datasets.label_index import LabelIndex
from pmms.datasets.pascal import PascalVOC
from pmms.datasets.pascal_lists import PAIR_LISTS, PairVOC, derived_pairs
from pmms.folds import split_classes
from pmms.protocol_episodes import PFENET_AREA, protocol_sampler
from pmms.protocols import PROTOCOLS, Protocol

DATA = Path(__file__).parents[2] / "shared" / "data"
ARCHIVE = DATA / "voc2012_SegmentationClassAug.tar"
FOLDS = range(4)
VAL_PAIRS = (346, 451, 725, 346)
TRAIN_PAIRS = (2286, 3425, 5883, 2086)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A VOC tree with all label maps, the authors' lists, and "all" images as a list."""
    if not ARCHIVE.is_file() or not (DATA / "pascal5i_lists").is_dir():
        pytest.skip("needs the label maps of VOC 2012 + SBD and the lists in ../shared/data")
    root = tmp_path_factory.mktemp("voc")
    for folder in ("JPEGImages", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(root, filter="data")
    shutil.copytree(DATA / "pascal5i_lists", root / PAIR_LISTS)
    names = sorted(path.stem for path in (root / "SegmentationClassAug").iterdir())
    Image.new("RGB", (1, 1)).save(root / "blank.jpg")
    for name in names:
        os.link(root / "blank.jpg", root / "JPEGImages" / f"{name}.jpg")
    (root / "ImageSets" / "Segmentation" / "all.txt").write_text("\n".join(names))
    return root


@pytest.fixture(scope="module")
def everything(root: Path) -> PascalVOC:
    dataset = PascalVOC(root, "all", labels="SegmentationClassAug")
    dataset.classes_in(0)
    return dataset


@pytest.fixture
def indexed(everything: PascalVOC, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of the index over all maps stand in for reading the maps of each list again."""
    row = {everything.image_id(i): i for i in range(len(everything))}

    def of_names(paths: list[Path], cache: Path) -> LabelIndex:
        rows = [row[path.stem] for path in paths]
        return LabelIndex(*(array[rows] for array in everything._index))

    monkeypatch.setattr("pmms.datasets.pascal.label_index", of_names)


def ids(dataset: PascalVOC) -> set[str]:
    return {dataset.image_id(i) for i in range(len(dataset))}


def test_all_maps_are_indexed_once(
    root: Path, everything: PascalVOC, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(everything) == 12_031
    images = images_of_class(everything)
    assert sum(map(len, images.values())) == 17_703
    assert all(images.values())
    monkeypatch.setattr(label_index, "open_labels", None)  # nothing is decoded from now on
    start = time.process_time()
    again = PascalVOC(root, "all", labels="SegmentationClassAug")
    assert again.classes_in(5) == everything.classes_in(5)
    assert time.process_time() - start < 5


@pytest.mark.usefixtures("indexed")
def test_the_lists_have_the_known_sizes_and_share_no_image(root: Path) -> None:
    val = [PairVOC(root, fold) for fold in FOLDS]
    train = [PairVOC(root, fold, "train") for fold in FOLDS]
    assert tuple(len(one.pairs) for one in val) == VAL_PAIRS
    assert tuple(len(one.pairs) for one in train) == TRAIN_PAIRS
    tested, trained = set().union(*map(ids, val)), set().union(*map(ids, train))
    assert len(tested) == 1381
    assert len(trained) == 10_092
    assert not tested & trained
    for fold, (one, other) in enumerate(zip(val, train, strict=True)):
        novel = set(split_classes("pascal", fold).novel)
        for listed in (one, other):
            assert {class_id for _, class_id in listed.pairs} == novel
            for index in range(len(listed)):
                assert listed.classes_in(index) <= listed.classes_shown(index)


SHOW_NOVEL = (941, 1477, 2320, 1003)
KEPT_IMAGES = (7509, 6604, 4687, 7999)
KEPT_PAIRS = (10_062, 8272, 5129, 10_274)


@pytest.mark.usefixtures("indexed")
@pytest.mark.parametrize("fold", FOLDS)
def test_training_images_that_show_a_novel_class(root: Path, fold: int) -> None:
    """The lists do not leave them out: they name no novel class, but their images show some.

    A tenth of the images goes in folds 0 and 3, and a third in fold 2, which has the person.
    """
    novel = split_classes("pascal", fold).novel
    train = PairVOC(root, [other for other in FOLDS if other != fold], "train")
    assert len(train.pairs) == sum(TRAIN_PAIRS) - TRAIN_PAIRS[fold]
    assert not any(train.classes_in(i) & set(novel) for i in range(len(train)))
    kept = without_classes(train, novel)
    assert len(train) - len(kept) == SHOW_NOVEL[fold]
    assert len(kept) == KEPT_IMAGES[fold]
    assert sum(len(kept.classes_in(i)) for i in range(len(kept))) == KEPT_PAIRS[fold]
    for index in range(0, len(kept), 500):  # by the pixels
        assert not set(np.unique(kept.label_map(index)).tolist()) & set(novel)


@pytest.mark.usefixtures("indexed")
def test_pixels_alone_give_other_lists(root: Path) -> None:
    """PFENet's rule on the same images: close to the authors' lists, and not the same."""
    names = sorted(set().union(*(ids(PairVOC(root, fold)) for fold in FOLDS)))
    (root / "ImageSets" / "Segmentation" / "listed.txt").write_text("\n".join(names))
    large = PascalVOC(root, "listed", labels="SegmentationClassAug", min_area=PFENET_AREA)
    figures = []
    for fold, pairs in enumerate(
        derived_pairs(large, split_classes("pascal", fold).novel) for fold in FOLDS
    ):
        listed = PairVOC(root, fold)
        authors = {(listed.image_id(i), class_id) for i, class_id in listed.pairs}
        derived = {(large.image_id(i), class_id) for i, class_id in pairs}
        figures.append((len(derived), len(derived & authors)))
    assert figures == [(357, 343), (464, 451), (730, 717), (353, 345)]


@pytest.mark.usefixtures("indexed")
@pytest.mark.parametrize("name", ["authors", "hsnet"])
@pytest.mark.parametrize("shots", [1, 5])
def test_episodes_of_every_fold(root: Path, name: str, shots: int) -> None:
    """The first pass follows the file; every class of the fold is met."""
    for fold in FOLDS:
        dataset = PairVOC(root, fold)
        novel = split_classes("pascal", fold).novel
        protocol = Protocol(name=name, shots=shots)
        (seed,) = protocol.seeds
        sampler = protocol_sampler(protocol, dataset, novel, seed=seed)
        first = [(episode.query, episode.class_id) for episode in sampler][: len(dataset.pairs)]
        assert tuple(first) == dataset.pairs
        assert {episode.class_id for episode in sampler} == set(novel)
        for class_id, query, support in sampler:
            assert query not in support
            assert all(class_id in dataset.classes_in(i) for i in support)
    assert protocol.label == name


@pytest.mark.usefixtures("indexed")
def test_pfenet_episodes_of_every_fold(root: Path) -> None:
    """All queries of one pass in the order of the list, then again; any class that they show."""
    names = sorted(set().union(*(ids(PairVOC(root, fold)) for fold in FOLDS)))
    (root / "ImageSets" / "Segmentation" / "listed.txt").write_text("\n".join(names))
    large = PascalVOC(root, "listed", labels="SegmentationClassAug", min_area=PFENET_AREA)
    for fold in FOLDS:
        novel = split_classes("pascal", fold).novel
        sampler = protocol_sampler(PROTOCOLS["pfenet"], large, novel, seed=321)
        assert len(sampler) == 5000
        queries = [episode.query for episode in sampler]
        once = sorted(set(queries))
        assert queries == (once * (5000 // len(once) + 1))[:5000]
        assert all(a < b for a, b in pairwise(once))
        small = [e for e in sampler if e.class_id not in large.classes_in(e.query)]
        assert 0 < len(small) < 500
        assert all(e.class_id in large.classes_shown(e.query) for e in small)
