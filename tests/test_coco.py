"""COCO instances: label maps against pycocotools itself, the index, and answers to bad files."""

import json
import os
import pickle
import re
from collections import Counter, defaultdict
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as mask_api
from pycocotools.coco import COCO
from torch.utils.data import DataLoader

from pmms.datasets import coco_index, images_of_class, keep_images, without_classes
from pmms.datasets.coco import CocoInstances
from pmms.folds import COCO_CLASSES, fold_classes

COCO128 = Path(__file__).parents[2] / "shared" / "data" / "coco128"

CATEGORIES = [
    {"id": 1, "name": "person"},
    {"id": 44, "name": "bottle"},
    {"id": 67, "name": "dining table"},
    {"id": 90, "name": "toothbrush"},
]
PERSON, BOTTLE, TABLE = 1, 40, 61

PEOPLE = 2_915_908
"""Pixels of persons in the label maps of coco128."""

SHARED = 0.0534
"""Share of the pixels with an object in coco128 that belong to two classes or more."""

OVERLAP = (0.9103, 0.9037)
"""IoU of the authors' masks with the outlines on coco128: over all pixels, mean over classes."""


def box(left: int, top: int, right: int, bottom: int) -> list[float]:
    """A rectangle as a polygon; pycocotools gives it exactly these pixels."""
    return [left, top, right, top, right, bottom, left, bottom]


def runs(mask: np.ndarray) -> list[int]:
    """Lengths of runs, column by column, background first: an uncompressed RLE's counts."""
    flat = np.asfortranarray(mask).ravel(order="F").astype(int)
    edges = np.flatnonzero(np.diff(np.concatenate(([0], flat)))).tolist()
    return np.diff([0, *edges, len(flat)]).tolist()


def ring() -> np.ndarray:
    """10 x 10 pixels with a hole of 4 x 4 in the middle, in an image of 30 x 40."""
    mask = np.zeros((30, 40), dtype=np.uint8)
    mask[10:20, 25:35] = 1
    mask[13:17, 28:32] = 0
    return mask


def content() -> dict[str, Any]:
    """Four images: overlaps and two polygons; a hole and a crowd; nothing; a crowd only."""
    images = [
        {"id": 7, "file_name": "0007.jpg", "width": 40, "height": 30},
        {"id": 5, "file_name": "0005.jpg", "width": 40, "height": 30},
        {"id": 6, "file_name": "0006.jpg", "width": 40, "height": 30},
        {"id": 9, "file_name": "0009.jpg", "width": 20, "height": 30},
    ]
    crowd = np.zeros((30, 40), dtype=np.uint8)
    crowd[:15, 20:] = 1
    packed = mask_api.encode(np.asfortranarray(crowd))["counts"].decode()
    found = [
        # image 5: a bottle on a table, though the table comes later in the file
        (5, 44, [box(10, 10, 14, 18), box(30, 2, 32, 4)], 0),
        (5, 67, [box(5, 12, 25, 28)], 0),
        # image 7: a ring over a crowd
        (7, 1, {"size": [30, 40], "counts": packed}, 1),
        (7, 44, {"size": [30, 40], "counts": runs(ring())}, 0),
        # image 9: people, but only as a crowd
        (9, 1, {"size": [30, 20], "counts": [0, 300, 300]}, 1),
    ]
    annotations = [
        {"id": i + 1, "image_id": image, "category_id": category, "segmentation": segmentation,
         "iscrowd": crowd, "area": 1.0, "bbox": [0, 0, 1, 1]}
        for i, (image, category, segmentation, crowd) in enumerate(found)
    ]  # fmt: skip
    return {"images": images, "annotations": annotations, "categories": list(CATEGORIES)}


def write_coco(root: Path, data: dict[str, Any], split: str = "val2017") -> Path:
    """The JSON and a photo of noise for each of its images, in COCO's folders."""
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / split).mkdir(exist_ok=True)
    generator = np.random.default_rng(0)
    for image in data["images"]:
        noise = generator.integers(0, 256, (image["height"], image["width"], 3), dtype=np.uint8)
        Image.fromarray(noise).save(root / split / image["file_name"], quality=95)
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(data))
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_coco(tmp_path / "coco", content())


