"""The batches of a training, step after step, in the parts that this process takes."""

import signal
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from torch.utils.data import DataLoader, Subset

from pmms.batch_parts import Part
from pmms.episodes import EpisodeDataset, EpisodeSampler, Transform, collate, mix
from pmms.features import FeatureBank, FeatureBatch
from pmms.models import FewShotSegmenter, Prediction
from pmms.train_config import TrainConfig


def step_batches(
    source: FeatureBank | Transform,
    sampler: EpisodeSampler,
    config: TrainConfig,
    parts: Sequence[Part],
    *,
    start: int,
    workers: int,
    device: torch.device,
) -> Iterator[list[Any]]:
    """The batches of steps ``start``, ``start + 1``, ... on ``device``, each as its ``parts``.

    An episode and its views are the same however a batch is divided.
    """
    if isinstance(source, FeatureBank):
        for step in range(start, config.iterations):
            first = step * config.batch_size
            episodes = [sampler[i] for i in range(first, first + config.batch_size)]
            seed = mix(config.seed, step)
            if len(parts) == 1 and parts[0].stop - parts[0].start == config.batch_size:
                yield [source.batch(episodes, seed=seed, device=device)]
                continue
            whole = source.batch(episodes, seed=seed)  # the views are drawn one after the other
            yield [
                FeatureBatch(*(tensor[part.rows].to(device) for tensor in whole)) for part in parts
            ]
        return
    rows = [
        step * config.batch_size + row
        for step in range(start, config.iterations)
        for part in parts
        for row in range(part.start, part.stop)
    ]
    pinned = device.type == "cuda"
    # A loader draws a number when it starts; from the global generator, the dropout of the first
    # step after a resume would differ.
    loader = DataLoader(
        Subset(EpisodeDataset(sampler, source), rows), batch_size=parts[0].stop - parts[0].start,
        collate_fn=collate, num_workers=workers, pin_memory=pinned, generator=torch.Generator(),
        worker_init_fn=_leave_sigint_alone,
    )  # fmt: skip
    loaded = iter(loader)
    while of_step := list(islice(loaded, len(parts))):
        yield [batch.to(device, non_blocking=pinned) for batch in of_step]


def _leave_sigint_alone(_: int) -> None:
    """Ctrl-C reaches the workers too; it is for the main process to end the step and save."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def predict(model: FewShotSegmenter, batch: Any) -> Prediction:
    """The model's answer to a batch of images or of features."""
    if isinstance(batch, FeatureBatch):
        return model.segment(batch.support, batch.support_mask, batch.query)
    prediction: Prediction = model(batch.support, batch.support_mask, batch.query)
    return prediction
