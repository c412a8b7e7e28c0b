"""Properties of episodes, transforms, metrics and records that hold for all data."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import FakeDataset
from hypothesis import given
from hypothesis import strategies as st
from searching import examples

from pmms.datasets.base import images_of_class, keep_images, without_classes
from pmms.episodes import EpisodeSampler, check_no_leak, class_mask
from pmms.folds import VOID, split_classes
from pmms.metrics import episode_counts, scores
from pmms.results import RunRecord, load_record, record_name
from pmms.transforms import EvalTransform, TrainTransform

# episodes

CONTENTS = st.lists(
    st.dictionaries(st.integers(1, 6), st.integers(1, 9), max_size=3), min_size=1, max_size=20
)


@examples(60)
@given(contents=CONTENTS, shots=st.integers(1, 3), seed=st.integers(0, 2**63 - 1))
def test_an_episode_is_of_its_class_and_its_query_is_no_support(
    contents: list[dict[int, int]], shots: int, seed: int
) -> None:
    dataset = FakeDataset(contents)
    images = images_of_class(dataset)
    able = [c for c, of in images.items() if len(of) > shots]
    unable = set(images) - set(able)
    for class_id in unable:
        with pytest.raises(ValueError, match="use more images"):
            EpisodeSampler(dataset, [class_id], shots=shots)
    if not able:
        return
    for class_id, query, support in EpisodeSampler(
        dataset, able, shots=shots, length=30, seed=seed
    ):
        assert class_id in able
        assert len({query, *support}) == shots + 1
        assert {query, *support} <= set(images[class_id])


@examples(60)
@given(contents=CONTENTS, held_out=st.sets(st.integers(1, 6), min_size=1), seed=st.integers(0, 99))
def test_no_episode_of_training_shows_a_held_out_class(
    contents: list[dict[int, int]], held_out: set[int], seed: int
) -> None:
    """Not even an object that is too small to be a target."""
    dataset = FakeDataset(contents)
    if any(held_out & dataset.classes_shown(i) for i in range(len(dataset))):
        with pytest.raises(ValueError, match="show a held-out class"):
            check_no_leak(dataset, held_out)
    kept = without_classes(dataset, held_out)
    check_no_leak(kept, held_out)
    able = [c for c, of in images_of_class(kept).items() if len(of) > 1]
    assert not set(able) & held_out
    if able:
        for episode in EpisodeSampler(kept, able, length=20, seed=seed):
            for image in (episode.query, *episode.support):
                assert not set(kept[image].labels.unique().tolist()) & held_out


@examples(60)
@given(
    dataset=st.sampled_from(["pascal", "parts", "coco"]),
    fold=st.integers(0, 3),
    validation=st.booleans(),
    layout=st.sampled_from([None, "strided", "contiguous"]),
)
def test_folds_are_disjoint_and_leave_no_class_out(
    dataset: str, fold: int, validation: bool, layout: str | None
) -> None:
    split = split_classes(dataset, fold, validation=validation, layout=layout)
    every = [*split.train, *split.validation, *split.novel]
    assert sorted(every) == list(range(1, len(every) + 1))
    novel = [split_classes(dataset, f, layout=layout).novel for f in range(4)]
    assert sorted(c for of in novel for c in of) == sorted(every)


@examples(40)
@given(contents=CONTENTS, seed=st.randoms(use_true_random=False))
def test_a_view_holds_what_its_data_set_holds(contents: list[dict[int, int]], seed: Any) -> None:
    dataset = FakeDataset(contents)
    order = list(range(len(dataset)))
    seed.shuffle(order)
    view = keep_images(keep_images(dataset, order), range(0, len(order), 2))
    for place, image in enumerate(order[::2]):
        assert view.image_id(place) == dataset.image_id(image)
        assert view.classes_in(place) == dataset.classes_in(image)
        assert torch.equal(view.label_map(place), dataset[image].labels)


# transforms

MAPS: dict[str, Any] = {
    "seed": st.integers(0, 10_000),
    "height": st.integers(1, 70),
    "width": st.integers(1, 70),
    "size": st.integers(2, 48),
}


def pair(seed: int, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A random picture and its mask with the labels 0, 1 and 255."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(256, (3, height, width), generator=generator, dtype=torch.uint8)
    drawn = torch.randint(3, (height, width), generator=generator)
    return image, torch.tensor([0, 1, VOID], dtype=torch.uint8)[drawn]


@examples(80)
@given(**MAPS, keep_aspect=st.booleans())
def test_an_eval_transform_invents_no_label_and_loses_no_object(
    seed: int, height: int, width: int, size: int, keep_aspect: bool
) -> None:
    image, mask = pair(seed, height, width)
    transform = EvalTransform(size, keep_aspect=keep_aspect)
    small, labels = transform(image, mask)
    rows, columns = transform.content(height, width)
    assert small.shape == (3, size, size)
    assert 0 <= small.min() <= small.max() <= 1
    assert (labels[rows:] == VOID).all()
    assert (labels[:, columns:] == VOID).all()
    assert set(labels[:rows, :columns].unique().tolist()) <= set(mask.unique().tolist())
    assert bool((labels == 1).any()) == bool((mask == 1).any())


@examples(80)
@given(**MAPS, keep_aspect=st.booleans())
def test_restoring_brings_back_the_size_and_keeps_what_is_even(
    seed: int, height: int, width: int, size: int, keep_aspect: bool
) -> None:
    transform = EvalTransform(size, keep_aspect=keep_aspect)
    logits = torch.tensor([seed / 100, -1.0]).view(1, 2, 1, 1).expand(1, 2, size, size)
    back = transform.restore(logits, height=height, width=width)
    assert back.shape == (1, 2, height, width)
    torch.testing.assert_close(back, logits[..., :1, :1].expand(1, 2, height, width))


@examples(80)
@given(**MAPS)
def test_a_train_transform_invents_no_label_and_loses_no_object(
    seed: int, height: int, width: int, size: int
) -> None:
    image, mask = pair(seed, height, width)
    transform = TrainTransform(size)
    small, labels = transform(image, mask, seed=seed)
    again = transform(image, mask, seed=seed)
    assert small.shape == (3, size, size)
    assert set(labels.unique().tolist()) <= set(mask.unique().tolist()) | {VOID}
    assert bool((labels == 1).any()) == bool((mask == 1).any())
    assert torch.equal(small, again[0])
    assert torch.equal(labels, again[1])


@examples(40)
@given(seed=MAPS["seed"], class_id=st.integers(1, 20))
def test_a_class_mask_is_the_class_and_void(seed: int, class_id: int) -> None:
    labels = torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (9, 9), np.uint8))
    mask = class_mask(labels, class_id)
    expected = [1 if v == class_id else VOID if v == VOID else 0 for v in labels.flatten().tolist()]
    assert mask.flatten().tolist() == expected


# metrics, against a confusion matrix of plain Python


def oracle(predicted: Sequence[int], true: Sequence[int], void: int | None) -> list[int]:
    """Intersection and union of foreground, then of background, pixel by pixel."""
    counts = [0, 0, 0, 0]
    for p, t in zip(predicted, true, strict=True):
        if t == VOID and void == VOID:
            continue
        truth = 1 if t == 1 else 0
        for place, label in ((0, 1), (2, 0)):
            counts[place] += p == label and truth == label
            counts[place + 1] += p == label or truth == label
    return counts


@examples(80)
@given(
    pixels=st.lists(
        st.tuples(st.integers(0, 1), st.sampled_from([0, 1, VOID])), min_size=1, max_size=40
    ),
    void=st.sampled_from([None, VOID]),
)
def test_counts_against_a_confusion_matrix(pixels: list[tuple[int, int]], void: int | None) -> None:
    predicted, true = zip(*pixels, strict=True)
    got = episode_counts(torch.tensor([[predicted]]), torch.tensor([[true]]), void=void)
    assert got[0].tolist() == oracle(predicted, true, void)


@examples(60)
@given(
    rows=st.lists(
        st.tuples(st.integers(1, 4), st.integers(0, 50), st.integers(1, 50), st.integers(0, 50),
                  st.integers(1, 50)),
        min_size=1, max_size=25,
    )
)  # fmt: skip
def test_scores_against_sums_of_plain_python(rows: list[tuple[int, ...]]) -> None:
    table = [(c, a, a + b, x, x + y) for c, a, b, x, y in rows]
    got = scores(
        torch.tensor([row[0] for row in table]), torch.tensor([row[1:] for row in table]),
        resamples=3,
    )  # fmt: skip
    sums = {c: [sum(r[i] for r in table if r[0] == c) for i in range(1, 5)] for c, *_ in table}
    by_class = {c: 100 * s[0] / s[1] for c, s in sums.items()}
    total = [sum(s[i] for s in sums.values()) for i in range(4)]
    assert got.class_iou == pytest.approx(by_class)
    assert got.miou == pytest.approx(sum(by_class.values()) / len(by_class))
    assert got.fb_iou == pytest.approx(50 * (total[0] / total[1] + total[2] / total[3]))
    assert 0 <= got.interval[0] <= got.interval[1] <= 100


# records

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8)
    | st.floats(-1e9, 1e9, allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)  # fmt: skip
TREES = st.dictionaries(st.text(max_size=6), VALUES, max_size=4)


@examples(60)
@given(parameters=TREES, scores_of=TREES, loss=st.lists(st.tuples(st.integers(0), st.floats(0, 9))))
def test_a_record_comes_back_as_it_went(
    parameters: dict[str, Any], scores_of: dict[str, Any], loss: list[tuple[int, float]]
) -> None:
    record = RunRecord(
        name="made", parameters=parameters, protocol={}, scores=scores_of, loss=tuple(loss)
    )
    with tempfile.TemporaryDirectory() as folder:
        assert load_record(record.save(folder)) == record
        assert [path.name for path in Path(folder).iterdir()] == ["made.json"]


@examples(60)
@given(parameters=TREES, other=TREES)
def test_other_parameters_have_another_name(
    parameters: dict[str, Any], other: dict[str, Any]
) -> None:
    kept = [
        RunRecord(name="made", parameters=given, protocol={}, scores={}).parameters
        for given in (parameters, other)
    ]
    names = [record_name(given, []) for given in (parameters, other)]
    assert (names[0] == names[1]) == (kept[0] == kept[1])
    RunRecord(name=names[0], parameters=parameters, protocol={}, scores={})