def with_annotation(root: Path, **changes: Any) -> None:
    """Change the first annotation of the file; None takes a field away."""
    data = content()
    data["annotations"][0].update(changes)
    data["annotations"][0] = {k: v for k, v in data["annotations"][0].items() if v is not None}
    (root / "annotations" / "instances_val2017.json").write_text(json.dumps(data))


# label maps


def test_images_come_by_id_with_their_photos(root):
    dataset = CocoInstances(root)
    assert [dataset.image_id(i) for i in range(len(dataset))] == ["0005", "0006", "0007", "0009"]
    assert dataset.class_names == COCO_CLASSES
    image, labels = dataset[3]
    assert (image.shape, image.dtype) == ((3, 30, 20), torch.uint8)
    assert (labels.shape, labels.dtype) == ((30, 20), torch.uint8)
    assert image.is_contiguous()
    assert labels.is_contiguous()
    with Image.open(root / "val2017" / "0009.jpg") as photo:
        assert np.array_equal(image.permute(1, 2, 0).numpy(), np.asarray(photo))
    with pytest.raises(IndexError, match="coco has 4 images, index 4"):
        dataset[4]


def test_the_smaller_instance_lies_on_top_and_every_polygon_counts(root):
    expected = np.zeros((30, 40), dtype=np.uint8)
    expected[12:28, 5:25] = TABLE
    expected[10:18, 10:14] = BOTTLE
    expected[2:4, 30:32] = BOTTLE
    assert np.array_equal(CocoInstances(root)[0].labels.numpy(), expected)


def test_of_equal_instances_the_later_is_on_top(root):
    data = content()
    data["annotations"][0]["segmentation"] = [box(0, 0, 10, 10)]
    data["annotations"][1]["segmentation"] = [box(5, 5, 15, 15)]
    write_coco(root, data)
    labels = CocoInstances(root)[0].labels
    assert int((labels == BOTTLE).sum()) == 75
    assert int((labels == TABLE).sum()) == 100


def test_holes_stay_open_and_crowds_are_void_below_the_rest(root):
    expected = np.zeros((30, 40), dtype=np.uint8)
    expected[:15, 20:] = 255
    expected[ring() == 1] = BOTTLE
    assert np.array_equal(CocoInstances(root)[2].labels.numpy(), expected)


def test_a_crowd_of_polygons_and_missing_iscrowd(root):
    with_annotation(root, iscrowd=1)
    assert CocoInstances(root)[0].labels[3, 31] == 255
    with_annotation(root, iscrowd=None, id=None)
    assert CocoInstances(root)[0].labels[3, 31] == BOTTLE


def test_polygons_without_an_area_show_nothing(root):
    with_annotation(root, segmentation=[[3, 3, 9, 9]])  # pycocotools would take it for a box
    dataset = CocoInstances(root)
    assert dataset.classes_in(0) == {TABLE}
    assert dataset.classes_shown(0) == {TABLE, BOTTLE}
    with_annotation(root, segmentation=[[3, 3, 9, 9], box(0, 0, 2, 2)])
    assert int((CocoInstances(root)[0].labels == BOTTLE).sum()) == 4


def test_what_sticks_out_a_little_is_cut_off(root):
    with_annotation(root, segmentation=[box(-3, -2, 4, 5)])
    labels = CocoInstances(root)[0].labels
    assert int((labels == BOTTLE).sum()) == 20
    assert bool((labels[:5, :4] == BOTTLE).all())


# classes


def test_classes_go_by_name_and_void_is_none(root):
    dataset = CocoInstances(root)
    assert [dataset.classes_in(i) for i in range(4)] == [{BOTTLE, TABLE}, set(), {BOTTLE}, set()]
    assert images_of_class(dataset)[BOTTLE] == (0, 2)
    assert all(type(c) is int for i in range(4) for c in dataset.classes_in(i))


def test_a_crowd_is_shown_though_no_mask_can_be_built_for_it(root):
    """A network sees the people in it: the novel-class filter must drop the image."""
    dataset = CocoInstances(root)
    assert dataset.classes_shown(3) == {PERSON}
    assert dataset.classes_shown(2) == {PERSON, BOTTLE}
    assert [v.image_id(i) for v in [without_classes(dataset, {PERSON})] for i in range(2)] == [
        "0005",
        "0006",
    ]


