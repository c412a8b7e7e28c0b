"""Several processes do what one does: the same losses, weights and counts."""

import multiprocessing
import os
import pickle
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import TinyBackbone, fake_dataset, tiny_model

from pmms.distributed import (
    Team,
    _free_port,
    in_processes,
    share,
    start,
    started_outside,
)
from pmms.episodes import EpisodeSampler
from pmms.evaluation import evaluate
from pmms.feature_computing import feature_bank
from pmms.protocols import Protocol
from pmms.run_state import load_checkpoint
from pmms.train_config import TrainConfig
from pmms.training import TrainingInterrupted, train
from pmms.training_processes import train_in_processes
from pmms.transforms import TrainTransform

pytest.importorskip("lightning_fabric")
if "fork" not in multiprocessing.get_all_start_methods():
    pytest.skip("processes cannot be forked here", allow_module_level=True)

CONTEXT = multiprocessing.get_context("fork")  # needs no second import of everything
DATASET = fake_dataset(12, classes=3)
SAMPLER = EpisodeSampler(DATASET, (1, 2, 3), length=200)
SAMPLER_500 = EpisodeSampler(DATASET, (1, 2, 3), length=2000)
BANK = feature_bank(DATASET, TinyBackbone(), size=32, views=2)
SECONDS = 60


def short(**changes: Any) -> TrainConfig:
    settings = {"iterations": 6, "batch_size": 4, "learning_rate": 0.01, "log_every": 1}
    return TrainConfig(**(settings | {"checkpoint_every": 2} | changes))


@contextmanager
def forked(work: Callable[..., Any], folder: Path, *, processes: int = 2) -> Iterator[list[Any]]:
    """Processes that call ``work(fabric)`` and leave what it returns in ``folder``."""
    port = str(_free_port())

    def child(rank: int) -> None:
        status = 1
        try:
            os.environ |= {
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "NODE_RANK": "0",
                "WORLD_SIZE": str(processes), "LOCAL_RANK": str(rank), "PMMS_RANKS": "1",
            }  # fmt: skip
            torch.set_num_threads(1)
            answer = work(start(devices=processes))
            (folder / f"answer{rank}").write_bytes(pickle.dumps(answer))
            status = 0
        finally:
            os._exit(status)

    children = [CONTEXT.Process(target=child, args=(rank,)) for rank in range(processes)]
    for process in children:
        process.start()
    try:
        yield children
    finally:
        for process in children:
            process.kill()


def answers(work: Callable[..., Any], folder: Path, *, processes: int = 2) -> list[Any]:
    """What ``work(fabric)`` returned in each process."""
    folder.mkdir(exist_ok=True)
    with forked(work, folder, processes=processes) as children:
        for process in children:
            process.join(SECONDS)
        assert [process.exitcode for process in children] == [0] * processes
    return [pickle.loads((folder / f"answer{r}").read_bytes()) for r in range(processes)]


