"""Which images a run uses: on data drawn by code, on VOC folders, on COCO JSON."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pmms.data import DataConfig, load_data
from pmms.datasets.base import KeptImages
from pmms.datasets.coco import CocoInstances
from pmms.datasets.pascal import PascalVOC
from pmms.folds import COCO_CLASSES, ClassSplit, fold_classes

COCO128 = Path(__file__).parents[2] / "shared" / "data" / "coco128"

CLASSES = "kettle\npan\n\ncup\n\nfork\nspoon\n"


def shapes(shown: tuple[int, ...], *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A photo of noise, and a label map with a square of 9 pixels per class."""
    generator = np.random.default_rng(seed)
    labels = np.zeros((24, 32), dtype=np.uint8)
    for place, class_id in enumerate(shown):
        labels[2:5, 4 * place + 1 : 4 * place + 4] = class_id
    return generator.integers(0, 256, (24, 32, 3), dtype=np.uint8), labels


TRAIN = [(1,), (1, 2), (3,), (3, 4), (4,), (4, 5), (5,), (3, 1), (2,), ()]
TEST = [(1,), (1,), (1, 2), (2,), (3,), (3, 4), (4,), (5,), (5,)]


@pytest.fixture
def classes(tmp_path: Path) -> str:
    (tmp_path / "classes.txt").write_text(CLASSES)
    return str(tmp_path / "classes.txt")