def test_covered_instances_are_shown_but_not_in(root):
    data = content()
    data["annotations"][1]["segmentation"] = [box(10, 10, 14, 19)]
    data["annotations"][0]["segmentation"] = [box(10, 10, 14, 18)]
    write_coco(root, data)
    assert CocoInstances(root).classes_in(0) == {BOTTLE, TABLE}
    data["annotations"][1]["segmentation"] = [box(10, 10, 14, 18)]
    data["annotations"].insert(0, data["annotations"].pop(1))
    write_coco(root, data)
    dataset = CocoInstances(root)
    assert dataset.classes_in(0) == {BOTTLE}
    assert dataset.classes_shown(0) == {BOTTLE, TABLE}


def test_min_area_counts_visible_pixels_at_the_original_size(root):
    visible = 16 * 20 - 4 * 6
    assert CocoInstances(root, min_area=visible).classes_in(0) == {TABLE}
    dataset = CocoInstances(root, min_area=visible + 1)
    assert dataset.classes_in(0) == set()
    assert dataset.classes_shown(0) == {TABLE, BOTTLE}
    assert CocoInstances(root, min_area=4 * 8 + 4).classes_in(0) == {TABLE, BOTTLE}


def test_own_classes_in_another_order(root):
    names = ("toothbrush", "bottle", "person", "dining table", "kettle")
    dataset = CocoInstances(root, class_names=names, name="kitchen")
    assert dataset.classes_in(0) == {2, 4}
    assert sorted(dataset[0].labels.unique().tolist()) == [0, 2, 4]
    assert dataset.fingerprint().startswith("kitchen-val2017-all-1-")
    assert dataset.fingerprint() != CocoInstances(root, name="kitchen").fingerprint()


def test_a_category_without_a_class_is_refused_if_it_is_used(root):
    with pytest.raises(ValueError, match=r"of 1 categories that are no class: dining table; the"):
        CocoInstances(root, class_names=("person", "bottle"))
    data = content()
    data["categories"] = [*CATEGORIES, {"id": 91, "name": "hair brush"}]
    write_coco(root, data)
    assert len(CocoInstances(root)) == 4


# folders and the index file


@pytest.mark.parametrize("place", ["val2017", "images/val2017", "images", "."])
def test_photos_may_lie_in_any_of_the_usual_folders(root, place):
    os.renames(root / "val2017", root / "moved")
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    if place == ".":
        for photo in (root / "moved").iterdir():
            photo.rename(root / photo.name)
    else:
        (root / "moved").rename(root / place)
    assert CocoInstances(root)[0].image.shape == (3, 30, 40)


def test_annotations_and_photos_elsewhere(root, tmp_path):
    (root / "annotations" / "instances_val2017.json").rename(tmp_path / "mine.json")
    (root / "val2017").rename(tmp_path / "pictures")
    given = {"annotations": tmp_path / "mine.json", "images": tmp_path / "pictures"}
    assert CocoInstances(root, "mine", **given)[2].labels.max() == 255
    assert (tmp_path / "mine.all.index.npz").is_file()
    (root / "sub").mkdir()
    (tmp_path / "mine.json").rename(root / "sub" / "own.json")
    dataset = CocoInstances(root, annotations="sub/own.json", images=tmp_path / "pictures")
    assert len(dataset) == 4


def test_photos_in_subfolders_and_of_equal_names(root):
    data = content()
    for image, name in zip(data["images"], ["a/1.jpg", "b/1.jpg", "c 3.jpg", "d.jpg"], strict=True):
        image["file_name"] = name
    for folder in "ab":
        (root / "val2017" / folder).mkdir()
    dataset = CocoInstances(write_coco(root, data))
    assert [dataset.image_id(i) for i in range(4)] == ["b_1", "c_3", "a_1", "d"]
    assert dataset[2].image.shape == (3, 30, 40)
    data["images"][3]["file_name"] = "a_1.png"  # another file, the same plain name
    dataset = CocoInstances(write_coco(root, data))
    assert [dataset.image_id(i) for i in range(4)] == ["b_1", "c_3", "a_1-2", "a_1-3"]
    data["images"][3]["file_name"] = "a/1.jpg"
    with pytest.raises(ValueError, match=r"instances_val2017\.json lists two photos by the name"):
        CocoInstances(write_coco(root, data))


