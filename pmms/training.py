"""Training (Algorithm 1): one loop for images and for features that are kept, stopped and resumed
at will.

Step t of a run depends on the configuration, the weights after step t - 1 and the numbers drawn
from (seed, t), on nothing else. So a checkpoint is the weights, the optimiser's momentum and t, and
a resumed run ends with the same bits as one that was never interrupted.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from pmms.episodes import EpisodeDataset, EpisodeSampler, Transform, collate, mix
from pmms.features import FeatureBank, FeatureBatch, weights_digest
from pmms.folds import VOID
from pmms.models import FewShotSegmenter, Prediction, upsample
from pmms.progress import progress_bar
from pmms.run_state import LossPoint, RunState, alone_in
from pmms.train_config import TrainConfig

_DROPOUT = 1  # stream of random numbers for dropout, apart from the one for views


class TrainingInterrupted(Exception):
    """SIGINT came; a checkpoint is written, and the same call goes on from there."""


def train(
    model: FewShotSegmenter,
    source: FeatureBank | Transform,
    sampler: EpisodeSampler,
    config: TrainConfig,
    *,
    folder: Path | str | None = None,
    device: torch.device | str = "cpu",
    workers: int = 0,
    tensorboard: bool = False,
) -> list[LossPoint]:
    """Train ``model`` in place on the episodes of ``sampler``.

    Args:
        model: moved to ``device``; in eval mode afterwards.
        source: what makes tensors of an episode: a feature bank of ``sampler.dataset`` (frozen
            backbones only), or a transform of its images.
        sampler: at least ``iterations * batch_size`` episodes; step t takes the t-th batch.
        config: the settings.
        folder: for checkpoint and log. A checkpoint of the same settings is gone on from; one of
            other settings is refused; a finished one is loaded, without a step. While one process
            trains in a folder, another waits. None writes nothing.
        device: for example "cpu" or "cuda".
        workers: processes that load images; no effect on the result.
        tensorboard: also write TensorBoard events to ``folder``.

    Returns:
        The log, one point every ``log_every`` steps.

    Raises:
        ValueError: settings that do not go together, or a checkpoint of another run.
        FloatingPointError: the loss became NaN or infinite; the last checkpoint stays.
        TrainingInterrupted: after SIGINT, once the state is saved (only with ``folder``).
    """
    _check(model, source, sampler, config)
    folder = None if folder is None else Path(folder)
    with alone_in(folder):
        return _train(
            model, source, sampler, config,
            folder=folder, device=torch.device(device), workers=workers, tensorboard=tensorboard,
        )  # fmt: skip


def _train(
    model: FewShotSegmenter,
    source: FeatureBank | Transform,
    sampler: EpisodeSampler,
    config: TrainConfig,
    *,
    folder: Path | None,
    device: torch.device,
    workers: int,
    tensorboard: bool,
) -> list[LossPoint]:
    model.to(device)
    frozen = config.backbone_lr == 0
    model.backbone.requires_grad_(not frozen)
    optimizer = _optimizer(model, config)
    state = RunState(
        model, optimizer, settings=_settings(model, source, sampler, config), folder=folder
    )
    state.resume()
    batches = _batches(source, sampler, config, state.step, workers, device)
    writer = _tensorboard(state) if tensorboard and state.folder is not None else None
    progress = progress_bar(config.iterations, "train", unit="step", initial=state.step)
    cuda = [device] if device.type == "cuda" else []
    # The caller's generators stay as they are.
    with (
        torch.random.fork_rng(devices=cuda),
        _sigint_noted(state.folder) as stop,
        progress,
        nullcontext() if writer is None else closing(writer),
    ):
        while state.step < config.iterations:
            torch.manual_seed(mix(config.seed, _DROPOUT, state.step))
            _train_mode(model, frozen)
            rate = config.learning_rate_at(state.step)
            for group in optimizer.param_groups:
                group["lr"] = rate * group["share"]
            batch = next(batches)
            with torch.autocast(device.type, torch.bfloat16, config.precision == "bfloat16"):
                prediction = _predict(model, batch)
            loss = segmentation_loss(prediction, batch.query_mask, void=config.void)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            state.step += 1
            state.pending.append(loss.detach())
            progress.update()
            last = state.step == config.iterations
            if state.step % config.log_every == 0 or last:
                point = state.log(rate)
                progress.set_postfix(loss=f"{point.loss:.3f}")
                if writer is not None:
                    writer.add_scalar("loss", point.loss, point.step)
            stopped = stop()  # asked once: a signal between two questions would not be saved
            if state.step % config.checkpoint_every == 0 or last or stopped:
                state.save()
            if stopped and not last:
                raise TrainingInterrupted(
                    f"stopped after step {state.step} of {config.iterations}; the same call goes on"
                )
    model.eval()
    return state.history


def segmentation_loss(
    prediction: Prediction, query_mask: Tensor, *, void: Literal["ignore", "background"] = "ignore"
) -> Tensor:
    """Cross-entropy at the query, upsampled to the mask, summed over the stages.

    Args:
        prediction: of a model.
        query_mask: int64 (B, H, W), 0, 1, and 255 for void.
        void: "ignore" leaves void pixels out; "background" counts them as 0.

    Returns:
        Scalar, in nats.
    """
    target = query_mask
    if void == "background":
        target = torch.where(query_mask == VOID, 0, query_mask)
    size = (target.shape[1], target.shape[2])
    losses = [
        F.cross_entropy(upsample(logits, size), target, ignore_index=VOID)
        for logits in prediction.stages
    ]
    return torch.stack(losses).sum()


def _batches(
    source: FeatureBank | Transform,
    sampler: EpisodeSampler,
    config: TrainConfig,
    start: int,
    workers: int,
    device: torch.device,
) -> Iterator[Any]:
    """The batches of steps ``start``, ``start + 1``, ... on ``device``."""
    size = config.batch_size
    if isinstance(source, FeatureBank):
        for step in range(start, config.iterations):
            episodes = [sampler[i] for i in range(step * size, (step + 1) * size)]
            yield source.batch(episodes, seed=mix(config.seed, step), device=device)
        return
    episodes = EpisodeDataset(sampler, source)
    rest = Subset(episodes, range(start * size, config.iterations * size))
    pinned = device.type == "cuda"
    # A loader draws a number when it starts; from the global generator, the dropout of the first
    # step after a resume would differ.
    loader = DataLoader(
        rest, batch_size=size, collate_fn=collate, num_workers=workers, pin_memory=pinned,
        generator=torch.Generator(),
    )  # fmt: skip
    for batch in loader:
        yield batch.to(device, non_blocking=pinned)


def _predict(model: FewShotSegmenter, batch: Any) -> Prediction:
    if isinstance(batch, FeatureBatch):
        return model.segment(batch.support, batch.support_mask, batch.query)
    return model(batch.support, batch.support_mask, batch.query)


def _train_mode(model: FewShotSegmenter, frozen: bool) -> None:
    model.train()
    if frozen:
        model.backbone.eval()


def _optimizer(model: FewShotSegmenter, config: TrainConfig) -> torch.optim.Optimizer:
    groups = [{"params": [], "share": 1.0}, {"params": [], "share": config.backbone_lr}]
    norms = {
        f"{name}.{entry}"
        for name, module in model.backbone.named_modules()
        if isinstance(module, nn.BatchNorm2d)
        for entry in ("weight", "bias")
    }
    for name, parameter in model.named_parameters():
        of_backbone = name.startswith("backbone.")
        if name.removeprefix("backbone.") in norms and of_backbone:
            parameter.requires_grad_(False)
        if parameter.requires_grad:
            groups[of_backbone]["params"].append(parameter)
    return torch.optim.SGD(
        [group for group in groups if group["params"]],
        lr=config.learning_rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
    )


def _settings(
    model: FewShotSegmenter,
    source: FeatureBank | Transform,
    sampler: EpisodeSampler,
    config: TrainConfig,
) -> dict[str, Any]:
    """All that decides a run besides the first weights of the head; a checkpoint belongs to it."""
    if isinstance(source, FeatureBank):
        made_by = ["features", *source.features.shape[1:], *source.labels.shape[1:]]
    else:
        made_by = [type(source).__name__, getattr(source, "size", None)]
    frozen = config.backbone_lr == 0
    return {
        "train": asdict(config),
        "model": asdict(model.config),
        "backbone": weights_digest(model.backbone) if frozen else None,  # then not in checkpoints
        "source": made_by,
        "dataset": sampler.dataset.fingerprint(),
        "episodes": [sampler.classes, sampler.shots, sampler.seed],
    }


def _tensorboard(state: RunState) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    # Points after the checkpoint, which are computed again, are dropped; the one at it stays.
    return SummaryWriter(str(state.folder), purge_step=state.step + 1)


@contextmanager
def _sigint_noted(folder: Path | None) -> Iterator[Callable[[], bool]]:
    """Within the block SIGINT is only noted, so that a step ends and can be saved.

    A second SIGINT works as ever, for a step that does not end. Without a folder nothing could be
    saved, and outside the main thread no handler can be set: there the first one does, too.
    """
    noted: list[int] = []  # no threading.Event: its lock is no place to be interrupted at
    if folder is None or threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return

    def note(number: int, _: object) -> None:
        noted.append(number)
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(noted)
    finally:
        signal.signal(signal.SIGINT, before)


def _check(
    model: FewShotSegmenter,
    source: FeatureBank | Transform,
    sampler: EpisodeSampler,
    config: TrainConfig,
) -> None:
    if not any(p.requires_grad for n, p in model.named_parameters() if "backbone." not in n):
        raise ValueError(f"{model.config.name} has nothing to train")
    if isinstance(source, FeatureBank):
        if config.backbone_lr > 0:
            raise ValueError("kept features need a frozen backbone: set backbone_lr to 0")
        if source.dataset is not sampler.dataset:
            raise ValueError("the feature bank and the sampler are of different data sets")
    needed = config.iterations * config.batch_size
    if len(sampler) < needed:
        raise ValueError(
            f"{config.iterations} steps of {config.batch_size} episodes need a sampler of {needed} "
            f"episodes, got one of {len(sampler)}"
        )
