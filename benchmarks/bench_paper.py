"""The paper's profile at its true shapes, for a few steps: time, memory, a stop, a test.

Weights are random and the photographs are drawn, in a folder tree like VOC's: neither changes what
a step costs. Each network is trained in a process that is killed after its first checkpoint, and in
a second one that goes on from there and then tests. Arithmetic and the memory of one episode more
are counted: operations as they are called, tensors as autograd keeps them.
"""

import multiprocessing
import os
import signal
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from harness import Run
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from pmms.config import RunConfig, run_config
from pmms.data import load_data
from pmms.datasets.parts import PartsVOC
from pmms.experiment import evaluate_model, prepare_images, train_model
from pmms.models import FewShotSegmenter, model_of
from pmms.results import peak_memory_mb
from pmms.run_state import CHECKPOINT, RunState, load_checkpoint
from pmms.training import segmentation_loss

CASES = (
    ("baseline", "resnet50"), ("pmms", "resnet50"), ("rpmms", "resnet50"), ("pmms", "vgg16"),
)  # fmt: skip
STEPS = 2
EPISODES = 2


def main() -> None:
    run = Run("paper", __doc__.partition("\n")[0])
    torch.set_num_threads(1)
    cases = CASES[1:2] if run.quick else CASES
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for split in ("train", "val"):
            PartsVOC(split, length=40, size=160 if run.quick else 400).write_voc(
                root, progress=False
            )
        for model, backbone in cases:
            config = settings(model, backbone, root, quick=run.quick)
            name = f"{model}, {backbone}"
            run.add(f"{name}: measured", measured(config, root / name.replace(", ", "-")))
            for precision in ("float32", "bfloat16"):
                run.add(f"{name}: counted, {precision}", counted(config, precision))
    run.finish(steps=STEPS, episodes=EPISODES)


def settings(model: str, backbone: str, root: Path, *, quick: bool) -> RunConfig:
    """The profile with a few steps only."""
    small: dict[str, Any] = {"train_size": 65, "test_size": 97, "batch_size": 2} if quick else {}
    return run_config(
        "paper", model=model, backbone=backbone, root=str(root), labels="SegmentationClass",
        iterations=STEPS, checkpoint_every=1, log_every=1, episodes=EPISODES, episode_seeds=(0,),
        **small,
    )  # fmt: skip


def measured(config: RunConfig, folder: Path) -> dict[str, Any]:
    """Train, be killed, go on, test; what the second process saw."""
    processes = multiprocessing.get_context("spawn")
    first = processes.Process(target=work, args=(config, folder, None))
    first.start()
    while steps_saved(folder) < 1:
        if not first.is_alive():
            raise RuntimeError(f"the first process ended with {first.exitcode}")
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGKILL)
    first.join()
    kept = steps_saved(folder)
    answers = processes.SimpleQueue()
    second = processes.Process(target=work, args=(config, folder, answers))
    second.start()
    second.join()
    if second.exitcode != 0:
        raise RuntimeError(f"the second process ended with {second.exitcode}")
    return {"killed_after_step": kept, **answers.get()}


def steps_saved(folder: Path) -> int:
    """Steps in the checkpoint of a folder."""
    path = folder / CHECKPOINT
    return load_checkpoint(path)["step"] if path.is_file() else 0


def work(config: RunConfig, folder: Path, answers: Any) -> None:
    """Train from where the folder stands; then, if asked, test and tell what it took."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    data = load_data(config.data)
    model = model_of(config.model, weights=None)
    images = prepare_images(config, data, model.backbone)
    begun, before = steps_saved(folder), peak_memory_mb()
    saving: list[float] = []
    save = RunState.save

    def timed_save(state: RunState) -> None:
        start = time.process_time()
        save(state)
        saving.append(time.process_time() - start)

    RunState.save = timed_save
    start, on_clock = time.process_time(), time.perf_counter()
    history = train_model(config, model, data, images, folder=folder)
    spent, on_clock = time.process_time() - start, time.perf_counter() - on_clock
    if answers is None:
        return
    peak = peak_memory_mb()
    steps = config.train.iterations - begun
    start = time.process_time()
    result = evaluate_model(config, model, data, images, classes=data.test_classes[:1])
    answers.put(
        {
            "processor_seconds_per_step": (spent - sum(saving)) / steps,
            "seconds_per_step": on_clock / steps,
            "seconds_to_save": statistics.median(saving),
            "checkpoint_mb": (folder / CHECKPOINT).stat().st_size / 1e6,
            "peak_mb": peak,
            "peak_mb_before": before,
            "processor_seconds_per_test_episode": (time.process_time() - start) / EPISODES,
            "test_episodes": result.scores.episodes,
            "steps_logged": [point.step for point in history],
            "losses": [point.loss for point in history],
            "threads": torch.get_num_threads(),
        }
    )


def counted(config: RunConfig, precision: str) -> dict[str, Any]:
    """Arithmetic of a step, and memory for one episode at a time and for each further one."""
    model = trainable(config)
    one, two = (kept_for_backward(model, config, n, precision) for n in (1, 2))
    values = {
        "activations_mb_per_episode": (two - one) / 1e6,
        "activations_mb_besides": (2 * one - two) / 1e6,
    }
    if precision == "float32":
        with FlopCounterMode(display=False) as counter:
            loss_of(model, config, 1, precision).backward()
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        values |= {
            "teraflops_per_step": counter.get_total_flops() * config.train.batch_size / 1e12,
            "weights_mb": 4 * sum(p.numel() for p in model.parameters()) / 1e6,
            "gradients_and_momentum_mb": 8 * trained / 1e6,
        }
    return values


def kept_for_backward(
    model: FewShotSegmenter, config: RunConfig, episodes: int, precision: str
) -> int:
    """Bytes of the tensors that the loss of some episodes keeps for its gradients.

    Each is counted once, and weights are not.
    """
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss_of(model, config, episodes, precision)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    sizes = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in kept}
    return sum(size for storage, size in sizes.items() if storage not in weights)


def trainable(config: RunConfig) -> FewShotSegmenter:
    """The network as in training: scale and shift of the backbone's BatchNorm are fixed."""
    model = model_of(config.model, weights=None).train()
    for module in model.backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.requires_grad_(False)
    return model


def loss_of(model: FewShotSegmenter, config: RunConfig, episodes: int, precision: str) -> Tensor:
    """The loss of some 1-shot episodes whose values do not matter."""
    size = config.data.train_size
    support = torch.rand(episodes, 1, 3, size, size)
    mask = torch.ones(episodes, 1, 1, size, size)
    query = torch.rand(episodes, 3, size, size)
    with torch.autocast("cpu", torch.bfloat16, precision == "bfloat16"):
        prediction = model(support, mask, query)
    return segmentation_loss(prediction, torch.ones(episodes, size, size, dtype=torch.int64))


if __name__ == "__main__":
    main()
