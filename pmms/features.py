"""Backbone features of an image set, computed once and kept.

A frozen backbone gives the same features for the same image in every step of every run, so they
need not be computed again: what is left of a training step is the head. Augmentation survives as
a number of VIEWS of each image, the plain one and some random crops and flips.
"""

import hashlib
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pmms.backbones import Backbone
from pmms.datasets.base import SegmentationDataset
from pmms.episodes import EpisodeIndex, class_mask, mix
from pmms.files import replacing
from pmms.progress import progress_bar
from pmms.transforms import EvalTransform, TrainTransform

VISIBLE = 0.25  # a view can stand for an image if it shows this share of the class's plain area
IMAGES_PER_BATCH = 16
KEPT_LABELS = 512_000_000  # bytes of label maps at their own size that a bank keeps once read


class FeatureBatch(NamedTuple):
    """B episodes as backbone features.

    Attributes:
        support: float32 (B, S, C, h, w).
        support_mask: float32 (B, S, 1, H, W), 1 on the class; void counts as 0.
        query: float32 (B, C, h, w).
        query_mask: int64 (B, H, W), 1 on the class, 255 void.
        class_id: int64 (B,).
    """

    support: Tensor
    support_mask: Tensor
    query: Tensor
    query_mask: Tensor
    class_id: Tensor


class FeatureBank:
    """Features and label maps of all images of a data set, in memory. See :func:`feature_bank`.

    Attributes:
        dataset: the images.
        features: float16 (n, V, C, h, w) for n images in V views; view 0 is the plain image.
        labels: uint8 (n, V, H, W).
        sizes: int32 (n, 2), height and width of each image before it was resized; None where all
            images had the size of ``labels``.
        keep_aspect: whether images were scaled and padded instead of squashed.
    """

    def __init__(
        self,
        dataset: SegmentationDataset,
        features: Tensor,
        labels: Tensor,
        *,
        sizes: Tensor | None = None,
        keep_aspect: bool = False,
    ) -> None:
        self.dataset = dataset
        self.features = features
        self.labels = labels
        self.sizes = sizes
        self.keep_aspect = keep_aspect
        self._areas: dict[int, Tensor] = {}
        self._originals: dict[int, Tensor] = {}
        self._original_bytes = 0

    @property
    def megabytes(self) -> float:
        """Memory of features and label maps, in units of 10^6 bytes."""
        return (self.features.nbytes + self.labels.nbytes) / 1e6

    @property
    def size(self) -> int:
        """Side in pixels of the square that images were brought to."""
        return self.labels.shape[-1]

    def label_map(self, index: int) -> Tensor:
        """The label map of an image at its own size, uint8 (H, W).

        Taken from ``labels`` where the image has that size, else read from the data set, and kept
        as long as all that are kept take no more than ``KEPT_LABELS`` bytes.
        """
        if self.sizes is None or self.sizes[index].tolist() == [self.size, self.size]:
            return self.labels[index, 0]
        if index in self._originals:
            return self._originals[index]
        labels = self.dataset.label_map(index)
        if self._original_bytes + labels.nbytes <= KEPT_LABELS:
            self._originals[index] = labels
            self._original_bytes += labels.nbytes
        return labels

    def batch(
        self,
        episodes: Sequence[EpisodeIndex],
        *,
        seed: int | None = None,
        device: torch.device | str = "cpu",
    ) -> FeatureBatch:
        """Stack the features and masks of some episodes.

        Args:
            episodes: indices into ``dataset``, all with the same number of shots.
            seed: chooses a view for every image, among those that still show the class well. None
                takes the plain images.
            device: where the batch goes.
        """
        rng = None if seed is None else random.Random(seed)
        classes = torch.tensor([episode.class_id for episode in episodes])
        query, query_labels = self._stack([[e.query] for e in episodes], classes, rng)
        support, support_labels = self._stack([e.support for e in episodes], classes, rng)
        batch = FeatureBatch(
            support=support,
            support_mask=(support_labels == 1).unsqueeze(2).float(),
            query=query[:, 0],
            query_mask=query_labels[:, 0].long(),
            class_id=classes,
        )
        return FeatureBatch(*(tensor.to(device, non_blocking=True) for tensor in batch))

    def _stack(
        self, images: Sequence[Sequence[int]], classes: Tensor, rng: random.Random | None
    ) -> tuple[Tensor, Tensor]:
        """Features (B, S, C, h, w) in float32 and class masks (B, S, H, W) in uint8."""
        index = torch.tensor([list(row) for row in images])
        view = torch.tensor(
            [
                [self._view(i, int(c), rng) for i in row]
                for row, c in zip(images, classes, strict=True)
            ]
        )
        masks = [
            torch.stack([self._mask(i, v, int(c)) for i, v in zip(row, of_row, strict=True)])
            for row, of_row, c in zip(index.tolist(), view.tolist(), classes, strict=True)
        ]
        return self.features[index, view].float(), torch.stack(masks)

    def _mask(self, image: int, view: int, class_id: int) -> Tensor:
        """Mask (H, W) of one class, uint8."""
        labels = self.labels[image, view]
        if view or self.sizes is None:
            return class_mask(labels, class_id)
        transform = EvalTransform(self.size, keep_aspect=self.keep_aspect)
        return kept_mask(labels, class_id, transform, whole=lambda: self.label_map(image))

    def _view(self, image: int, class_id: int, rng: random.Random | None) -> int:
        if rng is None or self.labels.shape[1] == 1:
            return 0
        if class_id not in self._areas:
            self._areas[class_id] = (self.labels == class_id).sum(dim=(2, 3))
        area = self._areas[class_id][image]
        good = (area >= VISIBLE * area[0]).nonzero().flatten().tolist()
        return good[int(rng.random() * len(good))]


