"""Kept features: what they hold, which file they go to, which view an episode gets."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes import FakeDataset, TinyBackbone, fake_dataset
from torch import Tensor

from pmms import feature_computing as module
from pmms.backbones import weights_digest
from pmms.datasets import keep_images
from pmms.episodes import EpisodeIndex, EpisodeSampler, class_mask
from pmms.feature_computing import feature_bank
from pmms.features import VISIBLE, FeatureBank
from pmms.folds import VOID
from pmms.transforms import EvalTransform

EPISODES = [EpisodeIndex(1, 0, (6, 12)), EpisodeIndex(2, 1, (7, 13)), EpisodeIndex(3, 2, (8, 14))]


@pytest.fixture(scope="module")
def dataset() -> FakeDataset:
    return fake_dataset(18)


@pytest.fixture(scope="module")
def backbone() -> TinyBackbone:
    return TinyBackbone()


@pytest.fixture(scope="module")
def bank(dataset: FakeDataset, backbone: TinyBackbone) -> FeatureBank:
    return feature_bank(dataset, backbone, size=32, views=4, seed=5)


def no_backbone(*_: Any) -> Tensor:
    raise AssertionError("the backbone must not run")


def test_plain_features_are_the_backbone_s(
    dataset: FakeDataset, backbone: TinyBackbone, bank: FeatureBank
) -> None:
    assert bank.features.dtype == torch.float16
    assert bank.labels.dtype == torch.uint8
    assert bank.features.shape == (18, 4, 12, 4, 4)
    assert bank.labels.shape == (18, 4, 32, 32)
    for index in (0, 7, 17):
        image, labels = EvalTransform(32)(*dataset[index])
        direct = backbone.eval()(image[None])[0]
        assert torch.allclose(bank.features[index, 0].float(), direct, rtol=2**-10, atol=1e-6)
        assert torch.equal(bank.labels[index, 0], labels)


def test_views_differ_and_hold_labels_of_the_image(dataset: FakeDataset, bank: FeatureBank) -> None:
    all_differ = 0
    for index in range(len(dataset)):
        views = bank.features[index].flatten(1).unique(dim=0)
        all_differ += len(views) == 4
        shown = set(dataset[index].labels.unique().tolist())
        assert set(bank.labels[index].unique().tolist()) <= shown
    assert all_differ > 12  # a view for which no crop is found is the image, perhaps flipped


@pytest.mark.parametrize("workers", [0, 2])
def test_views_follow_from_the_seed(
    dataset: FakeDataset, backbone: TinyBackbone, bank: FeatureBank, workers: int
) -> None:
    before = torch.random.get_rng_state()
    again = feature_bank(dataset, backbone, size=32, views=4, seed=5, workers=workers)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(again.features, bank.features)
    assert torch.equal(again.labels, bank.labels)


def test_another_seed_gives_other_views_of_the_same_images(
    dataset: FakeDataset, backbone: TinyBackbone, bank: FeatureBank
) -> None:
    other = feature_bank(dataset, backbone, size=32, views=2, seed=6)
    assert torch.equal(other.features[:, 0], bank.features[:, 0])
    assert not torch.equal(other.labels[:, 1], bank.labels[:, 1])


def test_the_number_of_views_does_not_change_a_view(
    dataset: FakeDataset, backbone: TinyBackbone, bank: FeatureBank
) -> None:
    fewer = feature_bank(dataset, backbone, size=32, views=2, seed=5)
    assert torch.equal(fewer.labels, bank.labels[:, :2])


def test_megabytes(bank: FeatureBank) -> None:
    assert bank.megabytes == pytest.approx((18 * 4 * 12 * 4 * 4 * 2 + 18 * 4 * 32 * 32) / 1e6)


def test_views_below_one_are_refused(dataset: FakeDataset, backbone: TinyBackbone) -> None:
    with pytest.raises(ValueError, match="views must be at least 1"):
        feature_bank(dataset, backbone, size=32, views=0)


def test_a_file_in_the_cache_is_read_instead(
    dataset: FakeDataset, backbone: TinyBackbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = feature_bank(dataset, backbone, size=32, views=2, cache=tmp_path / "kept")
    (path,) = (tmp_path / "kept").iterdir()
    assert path.name.startswith("fake-18-tiny-")
    monkeypatch.setattr(TinyBackbone, "features", no_backbone)
    again = feature_bank(dataset, backbone, size=32, views=2, cache=tmp_path / "kept")
    assert torch.equal(again.features, first.features)
    assert torch.equal(again.labels, first.labels)
    assert again.dataset is dataset


def test_whatever_decides_the_content_decides_the_file(
    dataset: FakeDataset, tmp_path: Path
) -> None:
    strided = TinyBackbone()
    strided.net[0].dilation = (2, 2)
    optioned = TinyBackbone()
    optioned.magnify = 2
    moved = TinyBackbone()
    moved.net[1].running_mean += 1  # a buffer, not a parameter
    plain: dict[str, Any] = {"dataset": dataset, "backbone": TinyBackbone(), "size": 32, "seed": 0}
    changes: list[dict[str, Any]] = [
        {},
        {"dataset": keep_images(dataset, range(17))},
        {"dataset": keep_images(dataset, reversed(range(18)))},
        {"backbone": TinyBackbone(seed=1)},
        {"backbone": moved},
        {"backbone": optioned},
        {"backbone": strided},
        {"size": 40},
        {"views": 2},
        {"views": 2, "seed": 1},
        {"views": 2, "scale": (0.7, 1.0)},
    ]
    for number, change in enumerate(changes, start=1):
        settings = plain | change
        feature_bank(settings.pop("dataset"), settings.pop("backbone"), cache=tmp_path, **settings)
        assert len(list(tmp_path.iterdir())) == number, change
        feature_bank(dataset, TinyBackbone(), size=32, cache=tmp_path)
        assert len(list(tmp_path.iterdir())) == number


def test_options_that_are_no_weights_tell_backbones_apart() -> None:
    """Both networks have the same weights at another stride, and the features differ."""
    from pmms.backbones import EfficientNetLite0, ResNet50

    for kind, option in ((EfficientNetLite0, {"magnify": 1}), (ResNet50, {"stride_in_1x1": True})):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            plain = kind(None)
            changed = kind(None, **option)
            changed.load_state_dict(plain.state_dict())
        assert weights_digest(plain) == weights_digest(changed)
        assert module._options(plain) != module._options(changed)
        assert module._options(plain) == module._options(plain.eval())


@pytest.mark.parametrize("fails", ["save_file", "replace"])
def test_a_write_that_fails_leaves_no_file(
    dataset: FakeDataset,
    backbone: TinyBackbone,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fails: str,
) -> None:
    def half(_: Any, path: Path) -> None:
        if fails == "save_file":
            Path(path).write_bytes(b"half of it")
        raise OSError("no space left on device")

    monkeypatch.setattr(module if fails == "save_file" else os, fails, half)
    with pytest.raises(OSError, match="no space"):
        feature_bank(dataset, backbone, size=32, cache=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_damaged_file_is_named(
    dataset: FakeDataset, backbone: TinyBackbone, tmp_path: Path
) -> None:
    feature_bank(dataset, backbone, size=32, cache=tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=f"{path.name} is damaged"):
        feature_bank(dataset, backbone, size=32, cache=tmp_path)


def test_a_batch_without_seed_takes_the_plain_images(bank: FeatureBank) -> None:
    batch = bank.batch(EPISODES)
    assert batch.support.shape == (3, 2, 12, 4, 4)
    assert batch.support.dtype == batch.query.dtype == batch.support_mask.dtype == torch.float32
    assert batch.support_mask.shape == (3, 2, 1, 32, 32)
    assert batch.query.shape == (3, 12, 4, 4)
    assert batch.query_mask.shape == (3, 32, 32)
    assert batch.query_mask.dtype == batch.class_id.dtype == torch.int64
    assert batch.class_id.tolist() == [1, 2, 3]
    for row, episode in enumerate(EPISODES):
        assert torch.equal(batch.query[row], bank.features[episode.query, 0].float())
        labels = bank.labels[episode.query, 0]
        assert torch.equal(batch.query_mask[row], class_mask(labels, episode.class_id).long())
        assert {1, VOID} <= set(batch.query_mask[row].unique().tolist())
        for shot, index in enumerate(episode.support):
            assert torch.equal(batch.support[row, shot], bank.features[index, 0].float())
            inside = bank.labels[index, 0] == episode.class_id  # void is not inside
            assert torch.equal(batch.support_mask[row, shot, 0], inside.float())
            assert inside.any()


def test_parts_of_a_batch_of_plain_images(bank: FeatureBank) -> None:
    batch = bank.batch(EPISODES)
    support, mask = bank.support(EPISODES)
    assert torch.equal(support, batch.support)
    assert torch.equal(mask, batch.support_mask)
    assert torch.equal(bank.query(EPISODES), batch.query)


def test_a_batch_holds_no_gradient_and_can_be_trained_on(bank: FeatureBank) -> None:
    batch = bank.batch(EPISODES, seed=0)
    assert not any(tensor.requires_grad for tensor in batch)
    weight = torch.ones((), requires_grad=True)
    (batch.support * weight).square().sum().backward()  # refused for tensors of inference mode
    assert weight.grad is not None


def test_views_of_a_batch_follow_from_its_seed(bank: FeatureBank) -> None:
    batches = [bank.batch(EPISODES, seed=seed) for seed in (3, 3, 4)]
    assert all(torch.equal(a, b) for a, b in zip(batches[0], batches[1], strict=True))
    assert not torch.equal(batches[0].support, batches[2].support)


def test_a_batch_only_takes_views_that_show_the_class(dataset: FakeDataset) -> None:
    """View 1 shows nothing of the class, view 2 just enough, view 3 just too little."""
    plain = EvalTransform(32)
    labels = torch.stack([plain(*dataset[i])[1] for i in range(len(dataset))])
    labels = labels[:, None].repeat(1, 4, 1, 1)
    labels[:, 1] = 0
    for index in range(len(labels)):
        for class_id in dataset.classes_in(index):
            inside = (labels[index, 0] == class_id).flatten().nonzero().flatten()
            needed = -(-len(inside) * VISIBLE // 1)
            for view, kept in ((2, needed), (3, needed - 1)):
                labels[index, view].flatten()[inside[int(kept) :]] = 0
    features = torch.arange(4.0)[None, :, None, None, None].expand(len(labels), 4, 1, 1, 1)
    bank = FeatureBank(dataset, features.half(), labels)
    seen: list[float] = []
    sampler = EpisodeSampler(dataset, range(1, 7), shots=2, length=40)
    for seed, episode in enumerate(sampler):
        batch = bank.batch([episode], seed=seed)
        seen += [*batch.support.flatten().tolist(), *batch.query.flatten().tolist()]
        assert batch.support_mask.sum(dim=(-1, -2)).min() > 0
    assert set(seen) == {0.0, 2.0}
    assert 40 < seen.count(2.0) < 80


def test_a_class_too_small_for_the_kept_labels_takes_the_plain_view(dataset: FakeDataset) -> None:
    """There its mask is rescued; in a random view it would be empty."""
    labels = torch.zeros(len(dataset), 4, 32, 32, dtype=torch.uint8)
    features = torch.arange(4.0)[None, :, None, None, None].expand(len(labels), 4, 1, 1, 1)
    bank = FeatureBank(dataset, features.half(), labels)
    shown = [bank.batch(EPISODES, seed=seed) for seed in range(5)]
    assert all(not batch.support.any() and not batch.query.any() for batch in shown)


def test_one_view_needs_no_choice(dataset: FakeDataset, backbone: TinyBackbone) -> None:
    bank = feature_bank(dataset, backbone, size=32)
    one, other = bank.batch(EPISODES), bank.batch(EPISODES, seed=9)
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_digest_of_weights() -> None:
    assert weights_digest(TinyBackbone()) == weights_digest(TinyBackbone())
    assert weights_digest(TinyBackbone()) != weights_digest(TinyBackbone(seed=1))
    changed = TinyBackbone()
    changed.net[1].num_batches_tracked += 1
    assert weights_digest(TinyBackbone()) != weights_digest(changed)