@pytest.fixture
def voc(tmp_path: Path) -> dict[str, Any]:
    """Settings for own data of five classes in VOC folders."""
    root = tmp_path / "voc"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    for split, contents in (("train", TRAIN), ("val", TEST)):
        for number, shown in enumerate(contents):
            photo, labels = shapes(shown, seed=number)
            Image.fromarray(photo).save(root / "JPEGImages" / f"{split}{number}.jpg")
            Image.fromarray(labels).save(root / "SegmentationClass" / f"{split}{number}.png")
        names = "\n".join(f"{split}{number}" for number in range(len(contents)))
        (root / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(names)
    return {"dataset": "pascal", "root": str(root), "labels": "SegmentationClass"}


@pytest.fixture
def coco(tmp_path: Path) -> dict[str, Any]:
    """The same as COCO JSON, with the category ids in another order."""
    root = tmp_path / "coco"
    (root / "annotations").mkdir(parents=True)
    names = ["kettle", "pan", "cup", "fork", "spoon"]
    for split, contents in (("train", TRAIN), ("val", TEST)):
        (root / split).mkdir()
        images, annotations = [], []
        for number, shown in enumerate(contents):
            photo, _ = shapes(shown, seed=number)
            Image.fromarray(photo).save(root / split / f"{split}{number}.jpg")
            images.append({"id": number, "file_name": f"{split}{number}.jpg", "width": 32,
                           "height": 24})  # fmt: skip
            for place, class_id in enumerate(shown):
                x = 4 * place + 1
                annotations.append({
                    "id": len(annotations), "image_id": number, "category_id": 70 - class_id,
                    "segmentation": [[x, 2, x + 3, 2, x + 3, 5, x, 5]],
                })  # fmt: skip
        content = {
            "images": images, "annotations": annotations,
            "categories": [{"id": 69 - i, "name": name} for i, name in enumerate(names)],
        }  # fmt: skip
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return {"dataset": "coco", "root": str(root)}


@pytest.fixture(params=["voc", "coco"])
def own(request: pytest.FixtureRequest, classes: str) -> dict[str, Any]:
    """Settings for own data in either layout."""
    return {**request.getfixturevalue(request.param), "classes": classes}


def shown(dataset: Any) -> list[set[int]]:
    """Classes of each image by the pixels of its label map."""
    return [set(labels.unique().tolist()) - {0, 255} for _, labels in dataset]


def test_own_data_in_both_layouts(own):
    data = load_data(DataConfig(**own, fold=0))
    assert data.test.name == "own"
    assert data.test.class_names == ("kettle", "pan", "cup", "fork", "spoon")
    assert shown(data.train) == [{3}, {3, 4}, {4}, {4, 5}, {5}, set()]
    assert shown(data.test) == [set(classes) for classes in TEST]
    assert data.train_classes == data.seen_classes == (3, 4, 5)
    assert data.test_classes == (1, 2)
    assert data.left_out == {}


def test_own_folds_wrap_round_and_validate(own):
    config = DataConfig(**own, fold=2, validation=True)
    assert config.split() == ClassSplit(train=(3,), validation=(1, 2), novel=(4, 5))
    data = load_data(config)
    assert shown(data.train) == [{3}, set()]
    assert data.test_classes == (1, 2)
    assert data.train_classes == ()  # one image makes no episode
    with pytest.raises(ValueError, match="fold must be an integer from 0 to 2, got 3"):
        DataConfig(**own, fold=3)


def test_keep_novel_is_off_by_default_and_does_what_it_says(own):
    assert DataConfig().keep_novel is False
    data = load_data(DataConfig(**own, keep_novel=True))
    assert shown(data.train) == [set(classes) for classes in TRAIN]
    assert data.train_classes == (3, 4, 5)  # never drawn from the novel ones


def test_no_training_image_left(voc, classes):
    lists = Path(voc["root"]) / "ImageSets" / "Segmentation"
    (lists / "few.txt").write_text("train0\ntrain7\n")
    with pytest.raises(ValueError, match=r"no training image is left: .*\(kettle, pan\)"):
        load_data(DataConfig(**voc, classes=classes, train_split="few"))


def test_max_images_takes_the_first(own):
    data = load_data(DataConfig(**own, max_images=4))
    assert [data.test.image_id(i) for i in range(len(data.test))] == [f"val{i}" for i in range(4)]
    assert [data.train.image_id(i) for i in range(len(data.train))] == [
        f"train{i}" for i in (2, 3, 4, 5)
    ]


def test_min_area_holds_for_training_and_test(own):
    assert load_data(DataConfig(**own, min_area=9)).train_classes == (3, 4, 5)
    with pytest.raises(ValueError, match="kettle has 0, pan has 0"):
        load_data(DataConfig(**own, min_area=10))


def test_classes_with_too_few_test_images(own):
    with pytest.raises(ValueError, match=r"in own cup has 1; min_images=2 \(or more\) leaves"):
        load_data(DataConfig(**own, fold=1, max_images=5))
    data = load_data(DataConfig(**own, fold=0, min_images=3))
    assert data.test_classes == (1,)
    assert data.left_out == {"pan": 2}
    with pytest.raises(
        ValueError, match=r"min_images is 9, and no class to be tested .* kettle has 3, pan has 2"
    ):
        load_data(DataConfig(**own, min_images=9))


def test_seen_classes_follow_min_images(own):
    data = load_data(DataConfig(**own, fold=0, min_images=2, max_images=6))
    assert data.test_classes == (1, 2)
    assert data.seen_classes == (3,)
    assert data.left_out == {}


def test_index_files_go_to_the_cache(own, tmp_path):
    data = load_data(DataConfig(**own), cache=tmp_path / "cache")
    assert data.train.classes_in(0) == {3}
    assert data.test.classes_in(0) == {1}
    assert len(list((tmp_path / "cache").glob("*.index.npz"))) == 2
    assert not list(Path(own["root"]).rglob("*.npz"))


def test_fingerprints_name_no_folder(own):
    data = load_data(DataConfig(**own))
    assert data.test.fingerprint().startswith("own-val-")


def test_year_of_the_official_names(coco, tmp_path, classes):
    root = Path(coco["root"])
    with pytest.raises(FileNotFoundError, match=r"instances_train2014\.json; found there: inst"):
        load_data(DataConfig(**coco, year=2014))
    for split in ("train", "val"):
        path = root / "annotations" / f"instances_{split}.json"
        content = json.loads(path.read_text())
        for category, name in zip(content["categories"], COCO_CLASSES, strict=False):
            category["name"] = name
        path.with_name(f"instances_{split}2014.json").write_text(json.dumps(content))
        (root / split).rename(root / f"{split}2014")
    data = load_data(DataConfig(**coco, year=2014, min_images=2))
    assert data.test.name == "coco"
    assert data.test_classes == (1, 5)  # strided: person, airplane
    data = load_data(DataConfig(**coco, year=2014, min_images=2, layout="contiguous"))
    assert data.test_classes == (1, 2, 3, 4, 5)


@pytest.mark.parametrize("validation, folds", [(False, [0, 1, 2]), (True, [1, 2])])
def test_authors_lists_of_the_other_folds(voc, monkeypatch, validation, folds):
    """Which lists are read; what they hold is tested with the lists themselves."""
    asked: list[Any] = []

    class Lists(PascalVOC):
        def __init__(self, root: str, folds: list[int], split: str, **settings: Any) -> None:
            asked.append((folds, split))
            super().__init__(root, split, **settings)

    monkeypatch.setattr("pmms.datasets.pascal_lists.PairVOC", Lists)
    config = DataConfig(**voc, fold=3, validation=validation, train_lists="authors", min_images=2)
    if validation:  # fold 0 has images in the tree, fold 3 none
        assert load_data(config).test_classes == (1, 2, 3, 4, 5)
    else:
        with pytest.raises(ValueError, match="no class to be tested has as many"):
            load_data(config)
    assert asked == [(folds, "train")]


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"dataset": "voc"}, "dataset must be one of parts, pascal, coco; got 'voc'"),
        ({"dataset": "pascal"}, "dataset='pascal' needs root, the folder that holds VOCdevkit"),
        ({"dataset": "coco"}, "dataset='coco' needs root, the folder that holds annotations/"),
        ({"classes": "x.txt"}, "classes must be '' for dataset='parts'"),
        ({"fold": 4}, "fold must be an integer from 0 to 3"),
        ({"layout": "random"}, "layout must be one of contiguous, strided"),
        ({"dataset": "coco", "root": ".", "year": 2015}, "year must be 2014 or 2017, got 2015"),
        ({"masks": "boxes"}, "masks must be 'all' or 'first_polygon', got 'boxes'"),
        ({"train_lists": "voc"}, "train_lists must be 'split' or 'authors', got 'voc'"),
        ({"train_lists": "authors"}, "train_lists must be 'split' except for the usual folds"),
        (
            {"dataset": "pascal", "root": ".", "train_lists": "authors", "layout": "strided"},
            "train_lists must be 'split' except",
        ),
        ({"min_area": 0}, "min_area must be at least 1, got 0"),
        ({"min_images": -1}, "min_images must be at least 0, got -1"),
        ({"max_images": -1}, "max_images must be at least 0, got -1"),
    ],
)
def test_settings_are_validated(settings, message):
    with pytest.raises(ValueError, match=message):
        DataConfig(**settings)


