"""Backbone features of an image set, kept in memory, and the episodes that are made of them.

A frozen backbone gives the same features for the same image in every step of every run, so they
need not be computed again: what is left of a training step is the head. Augmentation survives as
a number of VIEWS of each image, the plain one and some random crops and flips.
:mod:`pmms.feature_computing` fills a bank.
"""

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pmms.datasets.base import SegmentationDataset
from pmms.episodes import EpisodeIndex, class_mask
from pmms.transforms import EvalTransform

VISIBLE = 0.25  # a view can stand for an image if it shows this share of the class's plain area
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
    """Features and label maps of all images of a data set, in memory; made by
    :func:`pmms.feature_computing.feature_bank`.

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
        self._good_views: dict[tuple[int, int], list[int]] = {}
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
        classes = [episode.class_id for episode in episodes]
        query = self._views([[e.query] for e in episodes], classes, rng)
        support = self._views([e.support for e in episodes], classes, rng)
        batch = FeatureBatch(
            support=self._features(*support),
            support_mask=_on_class(self._masks(*support, classes)),
            query=self._features(*query)[:, 0],
            query_mask=self._masks(*query, classes)[:, 0].long(),
            class_id=torch.tensor(classes),
        )
        return FeatureBatch(*(tensor.to(device, non_blocking=True) for tensor in batch))

    def support(self, episodes: Sequence[EpisodeIndex]) -> tuple[Tensor, Tensor]:
        """``support`` and ``support_mask`` of :meth:`batch` alone, of the plain images."""
        classes = [episode.class_id for episode in episodes]
        views = self._views([e.support for e in episodes], classes, None)
        return self._features(*views), _on_class(self._masks(*views, classes))

    def query(self, episodes: Sequence[EpisodeIndex]) -> Tensor:
        """``query`` of :meth:`batch` alone, of the plain images."""
        return self.features[[episode.query for episode in episodes], 0].float()

    def _views(
        self, images: Sequence[Sequence[int]], classes: Sequence[int], rng: random.Random | None
    ) -> tuple[Tensor, Tensor]:
        """Which images (B, S), and which view of each."""
        views = [
            [self._view(image, class_id, rng) for image in row]
            for row, class_id in zip(images, classes, strict=True)
        ]
        return torch.tensor([list(row) for row in images]), torch.tensor(views)

    def _features(self, index: Tensor, view: Tensor) -> Tensor:
        """Float32 (B, S, C, h, w) of images and views (B, S)."""
        return self.features[index, view].float()

    def _masks(self, index: Tensor, view: Tensor, classes: Sequence[int]) -> Tensor:
        """Class masks uint8 (B, S, H, W) of images and views (B, S)."""
        rows = zip(index.tolist(), view.tolist(), classes, strict=True)
        return torch.stack(
            [
                torch.stack([self._mask(i, v, c) for i, v in zip(images, views, strict=True)])
                for images, views, c in rows
            ]
        )

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
        good = self._good_views.get((image, class_id))
        if good is None:
            area = (self.labels[image] == class_id).flatten(1).count_nonzero(dim=1)
            enough = max(1, VISIBLE * int(area[0]))
            # An object may be too small for the kept labels; its mask is there in the plain view.
            good = (area >= enough).nonzero().flatten().tolist() or [0]
            self._good_views[image, class_id] = good
        view: int = good[int(rng.random() * len(good))]
        return view


def _on_class(masks: Tensor) -> Tensor:
    """Class masks (B, S, H, W) to the model's: float32 (B, S, 1, H, W), void as 0."""
    return (masks == 1).unsqueeze(2).float()


def kept_mask(
    labels: Tensor, class_id: int, transform: EvalTransform, *, whole: Callable[[], Tensor]
) -> Tensor:
    """Mask of one class in a label map that ``transform`` made, uint8 (S, S).

    An object that the resize lost keeps one pixel. Only then ``whole`` is called, for the label map
    at the image's own size.
    """
    mask = class_mask(labels, class_id)
    return mask if (mask == 1).any() else transform.mask(class_mask(whole(), class_id))
