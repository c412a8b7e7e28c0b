"""PartsVOC: deterministic, truthful about its classes, readable as a VOC tree."""

import hashlib
import multiprocessing
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from pmms.datasets import images_of_class
from pmms.datasets.parts import DRAWING_VERSION, PartsVOC
from pmms.datasets.parts_classes import RECIPES
from pmms.datasets.parts_grammar import MAX_EXTRA_CLASSES, grammar_recipe
from pmms.datasets.parts_scene import arrange, with_void
from pmms.datasets.parts_voc import voc_colour_map
from pmms.folds import PASCAL_CLASSES, VOID

# Change this only together with DRAWING_VERSION: cached features and run records rely on both.
FROZEN = (2, "fe67ee68b36cb44a")


def generators(seed):
    return lambda attempt: np.random.Generator(np.random.PCG64([seed, attempt]))


def test_classes_are_the_twenty_of_voc_and_each_has_parts():
    dataset = PartsVOC(length=1, extra_classes=3)
    assert dataset.class_names == (*PASCAL_CLASSES, "shape-001", "shape-002", "shape-003")
    assert tuple(RECIPES) == PASCAL_CLASSES
    assert "wheel" in dataset.part_names(PASCAL_CLASSES.index("car") + 1)
    for class_id in range(1, 24):
        names = dataset.part_names(class_id)
        assert len(names) >= 2
        assert len(set(names)) == len(names)
    with pytest.raises(ValueError, match="1 to 23"):
        dataset.part_names(24)


@pytest.mark.parametrize("settings", [{}, {"extra_classes": 60}, {"split": "val"}, {"size": 96}])
def test_each_planned_class_is_visible_and_no_other(settings):
    dataset = PartsVOC(length=60, **settings)
    least = 400 * (dataset.size / 160) ** 2
    for index in range(len(dataset)):
        labels = dataset[index].labels.numpy()
        assert set(np.unique(labels)) - {0, VOID} == dataset.classes_in(index)
        assert dataset.classes_shown(index) == dataset.classes_in(index)
        for class_id in dataset.classes_in(index):
            assert np.count_nonzero(labels == class_id) >= least


def test_the_cells_that_a_crowded_scene_falls_back_to_fit_every_class(monkeypatch):
    monkeypatch.setattr("pmms.datasets.parts_scene._ATTEMPTS", 0)
    recipes = [*RECIPES.values(), *map(grammar_recipe, range(1, MAX_EXTRA_CLASSES + 1))]
    for number, recipe in enumerate(recipes):
        scene = arrange([recipe] * 3, size=160, min_pixels=600, stream=generators(number))
        assert np.bincount(scene.objects.ravel())[1:4].min() >= 600


def test_samples_have_the_declared_shapes_and_types():
    dataset = PartsVOC(length=4, size=128)
    sample = dataset[1]
    assert sample.image.shape == (3, 128, 128)
    assert sample.image.dtype == torch.uint8
    assert sample.labels.shape == (128, 128)
    assert sample.labels.dtype == torch.uint8
    assert sample.image.is_contiguous()
    assert sample.image.float().std() > 5
    assert len(dataset) == 4
    assert len(list(dataset)) == 4


def test_index_and_seed_alone_decide_an_image():
    first, again = PartsVOC(length=6, seed=3), PartsVOC(length=900, seed=3)
    for index in (5, 0, 3):
        assert all(map(torch.equal, first[index], again[index]))
        assert torch.equal(first.parts(index), again.parts(index))
    others = [PartsVOC(length=6, seed=4), PartsVOC("val", length=6, seed=3)]
    for other in others:
        assert not torch.equal(first[0].labels, other[0].labels)
    prints = {d.fingerprint() for d in (first, again, *others)}
    assert len(prints) == 4


def test_global_random_state_is_neither_read_nor_changed():
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    a = PartsVOC(length=1)[0]
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(1)
    assert torch.equal(a.image, PartsVOC(length=1)[0].image)


def test_the_world_is_the_frozen_one():
    digest = hashlib.sha256()
    for dataset in (PartsVOC(length=6), PartsVOC(length=6, extra_classes=40)):
        for index in range(len(dataset)):
            digest.update(dataset[index].labels.numpy().tobytes())
            digest.update(dataset.parts(index).numpy().tobytes())
    assert (DRAWING_VERSION, digest.hexdigest()[:16]) == FROZEN, (
        "the drawn labels changed: raise DRAWING_VERSION and freeze the new checksum"
    )


def test_extra_classes_look_the_same_for_every_seed_and_differ_among_themselves():
    a = grammar_recipe(7).draw(np.random.Generator(np.random.PCG64(0)))
    grammar_recipe.cache_clear()
    b = grammar_recipe(7).draw(np.random.Generator(np.random.PCG64(0)))
    assert all(np.array_equal(x.outline, y.outline) for x, y in zip(a, b, strict=True))
    layouts = {
        tuple(
            np.round(s.outline.sum(), 6)
            for s in grammar_recipe(i).draw(np.random.Generator(np.random.PCG64(0)))
        )
        for i in range(1, 201)
    }
    assert len(layouts) == 200


def test_extra_classes_mix_with_the_twenty():
    images = images_of_class(PartsVOC(length=1500, extra_classes=40))
    counts = [len(images[class_id]) for class_id in range(1, 61)]
    assert min(counts) > 10
    total = sum(counts[:20]) / sum(counts)
    assert 0.45 < total < 0.55


