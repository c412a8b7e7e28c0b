"""Margins of the training-free model, the study made from them, and real photos where they are."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import FakeDataset, fake_dataset, with_tiny_backbone
from sklearn.metrics import roc_auc_score
from torch import Tensor

from pmms.backbones import build_backbone
from pmms.config import run_config
from pmms.data import load_data
from pmms.datasets.base import keep_images
from pmms.datasets.coco import CocoInstances
from pmms.evaluation import evaluate
from pmms.experiment import new_model
from pmms.feature_computing import feature_bank
from pmms.features import FeatureBank
from pmms.likelihoods import likelihood_gains
from pmms.margins import (
    THRESHOLDS,
    ZERO,
    Pair,
    calibrated_ious,
    class_ious,
    margin_histograms,
    mean_and_interval,
    object_share,
    other_image_pairs,
    same_image_pairs,
    separation,
    threshold_curve,
)
from pmms.metrics import episode_counts
from pmms.models import build_model
from pmms.results import load_record
from pmms.studies import StudySettings, comparison, prototype_study, study_record
from pmms.transfer import transfer_record

STUDIES = sorted((Path(__file__).parents[1] / "results" / "studies").glob("*-prototypes-*.json"))
RUNS = sorted((Path(__file__).parents[1] / "results" / "coco128").glob("*.json"))
COCO128 = Path(__file__).parents[2] / "shared" / "data" / "coco128"
BINS = len(THRESHOLDS) + 1


def _bank(*, views: int = 2, images: int = 18, noise: float = 1.0) -> FeatureBank:
    """Random directions, one for each class, under noise; 40 x 40 pixels, 5 x 5 cells."""
    dataset = fake_dataset(images)
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(256, 16, generator=generator)
    labels = torch.stack([dataset[i].labels[:40, :40] for i in range(images)])
    labels = labels[:, None].expand(-1, views, -1, -1).clone()
    cells = torch.nn.functional.interpolate(labels.float(), (5, 5), mode="nearest-exact").long()
    features = directions[cells].permute(0, 1, 4, 2, 3)
    features = features + noise * torch.randn(features.shape, generator=generator)
    return FeatureBank(dataset, features.half(), labels)


def _histogram(of_object: dict[int, int], of_rest: dict[int, int]) -> np.ndarray:
    """One pair's histogram (1, 2, T + 1) from bin -> pixels."""
    result = np.zeros((1, 2, BINS), dtype=np.int64)
    for side, content in enumerate((of_object, of_rest)):
        for position, pixels in content.items():
            result[0, side, position] = pixels
    return result


# pairs


def test_pairs_of_images_are_ordered_pairs_of_one_class() -> None:
    bank = _bank()
    pairs = other_image_pairs(bank, per_class=1000)

    shows = [set(bank.labels[i, 0].unique().tolist()) for i in range(len(bank.labels))]
    expected = [
        Pair(c, s, q)
        for c in range(1, 7)
        for s in range(18)
        for q in range(18)
        if s != q and c in shows[s] and c in shows[q]
    ]
    assert pairs == sorted(expected)


def test_pairs_of_a_class_are_drawn_from_the_seed() -> None:
    bank = _bank()
    few = other_image_pairs(bank, per_class=4)

    assert [sum(p.class_id == c for p in few) for c in range(1, 7)] == [4] * 6
    assert len(set(few)) == 24
    assert few == other_image_pairs(bank, per_class=4)
    assert few != other_image_pairs(bank, per_class=4, seed=1)
    assert set(few) < set(other_image_pairs(bank, per_class=1000))


def test_images_without_a_common_class_have_no_pair() -> None:
    dataset = FakeDataset([{1: 10}, {2: 10}])
    bank = FeatureBank(
        dataset,
        torch.zeros(2, 1, 4, 5, 5, dtype=torch.float16),
        torch.stack([dataset[i].labels[None, :40, :40] for i in range(2)]),
    )
    with pytest.raises(ValueError, match="no class has two images"):
        other_image_pairs(bank, per_class=5)


def test_an_image_is_paired_with_itself_or_a_view_that_shows_the_object() -> None:
    bank = _bank()
    bank.labels[3, 1] = 0  # the random view of image 3 shows nothing
    itself = same_image_pairs(bank, least_share=0.001, at_most=1000)
    of_view = same_image_pairs(bank, least_share=0.001, at_most=1000, view=1)

    assert all(p.support == p.query and p.view == 0 for p in itself)
    assert 3 in {p.query for p in itself}
    assert {p._replace(view=0) for p in of_view} == {p for p in itself if p.query != 3}
    assert len(same_image_pairs(bank, least_share=0.001, at_most=5)) == 5
    assert same_image_pairs(bank, least_share=0.5, at_most=5) == []
    with pytest.raises(ValueError, match="there is no view 2"):
        same_image_pairs(bank, least_share=0.1, at_most=5, view=2)


