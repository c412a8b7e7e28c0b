"""Backbone features of all images of a data set: computed once, and read from a file afterwards."""

import errno
import hashlib
import math
import os
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pmms.backbones import Backbone, weights_digest
from pmms.datasets.base import SegmentationDataset
from pmms.episodes import mix
from pmms.features import FeatureBank
from pmms.files import check_writable, folder_beside, replacing
from pmms.progress import progress_bar
from pmms.transforms import EvalTransform, TrainTransform

IMAGES_PER_BATCH = 16


def feature_bank(
    dataset: SegmentationDataset,
    backbone: Backbone,
    *,
    size: int,
    views: int = 1,
    seed: int = 0,
    scale: tuple[float, float] = (0.5, 1.0),
    keep_aspect: bool = False,
    workers: int = 0,
    device: torch.device | str = "cpu",
    cache: Path | str | None = None,
    description: str = "features",
) -> FeatureBank:
    """Compute the backbone's features of every image of a data set, or read them from ``cache``.

    Args:
        dataset: the images.
        backbone: frozen; it is put in eval mode.
        size: side of the square that images are resized to, in pixels.
        views: V; the plain image and V - 1 random views (crop, resize, flip).
        seed: of the random views.
        scale: area of the crops, see :class:`pmms.transforms.TrainTransform`.
        keep_aspect: of the plain image, see :class:`pmms.transforms.EvalTransform`.
        workers: processes that decode or draw images.
        device: where the backbone runs.
        cache: folder for one file per bank, written atomically; None keeps nothing on disk. Its
            name holds what decides the content, the backbone's weights and the kind of device
            included, but no version of a package: after an upgrade, take another folder.
        description: title of the progress bar.

    Raises:
        OSError: a ``cache`` that cannot be written, found before anything is computed, or is full.
        ValueError: ``views`` below 1, a damaged file in ``cache``, or features that are NaN,
            infinite or too large for float16.
    """
    if views < 1:
        raise ValueError(f"views must be at least 1, the plain image; got {views}")
    path = None
    if cache is not None:
        decides = f"{size}-{views}-{seed}-{scale}-{weights_digest(backbone)}-{_options(backbone)}"
        decides += "-padded" * keep_aspect
        if (kind := torch.device(device).type) != "cpu":  # which computes otherwise
            decides += f"-{kind}"
        digest = hashlib.blake2b(decides.encode(), digest_size=6).hexdigest()
        path = Path(cache) / f"{dataset.fingerprint()}-{backbone.name}-{digest}.safetensors"
        if path.is_file():
            try:
                content = load_file(path)
            except SafetensorError as error:
                raise ValueError(f"{path} is damaged ({error}); delete it") from error
            if set(content) == {"features", "labels", "sizes"}:  # else of an older version
                return FeatureBank(dataset, **content, keep_aspect=keep_aspect)
        check_writable(path.parent)
    images = _Views(
        dataset, size=size, views=views, seed=seed, scale=scale, keep_aspect=keep_aspect
    )
    content = _compute(images, backbone, workers, torch.device(device), description)
    if path is not None:
        with replacing(path) as part:
            _save(content, part)
    return FeatureBank(dataset, **content, keep_aspect=keep_aspect)


def bank_megabytes(
    dataset: SegmentationDataset, backbone: Backbone, *, size: int, views: int = 1
) -> float:
    """Memory that :func:`feature_bank` would take, in units of 10^6 bytes; one image is tried."""
    probe = torch.zeros(1, 3, size, size, device=next(backbone.parameters()).device)
    was_training = backbone.training
    with torch.inference_mode():
        values: int = backbone.eval()(probe).numel()
    backbone.train(was_training)
    return len(dataset) * views * (2 * values + size * size) / 1e6


def _options(backbone: Backbone) -> str:
    """What decides a backbone besides its weights: its options, strides and dilations."""
    options = {n: v for n, v in vars(backbone).items() if isinstance(v, int | float | str)}
    del options["training"]
    return f"{sorted(options.items())} {backbone}"


def _save(content: dict[str, Tensor], path: Path) -> None:
    try:
        with folder_beside(path) as folder:
            save_file(content, folder / "content")
            os.replace(folder / "content", path)
    except SafetensorError as error:
        # It comes without the number of the system's error.
        needed = sum(tensor.nbytes for tensor in content.values())
        if shutil.disk_usage(path.parent).free >= needed:
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error


class _Views(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Item i: float32 (V, 3, size, size) and uint8 (V, size, size), all views of image i, and
    int32 (2,), its own height and width."""

    def __init__(
        self,
        dataset: SegmentationDataset,
        *,
        size: int,
        views: int,
        seed: int,
        scale: tuple[float, float],
        keep_aspect: bool,
    ) -> None:
        self.dataset = dataset
        self.views = views
        self.seed = seed
        self.plain = EvalTransform(size, keep_aspect=keep_aspect)
        self.random = TrainTransform(size, scale=scale)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        sample = self.dataset[index]
        pairs = [self.plain(*sample)]
        pairs += [self.random(*sample, seed=mix(self.seed, index, v)) for v in range(1, self.views)]
        images, labels = zip(*pairs, strict=True)
        size = torch.tensor(sample.labels.shape, dtype=torch.int32)
        return torch.stack(images), torch.stack(labels), size


@torch.inference_mode()
def _compute(
    images: _Views, backbone: Backbone, workers: int, device: torch.device, description: str
) -> dict[str, Tensor]:
    backbone.eval().to(device)
    per_batch = math.ceil(IMAGES_PER_BATCH / images.views)
    # A generator of its own, or the loader would draw from the caller's.
    loader = DataLoader(
        images, batch_size=per_batch, num_workers=workers, generator=torch.Generator()
    )
    features: list[Tensor] = []
    labels: list[Tensor] = []
    sizes: list[Tensor] = []
    with progress_bar(len(images), description, unit="image") as progress:
        for image, label, size in loader:
            output = backbone(image.flatten(0, 1).to(device))
            kept = output.unflatten(0, label.shape[:2]).half().cpu()
            if not kept.isfinite().all():
                raise ValueError(
                    "the features of an image hold NaN or infinite values, or values above 65,504, "
                    "the largest of float16, in which they are kept; look at the weights of the "
                    f"backbone {backbone.name}"
                )
            features.append(kept)
            labels.append(label.clone())  # not the worker's shared memory
            sizes.append(size.clone())
            progress.update(len(label))
    return {
        "features": torch.cat(features),
        "labels": torch.cat(labels),
        "sizes": torch.cat(sizes),
    }