def counted_builds(monkeypatch) -> list[Path]:
    built: list[Path] = []
    original = coco_index._build

    def build(path: Path, masks: str) -> Any:
        built.append(path)
        return original(path, masks)

    monkeypatch.setattr(coco_index, "_build", build)
    return built


def test_index_is_kept_and_read_again_without_the_json(root, monkeypatch, tmp_path):
    first = CocoInstances(root)
    assert sorted(p.name for p in (root / "annotations").iterdir()) == [
        "instances_val2017.all.index.npz",
        "instances_val2017.json",
    ]
    built = counted_builds(monkeypatch)
    second = CocoInstances(root, min_area=3)
    assert built == []
    assert torch.equal(second[2].labels, first[2].labels)
    CocoInstances(root, masks="all", cache=tmp_path / "deep" / "cache")
    assert len(built) == 1
    assert [p.name for p in (tmp_path / "deep" / "cache").iterdir()] == [
        "instances_val2017.all.index.npz"
    ]


def test_index_follows_a_changed_json_and_the_rule(root, monkeypatch):
    CocoInstances(root)
    with_annotation(root, category_id=90)
    assert CocoInstances(root).classes_in(0) == {TABLE, 80}
    built = counted_builds(monkeypatch)
    monkeypatch.setattr(coco_index, "RULE", "another")
    CocoInstances(root)
    assert len(built) == 1


@pytest.mark.parametrize("damage", [b"", b"no archive", None])
def test_a_damaged_index_is_made_anew(root, damage):
    CocoInstances(root)
    cache = next(root.rglob("*.npz"))
    whole = cache.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes(b ^ 0xFF for b in whole[middle : middle + 8])
    cache.write_bytes(flipped + whole[middle + 8 :] if damage is None else damage)
    assert CocoInstances(root).classes_in(0) == {BOTTLE, TABLE}
    assert CocoInstances(root)[2].labels.max() == 255


