"""PartsVOC: a segmentation data set drawn by code, with the true part of every object pixel.

Twenty classes with the names and folds of Pascal VOC, each drawn from named parts whose colours
and textures are drawn anew for every object, so that colour does not tell the class. An image
shows one to three objects of different classes among unlabelled clutter.

The drawing lives beside this file: `parts_drawing` (outlines, textures), `parts_recipe` and
`parts_vehicles`, `parts_creatures`, `parts_indoor` (the classes), `parts_grammar` (extra classes),
`parts_scene` (placing), `parts_painting` (colours, light), `parts_voc` (the VOC tree).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.random import PCG64, Generator, SeedSequence
from torch import Tensor

from pmms.datasets.base import Sample, SegmentationDataset
from pmms.datasets.parts_classes import RECIPES
from pmms.datasets.parts_grammar import MAX_EXTRA_CLASSES, grammar_recipe
from pmms.datasets.parts_painting import paint
from pmms.datasets.parts_recipe import Recipe
from pmms.datasets.parts_scene import Scene, arrange, subsample
from pmms.datasets.parts_voc import write_tree
from pmms.folds import PASCAL_CLASSES, VOID

DRAWING_VERSION = 2
"""Raise this whenever any image or label map changes for any settings.

Caches and run records name images by `PartsVOC.fingerprint`, which holds this number; the frozen
checksums in the tests must change together with it, never alone.
"""

SPLITS = ("train", "val")
_COUNTS = (0.12, 0.28, 0.6)  # share of images with one, two, three objects
_PLAN, _PAINT, _LAYOUT = 0, 1, 2  # streams of an image; attempt n of the layout is _LAYOUT + n


class PartsVOC(SegmentationDataset):
    """Drawn images with label maps and part maps; (seed, split, index) alone decides a scene.

    A longer data set begins with the images of a shorter one. The same index at another `size`
    follows the same plan (the same classes).

    Args:
        split: "train" or "val"; other streams, so no image is in both.
        length: number of images, at least 1.
        seed: 0 or more; another world of images, the same classes.
        size: side of the square images in pixels, at least 64.
        extra_classes: 0 to 200 more classes from a random part grammar, ids 21, 22, ..., names
            "shape-001", ...; in "train" only. Half of the objects then come from them. They look
            the same for every seed.
        min_area: each class in an image has at least this many labelled pixels that are not void,
            at size 160; at another size in proportion to its square. 1 to 600.

    Raises:
        ValueError: an argument outside these ranges.
    """

    name = "parts"

    def __init__(
        self,
        split: str = "train",
        *,
        length: int,
        seed: int = 0,
        size: int = 160,
        extra_classes: int = 0,
        min_area: int = 400,
    ) -> None:
        if split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
        for label, value, low, high in (
            ("length", length, 1, None),
            ("seed", seed, 0, None),
            ("size", size, 64, 1024),
            ("extra_classes", extra_classes, 0, MAX_EXTRA_CLASSES),
            ("min_area", min_area, 1, 600),
        ):
            if isinstance(value, bool) or not isinstance(value, int | np.integer):
                raise ValueError(f"{label} must be an integer, got {value!r}")
            if value < low or (high is not None and value > high):
                limits = f"at least {low}" if high is None else f"from {low} to {high}"
                raise ValueError(f"{label} must be {limits}, got {value}")
        if extra_classes and split != "train":
            raise ValueError(
                f"extra_classes is for training only: use 0 with split={split!r}, "
                f"got {extra_classes}"
            )
        self.split = split
        self.length, self.seed, self.size = int(length), int(seed), int(size)
        self.extra_classes, self.min_area = int(extra_classes), int(min_area)
        extra = (f"shape-{i + 1:03d}" for i in range(self.extra_classes))
        self.class_names = (*PASCAL_CLASSES, *extra)

    def __len__(self) -> int:
        return self.length

    def __repr__(self) -> str:
        return f"PartsVOC({self.fingerprint()})"

    def __getitem__(self, index: int) -> Sample:
        """Image uint8 (3, size, size) and labels uint8 (size, size)."""
        index = self._position(index)
        scene = self._scene(index)
        image = paint(scene, self._stream(index, _PAINT))
        labels = self._label_of_object(index)[scene.objects]
        # NumPy turns the channels to the front several times faster than torch does on bytes.
        image = np.ascontiguousarray(image.transpose(2, 0, 1))
        return Sample(torch.from_numpy(image), torch.from_numpy(labels))

    def image_id(self, index: int) -> str:
        """For example "train_0_000012": split, seed, index."""
        return f"{self.split}_{self.seed}_{self._position(index):06d}"

    def classes_in(self, index: int) -> frozenset[int]:
        """The classes of the image's plan; each covers at least `min_area` pixels. Not drawn."""
        return frozenset(self._plan(self._position(index)))

    def classes_shown(self, index: int) -> frozenset[int]:
        """The same as `classes_in`: a scene shows the classes of its plan and no other."""
        return self.classes_in(index)

    def fingerprint(self) -> str:
        """All settings and the drawing version."""
        return f"{self._world()}-n{self.length}"

    def parts(self, index: int) -> Tensor:
        """Part map, uint8 (size, size).

        0 off the objects and on void pixels, else the id of the part within the class of the
        object at this pixel: position in `part_names(class_id)` + 1.
        """
        index = self._position(index)
        scene = self._scene(index)
        recipes = [self._recipe(class_id) for class_id in self._plan(index)]
        ids = [
            recipes[owner - 1].parts.index(part) + 1 if owner else 0
            for owner, part in zip(scene.owners, scene.parts, strict=True)
        ]
        parts = np.array((0, *ids), dtype=np.uint8)[subsample(scene.shapes)]
        return torch.from_numpy(np.where(scene.objects == VOID, np.uint8(0), parts))

    def part_names(self, class_id: int) -> tuple[str, ...]:
        """Names of the parts of a class; part id = position + 1. Not every object shows each part.

        Raises:
            ValueError: a class id that the data set does not have.
        """
        self.class_name(class_id)
        return self._recipe(class_id).parts

    def write_voc(self, root: str | Path, *, progress: bool = True) -> Path:
        """Write the data set as `root`/VOCdevkit/VOC2012 and return that folder.

        Holds JPEGImages (quality 95), SegmentationClass and SegmentationPart (palette PNG) and
        ImageSets/Segmentation/{split}.txt. Complete files from an earlier call are kept; each file
        appears whole or not at all.

        Raises:
            ValueError: the folder holds this split from a data set with other settings.
        """
        return write_tree(
            self,
            Path(root) / "VOCdevkit" / "VOC2012",
            split=self.split,
            parts=self.parts,
            content=self._world(),
            progress=progress,
        )

    def _world(self) -> str:
        return (
            f"parts-v{DRAWING_VERSION}-{self.split}-s{self.seed}-{self.size}px"
            f"-x{self.extra_classes}-a{self.min_area}"
        )

    def _stream(self, index: int, stream: int) -> Generator:
        key = [self.seed, SPLITS.index(self.split), index, stream]
        return Generator(PCG64(SeedSequence(key)))

    def _plan(self, index: int) -> tuple[int, ...]:
        """Class ids of the objects of an image, from the back to the front."""
        rng = self._stream(index, _PLAN)
        count = 1 + int(np.searchsorted(np.cumsum(_COUNTS)[:-1], rng.random(), side="right"))
        plan: list[int] = []
        while len(plan) < count:
            if self.extra_classes and rng.random() < 0.5:
                class_id = len(PASCAL_CLASSES) + 1 + int(rng.integers(self.extra_classes))
            else:
                class_id = 1 + int(rng.integers(len(PASCAL_CLASSES)))
            if class_id not in plan:
                plan.append(class_id)
        return tuple(plan)

    def _recipe(self, class_id: int) -> Recipe:
        if class_id <= len(PASCAL_CLASSES):
            return RECIPES[PASCAL_CLASSES[class_id - 1]]
        return grammar_recipe(class_id - len(PASCAL_CLASSES))

    def _scene(self, index: int) -> Scene:
        return arrange(
            [self._recipe(class_id) for class_id in self._plan(index)],
            size=self.size,
            min_pixels=self.min_area * (self.size / 160) ** 2,
            stream=lambda attempt: self._stream(index, _LAYOUT + attempt),
        )

    def _label_of_object(self, index: int) -> np.ndarray:
        table = np.zeros(256, dtype=np.uint8)
        plan = self._plan(index)
        table[1 : len(plan) + 1] = plan
        table[VOID] = VOID
        return table
