import io
import pickle
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pmms.datasets import images_of_class, keep_images, label_index
from pmms.datasets.pascal import PascalVOC
from pmms.folds import PASCAL_CLASSES

DATA = Path(__file__).parents[2] / "shared" / "data"
ARCHIVE = DATA / "voc2012_SegmentationClassAug.tar"


def write_labels(path: Path, labels: np.ndarray) -> None:
    """A palette PNG, as VOC has them: the colours differ from the labels."""
    image = Image.fromarray(labels.astype(np.uint8))
    image.putpalette(np.random.default_rng(1).integers(0, 256, 768, dtype=np.uint8).tobytes())
    assert image.mode == "P"
    image.save(path)


def label_map(*classes: int, height: int = 30, width: int = 40) -> np.ndarray:
    """Rows of 10 pixels per class on background, with void below; class i at i * 5 columns."""
    labels = np.zeros((height, width), dtype=np.uint8)
    for place, class_id in enumerate(classes):
        labels[2 * place, :10] = class_id
    labels[-1] = 255
    return labels


CONTENTS = {"2007_000001": (1, 3), "2007_000002": (3,), "2008_000003": (20,), "2008_000004": ()}


@pytest.fixture
def devkit(tmp_path: Path) -> Path:
    """A VOCdevkit folder with four images, in a list "val" and, in parts, "train"."""
    voc = tmp_path / "VOCdevkit" / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (voc / folder).mkdir(parents=True)
    generator = np.random.default_rng(0)
    for name, classes in CONTENTS.items():
        photo = Image.fromarray(generator.integers(0, 256, (30, 40, 3), dtype=np.uint8))
        photo.save(voc / "JPEGImages" / f"{name}.jpg", quality=95)
        write_labels(voc / "SegmentationClass" / f"{name}.png", label_map(*classes))
    lists = voc / "ImageSets" / "Segmentation"
    lists.joinpath("val.txt").write_text("\n".join(CONTENTS) + "\n")
    lists.joinpath("train.txt").write_text("2008_000003\n\n2007_000001\n")
    return voc.parent


def test_reads_images_and_labels(devkit):
    dataset = PascalVOC(devkit)
    assert len(dataset) == 4
    assert dataset.class_names == PASCAL_CLASSES
    assert [dataset.image_id(i) for i in range(4)] == list(CONTENTS)
    image, labels = dataset[0]
    assert (image.shape, image.dtype) == ((3, 30, 40), torch.uint8)
    assert (labels.shape, labels.dtype) == ((30, 40), torch.uint8)
    assert np.array_equal(labels.numpy(), label_map(1, 3))
    with Image.open(devkit / "VOC2012" / "JPEGImages" / "2007_000001.jpg") as photo:
        assert np.array_equal(image.permute(1, 2, 0).numpy(), np.asarray(photo))
    assert image.is_contiguous()


@pytest.mark.parametrize("inside", ["", "VOC2012", ".."])
def test_root_may_be_any_of_the_folders(devkit, inside):
    assert len(PascalVOC(devkit / inside)) == 4


def test_the_list_decides_images_and_order(devkit):
    dataset = PascalVOC(devkit, "train")
    assert [dataset.image_id(i) for i in range(len(dataset))] == ["2008_000003", "2007_000001"]
    assert dataset.image_id(-1) == "2007_000001"
    with pytest.raises(IndexError, match="pascal has 2 images, index 2"):
        dataset[2]


def test_classes_come_from_the_label_maps_without_void(devkit):
    dataset = PascalVOC(devkit)
    assert [dataset.classes_in(i) for i in range(4)] == [{1, 3}, {3}, {20}, set()]
    assert all(type(c) is int for c in dataset.classes_in(0))
    assert images_of_class(dataset)[3] == (0, 1)


def test_min_area_hides_small_objects_from_episodes_but_not_from_leak_checks(devkit):
    assert PascalVOC(devkit, min_area=10).classes_in(0) == {1, 3}
    dataset = PascalVOC(devkit, min_area=11)
    assert dataset.classes_in(0) == set()
    assert dataset.classes_shown(0) == {1, 3}


