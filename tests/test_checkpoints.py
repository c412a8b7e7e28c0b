"""Model files: predictions come back to the bit, and nothing but such a file is read."""

import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import TinyBackbone, tiny_model, with_tiny_backbone
from safetensors import safe_open
from safetensors.torch import save_file

from pmms.checkpoints import FORMAT, load_model, load_notes, save_model
from pmms.models import build_model


@pytest.fixture(autouse=True)
def _tiny_backbone() -> Iterator[None]:
    with with_tiny_backbone():
        yield


def episode() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    mask = torch.zeros(2, 2, 1, 40, 40)
    mask[..., 5:25, 8:30] = 1
    return (
        torch.rand(2, 2, 3, 40, 40, generator=generator),
        mask,
        torch.rand(2, 3, 40, 40, generator=generator),
    )


@pytest.mark.parametrize("name", ["baseline", "pmms_plus", "pmms", "rpmms", "training_free"])
def test_predictions_come_back_to_the_bit(tmp_path: Path, name: str) -> None:
    model = tiny_model(name, norm="batch", em_iterations=2, seed=4, kappa=12.5)
    with torch.no_grad():
        for value in model.state_dict().values():  # no value is one that a new model has
            if value.is_floating_point():
                value.mul_(1.01).add_(0.001)
    model.eval()
    path = save_model(model, tmp_path / "new" / "model.safetensors", size=48)
    torch.manual_seed(11)
    before = torch.random.get_rng_state()
    loaded, size = load_model(path)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert size == 48
    assert not loaded.training
    assert loaded.config == model.config
    with torch.inference_mode():
        one, other = model(*episode()), loaded(*episode())
    assert all(torch.equal(a, b) for a, b in zip(one.stages, other.stages, strict=True))
    assert [p.name for p in path.parent.iterdir()] == ["model.safetensors"]


def test_a_real_backbone_comes_back(tmp_path: Path) -> None:
    model = build_model("training_free", backbone="efficientnet_lite0", k=2).eval()
    loaded, _ = load_model(save_model(model, tmp_path / "m.safetensors", size=64))
    support, mask, query = episode()
    with torch.inference_mode():
        one, other = model(support, mask, query), loaded(support, mask, query)
    assert torch.equal(one.logits, other.logits)


def test_a_frozen_backbone_may_be_left_out(tmp_path: Path) -> None:
    model = build_model("pmms", backbone="efficientnet_lite0", width=8, norm="group").eval()
    path = save_model(model, tmp_path / "m.safetensors", size=64, backbone=False)
    with safe_open(path, framework="pt") as file:
        assert not any(name.startswith("backbone.") for name in file.keys())  # noqa: SIM118
    loaded, _ = load_model(path)
    support, mask, query = episode()
    with torch.inference_mode():
        one, other = model(support, mask, query), loaded(support, mask, query)
    assert torch.equal(one.logits, other.logits)


def test_a_backbone_left_out_must_be_the_one_that_is_installed(tmp_path: Path) -> None:
    model = build_model("pmms", backbone="efficientnet_lite0", weights=None, width=8).eval()
    path = save_model(model, tmp_path / "m.safetensors", size=64, backbone=False)
    with pytest.raises(ValueError, match="trained on other weights of efficientnet_lite0"):
        load_model(path)


def test_a_file_holds_tensors_and_text_only(tmp_path: Path) -> None:
    path = save_model(tiny_model(), tmp_path / "m.safetensors", size=32, parameters={"k": [3]})
    with pytest.raises(pickle.UnpicklingError):
        pickle.loads(path.read_bytes())
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    assert metadata.pop("format") == FORMAT
    assert {name: json.loads(text) for name, text in metadata.items()}["size"] == 32
    assert load_notes(path) == {"parameters": {"k": [3]}}


def test_a_model_file_may_be_replaced(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    for seed in (0, 1):
        save_model(tiny_model(seed=seed), path, size=32)
    loaded, _ = load_model(path)
    kernel = "decoder.classify.weight"
    assert torch.equal(loaded.state_dict()[kernel], tiny_model(seed=1).state_dict()[kernel])


@pytest.mark.parametrize("name", ["model.pt", "model", "model.safetensors.bak"])
def test_another_ending_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"ends in \.safetensors"):
        save_model(tiny_model(), tmp_path / name, size=32)
    assert not list(tmp_path.iterdir())


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no model at .*gone\.safetensors"):
        load_model(tmp_path / "gone.safetensors")


class Harmful:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (Path.touch, ("harm",))


@pytest.mark.parametrize("kind", ["empty", "cut short", "text", "pickle", "torch.save"])
def test_a_damaged_file_is_refused_and_runs_no_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = save_model(tiny_model(), tmp_path / "m.safetensors", size=32)
    if kind == "torch.save":
        torch.save({"state_dict": Harmful()}, path)
    else:
        good = path.read_bytes()
        path.write_bytes(
            {"empty": b"", "cut short": good[:-7], "text": b"hello " * 50}.get(
                kind, pickle.dumps(Harmful())
            )
        )
    with pytest.raises(ValueError, match=r"m\.safetensors is damaged"):
        load_model(path)
    assert not Path("harm").exists()


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"format": "pmms-model-0"}])
def test_a_foreign_file_is_refused(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"a": torch.ones(2)}, path, metadata)
    with pytest.raises(ValueError, match="is no model of this package"):
        load_model(path)


def rewritten(path: Path, **changes: Any) -> None:
    """Change entries of the metadata; None drops one."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for name, change in changes.items():
        if change is None:
            del metadata[name]
        elif isinstance(change, str):
            metadata[name] = change
        else:
            metadata[name] = json.dumps(json.loads(metadata[name]) | change)
    save_file(tensors, path, metadata)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"model": {"width": 12}}, "do not fit its own configuration"),
        ({"model": {"name": "baseline", "k": [1]}}, "do not fit its own configuration"),
        ({"model": {"name": "later"}}, "does not know .*name must be one of"),
        ({"model": {"backbone": "later"}}, "does not know .*backbone must be one of"),
        ({"model": {"later_option": 1}}, "does not know .*later_option"),
        ({"model": {"backbone_options": {"later": 1}}}, "does not know .*later"),
        ({"model": None}, "does not know .*model"),
        ({"model": "{"}, "does not know"),
        ({"size": None}, "does not know .*size"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = save_model(tiny_model(), tmp_path / "m.safetensors", size=32)
    rewritten(path, **change)
    with pytest.raises(ValueError, match=rf"(?s)m\.safetensors .*{message}"):
        load_model(path)


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_model(tiny_model(), tmp_path / "m.safetensors", size=32)

    def full(_: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("pmms.files.os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        save_model(tiny_model(seed=1), path, size=64)
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]
    assert load_model(path)[1] == 32


def test_the_backbone_is_in_the_file(tmp_path: Path) -> None:
    model = tiny_model()
    model.backbone = TinyBackbone(seed=5)
    loaded, _ = load_model(save_model(model, tmp_path / "m.safetensors", size=32))
    assert torch.equal(loaded.backbone.net[0].weight, model.backbone.net[0].weight)
