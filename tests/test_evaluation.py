"""Evaluation: cases counted by hand, controls, both sources, protocol."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from fakes import FakeDataset, TinyBackbone, fake_dataset, tiny_model
from torch import Tensor, nn

from pmms.datasets.base import Sample
from pmms.episodes import EpisodeSampler
from pmms.evaluation import Protocol, Result, evaluate
from pmms.feature_computing import feature_bank
from pmms.features import FeatureBank
from pmms.folds import VOID
from pmms.models import Prediction, Prototypes

CLASSES = (1, 2, 3)
SHORT = Protocol(episodes=45, seeds=(0, 1))
"""45 episodes make batches of 20, 20 and 5."""


class Says(nn.Module):
    """Stands in for a model: logits from a function of the query, calls written down."""

    def __init__(self, foreground: Any) -> None:
        super().__init__()
        self.foreground = foreground
        self.supports: list[tuple[Tensor, Tensor]] = []

    def forward(self, support: Tensor, support_mask: Tensor, query: Tensor) -> Prediction:
        assert not self.training
        assert torch.is_inference_mode_enabled()
        self.supports += zip(support, support_mask, strict=True)
        inside = self.foreground(query).float() - 0.5
        logits = torch.stack([-inside, inside], dim=1)
        return Prediction(logits, (logits,), None, Prototypes(support, None))

    segment = compare = forward

    def embed(self, images: Tensor) -> Tensor:
        return images


def left_half(query: Tensor) -> Tensor:
    inside = torch.zeros_like(query[:, 0])
    inside[..., : inside.shape[-1] // 2] = 1
    return inside


class TwoPictures(FakeDataset):
    """Four columns and two rows. Class 1 fills column 0 (image 0) or columns 0 to 2 (image 1)."""

    def __init__(self) -> None:
        super().__init__([{1: 2}, {1: 2}], size=(2, 4), classes=2)

    def __getitem__(self, index: int) -> Sample:
        position = self._position(index)
        labels = torch.zeros(2, 4, dtype=torch.uint8)
        labels[:, : (1, 3)[position]] = 1
        labels[1, 3] = VOID
        labels[0, 3] = 2
        return Sample(torch.zeros(3, 2, 4, dtype=torch.uint8), labels)


def test_ours_ignores_void() -> None:
    with pytest.raises(ValueError, match=r"^void must be 'ignore' under the protocol 'ours'"):
        Protocol(void="background")


@pytest.mark.parametrize("void", ["ignore", "background"])
def test_a_case_counted_by_hand(void: str) -> None:
    protocol = Protocol(name="by hand", episodes=1, seeds=tuple(range(6)), void=void)
    result = evaluate(Says(left_half), TwoPictures(), [1], size=4, protocol=protocol)
    # Prediction: columns 0 and 1 of both rows, 4 pixels of 8. Pixel (1, 3) is void.
    # Image 0: truth 2 pixels, both met, 4 in the union; background 3 of 5 (void: 4 of 6).
    # Image 1: truth 6 pixels, 4 met, 6 in the union; background 1 of 3 (void: 2 of 4).
    extra = void == "background"
    by_image = {0: [2, 4, 3 + extra, 5 + extra], 1: [4, 6, 1 + extra, 3 + extra]}
    queries = [EpisodeSampler(TwoPictures(), [1], length=1, seed=s)[0].query for s in range(6)]
    assert set(queries) == {0, 1}
    assert result.counts.tolist() == [by_image[query] for query in queries]
    assert result.class_ids.tolist() == [1] * 6
    met = sum(by_image[query][0] for query in queries)
    assert result.scores.miou == pytest.approx(100 * met / sum(by_image[q][1] for q in queries))
    assert result.by_seed == pytest.approx([100 * by_image[q][0] / by_image[q][1] for q in queries])


def test_everything_is_the_share_of_the_object() -> None:
    result = evaluate(
        Says(left_half), TwoPictures(), [1], size=4, control="everything",
        protocol=Protocol(episodes=8, seeds=(0,)),
    )  # fmt: skip
    # 7 pixels are no void; image 0 has 2 of the class, image 1 has 6; no background is predicted.
    assert {tuple(row) for row in result.counts.tolist()} == {(2, 7, 0, 5), (6, 7, 0, 1)}


def test_all_objects_is_the_true_mask_of_every_class() -> None:
    result = evaluate(
        Says(left_half), TwoPictures(), [1], size=4, control="all_objects",
        protocol=Protocol(episodes=8, seeds=(0,)),
    )  # fmt: skip
    # Pixel (0, 3) is of class 2: an object, but not the one that is asked for.
    assert {tuple(row) for row in result.counts.tolist()} == {(2, 3, 4, 5), (6, 7, 0, 1)}


@pytest.fixture(scope="module")
def dataset() -> FakeDataset:
    return fake_dataset(18, classes=3)


@pytest.fixture(scope="module")
def bank(dataset: FakeDataset) -> FeatureBank:
    return feature_bank(dataset, TinyBackbone(), size=32)


def support_classes(model: Says, dataset: FakeDataset, source: Any) -> list[int]:
    """The class that each support mask the model was shown is of, by comparing with all masks."""
    masks = {}
    plain = source if isinstance(source, FeatureBank) else feature_bank(
        dataset, TinyBackbone(), size=32
    )  # fmt: skip
    for index in range(len(dataset)):
        for class_id in dataset.classes_in(index):
            feature = plain.features[index, 0].float()
            masks[class_id, index] = (feature, (plain.labels[index, 0] == class_id).float())
    found = []
    for support, mask in model.supports:
        feature = support[0] if isinstance(source, FeatureBank) else None
        fits = {
            class_id
            for (class_id, _), (known, known_mask) in masks.items()
            if torch.equal(known_mask, mask[0, 0])
            and (feature is None or torch.equal(known, feature))
        }
        assert len(fits) == 1
        found.append(fits.pop())
    return found


@pytest.mark.parametrize("on_images", [False, True])
def test_wrong_support_shows_another_class(
    dataset: FakeDataset, bank: FeatureBank, on_images: bool
) -> None:
    source: Any = dataset if on_images else bank
    size = 32 if on_images else None
    protocol = Protocol(episodes=21, seeds=(0,))  # the last batch has a single episode
    right, wrong = Says(left_half), Says(left_half)
    result = evaluate(right, source, CLASSES, size=size, protocol=protocol)
    evaluate(wrong, source, CLASSES, size=size, protocol=protocol, control="wrong_support")
    asked = result.class_ids.tolist()
    assert support_classes(right, dataset, source) == asked
    shown = support_classes(wrong, dataset, source)
    assert all(a != b for a, b in zip(asked, shown, strict=True))
    assert set(shown) == set(CLASSES)


def test_wrong_support_needs_a_second_class(bank: FeatureBank) -> None:
    with pytest.raises(ValueError, match="at least two classes"):
        evaluate(Says(left_half), bank, [2], protocol=SHORT, control="wrong_support")


def test_features_and_images_score_alike(dataset: FakeDataset, bank: FeatureBank) -> None:
    """But for the rounding of kept features: a pixel whose two logits all but tie may flip."""
    square = FakeDataset(dataset.contents, size=(32, 32), classes=3)
    kept = feature_bank(square, TinyBackbone(), size=32)
    model = tiny_model("pmms")
    protocol = replace(SHORT, episodes=12)
    from_bank = evaluate(model, kept, CLASSES, protocol=protocol)
    from_images = evaluate(model, square, CLASSES, size=32, protocol=protocol)
    assert torch.equal(from_bank.class_ids, from_images.class_ids)
    assert (from_bank.counts - from_images.counts).abs().max() <= 8
    assert from_bank.scores.miou == pytest.approx(from_images.scores.miou, abs=0.5)


def test_images_are_scored_at_their_own_size() -> None:
    class Sizes(FakeDataset):
        def __getitem__(self, index: int) -> Sample:
            image, labels = super().__getitem__(index)
            return Sample(image[:, : 20 + index], labels[: 20 + index])

    images = Sizes([{1: 10}] * 6, size=(40, 50), classes=1)
    protocol = Protocol(name="void as background", episodes=6, seeds=(3,), void="background")
    result = evaluate(Says(left_half), images, [1], size=16, protocol=protocol)
    queries = [e.query for e in EpisodeSampler(images, [1], length=6, seed=3)]
    assert len(set(queries)) > 2
    # Every pixel of the query is in the foreground's union or is background on both sides.
    pixels = (result.counts[:, 1] + result.counts[:, 2]).tolist()
    assert pixels == [(20 + query) * 50 for query in queries]
    # 10 x 10 pixels from column 3 on are the object; the prediction is columns 0 to 24.
    assert result.counts[:, 0].tolist() == [100] * 6
    assert result.counts[:, 1].tolist() == [(20 + query) * 25 for query in queries]


def test_the_spread_over_seeds_is_of_each_seed(bank: FeatureBank) -> None:
    model = tiny_model("baseline")
    result = evaluate(model, bank, CLASSES, protocol=SHORT)
    alone = [
        evaluate(model, bank, CLASSES, protocol=replace(SHORT, seeds=(seed,))) for seed in (0, 1)
    ]
    assert result.by_seed == tuple(one.scores.miou for one in alone)
    assert torch.equal(result.counts, torch.cat([one.counts for one in alone]))
    assert result.scores.episodes == 90
    summary = result.summary()
    assert summary["by_seed"] == list(result.by_seed)
    assert set(summary) == {
        "class_iou", "miou", "fb_iou", "episodes", "interval", "by_seed", "class_names",
    }  # fmt: skip
    assert summary["class_names"] == {1: "thing1", 2: "thing2", 3: "thing3"}


def test_the_same_call_gives_the_same_result(dataset: FakeDataset, bank: FeatureBank) -> None:
    model = tiny_model("rpmms", dropout=0.5).train()
    protocol = Protocol(shots=2, episodes=24, seeds=(0,))

    def results(**options: Any) -> tuple[Result, Result]:
        short = replace(protocol, episodes=9)
        return (
            evaluate(model, bank, CLASSES, protocol=protocol),
            evaluate(model, dataset, CLASSES, size=32, protocol=short, **options),
        )

    before = torch.random.get_rng_state()
    first, again = results(), results(workers=2)
    assert torch.equal(torch.random.get_rng_state(), before)
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one.counts, other.counts)
        assert one.scores == other.scores


def test_bfloat16_scores_nearly_the_same(bank: FeatureBank) -> None:
    model = tiny_model("pmms")
    full = evaluate(model, bank, CLASSES, protocol=SHORT)
    half = evaluate(model, bank, CLASSES, protocol=SHORT, precision="bfloat16")
    assert not torch.equal(full.counts, half.counts)
    assert half.scores.miou == pytest.approx(full.scores.miou, abs=3)


def test_nothing_of_the_model_changes(bank: FeatureBank) -> None:
    model = tiny_model("pmms", norm="batch").train()
    before = {n: v.clone() for n, v in model.state_dict().items()}
    evaluate(model, bank, CLASSES, protocol=replace(SHORT, episodes=15))
    assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items())


def test_a_class_that_is_not_drawn_is_refused(bank: FeatureBank) -> None:
    with pytest.raises(ValueError, match="no episode of class"):
        evaluate(Says(left_half), bank, CLASSES, protocol=Protocol(episodes=2, seeds=(0,)))


def test_too_few_images_are_refused(bank: FeatureBank) -> None:
    with pytest.raises(ValueError, match="shot"):
        evaluate(Says(left_half), bank, CLASSES, protocol=Protocol(shots=40))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"control": "everythin"}, "control must be"),
        ({"precision": "half"}, "precision must be"),
    ],
)
def test_wrong_options_are_refused(bank: FeatureBank, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(Says(left_half), bank, CLASSES, **options)


def test_images_need_a_size(dataset: FakeDataset) -> None:
    with pytest.raises(ValueError, match="size"):
        evaluate(Says(left_half), dataset, CLASSES)


@pytest.mark.parametrize(
    "name, value",
    [
        ("shots", 0), ("shots", 1.0), ("shots", True), ("episodes", 0), ("episodes", "10"),
        ("seeds", ()), ("seeds", (1, 1)), ("seeds", (0.5,)), ("seeds", "0"), ("void", "skip"),
        ("resolution", "network"), ("checkpoint", "best"),
    ],
)  # fmt: skip
def test_protocol_refuses(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be"):
        Protocol(**{name: value})


def test_protocol_takes_one_seed_or_a_list() -> None:
    assert Protocol(seeds=3) == Protocol(seeds=[3]) == Protocol(seeds=(3,))
