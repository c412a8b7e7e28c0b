"""Training (Algorithm 1): one loop for images and for features that are kept, stopped and resumed
at will.

Step t of a run depends on the configuration, the weights after step t - 1 and the numbers drawn
from (seed, t), on nothing else. So a checkpoint is the weights, the optimiser's momentum and t, and
a resumed run ends, on a CPU, with the same bits as one that was never interrupted.
"""

from collections.abc import Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pmms.batch_parts import Part, PartInTurn, as_parts, batch_parts
from pmms.distributed import Team
from pmms.episodes import EpisodeSampler, Transform, mix
from pmms.features import FeatureBank
from pmms.folds import VOID
from pmms.interrupts import sigint_noted
from pmms.models import FewShotSegmenter, Prediction, upsample
from pmms.progress import progress_bar
from pmms.run_state import LossPoint, RunState, alone_in
from pmms.train_config import TrainConfig
from pmms.training_batches import predict, step_batches
from pmms.training_settings import check_training, deciding_settings

if TYPE_CHECKING:
    from lightning_fabric import Fabric

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
    fabric: "Fabric | None" = None,
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
        fabric: of :func:`pmms.distributed.start`, where several processes train together: each of
            them makes this call, with the same arguments, and a part of every batch. The folder
            must be shared. ``device`` is then Fabric's.

    Returns:
        The log, one point every ``log_every`` steps.

    Raises:
        ValueError: settings that do not go together, or a checkpoint of another run.
        FloatingPointError: the loss became NaN or infinite; the last checkpoint stays.
        TrainingInterrupted: after SIGINT, once the state is saved (only with ``folder``).
    """
    check_training(model, source, sampler, config)
    folder = None if folder is None else Path(folder)
    team = Team(fabric)
    device = torch.device(device) if fabric is None else fabric.device
    with alone_in(folder, agreed=team.all, chief=team.chief):
        return _train(
            model, source, sampler, config,
            folder=folder, device=device, workers=workers, tensorboard=tensorboard, team=team,
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
    team: Team,
) -> list[LossPoint]:
    parts = batch_parts(
        config.batch_size, rank=team.rank, processes=team.size, accumulate=config.accumulate
    )
    in_parts = team.size * config.accumulate > 1
    model.to(device)
    frozen = config.backbone_lr == 0
    model.backbone.requires_grad_(not frozen)
    optimizer = _optimizer(model, config)
    settings = deciding_settings(model, source, sampler, config)
    state = RunState(model, optimizer, settings=settings, folder=folder, writes=team.chief)
    state.resume()
    if team.total(torch.tensor(state.step)) != team.size * state.step:
        raise ValueError(
            f"{folder} must be one folder that all processes share, checkpoint and all"
        )
    batches = step_batches(
        source, sampler, config, parts, start=state.step, workers=workers, device=device
    )
    loss_of = team.wrapped(_Loss(model, config, device))
    turn = PartInTurn()
    writer = _tensorboard(state) if tensorboard and folder is not None and team.chief else None
    progress = progress_bar(config.iterations, "train", unit="step", initial=state.step)
    cuda = [device] if device.type == "cuda" else []
    # The caller's generators stay as they are.
    with (
        torch.random.fork_rng(devices=cuda),
        sigint_noted(state.folder) as stop,
        progress,
        nullcontext() if writer is None else closing(writer),
        as_parts(model, turn, total=team.total if team.size > 1 else None)
        if in_parts
        else nullcontext(),
    ):
        _train_mode(model, frozen)
        while state.step < config.iterations:
            rate = config.learning_rate_at(state.step)
            for group in optimizer.param_groups:
                group["lr"] = rate * group["share"]
            batch = next(batches)
            optimizer.zero_grad(set_to_none=True)
            seed = mix(config.seed, _DROPOUT, state.step)
            if in_parts:
                loss = _backward_in_parts(loss_of, batch, parts, turn, team, config, seed)
            else:
                _seed(seed, device)
                loss = loss_of(batch[0])
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
            # Asked once: a signal between two questions would not be saved.
            stopped = team.any(stop())
            if state.step % config.checkpoint_every == 0 or last or stopped:
                state.save()
            if stopped and not last:
                team.wait()  # for the checkpoint
                raise TrainingInterrupted(
                    f"stopped after step {state.step} of {config.iterations}; the same call goes on"
                )
    team.wait()
    model.eval()
    return state.history


class _Loss(nn.Module):
    """The loss of a batch, or of a part of one: what DDP wraps."""

    def __init__(self, model: FewShotSegmenter, config: TrainConfig, device: torch.device) -> None:
        super().__init__()
        self.model, self.void, self.device = model, config.void, device
        self.in_bfloat16 = config.precision == "bfloat16"

    def forward(self, batch: Any, pixels: Tensor | None = None) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, self.in_bfloat16):
            prediction = predict(self.model, batch)
        return segmentation_loss(prediction, batch.query_mask, void=self.void, pixels=pixels)


def _backward_in_parts(
    loss_of: nn.Module,
    batches: Sequence[Any],
    parts: Sequence[Part],
    turn: PartInTurn,
    team: Team,
    config: TrainConfig,
    seed: int,
) -> Tensor:
    """Gradients and loss of a batch whose parts are ``batches`` here and those of other processes.

    Each part's pixels are divided by the number of them in the whole, so that the losses add up to
    that of the whole.
    """
    pixels = torch.stack([_pixels(batch.query_mask, config.void) for batch in batches]).sum()
    pixels = team.total(pixels)
    losses = []
    for batch, turn.part in zip(batches, parts, strict=True):
        _seed(seed, pixels.device)
        with team.part(loss_of, last=turn.part is parts[-1]):
            loss = loss_of(batch, pixels)
            losses.append(loss.detach())
            # DDP takes the mean over the processes; the sum is meant.
            team.backward(loss * team.size)
    return team.total(torch.stack(losses).sum())


def _seed(seed: int, device: torch.device) -> None:
    """Seed what dropout draws from: ``torch.manual_seed`` would seed every GPU of the machine."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