def test_another_label_folder(devkit):
    aug = devkit / "VOC2012" / "SegmentationClassAug"
    aug.mkdir()
    for name in CONTENTS:
        Image.fromarray(label_map(7)).save(aug / f"{name}.png")  # grey PNG, as the merge is shared
    dataset = PascalVOC(devkit, labels="SegmentationClassAug")
    assert dataset.classes_in(3) == {7}
    assert int(dataset[3].labels.max()) == 255
    assert PascalVOC(devkit).classes_in(3) == set()


def test_own_classes_and_name(devkit):
    names = (*PASCAL_CLASSES, "kettle")
    dataset = PascalVOC(devkit, class_names=names, name="kitchen")
    assert (dataset.name, dataset.class_name(21)) == ("kitchen", "kettle")
    assert dataset.fingerprint().startswith("kitchen-val-")


def decodings(monkeypatch) -> list[Path]:
    """Counts what is decoded from now on."""
    opened: list[Path] = []
    original = label_index.open_labels

    def counted(path: Path) -> Image.Image:
        opened.append(path)
        return original(path)

    monkeypatch.setattr(label_index, "open_labels", counted)
    return opened


def test_index_is_kept_beside_the_list_and_read_again(devkit, monkeypatch):
    first = PascalVOC(devkit)
    before = [first.classes_in(i) for i in range(4)]
    lists = devkit / "VOC2012" / "ImageSets" / "Segmentation"
    assert sorted(p.name for p in lists.iterdir()) == [
        "train.txt",
        "val.SegmentationClass.index.npz",
        "val.txt",
    ]
    opened = decodings(monkeypatch)
    second = PascalVOC(devkit, min_area=5)
    assert [second.classes_in(i) for i in range(4)] == before
    assert opened == []


def test_index_in_a_given_folder(devkit, tmp_path):
    cache = tmp_path / "cache" / "deep"
    PascalVOC(devkit, cache=cache).classes_in(0)
    assert [p.name for p in cache.iterdir()] == ["val.SegmentationClass.index.npz"]
    assert not list(devkit.rglob("*.npz"))