def test_part_map_lies_on_the_objects_and_names_parts_of_their_class():
    dataset = PartsVOC(length=25)
    for index in range(len(dataset)):
        labels, parts = dataset[index].labels, dataset.parts(index)
        assert parts.dtype == torch.uint8
        on_object = (labels != 0) & (labels != VOID)
        assert torch.equal(parts > 0, on_object)
        for class_id in dataset.classes_in(index):
            ids = parts[labels == class_id].unique()
            assert ids.max() <= len(dataset.part_names(class_id))
            assert len(ids) >= 2


def test_void_separates_objects_from_background_and_from_each_other():
    dataset = PartsVOC(length=25)
    widths = []
    for index in range(len(dataset)):
        labels = dataset[index].labels.numpy().astype(int)
        for a, b in ((labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1])):
            assert np.all((a == b) | (a == VOID) | (b == VOID))
        border = np.count_nonzero(labels == VOID)
        core = np.count_nonzero((labels != VOID) & (labels != 0))
        widths.append(border / core)
    assert 0.1 < np.mean(widths) < 0.5


def test_void_width_of_a_square():
    for size, width in ((80, 1), (160, 2), (240, 4)):
        objects = np.zeros((size, size), dtype=np.uint8)
        objects[20:60, 20:60] = 1
        row = with_void(objects)[40, :40]
        assert np.count_nonzero(row == VOID) == width
        assert row[0] == 0
        assert row[39] == 1


def test_pickles_and_draws_the_same_in_other_processes():
    dataset = PartsVOC(length=8, extra_classes=5)
    copy = pickle.loads(pickle.dumps(dataset))
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        drawn = pool.map(label_bytes, [(copy, index) for index in range(4)])
    assert drawn == [label_bytes((dataset, index)) for index in range(4)]


def label_bytes(job):
    dataset, index = job
    return b"".join(t.numpy().tobytes() for t in dataset[index])


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"split": "test"}, "split must be one of train, val"),
        ({"length": 0}, "length must be at least 1"),
        ({"length": 2.5}, "length must be an integer"),
        ({"size": 63}, "size must be from 64"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"extra_classes": 201}, "extra_classes must be from 0 to 200"),
        ({"extra_classes": 1, "split": "val"}, "training only"),
        ({"min_area": 0}, "min_area must be from 1"),
        ({"min_area": 5000}, "min_area must be from 1"),
    ],
)
def test_bad_settings_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        PartsVOC(**{"length": 10, **arguments})


@pytest.mark.parametrize("method", ["__getitem__", "parts", "classes_in", "image_id"])
@pytest.mark.parametrize("index", [10, -11])
def test_index_out_of_range(method, index):
    with pytest.raises(IndexError):
        getattr(PartsVOC(length=10), method)(index)


def test_colour_map_is_that_of_voc():
    colours = voc_colour_map()
    assert colours.shape == (256, 3)
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 15: (192, 128, 128), 20: (0, 64, 128)}
    for index, colour in known.items():
        assert tuple(colours[index]) == colour
    assert tuple(colours[255]) == (224, 224, 192)


def test_voc_tree_holds_labels_exactly_and_resumes(tmp_path):
    dataset = PartsVOC("val", length=3, size=96)
    root = dataset.write_voc(tmp_path, progress=False)
    assert root == tmp_path / "VOCdevkit" / "VOC2012"
    names = (root / "ImageSets/Segmentation/val.txt").read_text().split()
    assert names == [dataset.image_id(i) for i in range(3)]
    for index, name in enumerate(names):
        sample = dataset[index]
        with Image.open(root / f"SegmentationClass/{name}.png") as picture:
            assert picture.mode == "P"
            assert picture.getpalette()[3:6] == [128, 0, 0]
            assert np.array_equal(np.asarray(picture), sample.labels.numpy())
        with Image.open(root / f"SegmentationPart/{name}.png") as picture:
            assert np.array_equal(np.asarray(picture), dataset.parts(index).numpy())
        with Image.open(root / f"JPEGImages/{name}.jpg") as picture:
            image = np.asarray(picture).astype(float).transpose(2, 0, 1)
        assert np.abs(image - sample.image.numpy()).mean() < 8
    kept = root / f"JPEGImages/{names[0]}.jpg"
    stamp = kept.stat().st_mtime_ns
    (root / f"SegmentationPart/{names[1]}.png").unlink()
    PartsVOC("val", length=4, size=96).write_voc(tmp_path, progress=False)
    assert kept.stat().st_mtime_ns == stamp
    assert (root / f"SegmentationPart/{names[1]}.png").exists()
    assert len((root / "ImageSets/Segmentation/val.txt").read_text().split()) == 4
    assert not [p for p in root.rglob("*") if p.is_file() and p.name.startswith(".")]
    with pytest.raises(ValueError, match="another folder"):
        PartsVOC("val", length=3, size=100).write_voc(tmp_path, progress=False)


def test_pascal_reader_reads_the_tree_unchanged(tmp_path):
    pascal = pytest.importorskip("pmms.datasets.pascal", reason="needs the Pascal reader")
    dataset = PartsVOC(length=4, size=96, extra_classes=5)
    dataset.write_voc(tmp_path, progress=False)
    read = pascal.PascalVOC(
        tmp_path / "VOCdevkit" / "VOC2012", "train", class_names=dataset.class_names
    )
    assert [read.image_id(i) for i in range(4)] == [dataset.image_id(i) for i in range(4)]
    for index in range(4):
        assert torch.equal(read[index].labels, dataset[index].labels)
