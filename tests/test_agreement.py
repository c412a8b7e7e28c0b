"""Agreement of prototypes with true parts, on objects whose answer is known."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

import pmms
from pmms import agreement as module
from pmms.agreement import (
    AgreementSettings,
    PartObject,
    agreement,
    agreement_record,
    assign_by_em,
    assign_by_reference,
    cell_parts,
    part_objects,
    purity,
)
from pmms.features import FeatureBank
from pmms.results import load_record

STUDIES = Path(__file__).parents[1] / "results" / "studies"
COMMITTED = sorted(STUDIES.glob("parts-agreement-*.json"))


def made_object(class_id: int = 1, *, spread: float = 0.05, seed: int = 0) -> PartObject:
    """Three parts of 20 samples each, in three directions of feature space."""
    generator = torch.Generator().manual_seed(seed)
    parts = np.repeat([1, 2, 4], 20)
    samples = 5 * torch.eye(8)[parts] + spread * torch.randn(60, 8, generator=generator)
    positions = torch.stack([torch.arange(60.0), torch.zeros(60)], dim=1)
    return PartObject(class_id, samples, positions, parts)


@pytest.fixture(scope="module")
def painted() -> tuple[pmms.PartsVOC, FeatureBank]:
    """Images whose features are the one-hot part maps themselves, so that EM can find them."""
    data = pmms.PartsVOC("val", length=8)
    labels = torch.stack([data[n].labels for n in range(len(data))])[:, None]
    size = (labels.shape[-2] // 8, labels.shape[-1] // 8)
    grid = torch.zeros(len(data), *size, dtype=torch.int64)
    for n in range(len(data)):  # no cell is of two objects
        for class_id in data.classes_in(n):
            grid[n] += cell_parts(data.parts(n), labels[n, 0] == class_id, size)
    features = torch.nn.functional.one_hot(grid, 16).permute(0, 3, 1, 2)[:, None]
    return data, FeatureBank(data, features.half() + 0.01, labels)


def test_the_part_of_a_cell_is_that_of_most_of_its_pixels() -> None:
    data = pmms.PartsVOC("val", length=4)
    several = 0
    for image in range(len(data)):
        labels, parts = data[image].labels, data.parts(image)
        for class_id in data.classes_in(image):
            found = cell_parts(parts, labels == class_id, (20, 20))
            for row in range(20):
                for column in range(20):
                    cell = (slice(8 * row, 8 * row + 8), slice(8 * column, 8 * column + 8))
                    of_object = parts[cell][labels[cell] == class_id]
                    several += len(of_object.unique()) > 1
                    if len(of_object) <= 32:
                        assert found[row, column] == 0
                    else:
                        counts = torch.bincount(of_object.long())
                        assert counts[found[row, column]] == counts[1:].max()
    assert several > 20


def test_purity_counts_the_commonest_part_of_each_prototype() -> None:
    owner = np.array([0, 0, 0, 1, 1, 2])
    assert purity(owner, np.array([1, 1, 3, 3, 3, 1])) == pytest.approx(5 / 6)
    assert purity(np.zeros(4, dtype=int), np.array([0, 1, 2, 2])) == 0.5


def test_em_finds_parts_that_features_tell_apart() -> None:
    objects = [made_object(3, seed=n) for n in range(4)] + [made_object(7)]
    found = agreement(objects, lambda one: assign_by_em(one, seed=0, init="kmeans++"))
    assert list(found) == list(module.MEASURES)
    assert list(found["nmi"]) == list(found["ami"]) == list(found["purity"]) == [3, 7]
    assert min(*found["nmi"].values(), *found["ami"].values()) > 0.99
    one = agreement(objects, lambda one: assign_by_em(one, seed=0, k=1))
    assert one["nmi"][3] == 0
    assert one["purity"][3] == pytest.approx(1 / 3)


def test_features_that_know_nothing_give_no_agreement() -> None:
    blurred = [made_object(1, spread=1000.0, seed=n) for n in range(10)]
    assert agreement(blurred, lambda one: assign_by_em(one, seed=0))["nmi"][1] < 0.15


def test_chance_raises_nmi_with_k_and_leaves_ami_alone() -> None:
    objects = [made_object(1, seed=n) for n in range(30)]

    def dice(k: int) -> dict[str, dict[int, float]]:
        generator = np.random.default_rng(0)
        return agreement(objects, lambda one: generator.integers(k, size=len(one.parts)))

    few, many = dice(2), dice(12)
    assert many["nmi"][1] > 4 * few["nmi"][1] > 0
    assert abs(few["ami"][1]) < 0.02 > abs(many["ami"][1])


def test_references_see_positions_or_nothing() -> None:
    one = made_object()  # its parts lie in a row, one after the other
    by_position = agreement([one], lambda one: assign_by_reference(one, "position", seed=0))
    assert by_position["nmi"][1] > 0.8
    dice = [assign_by_reference(one, "random", seed=seed) for seed in (0, 0, 1)]
    assert (dice[0] == dice[1]).all()
    assert (dice[0] != dice[2]).any()
    assert set(dice[0]) == {0, 1, 2}


def test_objects_are_those_with_several_known_parts(
    painted: tuple[pmms.PartsVOC, FeatureBank],
) -> None:
    data, bank = painted
    objects = part_objects(data, bank, AgreementSettings(least=6))
    assert len(objects) >= 4
    for one in objects:
        assert len(one.samples) == len(one.positions) == len(one.parts) >= 6
        assert len(np.unique(one.parts)) >= 2
        assert one.parts.min() >= 1
        # The features were made of the part maps.
        assert (one.samples.argmax(dim=1).numpy() == one.parts).all()
    few = part_objects(data, bank, AgreementSettings(least=6, per_class=1))
    assert len(few) == len({one.class_id for one in few}) < len(objects)


def test_record_has_every_setting_with_its_interval(
    painted: tuple[pmms.PartsVOC, FeatureBank], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {name: module.SETTINGS[name] for name in ("K = 1", "K = 3", "raw features")}
    monkeypatch.setattr(module, "SETTINGS", settings)
    record = agreement_record(*painted, AgreementSettings(least=6, starts=2))
    assert record.name.startswith("parts-agreement-")
    found = record.scores["settings"]
    assert list(found) == ["K = 1", "K = 3", "raw features", "random", "position"]
    assert found["K = 3"]["gain"]["mean"] == 0
    assert found["K = 1"]["nmi"]["mean"] == 0
    assert found["K = 3"]["nmi"]["mean"] > found["random"]["nmi"]["mean"]
    for of_name in found.values():
        assert set(of_name) == {*module.MEASURES, "gain"}
        assert of_name["nmi"]["n"] == record.scores["classes"]
        assert of_name["nmi"]["low"] <= of_name["nmi"]["mean"] <= of_name["nmi"]["high"]


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_committed_record_is_of_a_clean_commit_and_of_all_settings(path: Path) -> None:
    committed = load_record(path)
    assert (committed.status, committed.name) == ("complete", path.stem)
    assert re.fullmatch(r"[0-9a-f]{12}", committed.environment["commit"])
    assert list(committed.scores["settings"]) == [*module.SETTINGS, *module.REFERENCES]
    assert committed.scores["classes"] == 20


def test_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        AgreementSettings(starts=0)