def test_index_follows_changed_label_maps(devkit, monkeypatch):
    assert PascalVOC(devkit).classes_in(3) == set()
    path = devkit / "VOC2012" / "SegmentationClass" / "2008_000004.png"
    write_labels(path, label_map(5, 6))
    opened = decodings(monkeypatch)
    assert PascalVOC(devkit).classes_in(3) == {5, 6}
    assert len(opened) == 4


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut"])
def test_a_damaged_index_is_made_anew(devkit, content):
    PascalVOC(devkit).classes_in(0)
    cache = next(devkit.rglob("*.npz"))
    whole = cache.read_bytes()
    for damaged in (content, whole[: len(whole) // 2], whole[:300] + b"xx" + whole[302:]):
        cache.write_bytes(damaged)
        assert PascalVOC(devkit).classes_in(0) == {1, 3}
        assert PascalVOC(devkit).classes_in(2) == {20}


def test_a_folder_that_cannot_be_written_is_reported(devkit, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    dataset = PascalVOC(devkit, cache=blocked)
    with pytest.warns(UserWarning, match="could not be written .* give a writable cache folder"):
        assert dataset.classes_in(0) == {1, 3}


def test_several_may_build_the_index_at_once(devkit):
    def build(_: int) -> list[frozenset[int]]:
        dataset = PascalVOC(devkit)
        return [dataset.classes_in(i) for i in range(len(dataset))]

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(build, range(32)))
    assert results == [[{1, 3}, {3}, {20}, set()]] * 32
    assert len(list(devkit.rglob("*.npz"))) == 1
    assert not list(devkit.rglob("*.part"))


def test_fingerprint_follows_the_content(devkit, tmp_path):
    print_before = PascalVOC(devkit).fingerprint()
    assert PascalVOC(devkit / "VOC2012", cache=tmp_path / "other").fingerprint() == print_before
    assert PascalVOC(devkit, min_area=3).fingerprint() != print_before
    assert PascalVOC(devkit, "train").fingerprint() != print_before
    assert keep_images(PascalVOC(devkit), [0, 1]).fingerprint() != print_before
    labels = label_map(1, 3)
    labels[0, :10], labels[2, :10] = 3, 1  # the same areas elsewhere
    write_labels(devkit / "VOC2012" / "SegmentationClass" / "2007_000001.png", labels)
    assert PascalVOC(devkit).fingerprint() != print_before


def test_data_set_can_be_sent_to_workers(devkit):
    dataset = PascalVOC(devkit)
    dataset.classes_in(0)
    copy = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copy[1].labels, dataset[1].labels)
    assert copy.fingerprint() == dataset.fingerprint()


def test_missing_root(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere does not exist; give the VOCdevkit"):
        PascalVOC(tmp_path / "nowhere")


@pytest.mark.parametrize("folder", ["JPEGImages", "SegmentationClass", "ImageSets/Segmentation"])
def test_missing_folder_is_named(devkit, folder):
    (devkit / "VOC2012" / folder).rename(devkit / "away")
    with pytest.raises(
        FileNotFoundError, match=rf"missing: \S+VOC2012/{folder}; give the VOCdevkit"
    ):
        PascalVOC(devkit)


def test_missing_merge_with_sbd_is_explained(devkit):
    with pytest.raises(FileNotFoundError, match=r"VOC2012/SegmentationClassAug; .* merge with SBD"):
        PascalVOC(devkit, labels="SegmentationClassAug")


def test_missing_list_names_those_that_are_there(devkit):
    with pytest.raises(FileNotFoundError, match=r"test\.txt; split must be one of: train, val"):
        PascalVOC(devkit, "test")


@pytest.mark.parametrize("folder, suffix", [("JPEGImages", ".jpg"), ("SegmentationClass", ".png")])
def test_missing_file_is_found_at_the_start(devkit, folder, suffix):
    (devkit / "VOC2012" / folder / f"2007_000002{suffix}").unlink()
    with pytest.raises(FileNotFoundError, match=f"1 of the 4 .* the first is 2007_000002{suffix}"):
        PascalVOC(devkit)
    assert len(PascalVOC(devkit, "train")) == 2  # that list does not need it


@pytest.mark.parametrize(
    "text, message",
    [
        ("\n\n", "is empty; expected one image id a line"),
        ("2007_000001\n2007_000001\n", "lists 2007_000001 twice"),
        ("2007_000001 1\n", "got '2007_000001 1'"),
        ("/JPEGImages/2007_000001.jpg\n", "expected one image id a line"),
    ],
)
def test_malformed_list_is_refused(devkit, text, message):
    (devkit / "VOC2012" / "ImageSets" / "Segmentation" / "val.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        PascalVOC(devkit)


@pytest.mark.parametrize("folder, suffix", [("JPEGImages", ".jpg"), ("SegmentationClass", ".png")])
@pytest.mark.parametrize("damage", ["empty", "truncated", "text"])
def test_damaged_file_is_named(devkit, folder, suffix, damage):
    path = devkit / "VOC2012" / folder / f"2007_000002{suffix}"
    whole = path.read_bytes()
    keep = {"empty": b"", "truncated": whole[: len(whole) * 2 // 3], "text": b"<html></html>"}
    path.write_bytes(keep[damage])
    dataset = PascalVOC(devkit)
    with pytest.raises(ValueError, match=rf"cannot decode \S+2007_000002{suffix} \(\d+ bytes\)"):
        dataset[1]
    if suffix == ".png":
        with pytest.raises(ValueError, match=r"cannot decode \S+2007_000002\.png"):
            dataset.classes_in(0)


def test_flipped_bytes_in_a_label_map_are_noticed(devkit):
    path = devkit / "VOC2012" / "SegmentationClass" / "2007_000002.png"
    data = bytearray(path.read_bytes())
    start = data.index(b"IDAT") + 8
    data[start : start + 4] = bytes(b ^ 0xFF for b in data[start : start + 4])
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"cannot decode \S+2007_000002\.png"):
        PascalVOC(devkit).classes_in(0)


def test_image_and_label_map_of_different_size(devkit):
    path = devkit / "VOC2012" / "SegmentationClass" / "2007_000002.png"
    write_labels(path, label_map(3, height=31))
    message = r"2007_000002\.jpg has 40 x 30 pixels, but .*2007_000002\.png has 40 x 31"
    with pytest.raises(ValueError, match=message):
        PascalVOC(devkit)[1]


def test_colours_in_place_of_labels(devkit):
    path = devkit / "VOC2012" / "SegmentationClass" / "2007_000002.png"
    with Image.open(path) as image:
        image.convert("RGB").save(path)
    with pytest.raises(ValueError, match=r"2007_000002\.png is no label map: .* got mode RGB"):
        PascalVOC(devkit)[1]


def test_label_without_a_class(devkit):
    message = r"2008_000003\.png holds the label 20, but there are 3 classes"
    dataset = PascalVOC(devkit, class_names=("a", "b", "c"))
    with pytest.raises(ValueError, match=message):
        dataset[2]
    with pytest.raises(ValueError, match=message):
        dataset.classes_in(0)


def test_settings_are_validated(devkit):
    with pytest.raises(ValueError, match="min_area must be at least 1 pixel, got 0"):
        PascalVOC(devkit, min_area=0)
    with pytest.raises(ValueError, match="expected 1 to 254 class names, got 0"):
        PascalVOC(devkit, class_names=())


@pytest.fixture(scope="module")
def real_maps(tmp_path_factory) -> dict[str, np.ndarray]:
    """The first 200 label maps of VOC 2012 with SBD, in a VOC tree with blank photos."""
    if not ARCHIVE.is_file():
        pytest.skip("needs the label maps of VOC 2012 + SBD in ../shared/data")
    root = tmp_path_factory.mktemp("real")
    for folder in ("JPEGImages", "SegmentationClassAug", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    maps: dict[str, np.ndarray] = {}
    with tarfile.open(ARCHIVE) as archive:
        for member in archive:
            if len(maps) == 200:
                break
            if member.isfile():
                content = archive.extractfile(member).read()
                name = Path(member.name)
                (root / "SegmentationClassAug" / name.name).write_bytes(content)
                maps[name.stem] = np.array(Image.open(io.BytesIO(content)))
    for name, labels in maps.items():
        Image.new("RGB", labels.shape[::-1]).save(root / "JPEGImages" / f"{name}.jpg")
    (root / "ImageSets" / "Segmentation" / "some.txt").write_text("\n".join(maps))
    maps["root"] = root
    return maps


@pytest.mark.parametrize("min_area", [1, 2 * 32 * 32])
def test_index_of_real_label_maps(real_maps, min_area):
    root, maps = real_maps["root"], {k: v for k, v in real_maps.items() if k != "root"}
    dataset = PascalVOC(root, "some", labels="SegmentationClassAug", min_area=min_area)
    for i, (name, labels) in enumerate(maps.items()):
        present, areas = np.unique(labels, return_counts=True)
        expected = {c for c, a in zip(present, areas, strict=True) if a >= min_area}
        assert dataset.image_id(i) == name
        assert dataset.classes_in(i) == expected - {0, 255}
        assert dataset.classes_shown(i) == set(present.tolist()) - {0, 255}
    assert np.array_equal(dataset[0].labels.numpy(), next(iter(maps.values())))


def test_real_label_maps_show_the_class_that_the_lists_name(real_maps):
    lists = DATA / "pascal5i_lists"
    if not lists.is_dir():
        pytest.skip("needs the authors' lists in ../shared/data/pascal5i_lists")
    dataset = PascalVOC(real_maps["root"], "some", labels="SegmentationClassAug")
    shown = {dataset.image_id(i): dataset.classes_shown(i) for i in range(len(dataset))}
    pairs = {line for path in lists.glob("*.txt") for line in path.read_text().split()}
    checked = 0
    for pair in pairs:
        name, class_id = pair.split("__")
        if name in shown:
            assert int(class_id) in shown[name]
            checked += 1
    assert checked > 100