def _pixels(query_mask: Tensor, void: str) -> Tensor:
    """How many pixels the loss is a mean over."""
    counted = torch.ones_like(query_mask) if void == "background" else query_mask != VOID
    return counted.sum()


def segmentation_loss(
    prediction: Prediction,
    query_mask: Tensor,
    *,
    void: Literal["ignore", "background"] = "ignore",
    pixels: Tensor | None = None,
) -> Tensor:
    """Cross-entropy at the query, upsampled to the mask, summed over the stages.

    Args:
        prediction: of a model.
        query_mask: int64 (B, H, W), 0, 1, and 255 for void.
        void: "ignore" leaves void pixels out; "background" counts them as 0.
        pixels: what the sum over the pixels is divided by; None takes their number, for the mean.

    Returns:
        Scalar, in nats.
    """
    target = query_mask
    if void == "background":
        target = torch.where(query_mask == VOID, 0, query_mask)
    size = (target.shape[1], target.shape[2])
    reduction = "mean" if pixels is None else "sum"
    losses = [
        F.cross_entropy(upsample(logits, size), target, ignore_index=VOID, reduction=reduction)
        for logits in prediction.stages
    ]
    loss = torch.stack(losses).sum()
    return loss if pixels is None else loss / pixels


def _train_mode(model: FewShotSegmenter, frozen: bool) -> None:
    model.train()
    if frozen:
        model.backbone.eval()


def _optimizer(model: FewShotSegmenter, config: TrainConfig) -> torch.optim.Optimizer:
    groups: list[dict[str, Any]] = [
        {"params": [], "share": 1.0},
        {"params": [], "share": config.backbone_lr},
    ]
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


def _tensorboard(state: RunState) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    # Points after the checkpoint, which are computed again, are dropped; the one at it stays.
    return SummaryWriter(str(state.folder), purge_step=state.step + 1)
