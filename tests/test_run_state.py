"""What a checkpoint holds, and which files are refused."""

import csv
import pickle
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import tiny_model
from filelock import FileLock, Timeout
from torch import nn

from pmms import run_state as module
from pmms.run_state import CHECKPOINT, LOG, LossPoint, RunState, alone_in, load_checkpoint

ROOT = Path(__file__).resolve().parents[1]


def state_of(
    folder: Path | None, *, seed: int = 0, settings: dict[str, Any] | None = None, **options: Any
) -> RunState:
    model = tiny_model("baseline", seed=seed, **options)
    model.backbone.requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return RunState(model, optimizer, settings=settings or {"k": (1, 2)}, folder=folder)


def stepped(state: RunState, steps: int = 3) -> RunState:
    for _ in range(steps):
        for parameter in state.model.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.ones_like(parameter)
        state.optimizer.step()
        state.step += 1
        state.pending.append(torch.tensor(0.5 / state.step))
    return state


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([value.detach().flatten().float() for value in model.state_dict().values()])


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    saved = stepped(state_of(tmp_path))
    saved.log(0.1)
    stepped(saved, 2)
    saved.save()
    again = state_of(tmp_path, seed=7)
    assert not torch.equal(weights(again.model), weights(saved.model))
    again.resume()
    assert torch.equal(weights(again.model), weights(saved.model))
    assert again.step == 5
    assert again.history == saved.history
    assert [loss.item() for loss in again.pending] == [loss.item() for loss in saved.pending]
    # The momentum is back as well: the next step is the same.
    stepped(again, 1)
    stepped(saved, 1)
    assert torch.equal(weights(again.model), weights(saved.model))
    assert again.log(0.1) == saved.log(0.1)


def test_a_row_of_the_log_is_the_mean_since_the_last(tmp_path: Path) -> None:
    state = stepped(state_of(tmp_path), 2)
    assert state.log(0.25) == LossPoint(2, pytest.approx((0.5 + 0.25) / 2), 0.25)
    assert state.pending == []
    stepped(state, 1)
    state.log(0.125)
    state.save()
    with (tmp_path / LOG).open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["step", "loss", "learning_rate"]
    assert [LossPoint(int(a), float(b), float(c)) for a, b, c in rows[1:]] == state.history


def test_only_two_files_and_no_other_are_left(tmp_path: Path) -> None:
    stepped(state_of(tmp_path / "new" / "run")).save()
    assert sorted(p.name for p in (tmp_path / "new" / "run").iterdir()) == [CHECKPOINT, LOG]


def test_a_frozen_backbone_is_not_in_the_checkpoint(tmp_path: Path) -> None:
    state = state_of(tmp_path)
    state.save()
    names = set(load_checkpoint(tmp_path / CHECKPOINT)["model"])
    assert names == {n for n in state.model.state_dict() if not n.startswith("backbone.")}
    state.model.backbone.net[0].weight.requires_grad_(True)
    state.save()
    assert set(load_checkpoint(tmp_path / CHECKPOINT)["model"]) == set(state.model.state_dict())


def test_without_a_folder_nothing_is_written_or_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    state = stepped(state_of(None))
    state.save()
    state.resume()
    assert not list(tmp_path.iterdir())
    assert state.step == 3


def test_without_a_checkpoint_a_run_starts_at_the_beginning(tmp_path: Path) -> None:
    state = state_of(tmp_path)
    state.resume()
    assert (state.step, state.history, state.pending) == (0, [], [])


def test_other_settings_are_refused(tmp_path: Path) -> None:
    state_of(tmp_path, settings={"seed": 0, "k": (1,)}).save()
    state_of(tmp_path, settings={"k": [1], "seed": 0}).resume()  # the same, as JSON
    with pytest.raises(ValueError, match=f"{CHECKPOINT} belongs to a run with other settings"):
        state_of(tmp_path, settings={"seed": 1, "k": (1,)}).resume()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_log_and_checkpoint(tmp_path: Path, value: float) -> None:
    state = stepped(state_of(tmp_path))
    state.save()
    before = (tmp_path / CHECKPOINT).read_bytes()
    state.pending.append(torch.tensor(value))
    for act in (state.save, lambda: state.log(0.1)):
        with pytest.raises(FloatingPointError, match="lower learning_rate"):
            act()
    assert (tmp_path / CHECKPOINT).read_bytes() == before
    assert state.history == []


class Harmful:
    """Pickles to a call."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (Path.touch, ("harm",))


def damaged(kind: str, good: bytes, path: Path) -> None:
    if kind.startswith("cut at"):
        path.write_bytes(good[: int(float(kind.split()[2]) * len(good))])
    elif kind == "bytes changed":
        path.write_bytes(good[:40] + bytes(100) + good[140:])
    elif kind == "text":
        path.write_text("step,loss\n1,0.5\n")
    elif kind == "a list":
        torch.save([1, 2, 3], path)
    elif kind == "a state dict":
        torch.save(tiny_model().state_dict(), path)
    else:
        path.write_bytes(pickle.dumps({"settings": Harmful()}))


@pytest.mark.parametrize(
    "kind",
    [
        "cut at 0", "cut at 0.1", "cut at 0.5", "cut at 0.99", "bytes changed", "text", "a list",
        "a state dict", "code",
    ],
)  # fmt: skip
def test_a_damaged_checkpoint_is_named(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stepped(state_of(tmp_path)).save()
    path = tmp_path / CHECKPOINT
    damaged(kind, path.read_bytes(), path)
    with pytest.raises(ValueError, match=f"{CHECKPOINT} is no training checkpoint.*delete it"):
        state_of(tmp_path).resume()
    assert not (tmp_path / "harm").exists()


# A folder for one process at a time


def test_a_second_process_waits_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ASK_AGAIN", 0.01)
    folder = tmp_path / "runs" / "one"
    order = []

    def second() -> None:
        with alone_in(folder):
            order.append("second")

    thread = threading.Thread(target=second)
    with alone_in(folder):
        thread.start()
        time.sleep(0.2)
        order.append("first")
    thread.join(timeout=20)
    assert order == ["first", "second"]
    assert (
        capsys.readouterr().err
        == f"another process trains in {folder}; waiting until it has ended\n"
    )
    assert not folder.exists()


def test_folders_side_by_side_do_not_wait(tmp_path: Path) -> None:
    with alone_in(tmp_path / "one"), alone_in(tmp_path / "two"), alone_in(None):
        assert sorted(p.name for p in tmp_path.iterdir()) == [".one.lock", ".two.lock"]


def test_a_killed_process_loses_its_lock(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from pmms.run_state import alone_in\n"
        "with alone_in(Path(sys.argv[1])): print('in', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"in\n"
        lock = FileLock(tmp_path / ".run.lock")
        with pytest.raises(Timeout):
            lock.acquire(blocking=False)
        child.kill()
        child.wait()
    with alone_in(tmp_path / "run"):
        pass
