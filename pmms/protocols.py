"""Evaluation protocols by name: how a model is tested, frozen, with the source of every setting.

Void pixels, image size, lists, episode count and seeds move mIoU by points, so a number says little
without them. A :class:`Protocol` holds them all and stands in every record; its ``label`` is a bare
name only where nothing differs from what the name promises. Numbers under different labels never
stand in one column.

Where a source fits the network rather than the test (how logits are upsampled inside it, how its
own code fuses five supports), the model decides and not the protocol.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, Self

from pmms.checks import choice, expect, whole

Form = Literal["pascal", "coco"]

_PRESET: Any = None
"""A setting that is not given: it takes the value of the preset."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How a model is tested. Settings that are not given are those of the preset ``name``.

    A name of ``PRESETS`` fixes all settings but four: ``shots`` belongs to every protocol, and
    ``episodes``, ``seeds`` and ``size`` may be changed, which ``label`` then shows. Any other name
    is a protocol of one's own, with free settings; those not given are the ones of ``ours``.

    Attributes:
        name: of the preset, or one's own.
        form: which of a preset's two forms; the authors, HSNet and PFENet test COCO differently.
        shots: support images an episode.
        episodes: episodes for each seed.
        seeds: episode seeds; the spread over them is the luck of the draw of episodes.
        lists: "split": each image of the test list, for each class that it shows well enough;
            "authors": the pairs (image, class) of the authors' files; "area": as "split", with at
            least 2,048 pixels of the class.
        sampler: whose rule draws the episodes, see :mod:`pmms.protocol_episodes`.
        size: side in pixels that images are brought to; None leaves it to the run.
        aspect: "squash" to a square, or "pad": scaled to the longer side, and padded.
        void: "ignore" leaves void pixels out of the counts; "background" counts them as 0.
        resolution: "original": predictions are scored at the size of the query image; "network":
            at ``size``.
        query_mask: "exact": the annotation as it is; "resized": brought to ``size`` by the nearest
            pixel and, at resolution "original", back.
        fusion: "joint": the model takes all support images at once; "vote": one prediction for
            each, summed, divided by the largest sum, foreground from 0.5 on.
        fb_iou: whether FB-IoU is part of the protocol.
        checkpoint: which weights are tested; "last", chosen without any test class.

    Raises:
        ValueError: a value that does not fit, or one that the preset fixes otherwise.
    """

    name: str = "ours"
    form: Form = "pascal"
    shots: int = 1
    episodes: int = _PRESET
    seeds: tuple[int, ...] = _PRESET
    lists: Literal["split", "authors", "area"] = _PRESET
    sampler: Literal["ours", "authors", "hsnet", "pfenet"] = _PRESET
    size: int | None = _PRESET
    aspect: Literal["squash", "pad"] = _PRESET
    void: Literal["ignore", "background"] = _PRESET
    resolution: Literal["original", "network"] = _PRESET
    query_mask: Literal["exact", "resized"] = _PRESET
    fusion: Literal["joint", "vote"] = _PRESET
    fb_iou: bool = _PRESET
    checkpoint: Literal["last"] = _PRESET

    def __post_init__(self) -> None:
        expect("name", self.name, "a name", isinstance(self.name, str) and bool(self.name.strip()))
        near = self.name.strip().lower()
        if near in PRESETS and self.name != near:
            raise ValueError(f"name must be {near!r}, or unlike it; got {self.name!r}")
        if any(mark in self.name for mark in "()="):
            raise ValueError(f"name must be without brackets and '='; got {self.name!r}")
        choice("form", self.form, ("pascal", "coco"))
        preset = _preset(self.name, self.form)
        for name, value in preset.items():
            if getattr(self, name) is _PRESET:
                object.__setattr__(self, name, value)
        if isinstance(self.seeds, list | int):
            seeds = tuple(self.seeds) if isinstance(self.seeds, list) else (self.seeds,)
            object.__setattr__(self, "seeds", seeds)
        self._check()
        for name in FIXED if self.name in PRESETS else ():
            if getattr(self, name) != preset[name]:
                raise ValueError(
                    f"{name} must be {preset[name]!r} under the protocol {self.name!r}, got "
                    f"{getattr(self, name)!r}; give another protocol its own name"
                )
        if self.resolution == "network":
            fits = self.query_mask == "resized"
            expect("query_mask", self.query_mask, "'resized' at resolution 'network'", fits)

    @property
    def changes(self) -> dict[str, Any]:
        """Settings that differ from what the name promises. ``shots`` is no such setting."""
        if self.name not in PRESETS:
            return {}
        preset = _preset(self.name, self.form)
        return {n: getattr(self, n) for n in FREE if getattr(self, n) != preset[n]}

    @property
    def label(self) -> str:
        """What stands beside a number: the bare name, or the name and all that differs from it.

        For example "ours" and "ours (episodes=60, seeds=0+1)".
        """
        shown = [
            f"{name}={'+'.join(map(str, value)) if isinstance(value, tuple) else value}"
            for name, value in self.changes.items()
        ]
        return f"{self.name} ({', '.join(shown)})" if shown else self.name

    def record(self) -> dict[str, Any]:
        """All settings for a run record; "name" is the label, "preset" the name."""
        settings = {field.name: getattr(self, field.name) for field in fields(self)}
        return settings | {"name": self.label, "preset": self.name}

    @classmethod
    def from_record(cls, settings: Mapping[str, Any]) -> Self:
        """The protocol of a run record; what an older record does not name is the preset's."""
        known = {field.name for field in fields(cls)}
        values = {name: value for name, value in settings.items() if name in known}
        return cls(**values | {"name": settings.get("preset", settings["name"])})

    def _check(self) -> None:
        for name in ("shots", "episodes"):
            value = getattr(self, name)
            expect(name, value, "a whole number of at least 1", whole(value, least=1))
        seeds = self.seeds
        fits = isinstance(seeds, tuple) and seeds and all(map(whole, seeds))
        expect("seeds", seeds, "one or more different whole numbers",
                bool(fits) and len(set(seeds)) == len(seeds))  # fmt: skip
        fits = self.size is None or whole(self.size, least=1)
        expect("size", self.size, "None or a whole number of at least 1", fits)
        for name, choices in CHOICES.items():
            choice(name, getattr(self, name), choices)
        expect("fb_iou", self.fb_iou, "True or False", isinstance(self.fb_iou, bool))


