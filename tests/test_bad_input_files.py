"""Bad files: checkpoints, models and records that do not fit, disks that are full or read-only."""

import pickle
from pathlib import Path
from typing import Any

import torch
from bad_input import Case, Deed, Table, check, cut
from fakes import TinyBackbone, fake_dataset, tiny_model
from safetensors.torch import save_file

from pmms.authors import load_authors_checkpoint
from pmms.backbones import build_backbone
from pmms.checkpoints import load_model, load_notes, save_model
from pmms.episodes import EpisodeSampler
from pmms.results import RunRecord, load_record, load_records
from pmms.run_state import CHECKPOINT, load_checkpoint
from pmms.train_config import TrainConfig
from pmms.training import train
from pmms.transforms import TrainTransform

case = Table()


class _Harmful:
    """Leaves a file where it is unpickled without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


# training checkpoints


def _train(folder: Path | None, *, name: str = "baseline", **options: Any) -> None:
    sampler = EpisodeSampler(fake_dataset(), [1, 2, 3], length=8)
    config = TrainConfig(iterations=2, batch_size=2, checkpoint_every=1)
    train(tiny_model(name, **options), TrainTransform(32), sampler, config, folder=folder)


@case("checkpoint of another model", ValueError, "other settings", "take another folder")
def _(folder: Path) -> Deed:
    _train(folder / "run")
    return lambda: _train(folder / "run", name="pmms")


@case("checkpoint of another width", ValueError, "other settings", "delete it to start anew")
def _(folder: Path) -> Deed:
    _train(folder / "run")
    return lambda: _train(folder / "run", width=16)


@case("checkpoint cut short", ValueError, "damaged", "delete it to start anew")
def _(folder: Path) -> Deed:
    _train(folder / "run")
    cut(folder / "run" / CHECKPOINT)
    return lambda: _train(folder / "run")


@case("empty checkpoint", ValueError, "damaged", "delete it to start anew")
def _(folder: Path) -> Deed:
    (folder / CHECKPOINT).touch()
    return lambda: load_checkpoint(folder / CHECKPOINT)


@case("checkpoint that runs code", ValueError, "no training checkpoint", "delete it")
def _(folder: Path) -> Deed:
    torch.save({"settings": _Harmful(folder / "harm")}, folder / CHECKPOINT)
    return lambda: load_checkpoint(folder / CHECKPOINT)


@case("checkpoint without its momentum", ValueError, "entries are missing", "optimizer")
def _(folder: Path) -> Deed:
    torch.save({"settings": "", "step": 1, "model": {}, "history": []}, folder / CHECKPOINT)
    return lambda: load_checkpoint(folder / CHECKPOINT)


# weights from elsewhere


@case("backbone weights that run code", ValueError, "cannot be read", "trust its source")
def _(folder: Path) -> Deed:
    (folder / "net.pth").write_bytes(pickle.dumps(_Harmful(folder / "harm")))
    return lambda: build_backbone("vgg16", weights=str(folder / "net.pth"))


@case("backbone weights of another network", ValueError, "no state dict of the backbone vgg16")
def _(folder: Path) -> Deed:
    torch.save(TinyBackbone().state_dict(), folder / "net.pth")
    return lambda: build_backbone("vgg16", weights=str(folder / "net.pth"))


@case("backbone weights that are not there", FileNotFoundError, "'imagenet', None or the path")
def _(folder: Path) -> Deed:
    return lambda: build_backbone("vgg16", weights=str(folder / "net.pth"))


@case("authors' checkpoint of another network", ValueError, "no entry of the authors' networks")
def _(folder: Path) -> Deed:
    torch.save(TinyBackbone().state_dict(), folder / "net.pth")
    return lambda: load_authors_checkpoint(folder / "net.pth", name="pmms", backbone="vgg16")


@case("authors' checkpoint that runs code", ValueError, "cannot be read", "trust its source")
def _(folder: Path) -> Deed:
    torch.save({"state_dict": _Harmful(folder / "harm")}, folder / "net.pth")
    return lambda: load_authors_checkpoint(folder / "net.pth", name="pmms", backbone="vgg16")


# model files


def _saved(folder: Path, **options: Any) -> Path:
    return save_model(
        tiny_model("pmms", **options), folder / "m.safetensors", size=32, parameters={}
    )


@case("model that is not there", FileNotFoundError, "no model at", "train one")
def _(folder: Path) -> Deed:
    return lambda: load_model(folder / "m.safetensors")


@case("model cut short", ValueError, "damaged or no safetensors file")
def _(folder: Path) -> Deed:
    path = cut(_saved(folder))
    return lambda: load_model(path)


@case("empty model", ValueError, "damaged or no safetensors file")
def _(folder: Path) -> Deed:
    (folder / "m.safetensors").touch()
    return lambda: load_model(folder / "m.safetensors")


@case("pickle in place of a model", ValueError, "damaged or no safetensors file")
def _(folder: Path) -> Deed:
    torch.save({"weights": _Harmful(folder / "harm")}, folder / "m.safetensors")
    return lambda: load_model(folder / "m.safetensors")


@case("tensors of something else", ValueError, "no model of this package", "'pmms-model-1'")
def _(folder: Path) -> Deed:
    save_file({"weight": torch.ones(2)}, folder / "m.safetensors")
    return lambda: load_model(folder / "m.safetensors")


@case("notes of something else", ValueError, "no model of this package", "'pmms-model-1'")
def _(folder: Path) -> Deed:
    save_file({"weight": torch.ones(2)}, folder / "m.safetensors")
    return lambda: load_notes(folder / "m.safetensors")


@case("notes of a model cut short", ValueError, "damaged or no safetensors file")
def _(folder: Path) -> Deed:
    path = cut(_saved(folder))
    return lambda: load_notes(path)


@case("notes of a model that is not there", FileNotFoundError, "no model at")
def _(folder: Path) -> Deed:
    return lambda: load_notes(folder / "m.safetensors")


@case("model of another ending", ValueError, "ends in .safetensors", "m.pth")
def _(folder: Path) -> Deed:
    return lambda: save_model(tiny_model(), folder / "m.pth", size=32)


# run records


def _record(**changes: Any) -> RunRecord:
    fields = {"name": "made", "parameters": {}, "protocol": {}, "scores": {"miou": 1.0}}
    return RunRecord(**fields | changes)


def _written(folder: Path, text: str) -> Path:
    path = folder / "made.json"
    path.write_text(text)
    return path


@case("record that is not there", FileNotFoundError, "no run record", "run the experiment")
def _(folder: Path) -> Deed:
    return lambda: load_record(folder / "made.json")


@case("record of an older format", ValueError, "has format 0", "reads 1", "run again")
def _(folder: Path) -> Deed:
    path = _record().save(folder)
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 0'))
    return lambda: load_record(path)


@case("older record among others", ValueError, "has format 0", "delete it and run again")
def _(folder: Path) -> Deed:
    _record(name="other").save(folder)
    path = _record().save(folder)
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 0'))
    return lambda: load_records(folder)


@case("record without a format", ValueError, "is no run record", "schema")
def _(folder: Path) -> Deed:
    path = _written(folder, '{"name": "made"}')
    return lambda: load_record(path)


@case("record cut short", ValueError, "is no run record", "delete it and run again")
def _(folder: Path) -> Deed:
    path = cut(_record().save(folder))
    return lambda: load_record(path)


@case("record that is a list", ValueError, "is no run record", "delete it and run again")
def _(folder: Path) -> Deed:
    path = _written(folder, "[1, 2]")
    return lambda: load_record(path)


@case("record with entries of another kind", ValueError, "is no run record", "delete it")
def _(folder: Path) -> Deed:
    path = _written(folder, '{"schema": 1, "name": "made", "colour": "red"}')
    return lambda: load_record(path)


@case("record in bytes that are no text", ValueError, "is no run record", "delete it")
def _(folder: Path) -> Deed:
    (folder / "made.json").write_bytes(b"\xff\xfe{}")
    return lambda: load_record(folder / "made.json")


@case("record of a score that is no number", ValueError, "finite numbers only", "nan")
def _(folder: Path) -> Deed:
    return lambda: _record(scores={"miou": float("nan")}).save(folder)


@case("record whose name leaves the folder", ValueError, "file stem", "../made")
def _(folder: Path) -> Deed:
    return lambda: _record(name="../made").save(folder)


@case.parametrize()
def test_bad_files_are_refused(case: Case, tmp_path: Path) -> None:
    check(case, tmp_path)
