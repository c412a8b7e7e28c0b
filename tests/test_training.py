"""Training: what a step computes, and that a stopped run ends with the bits of one that was not."""

import math
import multiprocessing
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fakes import FakeDataset, TinyBackbone, fake_dataset, tiny_model
from torch import Tensor, nn

from pmms import training as module
from pmms.episodes import EpisodeSampler
from pmms.feature_computing import feature_bank
from pmms.features import FeatureBank
from pmms.folds import VOID
from pmms.models import FewShotSegmenter, Prediction, Prototypes
from pmms.run_state import CHECKPOINT, LOG
from pmms.training import TrainConfig, TrainingInterrupted, segmentation_loss, train
from pmms.transforms import EvalTransform, TrainTransform

SHORT = {"iterations": 6, "batch_size": 2, "learning_rate": 0.05, "log_every": 3}


def short(**changes: Any) -> TrainConfig:
    """Six steps, a checkpoint after each second one."""
    return TrainConfig(**(SHORT | {"checkpoint_every": 2} | changes))


@pytest.fixture(scope="module")
def dataset() -> FakeDataset:
    return fake_dataset(12, classes=3)


@pytest.fixture(scope="module")
def bank(dataset: FakeDataset) -> FeatureBank:
    return feature_bank(dataset, TinyBackbone(), size=32, views=2)


@pytest.fixture(scope="module")
def sampler(dataset: FakeDataset) -> EpisodeSampler:
    return EpisodeSampler(dataset, (1, 2, 3), length=200)


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def equal(one: nn.Module, other: nn.Module) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[n], theirs[n]) for n in mine)


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int, act: Callable[[], None]) -> None:
    """Let ``act`` happen within step ``step``, counted from 1 in this process."""
    count = 0

    def loss(*arguments: Any, **options: Any) -> Tensor:
        nonlocal count
        count += 1
        if count == step:
            act()
        return segmentation_loss(*arguments, **options)

    monkeypatch.setattr(module, "segmentation_loss", loss)


class Crash(Exception):
    pass


def crash() -> None:
    raise Crash


# The loss


def prediction(*stages: Tensor) -> Prediction:
    return Prediction(stages[-1], stages, None, Prototypes(stages[-1], None))


def test_loss_by_hand() -> None:
    """Logits at 1 x 2 positions, a mask of the same size: nothing is interpolated."""
    logits = torch.tensor([[[[0.0, 1.0]], [[2.0, 0.0]]]])
    right = math.log(1 + math.exp(-2)), math.log(1 + math.exp(-1))
    wrong = math.log(1 + math.exp(2)), math.log(1 + math.exp(1))
    for mask, terms in (
        ([1, 0], right),
        ([0, 0], (wrong[0], right[1])),
        ([VOID, 1], wrong[1:]),
    ):
        loss = segmentation_loss(prediction(logits), torch.tensor([[mask]]))
        assert loss.item() == pytest.approx(sum(terms) / len(terms), rel=1e-6)
    loss = segmentation_loss(prediction(logits), torch.tensor([[[VOID, 1]]]), void="background")
    assert loss.item() == pytest.approx((wrong[0] + wrong[1]) / 2, rel=1e-6)


