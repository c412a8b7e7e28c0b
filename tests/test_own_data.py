"""The page on one's own data: its commands, on data as it describes them."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pmms.__main__ import main
from pmms.datasets.coco import CocoInstances
from pmms.datasets.pascal import PascalVOC
from pmms.folds import read_classes
from pmms.results import load_record

PAGE = (Path(__file__).parents[1] / "book" / "own_data.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\$ python -m (.*)$", PAGE, re.MULTILINE)
SHORTER = {"iterations=600": "iterations=2", "episodes=200": "episodes=20"}
"""So that the commands take seconds on drawings of 96 x 128 pixels."""

NAMES = ("kettle", "pan", "cup", "plate", "fork", "spoon")
COLOURS = ("crimson", "navy", "gold", "white", "black", "teal")
SHOWN = [(1,), (1,), (1, 2), (2,), (3, 4), (3,), (4,), (4, 5), (5,), (6,), (6, 3), (5, 6)]


def outline(class_id: int, *, left: int, top: int) -> list[tuple[int, int]]:
    """A polygon of some 30 pixels, of another shape for each class."""
    turn = np.linspace(0, 2 * np.pi, class_id + 3)[:-1]
    x, y = left + 18 + 17 * np.cos(turn), top + 18 + 17 * np.sin(turn)
    return list(zip(x.astype(int).tolist(), y.astype(int).tolist(), strict=True))


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder ``kitchen`` of the page, with the class file as printed there."""
    folder = tmp_path_factory.mktemp("own") / "kitchen"
    voc, coco = folder / "voc", folder / "coco"
    for part in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (voc / part).mkdir(parents=True)
    (coco / "annotations").mkdir(parents=True)
    printed = re.search(r"```text\n(kettle\n.*?)```", PAGE, re.DOTALL).group(1)
    (folder / "classes.txt").write_text(printed, encoding="utf-8")
    generator = np.random.default_rng(0)
    for split, start in (("train", 1), ("val", 101)):
        (coco / split).mkdir()
        images, annotations = [], []
        for number, shown in enumerate(SHOWN, start):
            noise = generator.integers(90, 160, (96, 128, 3), dtype=np.uint8)
            photo, labels = Image.fromarray(noise), Image.new("L", (128, 96))
            images.append({"id": number, "file_name": f"{number:03d}.jpg", "width": 128,
                           "height": 96})  # fmt: skip
            for place, class_id in enumerate(shown):
                corner = {"left": 8 + 60 * place, "top": 10 + number % 40}
                points = outline(class_id, **corner)
                ImageDraw.Draw(photo).polygon(points, fill=COLOURS[class_id - 1])
                ImageDraw.Draw(labels).polygon(points, fill=class_id)
                annotations.append({
                    "id": len(annotations) + 1, "image_id": number, "category_id": 10 - class_id,
                    "segmentation": [[value for point in points for value in point]],
                })  # fmt: skip
            photo.save(voc / "JPEGImages" / f"{number:03d}.jpg")
            photo.save(coco / split / f"{number:03d}.jpg")
            labels.save(voc / "SegmentationClass" / f"{number:03d}.png")
        ids = "\n".join(f"{image['id']:03d}" for image in images)
        (voc / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(ids)
        categories = [{"id": 10 - i, "name": name} for i, name in enumerate(NAMES, 1)]
        (coco / "annotations" / f"instances_{split}.json").write_text(
            json.dumps({"images": images, "annotations": annotations, "categories": categories})
        )
    return folder


@pytest.fixture
def here(kitchen: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(kitchen.parent)
    return kitchen.parent


def test_class_file_is_the_one_that_the_page_explains(kitchen):
    own = read_classes(kitchen / "classes.txt")
    assert own.names == NAMES
    assert own.folds == ((1, 2), (3, 4), (5, 6))


def test_both_layouts_show_the_same(kitchen):
    voc = PascalVOC(kitchen / "voc", class_names=NAMES)
    coco = CocoInstances(kitchen / "coco", "val", class_names=NAMES)
    assert [coco.image_id(i) for i in range(12)] == [voc.image_id(i) for i in range(12)]
    for i, shown in enumerate(SHOWN):
        assert voc.classes_in(i) == coco.classes_in(i) == set(shown)
        same = (voc[i].labels == coco[i].labels).double().mean()
        assert float(same) > 0.97  # a polygon's border pixels are a matter of the drawing


def test_the_page_has_the_commands_that_are_tested():
    assert [command.split()[1] for command in COMMANDS] == [
        "folds", "run", "run", "train", "predict", "run", "predict",
    ]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: f"{COMMANDS.index(c)}-{c.split()[1]}")
def test_commands_of_the_page(command, here, capsys):
    for long, short in SHORTER.items():
        command = command.replace(long, short)
    program, name, *arguments = shlex.split(command)
    assert program == "pmms"
    if name in {"run", "train"}:
        arguments += ["--workers", "0"]
    assert main([name, *arguments]) == 0
    printed = capsys.readouterr().out
    if name == "folds":
        assert printed.splitlines()[1] == "fold 1: cup (3), plate (4)"
    elif name == "train":
        assert (here / "kitchen" / "model.safetensors").is_file()  # and used by the next
    elif name == "predict":
        with Image.open(here / "kitchen" / "found" / "102_found.png") as mask:
            assert mask.size == (128, 96)
        assert (here / "kitchen" / "found" / "102_overlay.png").is_file()
    else:
        written = Path(re.search(r"record written to (\S+)", printed).group(1))
        record = load_record(written)
        assert list(record.scores["model"]["class_iou"]) in (["1", "2"], [1, 2])
        assert record.scores["model"]["class_names"] in (
            {"1": "kettle", "2": "pan"},
            {1: "kettle", 2: "pan"},
        )
        assert record.parameters["classes"]["names"] == list(NAMES)
        text = written.read_text(encoding="utf-8")
        assert str(here) not in text
        assert "kitchen/" not in text


def test_messages_of_the_page_are_those_of_the_code():
    source = "".join(
        path.read_text(encoding="utf-8")
        for path in (Path(__file__).parents[1] / "pmms").rglob("*.py")
    )
    joined = re.sub(r'"\s*\n\s*f?"', "", source)  # one message over several lines
    for message in re.findall(r"^\| `([^`]+)` \|", PAGE, re.MULTILINE):
        pattern = re.escape(message).replace(r"\.\.\.", ".*?")
        pattern = re.sub(r"\b(7|6|1|RGB)\b", r"{[^}]+}", pattern)
        assert re.search(pattern, joined), message