def test_share_of_an_object() -> None:
    bank = _bank()
    bank.labels[0, 0] = 0
    bank.labels[0, 0, :4, :10] = 5
    assert object_share(bank, 0, 5) == pytest.approx(40 / 1600)


# margins


@pytest.mark.parametrize("k", [1, 3])
def test_margins_decide_as_the_model_does(k: int) -> None:
    bank = _bank(noise=3.0)
    pairs = other_image_pairs(bank, per_class=6)
    histograms = margin_histograms(bank, pairs, k=(k, k))

    # The model on the same pairs, one at a time, counted by the package's own metric.
    model = build_model("training_free", backbone=build_backbone("efficientnet_lite0", None), k=k)
    model.mixtures[0] = type(model.mixtures[0])(16, k)
    for pair, histogram in zip(pairs, histograms, strict=True):
        support = bank.features[pair.support].float()[None, :1]
        mask = (bank.labels[pair.support, :1] == pair.class_id).float()[None, :, None]
        query = bank.features[pair.query, 0].float()[None]
        labels = bank.labels[pair.query, 0]
        target = torch.where(labels == 255, 255, (labels == pair.class_id).long())[None]
        with torch.inference_mode():
            predicted = model.segment(support, mask, query).masks((40, 40))
        intersection, union, *_ = episode_counts(predicted, target)[0].tolist()
        found = histogram[:, ZERO + 1 :].sum(axis=1)
        assert found[0] == pytest.approx(intersection, abs=1)
        assert histogram[0].sum() + found[1] == pytest.approx(union, abs=1)


def test_histograms_hold_every_pixel_but_void() -> None:
    bank = _bank()
    pairs = other_image_pairs(bank, per_class=3)
    histograms = margin_histograms(bank, pairs, k=(2, 1))

    for pair, histogram in zip(pairs, histograms, strict=True):
        labels = bank.labels[pair.query, 0]
        assert histogram[0].sum() == (labels == pair.class_id).sum()
        assert histogram.sum() == (labels != 255).sum()


def test_a_view_of_the_support_is_used() -> None:
    bank = _bank()
    bank.features[:, 1] = -bank.features[:, 0]
    (pair,) = same_image_pairs(bank, least_share=0.001, at_most=1)
    of_view = margin_histograms(bank, [pair._replace(view=1)], k=(1, 1))
    itself = margin_histograms(bank, [pair], k=(1, 1))

    assert separation(itself)[0] > 0.8
    assert separation(of_view)[0] < 0.2


# what is read from histograms


def test_iou_at_a_threshold_by_hand() -> None:
    # 6 of 10 object pixels above the threshold, 2 of 90 others: IoU = 6 / 12.
    pairs = [Pair(4, 0, 1)]
    histogram = _histogram({20: 4, 60: 6}, {20: 88, 60: 2})

    assert class_ious(pairs, histogram, 40) == {4: pytest.approx(50.0)}
    assert class_ious(pairs, histogram, 59) == {4: pytest.approx(50.0)}
    assert class_ious(pairs, histogram, 60) == {4: 0.0}
    assert class_ious(pairs, histogram, 19) == {4: pytest.approx(10.0)}
    curve = threshold_curve(pairs, histogram)
    assert curve.shape == (81,)
    assert curve[40] == pytest.approx(50.0)


def test_areas_of_a_class_are_added_before_they_are_divided() -> None:
    pairs = [Pair(1, 0, 1), Pair(1, 1, 0)]
    both = np.concatenate([_histogram({60: 8}, {60: 2}), _histogram({60: 10}, {60: 990})])
    assert class_ious(pairs, both, 40) == {1: pytest.approx(100 * 18 / 1010)}


def test_no_class_chooses_its_own_threshold() -> None:
    # The best threshold of classes 1 and 3 is above 50, that of 2 and 4 below 20.
    high = _histogram({60: 10}, {50: 90})
    low = _histogram({20: 10}, {10: 90})
    pairs = [Pair(c, 0, 1) for c in (1, 2, 3, 4)]
    histograms = np.concatenate([high, low, high, low])

    calibrated = calibrated_ious(pairs, histograms)
    # Class 1 at the threshold of class 2: everything is foreground. Class 2 at that of class 1:
    # nothing is.
    assert calibrated == {
        1: pytest.approx(10.0), 2: 0.0, 3: pytest.approx(10.0), 4: 0.0,
    }  # fmt: skip
    own = [class_ious(pairs, histograms, t) for t in (50, 10)]
    assert own[0][1] == own[1][2] == pytest.approx(100.0)
    with pytest.raises(ValueError, match="two classes"):
        calibrated_ious(pairs[:1], histograms[:1])