def kept_mask(
    labels: Tensor, class_id: int, transform: EvalTransform, *, whole: Callable[[], Tensor]
) -> Tensor:
    """Mask of one class in a label map that ``transform`` made, uint8 (S, S).

    An object that the resize lost keeps one pixel. Only then ``whole`` is called, for the label map
    at the image's own size.
    """
    mask = class_mask(labels, class_id)
    return mask if (mask == 1).any() else transform.mask(class_mask(whole(), class_id))


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
            name holds all that decides the content, the backbone's weights included.
        description: title of the progress bar.

    Raises:
        ValueError: ``views`` below 1, or a damaged file in ``cache``.
    """
    if views < 1:
        raise ValueError(f"views must be at least 1, the plain image; got {views}")
    path = None
    if cache is not None:
        decides = f"{size}-{views}-{seed}-{scale}-{weights_digest(backbone)}-{_options(backbone)}"
        decides += "-padded" * keep_aspect
        digest = hashlib.blake2b(decides.encode(), digest_size=6).hexdigest()
        path = Path(cache) / f"{dataset.fingerprint()}-{backbone.name}-{digest}.safetensors"
        if path.is_file():
            try:
                content = load_file(path)
            except SafetensorError as error:
                raise ValueError(f"{path} is damaged ({error}); delete it") from error
            if set(content) == {"features", "labels", "sizes"}:  # else of an older version
                return FeatureBank(dataset, **content, keep_aspect=keep_aspect)
    images = _Views(
        dataset, size=size, views=views, seed=seed, scale=scale, keep_aspect=keep_aspect
    )
    content = _compute(images, backbone, workers, torch.device(device), description)
    if path is not None:
        with replacing(path) as part:
            save_file(content, part)
    return FeatureBank(dataset, **content, keep_aspect=keep_aspect)


def bank_megabytes(
    dataset: SegmentationDataset, backbone: Backbone, *, size: int, views: int = 1
) -> float:
    """Memory that :func:`feature_bank` would take, in units of 10^6 bytes; one image is tried."""
    probe = torch.zeros(1, 3, size, size, device=next(backbone.parameters()).device)
    was_training = backbone.training
    with torch.inference_mode():
        values = backbone.eval()(probe).numel()
    backbone.train(was_training)
    return len(dataset) * views * (2 * values + size * size) / 1e6


def weights_digest(module: torch.nn.Module) -> str:
    """Short hash of all parameters and buffers."""
    digest = hashlib.blake2b(digest_size=8)
    for name, value in module.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _options(backbone: Backbone) -> str:
    """What decides a backbone besides its weights: its options, strides and dilations."""
    options = {n: v for n, v in vars(backbone).items() if isinstance(v, int | float | str)}
    del options["training"]
    return f"{sorted(options.items())} {backbone}"


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
            features.append(output.unflatten(0, label.shape[:2]).half().cpu())
            labels.append(label.clone())  # not the worker's shared memory
            sizes.append(size.clone())
            progress.update(len(label))
    return {
        "features": torch.cat(features),
        "labels": torch.cat(labels),
        "sizes": torch.cat(sizes),
    }