def wait_for(path: Path) -> None:
    end = time.monotonic() + SECONDS
    while not path.is_file():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.01)


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def close(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Every tensor as a whole, relative to its largest weight, or to 0.01 where all are small."""
    assert one.keys() == other.keys()
    for name, value in one.items():
        largest = value.abs().max().clamp(min=1e-2)
        error = ((value - other[name]).abs().max() / largest).item()
        assert error <= 1e-5, (name, error)


# training


CASES: dict[str, dict[str, Any]] = {
    "features, dropout": {"model": "pmms", "aspp_dropout": 0.5, "dropout": 0.2},
    "features, three stages": {"model": "rpmms", "aspp_dropout": 0.5},
    "features, void": {"model": "baseline", "void": "background"},
    "features, no support": {"model": "no_support"},
    "features, prototypes without gradient": {"model": "pmms", "gradient": "none"},
    "images": {"model": "pmms", "images": True},
    "images, trained backbone": {
        "model": "pmms", "images": True, "backbone_lr": 0.1, "norm": "batch", "aspp_dropout": 0.5,
    },
    "accumulated": {"model": "pmms", "aspp_dropout": 0.5, "accumulate": 2},
}  # fmt: skip


def trained(case: dict[str, Any], fabric: Any = None, **more: Any) -> tuple[list[Any], Any]:
    options = dict(case)
    source = TrainTransform(32) if options.pop("images", False) else BANK
    of_training = {n: options.pop(n) for n in ("void", "backbone_lr", "accumulate") if n in options}
    if fabric is None:
        of_training.pop("accumulate", None)
    model = tiny_model(options.pop("model"), **options)
    history = train(model, source, SAMPLER, short(**of_training), fabric=fabric, **more)
    return history, weights(model)


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """All cases by both of two processes, in one start."""
    folder = tmp_path_factory.mktemp("together")
    return answers(
        lambda fabric: {name: trained(case, fabric) for name, case in CASES.items()}, folder
    )


@pytest.mark.parametrize("name", CASES)
def test_two_processes_train_as_one(together: list[Any], name: str) -> None:
    history, alone = trained(CASES[name])
    for answer in together:
        losses, of_both = answer[name]
        assert [p.loss for p in losses] == pytest.approx([p.loss for p in history], rel=1e-5)
        assert [p[::2] for p in losses] == [p[::2] for p in history]  # steps and rates
        close(alone, of_both)
    assert torch.equal(together[0][name][1]["decoder.classify.weight"],
                       together[1][name][1]["decoder.classify.weight"])  # fmt: skip


@pytest.mark.parametrize("images", [False, True])
def test_accumulation_changes_rounding_only(images: bool) -> None:
    source = TrainTransform(32) if images else BANK
    ends = []
    for accumulate in (1, 2, 4):
        model = tiny_model("pmms", aspp_dropout=0.5, dropout=0.1)
        history = train(model, source, SAMPLER, short(accumulate=accumulate))
        ends.append(([p.loss for p in history], weights(model)))
    for losses, after in ends[1:]:
        assert losses == pytest.approx(ends[0][0], rel=1e-5)
        close(ends[0][1], after)
    assert any(not torch.equal(ends[0][1][n], ends[1][1][n]) for n in ends[0][1])


def test_bfloat16_in_two_processes(tmp_path: Path) -> None:
    def work(fabric: Any) -> list[Any]:
        return train(tiny_model(), BANK, SAMPLER, short(precision="bfloat16"), fabric=fabric)

    history = train(tiny_model(), BANK, SAMPLER, short(precision="bfloat16"))
    full = train(tiny_model(), BANK, SAMPLER, short())
    for losses in answers(work, tmp_path):
        assert [p.loss for p in losses] == pytest.approx([p.loss for p in history], rel=2e-2)
        assert losses != full


@pytest.mark.parametrize("first, then", [(1, 2), (2, 1)])
def test_a_run_goes_on_with_another_number_of_processes(
    tmp_path: Path, first: int, then: int
) -> None:
    config = short()
    whole = tiny_model(aspp_dropout=0.5)
    log = train(whole, BANK, SAMPLER, config)
    folder = tmp_path / "run"

    def stopped(fabric: Any = None) -> None:
        from pmms import training

        loss, count = training.segmentation_loss, 0

        def crash(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == 4:  # the checkpoint is of step 2
                raise ZeroDivisionError
            return loss(*arguments, **options)

        training.segmentation_loss = crash
        try:
            train(tiny_model(aspp_dropout=0.5), BANK, SAMPLER, config, folder=folder, fabric=fabric)
        except ZeroDivisionError:
            return
        finally:
            training.segmentation_loss = loss
        raise AssertionError("not stopped")

    def resumed(fabric: Any = None) -> Any:
        model = tiny_model(seed=5, aspp_dropout=0.5)
        history = train(model, BANK, SAMPLER, config, folder=folder, fabric=fabric)
        return history, weights(model)

    if first == 1:
        stopped()
    else:
        answers(stopped, tmp_path / "first")
    assert load_checkpoint(folder / "checkpoint.pt")["step"] == 2
    history, after = resumed() if then == 1 else answers(resumed, tmp_path / "then")[1]
    assert [p.loss for p in history] == pytest.approx([p.loss for p in log], rel=1e-5)
    close(weights(whole), after)
    assert resumed()[0] == history  # finished


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path: Path) -> None:
    def work(fabric: Any) -> str:
        with pytest.raises(ValueError, match="batch_size must be a multiple") as caught:
            train(tiny_model(), BANK, SAMPLER, short(batch_size=3), fabric=fabric)
        return str(caught.value)

    assert len(set(answers(work, tmp_path))) == 1


def test_a_process_that_is_killed_ends_the_other_with_an_error(tmp_path: Path) -> None:
    def work(fabric: Any) -> None:
        config = short(iterations=50, checkpoint_every=1)
        train(tiny_model(), BANK, SAMPLER, config, folder=tmp_path / "run", fabric=fabric)

    with forked(work, tmp_path) as children:
        wait_for(tmp_path / "run" / "checkpoint.pt")
        os.kill(children[1].pid, signal.SIGKILL)
        children[0].join(SECONDS)
        assert children[0].exitcode == 1
    assert load_checkpoint(tmp_path / "run" / "checkpoint.pt")["step"] < 50


def test_one_that_is_asked_to_stop_stops_all(tmp_path: Path) -> None:
    def work(fabric: Any) -> str:
        config = short(iterations=500, checkpoint_every=1)
        try:
            train(tiny_model(), BANK, SAMPLER_500, config, folder=tmp_path / "run", fabric=fabric)
        except TrainingInterrupted as error:
            return str(error)
        return "not stopped"

    with forked(work, tmp_path) as children:
        wait_for(tmp_path / "run" / "checkpoint.pt")
        os.kill(children[0].pid, signal.SIGINT)
        for process in children:
            process.join(SECONDS)
        assert [process.exitcode for process in children] == [0, 0]
    said = {pickle.loads((tmp_path / f"answer{rank}").read_bytes()) for rank in (0, 1)}
    step = load_checkpoint(tmp_path / "run" / "checkpoint.pt")["step"]
    assert said == {f"stopped after step {step} of 500; the same call goes on"}


# evaluation


@pytest.mark.parametrize("processes", [2, 3])
def test_evaluation_is_the_same_to_the_bit(tmp_path: Path, processes: int) -> None:
    protocol = Protocol(episodes=25, seeds=(0, 1))  # a full batch and a quarter, twice
    model = tiny_model()

    def work(fabric: Any = None) -> Any:
        results = [
            evaluate(model, images, (1, 2, 3), protocol=protocol, size=32, control=control,
                     fabric=fabric)
            for images in (BANK, DATASET)
            for control in (None, "wrong_support")
        ]  # fmt: skip
        return [(r.class_ids, r.counts, r.summary()) for r in results]

    alone = work()
    for of_process in answers(work, tmp_path, processes=processes):
        for one, other in zip(alone, of_process, strict=True):
            assert torch.equal(one[0], other[0])
            assert torch.equal(one[1], other[1])
            assert one[2] == other[2]
    assert len({result[2]["miou"] for result in alone}) > 1


def test_shares_are_all_and_even() -> None:
    team = Team()
    for size in (1, 2, 3, 7):
        team.size = size
        shares = []
        for team.rank in range(size):
            shares.append(share(list(range(10)), team))
        assert [item for one in shares for item in one] == list(range(10))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


# starting processes


@pytest.mark.slow
def test_processes_are_started_and_ended(tmp_path: Path) -> None:
    """The way of a notebook: the weights come back into this process."""
    alone, back = tiny_model(aspp_dropout=0.5), tiny_model(aspp_dropout=0.5)
    history = train(alone, BANK, SAMPLER, short())
    losses = train_in_processes(back, BANK, SAMPLER, short(), devices=2, folder=tmp_path / "run")
    assert [p.loss for p in losses] == pytest.approx([p.loss for p in history], rel=1e-5)
    close(weights(alone), weights(back))


def test_what_cannot_be_started_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for changes, message in (
        ({"devices": 0}, "devices must be a whole number of at least 1, got 0"),
        ({"devices": 1, "nodes": 1.5}, "nodes must be a whole number"),
        ({"devices": 1, "device": "tpu"}, "device must be 'cpu' or 'cuda'"),
        ({"devices": 99, "device": "cuda"}, "devices is 99, but this machine has"),
        ({"devices": 1, "nodes": 2}, "the environment variable.* MASTER_ADDR, MASTER_PORT, NODE_"),
    ):
        with pytest.raises(ValueError, match=message):
            in_processes(print, **changes)
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    with pytest.raises(ImportError, match=r"pip install 'pmms\[scale\]'"):
        start(devices=1)


def test_who_started_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_NTASKS", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    assert not started_outside()
    monkeypatch.setenv("SLURM_NTASKS", "1")
    assert not started_outside()
    monkeypatch.setenv("SLURM_NTASKS", "2")
    assert started_outside()


def test_one_process_needs_no_fabric() -> None:
    team = Team()
    value = torch.tensor([1, 2])
    assert torch.equal(team.total(value), value)
    assert team.total(value) is not value
    assert (team.any(True), team.any(False), team.all(True), team.all(False)) == (
        True, False, True, False,
    )  # fmt: skip
    assert (team.rank, team.size, team.chief) == (0, 1, True)