def test_separation_is_the_area_under_the_roc_curve() -> None:
    generator = np.random.default_rng(0)
    histograms = generator.integers(0, 5, size=(3, 2, BINS))
    for value, (of_object, of_rest) in zip(separation(histograms), histograms, strict=True):
        margins = np.concatenate([np.repeat(np.arange(BINS), of_object),
                                  np.repeat(np.arange(BINS), of_rest)])  # fmt: skip
        truth = np.repeat([1, 0], [of_object.sum(), of_rest.sum()])
        assert value == pytest.approx(roc_auc_score(truth, margins))
    assert np.isnan(separation(_histogram({3: 1}, {}))).all()


def test_interval_covers_the_mean_of_normal_values() -> None:
    values = np.random.default_rng(1).normal(2.0, 1.0, size=400)
    result = mean_and_interval(values)

    assert result["mean"] == pytest.approx(values.mean())
    assert result["n"] == 400
    # 1.96 standard errors to either side.
    assert result["high"] - result["mean"] == pytest.approx(1.96 / 20, rel=0.15)
    assert result["mean"] - result["low"] == pytest.approx(1.96 / 20, rel=0.15)


def test_a_shifted_threshold_is_no_better_prototype() -> None:
    # The same margins, shifted by five bins: mIoU at zero differs, calibrated mIoU does not.
    pairs = [Pair(c, 0, 1) for c in (1, 2)]
    right = np.concatenate([_histogram({45: 10}, {35: 90})] * 2)
    shifted = np.roll(right, 10, axis=2)

    result = comparison(pairs, right, shifted)
    assert result["at_zero"]["gain"]["mean"] == pytest.approx(90.0)
    assert result["calibrated"]["gain"]["mean"] == pytest.approx(0.0)
    assert result["separation"]["gain"]["mean"] == pytest.approx(0.0)
    assert result["best_threshold"] == pytest.approx(-0.05)


# the study


def _two_part_bank(other: Tensor) -> FeatureBank:
    """Support: an object of two parts in equal shares; query: one with the cells ``other``."""
    generator = torch.Generator().manual_seed(0)
    parts = torch.eye(8)[:2].repeat(8, 1)
    features = torch.zeros(2, 1, 8, 8, 8)
    features[:, :, 7] = 1.0
    features[0, 0, :, :2] = parts.T.reshape(8, 2, 8)
    features[1, 0, :, :2] = other.T.reshape(8, 2, 8)
    features += 0.02 * torch.randn(features.shape, generator=generator)
    labels = torch.zeros(2, 1, 64, 64, dtype=torch.uint8)
    labels[:, :, :16] = 1
    return FeatureBank(FakeDataset([{1: 16}, {1: 16}]), features.half(), labels)


def test_parts_that_the_query_has_too_raise_its_likelihood() -> None:
    shared = torch.eye(8)[:2].repeat(8, 1)
    gains = likelihood_gains(_two_part_bank(shared), [Pair(1, 0, 1)], ks=(1, 2))
    of_object = gains["object"]["gain"]["2"]

    # One prototype between two orthogonal parts has the cosine 0.707 to both; two have 1 to one
    # and 0 to the other, each with half the weight.
    expected = np.log((np.exp(20) + 1) / 2) - 20 / np.sqrt(2)
    for place in ("fitted", "same image", "other image"):
        assert of_object[place]["mean"] == pytest.approx(expected, abs=0.2)


def test_parts_that_the_query_lacks_lower_its_likelihood() -> None:
    between = torch.nn.functional.normalize(torch.eye(8)[:2].sum(0), dim=0).repeat(16, 1)
    gains = likelihood_gains(_two_part_bank(between), [Pair(1, 0, 1)], ks=(1, 2))
    of_object = gains["object"]["gain"]["2"]

    assert of_object["same image"]["mean"] > 4
    assert of_object["other image"]["mean"] == pytest.approx(20 / np.sqrt(2) - 20, abs=0.2)