def test_a_missing_class_file_is_told_at_once(coco):
    with pytest.raises(FileNotFoundError, match="there is no class file"):
        DataConfig(**coco, classes="nowhere.txt")


@pytest.mark.parametrize("masks", ["all", "first_polygon"])
def test_real_photos_of_coco(tmp_path, masks):
    if not COCO128.is_dir():
        pytest.skip("needs the photos of coco128 in ../shared/data")
    real = {"dataset": "coco", "root": str(COCO128), "train_split": "train2017",
            "test_split": "train2017", "masks": masks}  # fmt: skip
    with pytest.raises(ValueError, match="parking meter has 0, hot dog has 1, scissors has 1; min"):
        load_data(DataConfig(**real), cache=tmp_path)
    scored, left_out = set(), {}
    for fold in range(4):
        data = load_data(DataConfig(**real, fold=fold, min_images=2), cache=tmp_path)
        novel = set(fold_classes("coco", fold))
        assert (
            set(data.test_classes) | {COCO_CLASSES.index(name) + 1 for name in data.left_out}
            == novel
        )
        assert isinstance(data.test, CocoInstances)
        assert data.test.masks == masks
        assert isinstance(data.train, KeptImages)
        assert not any(data.train.classes_shown(i) & novel for i in range(len(data.train)))
        scored |= set(data.test_classes)
        left_out |= data.left_out
    assert len(scored) == 64
    assert sum(n == 0 for n in left_out.values()) == 9
    assert sum(n == 1 for n in left_out.values()) == 7
