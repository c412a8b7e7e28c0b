"""Training in several processes from a program that has one, a notebook for instance."""

import pickle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from pmms.distributed import in_processes
from pmms.episodes import EpisodeSampler, Transform
from pmms.features import FeatureBank
from pmms.models import FewShotSegmenter
from pmms.run_state import LossPoint
from pmms.train_config import TrainConfig
from pmms.training import TrainingInterrupted, train

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def train_in_processes(
    model: FewShotSegmenter,
    source: FeatureBank | Transform,
    sampler: EpisodeSampler,
    config: TrainConfig,
    *,
    devices: int,
    folder: Path | str | None = None,
    device: str = "cpu",
    workers: int = 0,
    tensorboard: bool = False,
) -> list[LossPoint]:
    """Train ``model`` in place, as :func:`pmms.training.train` does, in ``devices`` processes.

    The processes leave a checkpoint, from which this one takes the weights. ``device`` is "cpu", or
    "cuda" with a GPU for each.

    Raises:
        RuntimeError: a process failed; its error is part of the message.
        TrainingInterrupted: after SIGINT, once the state is saved.
        ValueError, ImportError: as :func:`pmms.training.train` and
            :func:`pmms.distributed.in_processes`.
    """
    with TemporaryDirectory() as passing:
        place = Path(passing) / "run" if folder is None else Path(folder)
        # Pickled here: tensors that multiprocessing pickles are shared with the processes, and the
        # weights are not to be.
        task = pickle.dumps((model, config, place, workers, tensorboard))
        try:
            in_processes(_train, task, source, sampler, devices=devices, device=device)
        except KeyboardInterrupt as error:
            raise TrainingInterrupted("stopped; the same call goes on") from error
        return train(model, source, sampler, config, folder=place, device=device)


def _train(
    fabric: "Fabric", task: bytes, source: FeatureBank | Transform, sampler: EpisodeSampler
) -> None:
    model, config, folder, workers, tensorboard = pickle.loads(task)
    if isinstance(source, FeatureBank):
        source.dataset = sampler.dataset  # one object again, after two ways through pickle
    shared: dict[str, Any] = {"workers": workers, "tensorboard": tensorboard, "fabric": fabric}
    try:
        train(model, source, sampler, config, folder=folder, **shared)
    except TrainingInterrupted:
        return  # the state is saved; who asked for it knows