def test_a_study_becomes_a_record(tmp_path: Path) -> None:
    bank = _bank(images=24)
    settings = StudySettings(
        per_class=4, least_share=0.005, ks=(1, 2), kappas=(10.0,), same_images=12
    )
    scores = prototype_study(bank, settings)
    record = study_record(bank, settings, images="fake")
    again = load_record(record.save(tmp_path))

    assert again.scores == record.scores
    assert record.parameters["per_class"] == 4
    assert record.scores["pairs"]["all"] == {"pairs": 24, "classes": 6}
    assert json.loads(json.dumps(scores, allow_nan=False))["pairs"] == record.scores["pairs"]
    assert set(scores["grid"]["all"]) == {"1 x 1", "2 x 2", "1 x 2", "2 x 1"}
    assert scores["grid"]["all"]["1 x 1"]["at_zero"]["gain"]["mean"] == 0
    best = max(scores["curves"]["all"]["2"])
    assert best >= scores["grid"]["all"]["2 x 2"]["calibrated"]["value"]
    itself = scores["closeness"]["the query itself"]["2"]["calibrated"]["value"]
    assert itself >= scores["closeness"]["another image"]["2"]["calibrated"]["value"]


@pytest.mark.parametrize("wrong", [{"ks": (3,)}, {"ks": (0, 1)}, {"per_class": 0}])
def test_impossible_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="must be"):
        StudySettings(**wrong)


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_committed_studies_are_complete_and_of_a_clean_commit(path: Path) -> None:
    committed = load_record(path)
    assert committed.status == "complete"
    assert committed.name == path.stem
    assert re.fullmatch(r"[0-9a-f]{12}", committed.environment["commit"])
    assert committed.scores["pairs"]["all"]["classes"] >= 20


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_committed_runs_on_photos_say_how_they_were_tested(path: Path) -> None:
    committed = load_record(path)
    assert committed.status == "complete"
    assert committed.name == path.stem
    assert re.fullmatch(r"[0-9a-f]{12}", committed.environment["commit"])
    # Fewer episodes than the protocol asks for, and its name says so.
    assert re.fullmatch(r"ours \(episodes=\d+, seeds=0\+1\+2\)", committed.protocol["name"])
    assert committed.parameters["dataset"] == "coco"
    assert "root" not in committed.parameters
    assert committed.scores["model"]["miou"] > committed.scores["wrong_support"]["miou"]


# from one set of images to another


def test_a_model_of_one_set_is_tested_on_another(tmp_path: Path) -> None:
    if not COCO128.is_dir():
        pytest.skip("needs the photos of coco128 in ../shared/data")
    small = {"backbone": "tiny", "width": 8, "model": "pmms", "k": 2}
    with with_tiny_backbone():
        trained = run_config("mini", **small, fold=1)
        photos = {"dataset": "coco", "root": str(COCO128), "train_split": "train", "fold": 1,
                  "test_split": "train", "test_size": 64, "min_images": 4,
                  "max_images": 40, "episodes": 16, "episode_seeds": (0,)}  # fmt: skip
        tested = run_config("mini", **small, **photos)
        model = new_model(trained)
        record = transfer_record(model, trained, tested, cache=tmp_path)

        assert record.parameters["trained_on"]["dataset"] == "parts"
        assert record.parameters["dataset"] == "coco"
        assert "root" not in json.dumps(record.parameters)
        assert record.name.startswith(tested.name + "-from-parts-")
        assert "left_out" in record.protocol
        # The same as testing the model directly.
        data = load_data(tested.data, cache=tmp_path)
        direct = evaluate(
            model, data.test, data.test_classes, protocol=tested.protocol, size=64
        ).scores
        assert record.scores["model"]["miou"] == pytest.approx(direct.miou, abs=0.2)
        assert record.scores["model"]["miou"] != record.scores["wrong_support"]["miou"]
        with pytest.raises(ValueError, match="same model settings"):
            transfer_record(model, run_config("mini", **(small | {"k": 3})), tested)


# photos


def test_a_study_of_real_photos() -> None:
    if not COCO128.is_dir():
        pytest.skip("needs the photos of coco128 in ../shared/data")
    photos = CocoInstances(COCO128, "train2017")
    persons = [i for i in range(len(photos)) if 1 in photos.classes_in(i)][:8]
    bank = feature_bank(
        keep_images(photos, persons), build_backbone("efficientnet_lite0"), size=160
    )
    pairs = same_image_pairs(bank, least_share=1 / 64, at_most=20)
    by_k = {k: margin_histograms(bank, pairs, k=(k, k)) for k in (1, 5)}
    classes = {pair.class_id for pair in pairs}

    assert len(pairs) >= 8
    assert len(classes) >= 2
    # Where the support is the query, its parts are there, and prototypes of them find more of it.
    assert calibrated(pairs, by_k[5]) > calibrated(pairs, by_k[1]) + 2


def calibrated(pairs: list[Pair], histograms: np.ndarray) -> float:
    return float(np.mean(list(calibrated_ious(pairs, histograms).values())))