def test_a_folder_that_cannot_be_written_is_reported(root, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.warns(UserWarning, match=r"index of instances_val2017\.json could not be written"):
        dataset = CocoInstances(root, cache=tmp_path / "file")
    assert dataset.classes_in(0) == {BOTTLE, TABLE}
    assert pickle.loads(pickle.dumps(dataset)).classes_in(0) == {BOTTLE, TABLE}


def test_sent_to_another_process_without_its_index(root, monkeypatch):
    dataset = CocoInstances(root)
    built = counted_builds(monkeypatch)
    packed = pickle.dumps(dataset)
    assert len(packed) < 3000  # neither masks nor names of photos
    again = pickle.loads(packed)
    assert torch.equal(again[2].labels, dataset[2].labels)
    assert again.fingerprint() == dataset.fingerprint()
    assert built == []
    next(root.rglob("*.npz")).unlink()
    assert pickle.loads(packed).classes_in(0) == {BOTTLE, TABLE}
    assert len(built) == 1


def test_workers_see_the_same_images(root):
    dataset = CocoInstances(root)
    loader = DataLoader(dataset, batch_size=None, num_workers=2)
    for here, there in zip(dataset, loader, strict=True):
        assert torch.equal(here.image, there.image)
        assert torch.equal(here.labels, there.labels)


def test_fingerprint_follows_the_content(root, tmp_path):
    before = CocoInstances(root).fingerprint()
    assert re.fullmatch(r"coco-val2017-all-1-[0-9a-f]{12}", before)
    assert CocoInstances(root, cache=tmp_path).fingerprint() == before
    assert CocoInstances(root, min_area=3).fingerprint() != before
    assert CocoInstances(root, masks="all").fingerprint() == before
    assert keep_images(CocoInstances(root), [1, 0]).fingerprint() != before
    with_annotation(root, segmentation=[box(10, 10, 14, 18), box(31, 2, 33, 4)])
    moved = CocoInstances(root)
    assert moved.fingerprint() != before
    photo = root / "val2017" / "0006.jpg"
    Image.new("RGB", (40, 30)).save(photo)
    assert CocoInstances(root).fingerprint() not in (before, moved.fingerprint())


# photos


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
def test_photos_of_every_mode_become_rgb(root, mode):
    grey = Image.new("L", (40, 30), 90).convert("RGB").convert(mode)
    grey.save(root / "val2017" / "0005.jpg", quality=95)
    image = CocoInstances(root)[0].image
    assert image.shape == (3, 30, 40)
    assert bool(((image.int() - 90).abs() <= 3).all())


@pytest.mark.parametrize("orientation", [3, 6])
def test_a_rotation_in_exif_is_not_applied(root, orientation):
    left_to_right = np.repeat(np.arange(0, 240, 6, dtype=np.uint8)[None, :, None], 30, axis=0)
    exif = Image.Exif()
    exif[274] = orientation
    photo = Image.fromarray(np.repeat(left_to_right, 3, axis=2))
    photo.save(root / "val2017" / "0005.jpg", quality=95, exif=exif)
    image = CocoInstances(root)[0].image
    assert np.abs(image[0].numpy().astype(int) - left_to_right[:, :, 0]).max() <= 3
    data = content()
    data["images"][1].update(width=30, height=40)
    data["annotations"] = []
    (root / "annotations" / "instances_val2017.json").write_text(json.dumps(data))
    hint = r"annotate the pixels as stored" if orientation == 6 else r"must match$"
    with pytest.raises(ValueError, match=rf"40 x 30 pixels, but .* says 30 x 40; .*{hint}"):
        CocoInstances(root)[0]


def test_photo_of_another_size_than_annotated(root):
    Image.new("RGB", (80, 60)).save(root / "val2017" / "0005.jpg")
    message = r"0005\.jpg has 80 x 60 pixels, but instances_val2017\.json says 40 x 30"
    with pytest.raises(ValueError, match=message):
        CocoInstances(root)[0]


@pytest.mark.parametrize("keep", [0, 0.5])
def test_a_damaged_photo_is_named(root, keep):
    path = root / "val2017" / "0005.jpg"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    with pytest.raises(ValueError, match=r"cannot decode \S+0005\.jpg \(\d+ bytes\)"):
        CocoInstances(root)[0]


# answers to mistakes


def test_missing_folders_and_files(root, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere does not exist; give the one that holds"):
        CocoInstances(tmp_path / "nowhere")
    with pytest.raises(
        FileNotFoundError, match=r"instances_val\.json; found there: instances_val2017\.json\. Give"
    ):
        CocoInstances(root, "val")
    (root / "val2017" / "0007.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of the 4 photos .* the first is 0007\.jpg"):
        CocoInstances(root)
    (root / "val2017" / "0005.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"the photo 0005\.jpg is in none of "):
        CocoInstances(root)


@pytest.mark.parametrize(
    "text, message",
    [
        ("", r"cannot read \S+ \(0 bytes\) as JSON"),
        ('{"images": [', "cannot read .* unpack its archive again"),
        ("\xff\xfe", "cannot read .* as JSON"),
        ("[]", "is no file of COCO instances: it has no list 'images'"),
        ('{"images": [], "categories": []}', "has no list 'annotations'"),
        ('{"images": [], "annotations": [], "categories": []}', "lists no image"),
        ('{"images": [], "annotations": {}, "categories": []}', "has no list 'annotations'"),
    ],
)
def test_a_file_that_holds_no_instances(root, text, message):
    path = root / "annotations" / "instances_val2017.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=message):
        CocoInstances(root)
    assert not list(root.rglob("*.npz"))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"segmentation": None}, "has no segmentation; expected a list of polygons or an RLE"),
        ({"segmentation": []}, "has an empty segmentation; a box alone makes no mask"),
        ({"segmentation": [[1, 2, 3, 4, 5]]}, "no list of x, y, x, y, .*got 5 values"),
        ({"segmentation": [[]]}, "got 0 values"),
        ({"segmentation": box(1, 1, 4, 4)}, r"got 1 values in the shape \(\)"),
        ({"segmentation": [["a", "b"]]}, "a polygon that is no list of numbers"),
        ({"segmentation": [box(5, 5, 45, 20)]}, "outside its image of 40 x 30 .* x from 5 to 45"),
        ({"segmentation": [box(5, 5, 20, 34)]}, "y from 5 to 34"),
        ({"segmentation": [[1, 1, float("nan"), 4, 5, 6]]}, "x from nan to nan"),
        ({"segmentation": {"counts": [1200]}}, "an RLE of the size None, but its image has"),
        ({"segmentation": {"size": [40, 30], "counts": [1200]}}, r"the size \[40, 30\], but .*30,"),
        ({"segmentation": {"size": [30, 40], "counts": [1200, 9]}}, "cover 1209 of 1200 pixels"),
        ({"segmentation": {"size": [30, 40], "counts": [1201, -1]}}, "is no count of pixels"),
        ({"segmentation": {"size": [30, 40], "counts": None}}, "neither a list nor a string"),
        ({"segmentation": {"size": [30, 40], "counts": "0"}}, "a damaged RLE: its runs do not"),
        ({"segmentation": {"size": [30, 40], "counts": "\xff~"}}, "a damaged RLE"),
        ({"category_id": 2}, "is of category 2, which is not listed"),
        ({"image_id": 99}, "is of image 99, which is not listed"),
    ],
)
def test_an_annotation_that_cannot_be_drawn_is_named(root, changes, message):
    with_annotation(root, **changes)
    with pytest.raises(ValueError, match=rf"instances_val2017\.json: annotation 1 .*{message}"):
        CocoInstances(root)