def test_loss_is_at_the_size_of_the_mask_and_summed_over_stages() -> None:
    stages = [torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    mask = (torch.arange(2 * 32 * 32) % 3 == 0).long().view(2, 32, 32)
    each = [
        F.cross_entropy(F.interpolate(s, (32, 32), mode="bilinear"), mask).item() for s in stages
    ]
    assert segmentation_loss(prediction(*stages), mask).item() == pytest.approx(sum(each))


def test_rpmms_is_supervised_at_every_stage(bank: FeatureBank, sampler: EpisodeSampler) -> None:
    model = tiny_model("rpmms")
    batch = bank.batch([sampler[0], sampler[1]])
    said = model.segment(batch.support, batch.support_mask, batch.query)
    assert len(said.stages) == 3
    alone = [segmentation_loss(prediction(s), batch.query_mask).item() for s in said.stages]
    assert len(set(alone)) == 3
    assert segmentation_loss(said, batch.query_mask).item() == pytest.approx(sum(alone))


# The settings


def test_poly_schedule() -> None:
    config = TrainConfig(iterations=100, learning_rate=0.5, power=0.9)
    assert config.learning_rate_at(0) == 0.5
    assert config.learning_rate_at(50) == pytest.approx(0.5 * 0.5**0.9)
    assert config.learning_rate_at(99) == pytest.approx(0.5 * 0.01**0.9)
    flat = TrainConfig(iterations=100, power=0.0)
    assert flat.learning_rate_at(0) == flat.learning_rate_at(99) == 0.0035


def test_defaults_are_the_paper_s() -> None:
    config = TrainConfig()
    assert (config.iterations, config.learning_rate, config.momentum) == (200_000, 0.0035, 0.9)
    assert (config.batch_size, config.power) == (8, 0.9)


@pytest.mark.parametrize(
    "name, value",
    [
        ("iterations", 0), ("iterations", 1.5), ("batch_size", -1), ("batch_size", True),
        ("log_every", 0), ("checkpoint_every", "5"), ("learning_rate", 0.0),
        ("learning_rate", math.nan), ("learning_rate", math.inf), ("momentum", 1.0),
        ("momentum", -0.1), ("weight_decay", -1e-4), ("power", -1.0), ("backbone_lr", -0.1),
        ("backbone_lr", math.inf), ("void", "skip"), ("precision", "float16"),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name} "):
        TrainConfig(**{name: value})


# What training does


@pytest.mark.parametrize("name", ["baseline", "pmms", "rpmms"])
def test_the_loss_falls(bank: FeatureBank, sampler: EpisodeSampler, name: str) -> None:
    model = tiny_model(name)
    history = train(model, bank, sampler, short(iterations=20, batch_size=4, log_every=5))
    assert [point.step for point in history] == [5, 10, 15, 20]
    assert history[-1].loss < 0.5 * history[0].loss
    assert not model.training


def test_a_step_is_sgd_on_the_loss_of_its_batch(bank: FeatureBank, sampler: EpisodeSampler) -> None:
    model, by_hand = tiny_model("pmms"), tiny_model("pmms")
    config = short(iterations=1, momentum=0.0, weight_decay=0.01, log_every=1)
    (point,) = train(model, bank, sampler, config)
    batch = bank.batch([sampler[0], sampler[1]], seed=module.mix(config.seed, 0))
    by_hand.train()
    loss = segmentation_loss(
        by_hand.segment(batch.support, batch.support_mask, batch.query), batch.query_mask
    )
    loss.backward()
    assert point == (1, loss.item(), 0.05)
    trained = dict(model.named_parameters())
    changed = 0
    for name, value in by_hand.named_parameters():
        if value.grad is not None:
            expected = value - 0.05 * (value.grad + 0.01 * value)
            assert torch.allclose(trained[name], expected, atol=1e-7), name
            changed += not torch.equal(trained[name], value)
    assert changed > 20


def test_the_log_ends_with_the_run(bank: FeatureBank, sampler: EpisodeSampler) -> None:
    history = train(tiny_model(), bank, sampler, short(log_every=4))
    assert [point.step for point in history] == [4, 6]
    assert [point.learning_rate for point in history] == [
        short().learning_rate_at(step - 1) for step in (4, 6)
    ]


@pytest.mark.parametrize("on_images", [False, True])
def test_a_frozen_backbone_keeps_every_bit(
    dataset: FakeDataset, bank: FeatureBank, sampler: EpisodeSampler, on_images: bool
) -> None:
    model = tiny_model()
    before = weights(model.backbone)
    assert before["net.1.running_mean"].eq(0).all()
    train(model, TrainTransform(32) if on_images else bank, sampler, short(iterations=3))
    after = weights(model.backbone)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(p.requires_grad for p in model.backbone.parameters())
    assert all(p.grad is None for p in model.backbone.parameters())


def test_a_backbone_with_a_learning_rate_is_trained(sampler: EpisodeSampler) -> None:
    """Its convolutions and its batch statistics are; scale and shift of BatchNorm are not."""
    model = tiny_model()
    before = weights(model)
    train(model, TrainTransform(32), sampler, short(iterations=2, backbone_lr=0.1))
    after = weights(model)
    same = {name for name in before if torch.equal(before[name], after[name])}
    of_backbone = {name for name in same if name.startswith("backbone.")}
    assert of_backbone == {
        "backbone.mean", "backbone.std", "backbone.net.1.weight", "backbone.net.1.bias",
    }  # fmt: skip


def test_the_backbone_s_share_of_the_learning_rate(sampler: EpisodeSampler) -> None:
    moved = []
    for share in (0.1, 0.2):
        model = tiny_model()
        before = model.backbone.net[0].weight.detach().clone()
        config = short(iterations=1, backbone_lr=share, weight_decay=0.0)
        train(model, TrainTransform(32), sampler, config)
        moved.append(model.backbone.net[0].weight.detach() - before)
    assert torch.allclose(2 * moved[0], moved[1], rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("on_images", [False, True])
def test_bfloat16_trains(bank: FeatureBank, sampler: EpisodeSampler, on_images: bool) -> None:
    source = TrainTransform(32) if on_images else bank
    history = train(tiny_model(), source, sampler, short(iterations=10, precision="bfloat16"))
    full = train(tiny_model(), source, sampler, short(iterations=10))
    assert history[-1].loss < history[0].loss
    assert history[0].loss != full[0].loss
    assert history[0].loss == pytest.approx(full[0].loss, rel=0.1)


def test_workers_do_not_change_the_result(sampler: EpisodeSampler) -> None:
    models = [tiny_model(aspp_dropout=0.5) for _ in range(2)]
    logs = [
        train(model, TrainTransform(32), sampler, short(iterations=4), workers=workers)
        for model, workers in zip(models, (0, 2), strict=True)
    ]
    assert logs[0] == logs[1]
    assert equal(*models)


@pytest.mark.parametrize("change", ["seed", "views", "dropout"])
def test_chance_comes_from_the_seed(
    dataset: FakeDataset, bank: FeatureBank, sampler: EpisodeSampler, change: str
) -> None:
    """The views of features, and dropout, follow from the seed of the configuration."""
    source = feature_bank(dataset, TinyBackbone(), size=32) if change == "dropout" else bank
    models = [tiny_model(aspp_dropout=0.5 if change == "dropout" else 0.0) for _ in range(3)]
    for model, seed in zip(models, (0, 0, 1), strict=True):
        train(model, source, sampler, short(iterations=2, seed=seed))
    assert equal(models[0], models[1])
    assert not equal(models[0], models[2])


@pytest.mark.parametrize("on_images", [False, True])
def test_the_caller_s_generators_stay_as_they_are(
    bank: FeatureBank, sampler: EpisodeSampler, on_images: bool
) -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    model = tiny_model(aspp_dropout=0.5)
    train(model, TrainTransform(32) if on_images else bank, sampler, short(iterations=2))
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]  # noqa: NPY002


# Stopped and gone on with


@pytest.mark.parametrize("step", [1, 4, 6])
@pytest.mark.parametrize("source", ["features", "images", "images, backbone"])
def test_resumed_is_the_same_to_the_bit(
    bank: FeatureBank,
    sampler: EpisodeSampler,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    step: int,
) -> None:
    data = bank if source == "features" else TrainTransform(32)
    config = short(backbone_lr=0.1 if "backbone" in source else 0.0)
    name = "rpmms" if source == "features" else "pmms"

    def new() -> FewShotSegmenter:
        return tiny_model(name, aspp_dropout=0.5, norm="batch")

    whole, stopped = new(), new()
    log = train(whole, data, sampler, config, folder=tmp_path / "whole")
    with monkeypatch.context() as patched:
        stop_at(patched, step, crash)
        with pytest.raises(Crash):
            train(stopped, data, sampler, config, folder=tmp_path / "stopped")
    assert not equal(whole, stopped)
    resumed = new()
    again = train(resumed, data, sampler, config, folder=tmp_path / "stopped")
    assert again == log
    assert equal(whole, resumed)
    files = [(tmp_path / folder / LOG).read_bytes() for folder in ("whole", "stopped")]
    assert files[0] == files[1]


def test_a_finished_run_is_not_run_again(
    bank: FeatureBank, sampler: EpisodeSampler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tiny_model()
    log = train(first, bank, sampler, short(), folder=tmp_path)
    stop_at(monkeypatch, 1, crash)
    again = tiny_model(seed=1)
    assert train(again, bank, sampler, short(), folder=tmp_path) == log
    assert {n for n in weights(first) if not torch.equal(weights(first)[n], weights(again)[n])} == (
        set()
    )


def in_child(work: Callable[[], None]) -> Any:
    """A forked process, which needs no second import of everything."""
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("processes cannot be forked here")

    def quiet() -> None:
        torch.set_num_threads(1)
        try:
            work()
        except BaseException as error:
            os._exit(77 if isinstance(error, TrainingInterrupted) else 1)
        os._exit(0)

    child = multiprocessing.get_context("fork").Process(target=quiet)
    child.start()
    return child


def steps_saved(folder: Path) -> int:
    path = folder / CHECKPOINT
    return torch.load(path, weights_only=True)["step"] if path.is_file() else 0


def wait_for(condition: Callable[[], bool], *, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.002)


def test_a_killed_run_goes_on(bank: FeatureBank, sampler: EpisodeSampler, tmp_path: Path) -> None:
    """SIGKILL at random moments, in the midst of a write perhaps: each step writes."""
    config = short(iterations=24, checkpoint_every=1)
    whole = tiny_model("baseline", aspp_dropout=0.5)
    train(whole, bank, sampler, config)

    def work() -> None:
        train(tiny_model("baseline", aspp_dropout=0.5), bank, sampler, config, folder=tmp_path)

    reached = 0
    for seed in range(3):
        child = in_child(work)
        wait_for(lambda least=reached: steps_saved(tmp_path) > least)
        time.sleep(random.Random(seed).uniform(0, 0.05))
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert child.exitcode == -signal.SIGKILL
        assert reached < steps_saved(tmp_path) < 24
        reached = steps_saved(tmp_path)
    resumed = tiny_model("baseline", seed=9, aspp_dropout=0.5)
    train(resumed, bank, sampler, config, folder=tmp_path)
    assert equal(whole, resumed)


@pytest.mark.parametrize("source", ["features", "images, two workers"])
def test_sigint_saves_and_leaves(
    bank: FeatureBank, sampler: EpisodeSampler, tmp_path: Path, source: str
) -> None:
    config = short(iterations=12, checkpoint_every=1000, log_every=1000)
    data = bank if source == "features" else TrainTransform(32)
    workers = 0 if source == "features" else 2
    whole = tiny_model("baseline", aspp_dropout=0.5)
    train(whole, data, sampler, config)
    context = multiprocessing.get_context("fork")
    started, sent = context.Event(), context.Event()

    def pause() -> None:
        started.set()
        sent.wait()

    def work() -> None:
        os.setpgrp()  # a terminal sends SIGINT to the loader's processes too
        with pytest.MonkeyPatch.context() as patched:
            stop_at(patched, 4, pause)
            model = tiny_model("baseline", aspp_dropout=0.5)
            train(model, data, sampler, config, folder=tmp_path, workers=workers)

    child = in_child(work)
    assert started.wait(60)
    os.killpg(child.pid, signal.SIGINT)
    sent.set()
    child.join()
    assert child.exitcode == 77  # TrainingInterrupted
    assert steps_saved(tmp_path) in (4, 5)
    resumed = tiny_model("baseline", seed=9, aspp_dropout=0.5)
    train(resumed, data, sampler, config, folder=tmp_path, workers=workers)
    assert equal(whole, resumed)


def test_the_message_of_an_interrupted_run(
    bank: FeatureBank, sampler: EpisodeSampler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(signal.SIGINT)
    stop_at(monkeypatch, 3, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(TrainingInterrupted, match="stopped after step 3 of 6"):
        train(tiny_model(), bank, sampler, short(), folder=tmp_path)
    assert signal.getsignal(signal.SIGINT) is before
    assert steps_saved(tmp_path) == 3


def test_a_second_sigint_does_not_wait_for_the_step(
    bank: FeatureBank, sampler: EpisodeSampler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    stop_at(monkeypatch, 3, twice)
    with pytest.raises(KeyboardInterrupt):
        train(tiny_model(), bank, sampler, short(), folder=tmp_path)
    assert steps_saved(tmp_path) == 2


def test_sigint_without_a_folder_works_as_ever(
    bank: FeatureBank, sampler: EpisodeSampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_at(monkeypatch, 2, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        train(tiny_model(), bank, sampler, short())


def test_training_in_a_thread(bank: FeatureBank, sampler: EpisodeSampler, tmp_path: Path) -> None:
    """A handler of signals can only be set in the main thread."""
    done: list[int] = []

    def work() -> None:
        done.append(len(train(tiny_model(), bank, sampler, short(), folder=tmp_path)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [2]


def test_a_checkpoint_of_another_run_is_refused(
    dataset: FakeDataset, bank: FeatureBank, sampler: EpisodeSampler, tmp_path: Path
) -> None:
    config = short(iterations=2)
    train(tiny_model(), bank, sampler, config, folder=tmp_path)
    kept = (tmp_path / CHECKPOINT).read_bytes()
    more = fake_dataset(13, classes=3)
    other_backbone = tiny_model()
    other_backbone.backbone.net[1].running_var.mul_(2)
    for model, data, episodes, settings in (
        (tiny_model("baseline"), bank, sampler, config),
        (tiny_model(kappa=10.0), bank, sampler, config),
        (other_backbone, bank, sampler, config),
        (tiny_model(), bank, sampler, short(iterations=2, seed=1)),
        (tiny_model(), bank, sampler, short(iterations=3)),
        (tiny_model(), TrainTransform(32), sampler, config),
        (tiny_model(), feature_bank(dataset, TinyBackbone(), size=32), sampler, config),
        (tiny_model(), feature_bank(more, TinyBackbone(), size=32, views=2),
         EpisodeSampler(more, (1, 2, 3), length=200), config),
        (tiny_model(), bank, EpisodeSampler(dataset, (1, 2, 3), length=200, seed=1), config),
        (tiny_model(), bank, EpisodeSampler(dataset, (1, 2), length=200), config),
        (tiny_model(), bank, EpisodeSampler(dataset, (1, 2, 3), length=200, shots=2), config),
    ):  # fmt: skip
        if isinstance(data, FeatureBank) and data.dataset is not episodes.dataset:
            episodes = EpisodeSampler(data.dataset, (1, 2, 3), length=200)
        with pytest.raises(ValueError, match="belongs to a run with other settings"):
            train(model, data, episodes, settings, folder=tmp_path)
        assert (tmp_path / CHECKPOINT).read_bytes() == kept


def test_a_truncated_checkpoint_is_named(
    bank: FeatureBank, sampler: EpisodeSampler, tmp_path: Path
) -> None:
    train(tiny_model(), bank, sampler, short(iterations=1), folder=tmp_path)
    path = tmp_path / CHECKPOINT
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match=f"{CHECKPOINT} is no training checkpoint"):
        train(tiny_model(), bank, sampler, short(iterations=1), folder=tmp_path)


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_checkpoint(
    bank: FeatureBank, sampler: EpisodeSampler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights become NaN in step 3 and so does the loss of step 4, after which one is due."""
    model = tiny_model()

    def poison() -> None:
        model.decoder.classify.weight.register_hook(lambda gradient: gradient * math.nan)

    stop_at(monkeypatch, 3, poison)
    with pytest.raises(FloatingPointError, match="the loss became nan"):
        train(model, bank, sampler, short(log_every=100), folder=tmp_path)
    assert steps_saved(tmp_path) == 2
    saved = torch.load(tmp_path / CHECKPOINT, weights_only=True)["model"]
    assert all(value.isfinite().all() for value in saved.values())


# Refused before the first step


def test_a_sampler_that_is_too_short(bank: FeatureBank, dataset: FakeDataset) -> None:
    few = EpisodeSampler(dataset, (1, 2, 3), length=11)
    with pytest.raises(ValueError, match="need a sampler of 12 episodes, got one of 11"):
        train(tiny_model(), bank, few, short())


def test_kept_features_cannot_train_a_backbone(bank: FeatureBank, sampler: EpisodeSampler) -> None:
    with pytest.raises(ValueError, match="set backbone_lr to 0"):
        train(tiny_model(), bank, sampler, short(backbone_lr=0.1))


def test_features_and_episodes_of_two_data_sets(bank: FeatureBank) -> None:
    other = EpisodeSampler(fake_dataset(12, classes=3), (1, 2, 3), length=200)
    with pytest.raises(ValueError, match="different data sets"):
        train(tiny_model(), bank, other, short())


def test_a_model_without_weights_to_train(bank: FeatureBank, sampler: EpisodeSampler) -> None:
    with pytest.raises(ValueError, match="training_free has nothing to train"):
        train(tiny_model("training_free"), bank, sampler, short())


# TensorBoard


def events(folder: Path) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder))
    read.Reload()
    return [(point.step, point.value) for point in read.Scalars("loss")]


@pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorboard")
def test_tensorboard_shows_the_log_of_a_run_that_was_stopped(
    bank: FeatureBank, sampler: EpisodeSampler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = short(log_every=1, checkpoint_every=3)
    with monkeypatch.context() as patched:
        stop_at(patched, 6, crash)  # logged up to step 5, saved up to step 3
        with pytest.raises(Crash):
            train(tiny_model(), bank, sampler, config, folder=tmp_path, tensorboard=True)
    assert [step for step, _ in events(tmp_path)] == [1, 2, 3, 4, 5]
    time.sleep(1.1)  # the files of events are named by the second
    log = train(tiny_model(), bank, sampler, config, folder=tmp_path, tensorboard=True)
    shown = events(tmp_path)
    assert [step for step, _ in shown] == [point.step for point in log]
    assert [value for _, value in shown] == pytest.approx([point.loss for point in log])


def test_no_events_unless_asked(bank: FeatureBank, sampler: EpisodeSampler, tmp_path: Path) -> None:
    train(tiny_model(), bank, sampler, short(iterations=1), folder=tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [CHECKPOINT, LOG]


def test_the_plain_transform_serves_as_well(sampler: EpisodeSampler) -> None:
    history = train(tiny_model(), EvalTransform(32), sampler, short(iterations=3))
    assert len(history) == 1