FREE = ("episodes", "seeds", "size")
"""Settings of a preset that may be changed; the label shows it."""

CHOICES: dict[str, tuple[str, ...]] = {
    "lists": ("split", "authors", "area"),
    "sampler": ("ours", "authors", "hsnet", "pfenet"),
    "aspect": ("squash", "pad"),
    "void": ("ignore", "background"),
    "resolution": ("original", "network"),
    "query_mask": ("exact", "resized"),
    "fusion": ("joint", "vote"),
    "checkpoint": ("last",),
}
FIXED = (*CHOICES, "fb_iou")
"""Settings that a preset fixes."""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A published way to test, and what to know of it.

    Attributes:
        settings: fields of :class:`Protocol`, on Pascal-5i.
        coco: those that differ on COCO-20i.
        source: where the settings were read.
        meaning: what a number under it says.
        traps: what misleads, one sentence or two each.
    """

    settings: Mapping[str, Any]
    coco: Mapping[str, Any]
    source: str
    meaning: str
    traps: tuple[str, ...]


PRESETS: dict[str, Preset] = {
    "authors": Preset(
        settings={
            "episodes": 1000, "seeds": (1385,), "lists": "authors", "sampler": "authors",
            "size": 481, "aspect": "squash", "void": "background", "resolution": "original",
            "query_mask": "resized", "fusion": "joint", "fb_iou": False, "checkpoint": "last",
        },
        coco={"lists": "split"},
        source="`Yang-Bob/PMMs`: `data/voc_val.py`, `data/coco_val.py`, `data/LoadDataSeg.py`, "
        "`test.py`, `test_5shot.py`, `utils/NoteEvaluation.py`",
        meaning="mIoU on the episodes of the paper's Pascal tables, with void pixels as background",
        traps=(
            "The authors' code tests 40 snapshots (every 5,000 of 200,000 steps) on the test fold "
            "and takes the best of each fold. That chooses on the test classes; here the last "
            "weights are tested, and the choice is not offered.",
            "Void counts as background, so the ring of void around an object is an error wherever "
            "it is predicted as foreground.",
            "The query mask goes to 481 x 481 by the nearest pixel and back, so its border is not "
            "the annotation's.",
            "In 5-shot the authors' RPMMs sums the softmax of its three stages, in 1-shot the last "
            "one counts. Here the model takes the last one in both.",
            "On COCO their episodes are drawn without a seed, and a mask is the first polygon of "
            "each instance, filled as if it were convex. The rule of the draw is kept, with their "
            "seed 1385; the episodes cannot be theirs.",
        ),
    ),
    "hsnet": Preset(
        settings={
            "episodes": 1000, "seeds": (0,), "lists": "authors", "sampler": "hsnet",
            "size": 400, "aspect": "squash", "void": "ignore", "resolution": "network",
            "query_mask": "resized", "fusion": "vote", "fb_iou": True, "checkpoint": "last",
        },
        coco={"lists": "split", "void": "background"},
        source="`juhongm999/hsnet`: `data/pascal.py`, `data/coco.py`, `data/dataset.py`, "
        "`test.py`, `model/hsnet.py`, `common/evaluation.py`, `common/logger.py`",
        meaning="mIoU and FB-IoU at 400 x 400 pixels, where thin parts are already lost",
        traps=(
            "Queries go through the list in its order and start again at its end: a fold of 346 "
            "pairs is seen nearly three times, so 1,000 episodes are fewer than they seem.",
            "Support images of one episode may repeat.",
            "Scored at 400 x 400 unless the original size is asked for; the two do not compare.",
            "HSNet and PFENet upsample logits with aligned corners; here the model's own way is "
            "kept, which may move a border by a pixel.",
            "Five shots are five 1-shot predictions. Their sum is divided by its own maximum, so "
            "a single vote makes foreground where no pixel has three.",
            "On COCO nothing is ignored, classes are drawn at random, and the images are those of "
            "2014. Their lists are pickles; here they follow from the annotations.",
        ),
    ),
    "pfenet": Preset(
        settings={
            "episodes": 5000, "seeds": (321,), "lists": "area", "sampler": "pfenet",
            "size": 473, "aspect": "pad", "void": "ignore", "resolution": "original",
            "query_mask": "exact", "fusion": "joint", "fb_iou": True, "checkpoint": "last",
        },
        coco={"episodes": 20_000, "size": 641},
        source="`dvlab-research/PFENet`: `util/dataset.py`, `util/transform.py`, `util/util.py`, "
        "`test.py`, `config/pascal/pascal_split0_resnet50.yaml`, "
        "`config/coco/coco_split0_resnet101.yaml`",
        meaning="mIoU and FB-IoU on the images of VOC val that show a large object of the fold",
        traps=(
            "An image is listed for a class with 2 x 32 x 32 pixels of it, but a query's class is "
            "drawn from all test classes that it shows, however small.",
            "Void and padding are left out: the same network scores 60.8 with and 56.2 without "
            "(PFENet issue 25).",
            "Their episodes depend on the number of worker processes (8 for Pascal, 16 for COCO) "
            "and on how PyTorch seeds them; the loop counts one episode more than it says.",
            "Their resize rounds both sides down to a multiple of 8 and stretches the result back "
            "over the longer side; here the padding is cut off first.",
            "Their lines of scores per class are shifted by one: the first line is the second "
            "class of the fold (PFENet issue 53). Here a class's name stands with its score.",
            "Their training keeps images that show test classes, labelled background. BAM measured "
            "67.8 with such images and 64.7 without.",
        ),
    ),
    "ours": Preset(
        settings={
            "episodes": 1000, "seeds": (0, 1, 2, 3, 4), "lists": "split", "sampler": "ours",
            "size": None, "aspect": "squash", "void": "ignore", "resolution": "original",
            "query_mask": "exact", "fusion": "joint", "fb_iou": True, "checkpoint": "last",
        },
        coco={},
        source="this book",
        meaning="mIoU and FB-IoU against the annotation itself, with a 95 % interval over episodes",
        traps=(
            "The interval covers the draw of episodes, not other training seeds or other images.",
            "It compares with no published table.",
        ),
    ),
}  # fmt: skip
"""The presets, in the order of the book's table."""


def _preset(name: str, form: str) -> dict[str, Any]:
    preset = PRESETS.get(name, PRESETS["ours"])
    return {**preset.settings, **(preset.coco if form == "coco" else {})}


PROTOCOLS: dict[str, Protocol] = {name: Protocol(name=name) for name in PRESETS}
"""Each preset as a protocol, 1-shot on Pascal-5i. ``Protocol(name=..., form="coco")`` for COCO."""