@pytest.mark.parametrize(
    "part, entry, message",
    [
        ("images", {"id": 8}, "an image needs an integer id, a file_name"),
        ("images", {"id": 8, "file_name": "a", "width": 0, "height": 3}, "an image needs"),
        ("images", {"id": 8, "file_name": "../a", "width": 2, "height": 3}, "'../a'"),
        ("images", {"id": 8, "file_name": "/a", "width": 2, "height": 3}, "'/a'"),
        ("images", {"id": 8, "file_name": "a\nb", "width": 2, "height": 3}, "a line break"),
        ("images", {"id": 7, "file_name": "a", "width": 2, "height": 3}, "lists image 7 twice"),
        ("categories", {"id": 90, "name": "a"}, "lists category 90 twice"),
        ("categories", {"name": "a"}, "a category needs an integer id and a name"),
        ("annotations", 3, "annotation 3 is no JSON object"),
    ],
)
def test_malformed_entries(root, part, entry, message):
    data = content()
    data[part].append(entry)
    (root / "annotations" / "instances_val2017.json").write_text(json.dumps(data))
    with pytest.raises(ValueError, match=message):
        CocoInstances(root)


def test_settings_are_validated(root):
    with pytest.raises(ValueError, match="masks must be one of all, first_polygon, got 'box'"):
        CocoInstances(root, masks="box")
    with pytest.raises(ValueError, match="min_area must be at least 1 pixel, got 0"):
        CocoInstances(root, min_area=0)
    with pytest.raises(ValueError, match="expected 1 to 254 class names, got 255"):
        CocoInstances(root, class_names=tuple(map(str, range(255))))


# the authors' masks


def test_first_polygon_draws_one_convex_polygon_and_no_crowd(root):
    data = content()
    data["annotations"][3]["segmentation"] = [box(2, 2, 6, 6)]
    write_coco(root, data)
    dataset = CocoInstances(root, masks="first_polygon")
    labels = dataset[0].labels
    assert not bool((labels[:5, 28:] != 0).any())  # the second polygon of the bottle
    assert bool((labels[10:19, 10:15] == BOTTLE).all())  # borders are drawn as well
    assert sorted(dataset[2].labels.unique().tolist()) == [0, BOTTLE]
    assert dataset.classes_shown(3) == {PERSON}
    assert dataset.classes_in(3) == set()
    assert dataset.fingerprint() != CocoInstances(root).fingerprint()


