"""A small data set in memory and a small network, for tests of whatever takes one."""

from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from pmms.backbones import BACKBONES, Backbone
from pmms.datasets.base import Sample, SegmentationDataset
from pmms.folds import VOID
from pmms.models import FewShotSegmenter, build_model


class FakeDataset(SegmentationDataset):
    """Images of flat colour with one square per class, each inside a frame of void.

    Args:
        contents: for each image the side of the square of each class, in pixels.
        size: height and width of every image.
        min_area: pixels from which on a class counts in ``classes_in``.
    """

    def __init__(
        self,
        contents: list[dict[int, int]],
        *,
        size: tuple[int, int] = (40, 60),
        classes: int = 6,
        min_area: int = 4,
    ) -> None:
        self.name = "fake"
        self.class_names = tuple(f"thing{i}" for i in range(1, classes + 1))
        self.contents = contents
        self.size = size
        self.min_area = min_area

    def __len__(self) -> int:
        return len(self.contents)

    def __getitem__(self, index: int) -> Sample:
        position = self._position(index)
        labels = torch.zeros(self.size, dtype=torch.uint8)
        image = torch.full((3, *self.size), position % 50, dtype=torch.uint8)
        for place, (class_id, side) in enumerate(self.contents[position].items()):
            top, left = 3 + position % 5, 3 + 14 * place
            labels[top - 1 : top + side + 1, left - 1 : left + side + 1] = VOID
            labels[top : top + side, left : left + side] = class_id
            image[:, top : top + side, left : left + side] = 200 + class_id
        return Sample(image, labels)

    def image_id(self, index: int) -> str:
        return f"fake_{self._position(index):03d}"

    def classes_in(self, index: int) -> frozenset[int]:
        sides = self.contents[self._position(index)]
        return frozenset(c for c, side in sides.items() if side**2 >= self.min_area)

    def fingerprint(self) -> str:
        return f"fake-{len(self)}"


def fake_dataset(images: int = 24, *, classes: int = 6) -> FakeDataset:
    """Image i shows class i % classes + 1, and every third the next class too."""
    contents = []
    for i in range(images):
        shown = {i % classes + 1: 8 + i % 4}
        if i % 3 == 0:
            shown[(i + 1) % classes + 1] = 6
        contents.append(shown)
    return FakeDataset(contents, classes=classes)


class TinyBackbone(Backbone):
    """A strided convolution with BatchNorm: stride 8, 12 channels, weights from ``seed``."""

    def __init__(self, weights: str | None = None, *, seed: int = 0) -> None:
        super().__init__("tiny", 12, mean=(0.5,) * 3, std=(0.25,) * 3)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = nn.Sequential(nn.Conv2d(3, 12, 8, stride=8), nn.BatchNorm2d(12))

    def features(self, image: Tensor) -> Tensor:
        return self.net(image)


def with_tiny_backbone() -> Any:
    """A context in which "tiny" is the name of a backbone."""
    return patch.dict(BACKBONES, tiny=TinyBackbone)


def tiny_model(name: str = "pmms", *, seed: int = 0, **options: Any) -> FewShotSegmenter:
    """A network of a few thousand weights, which follow from ``seed``."""
    small = {"width": 8, "reduce_kernel": 1, "norm": "group", "aspp_rates": (1, 2, 3)}
    small |= {"em_iterations": 3, "aspp_dropout": 0.0, "p_conv_kappa": 20.0}
    with with_tiny_backbone(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_model(name, backbone=TinyBackbone(), **(small | options))