def test_first_polygon_needs_polygons(root):
    with pytest.raises(ValueError, match=r"annotation 4 .* is an RLE and has no first polygon"):
        CocoInstances(root, masks="first_polygon")


# real photos


@pytest.fixture(scope="module")
def real(tmp_path_factory) -> CocoInstances:
    if not COCO128.is_dir():
        pytest.skip("needs the photos of coco128 in ../shared/data")
    return CocoInstances(COCO128, "train2017", cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def reference(real) -> COCO:
    """pycocotools' own reading of the same file."""
    with redirect_stdout(StringIO()):
        return COCO(str(real.annotations))


def test_real_annotations_name_all_images_and_classes(real, reference):
    assert len(real) == 128 == len(reference.getImgIds())
    assert [int(real.image_id(i)) for i in range(128)] == sorted(reference.getImgIds())
    categories = reference.loadCats(sorted(reference.getCatIds()))
    assert tuple(c["name"] for c in categories) == COCO_CLASSES
    assert [c["id"] for c in categories][-1] == 90
    enough = {n: sum(len(i) >= n for i in images_of_class(real).values()) for n in (1, 2, 6)}
    assert enough == {1: 71, 2: 64, 6: 17}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools
def test_real_label_maps_are_pycocotools_masks(real, reference):
    """Painted here from ``annToMask``, largest first, without any code of the data set."""
    ids = {c["id"]: i + 1 for i, c in enumerate(reference.loadCats(sorted(reference.getCatIds())))}
    images: dict[int, set[int]] = defaultdict(set)
    pixels: Counter[int] = Counter()
    objects, shared = 0, 0
    for position, image_id in enumerate(sorted(reference.getImgIds())):
        masks = [
            (ids[a["category_id"]], reference.annToMask(a))
            for a in reference.loadAnns(reference.getAnnIds(image_id))
        ]
        information = reference.loadImgs(image_id)[0]
        labels = np.zeros((information["height"], information["width"]), dtype=np.uint8)
        for class_id, mask in sorted(masks, key=lambda item: -int(item[1].sum())):
            labels[mask == 1] = class_id
        claims = sum(
            np.any([mask for c, mask in masks if c == class_id], axis=0).astype(int)
            for class_id in {c for c, _ in masks}
        )
        objects += int(np.sum(claims > 0))
        shared += int(np.sum(claims > 1))
        sample = real[position]
        assert np.array_equal(sample.labels.numpy(), labels), image_id
        assert sample.image.shape[1:] == labels.shape
        assert real.classes_in(position) == set(np.unique(labels).tolist()) - {0}
        assert real.classes_shown(position) == {class_id for class_id, _ in masks}
        for class_id in real.classes_in(position):
            images[class_id].add(position)
            pixels[class_id] += int((labels == class_id).sum())
    assert {c: set(i) for c, i in images_of_class(real).items() if i} == images
    assert pixels[PERSON] == PEOPLE
    assert shared / objects == pytest.approx(SHARED, abs=5e-5)


def test_real_folds(real):
    """How many classes of each strided fold have images enough for 1 shot, and for 5."""
    images = images_of_class(real)
    for shots, expected in ((1, [17, 16, 13, 18]), (5, [5, 4, 5, 3])):
        counts = [
            sum(len(images[c]) > shots for c in fold_classes("coco", fold)) for fold in range(4)
        ]
        assert counts == expected


def test_real_first_polygons_differ_from_the_outlines(real, tmp_path):
    """One polygon an instance in this sample: all that differs is how it is filled."""
    authors = CocoInstances(COCO128, "train2017", masks="first_polygon", cache=tmp_path)
    both, either = np.zeros(81), np.zeros(81)
    for i in range(len(real)):
        ours, theirs = real._paint(i), authors._paint(i)
        for class_id in real.classes_in(i):
            both[class_id] += int(((ours == class_id) & (theirs == class_id)).sum())
            either[class_id] += int(((ours == class_id) | (theirs == class_id)).sum())
    shown = either > 0
    assert float(both.sum() / either.sum()) == pytest.approx(OVERLAP[0], abs=5e-4)
    assert float((both[shown] / either[shown]).mean()) == pytest.approx(OVERLAP[1], abs=5e-4)
