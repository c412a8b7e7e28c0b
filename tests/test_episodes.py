import math
import pickle
from collections import Counter
from dataclasses import fields

import pytest
import torch
from fakes import FakeDataset, fake_dataset
from hypothesis import given
from hypothesis import strategies as st
from searching import examples
from torch import Tensor
from torch.utils.data import DataLoader

from pmms.datasets import keep_images, without_classes
from pmms.episodes import (
    Episode,
    EpisodeBatch,
    EpisodeDataset,
    EpisodeIndex,
    EpisodeSampler,
    check_no_leak,
    class_mask,
    collate,
    mix,
)
from pmms.transforms import EvalTransform, TrainTransform


def same(first: object, second: object) -> bool:
    """Equality of two episodes or batches, tensors by value."""
    return all(
        torch.equal(a, b) if isinstance(a, Tensor) else a == b
        for a, b in ((getattr(first, f.name), getattr(second, f.name)) for f in fields(type(first)))
    )


def test_mix_is_the_documented_hash():
    # python -c "import hashlib; print(hashlib.blake2b(bytes(16), digest_size=8).hexdigest())"
    first_bytes = bytes.fromhex("5250a507f994740e")
    assert mix(0, 0) == int.from_bytes(first_bytes, "little") // 2


@examples(100)
@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4))
def test_mix_stays_in_the_range_of_torch_seeds(numbers):
    assert 0 <= mix(*numbers) < 2**63
    torch.Generator().manual_seed(mix(*numbers))


def test_mix_separates_neighbours_order_and_length():
    seeds = {mix(a, b) for a in range(100) for b in range(100)}
    assert len(seeds) == 10_000
    assert len({mix(1, 2), mix(2, 1), mix(1), mix(1, 2, 0), mix()}) == 5
    high = sum(seed >= 2**62 for seed in seeds)
    assert 4700 < high < 5300


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 0.5])
def test_mix_refuses_what_is_no_integer_of_64_bits(number):
    with pytest.raises(ValueError, match="seeds must be integers of 64 bits"):
        mix(number)
    with pytest.raises(ValueError, match="seeds must be integers of 64 bits"):
        EpisodeSampler(fake_dataset(), [1], seed=number)


@examples(60)
@given(st.integers(-(2**63), 2**63 - 1), st.integers(1, 5), st.integers(0, 199))
def test_support_repeats_nothing_and_never_holds_the_query(seed, shots, index):
    dataset = fake_dataset(36)
    episode = EpisodeSampler(dataset, [1, 2, 5], shots=shots, length=200, seed=seed)[index]
    assert isinstance(episode, EpisodeIndex)
    assert episode.class_id in {1, 2, 5}
    assert len(episode.support) == shots
    assert len({episode.query, *episode.support}) == shots + 1
    for image in (episode.query, *episode.support):
        assert episode.class_id in dataset.classes_in(image)


def test_an_episode_depends_on_seed_and_index_alone():
    dataset = fake_dataset()
    sampler = EpisodeSampler(dataset, [1, 2, 3], length=50, seed=7)
    forward = list(sampler)
    assert [sampler[i] for i in reversed(range(50))] == forward[::-1]
    assert forward[:20] == list(EpisodeSampler(dataset, [3, 1, 2], length=20, seed=7))
    assert forward != list(EpisodeSampler(dataset, [1, 2, 3], length=50, seed=8))
    assert sampler[-1] == sampler[49]
    assert len(sampler) == 50
    with pytest.raises(IndexError, match="has 50 episodes, 50 is not among them"):
        sampler[50]
    with pytest.raises(IndexError, match="-51"):
        sampler[-51]


def test_episodes_of_a_fixed_seed_stay_as_they_are():
    """Records name a seed; a change here makes every record irreproducible."""
    sampler = EpisodeSampler(fake_dataset(24), [2, 4, 6], shots=2, length=3, seed=0)
    assert list(sampler) == [(4, 15, (9, 3)), (6, 17, (11, 5)), (6, 11, (23, 17))]


def chi_square(observed: Counter, expected: dict) -> float:
    assert set(observed) <= set(expected)
    return sum((observed[key] - n) ** 2 / n for key, n in expected.items())


def test_classes_queries_and_support_are_drawn_uniformly():
    dataset = FakeDataset([{1: 8}] * 4 + [{2: 8}] * 12)  # three times as many images of class 2
    n = 12_000
    episodes = list(EpisodeSampler(dataset, [1, 2], shots=2, length=n, seed=1))
    assert chi_square(Counter(e.class_id for e in episodes), {1: n / 2, 2: n / 2}) < 10.8  # 0.1 %
    of_two = [e for e in episodes if e.class_id == 2]
    uniform = {image: len(of_two) / 12 for image in range(4, 16)}
    assert chi_square(Counter(e.query for e in of_two), uniform) < 31.3  # 11 degrees, 0.1 %
    for place in range(2):
        assert chi_square(Counter(e.support[place] for e in of_two), uniform) < 31.3
    of_one = [e for e in episodes if e.class_id == 1]
    triples = Counter((e.query, *e.support) for e in of_one)
    assert len(triples) == math.perm(4, 3)
    assert chi_square(triples, dict.fromkeys(triples, len(of_one) / 24)) < 49.7  # 23 degrees


def test_a_class_with_just_enough_images_works():
    episode = EpisodeSampler(FakeDataset([{1: 8}] * 6), [1], shots=5)[0]
    assert sorted((episode.query, *episode.support)) == [0, 1, 2, 3, 4, 5]


def test_impossible_episodes_are_refused_when_the_sampler_is_built():
    dataset = FakeDataset([{1: 8}] * 5 + [{2: 8}] + [{3: 1}] * 9)
    EpisodeSampler(dataset, [1], shots=4)
    with pytest.raises(ValueError, match=r"needs 6 images .* thing1 \(class 1\) has 5; use more"):
        EpisodeSampler(dataset, [1], shots=5)
    with pytest.raises(ValueError, match=r"thing2 \(class 2\) has 1, thing3 \(class 3\) has 0"):
        EpisodeSampler(dataset, [1, 2, 3])


@pytest.mark.parametrize(
    "classes, setting, message",
    [
        ([], {}, "at least one class"),
        ([1, 2, 1], {}, "class 1 is there twice"),
        ([0], {}, "class ids 1 to 6, got 0"),
        ([7], {}, "class ids 1 to 6, got 7"),
        ([1], {"shots": 0}, "shots must be an integer of at least 1, got 0"),
        ([1], {"length": 0}, "length must be an integer of at least 1, got 0"),
        ([1], {"shots": 1.0}, "shots must be an integer"),
    ],
)
def test_sampler_settings_are_validated(classes, setting, message):
    with pytest.raises(ValueError, match=message):
        EpisodeSampler(fake_dataset(), classes, **setting)


def test_class_mask_keeps_void_and_hides_other_classes():
    labels = torch.tensor([[0, 1, 2], [255, 2, 3]], dtype=torch.uint8)
    mask = class_mask(labels, 2)
    assert mask.tolist() == [[0, 0, 1], [255, 1, 0]]
    assert mask.dtype == torch.uint8
    assert labels[0, 1] == 1


@pytest.mark.parametrize("shots", [1, 5])
@pytest.mark.parametrize("transform", [EvalTransform(32), TrainTransform(32)])
def test_episode_tensors(shots, transform):
    dataset = fake_dataset(60)
    episodes = EpisodeDataset(EpisodeSampler(dataset, [1, 3], shots=shots, length=30), transform)
    assert len(episodes) == 30
    for index in range(30):
        drawn, episode = episodes.sampler[index], episodes[index]
        assert isinstance(episode, Episode)
        assert episode.support.shape == (shots, 3, 32, 32)
        assert episode.support_mask.shape == (shots, 1, 32, 32)
        assert episode.query.shape == (3, 32, 32)
        assert episode.query_mask.shape == (32, 32)
        assert episode.support.dtype == episode.support_mask.dtype == torch.float32
        assert (episode.query.dtype, episode.query_mask.dtype) == (torch.float32, torch.int64)
        assert 0 <= float(episode.support.min()) <= float(episode.support.max()) <= 1
        assert set(episode.support_mask.unique().tolist()) == {0.0, 1.0}
        assert set(episode.query_mask.unique().tolist()) == {0, 1, 255}
        assert (episode.support_mask.flatten(1).sum(1) > 0).all()
        assert episode.class_id == drawn.class_id
        assert episode.query_id == dataset.image_id(drawn.query)
        assert episode.support_ids == tuple(dataset.image_id(i) for i in drawn.support)
    with pytest.raises(IndexError):
        episodes[30]


def test_masks_are_those_of_the_episode_class():
    dataset = FakeDataset([{1: 8, 2: 9}, {1: 8, 2: 9}], size=(32, 32))
    for class_id in (1, 2):
        sampler = EpisodeSampler(dataset, [class_id], length=1)
        episode = EpisodeDataset(sampler, EvalTransform(32))[0]
        labels = dataset[sampler[0].support[0]].labels
        assert torch.equal(episode.support_mask[0, 0], (labels == class_id).float())
        labels = dataset[sampler[0].query].labels
        assert torch.equal(episode.query_mask == 1, labels == class_id)
        assert torch.equal(episode.query_mask == 255, labels == 255)


def test_each_image_of_an_episode_is_transformed_with_the_documented_seed():
    dataset, transform = fake_dataset(20), TrainTransform(24)
    sampler = EpisodeSampler(dataset, [1, 3], shots=2, length=5, seed=7)
    class_id, query, support = sampler[3]
    episode = EpisodeDataset(sampler, transform)[-2]
    views = [(episode.query, episode.query_mask == 1)]
    views += zip(episode.support, episode.support_mask[:, 0] == 1, strict=True)
    for place, (index, (image, mask)) in enumerate(zip((query, *support), views, strict=True)):
        plain, labels = dataset[index]
        expected, of_class = transform(plain, class_mask(labels, class_id), seed=mix(7, 3, place))
        assert torch.equal(image, expected)
        assert torch.equal(mask, of_class == 1)


def test_a_sampler_has_a_thousand_episodes_where_nothing_else_is_said():
    assert len(EpisodeSampler(fake_dataset(), [1])) == 1000


def test_augmentation_differs_between_images_and_episodes_but_not_between_calls():
    dataset = FakeDataset([{1: 12}] * 3)
    episodes = EpisodeDataset(EpisodeSampler(dataset, [1], shots=2, length=40), TrainTransform(24))
    assert same(episodes[4], episodes[4])
    assert same(episodes[-1], episodes[39])
    masks = [episodes[i].query_mask for i in range(40)]
    assert len({tuple(m.flatten().tolist()) for m in masks}) > 30
    pairs = [episodes[i].support_mask for i in range(40)]
    assert sum(torch.equal(a, b) for a, b in pairs) < 5
    other = EpisodeDataset(EpisodeSampler(dataset, [1], length=40, seed=1), TrainTransform(24))
    assert not same(
        other[4], EpisodeDataset(EpisodeSampler(dataset, [1], length=40), TrainTransform(24))[4]
    )


@pytest.fixture(scope="module")
def episodes() -> EpisodeDataset:
    sampler = EpisodeSampler(fake_dataset(30), [1, 2, 3], shots=2, length=11, seed=5)
    return EpisodeDataset(sampler, TrainTransform(24))


def test_collate_stacks_episodes(episodes):
    batch = collate([episodes[i] for i in range(4)])
    assert len(batch) == 4
    assert batch.support.shape == (4, 2, 3, 24, 24)
    assert batch.support_mask.shape == (4, 2, 1, 24, 24)
    assert batch.query.shape == (4, 3, 24, 24)
    assert batch.query_mask.shape == (4, 24, 24)
    assert batch.class_id.tolist() == [episodes[i].class_id for i in range(4)]
    assert batch.class_id.dtype == torch.int64
    assert batch.query_ids == tuple(episodes[i].query_id for i in range(4))
    assert batch.support_ids[3] == episodes[3].support_ids
    assert torch.equal(batch.support[2], episodes[2].support)
    with pytest.raises(ValueError, match="at least one episode"):
        collate([])


def test_batch_moves_to_a_device(episodes):
    batch = collate([episodes[0], episodes[1]]).to("meta")
    assert isinstance(batch, EpisodeBatch)
    tensors = [getattr(batch, f.name) for f in fields(batch)][:5]
    assert all(t.device.type == "meta" for t in tensors)
    assert batch.query_ids == (episodes[0].query_id, episodes[1].query_id)


@pytest.mark.parametrize("given", [{}, {"non_blocking": True}], ids=["waiting", "not waiting"])
def test_batch_moves_and_pins_as_its_tensors_do(episodes, monkeypatch, given):
    """What shows on a GPU alone: which method is called, and how."""
    batch, calls = collate([episodes[0]]), []
    monkeypatch.setattr(Tensor, "to", lambda self, *a, **k: calls.append((*a, k)) or self)
    monkeypatch.setattr(Tensor, "pin_memory", lambda self: calls.append("pinned") or self)
    assert torch.equal(batch.to("cuda", **given).query, batch.query)
    assert calls == [("cuda", {"non_blocking": bool(given)})] * 5
    calls.clear()
    assert torch.equal(batch.pin_memory().query, batch.query)
    assert calls == ["pinned"] * 5


def test_batches_are_the_same_with_any_number_of_workers(episodes):
    plain = list(DataLoader(episodes, batch_size=4, collate_fn=collate))
    assert [len(batch) for batch in plain] == [4, 4, 3]
    # Spawned workers share nothing with this process but what is sent to them.
    workers = DataLoader(
        episodes, batch_size=4, collate_fn=collate, num_workers=2, multiprocessing_context="spawn"
    )
    assert all(same(a, b) for a, b in zip(plain, workers, strict=True))


def test_global_generators_play_no_part(episodes):
    expected = episodes[2]
    torch.rand(5)
    state = torch.get_rng_state()
    assert same(episodes[2], expected)
    assert torch.equal(torch.get_rng_state(), state)
    assert same(pickle.loads(pickle.dumps(episodes))[2], expected)


def test_leak_is_found_and_named():
    dataset = FakeDataset([{1: 8}, {1: 8, 3: 1}, {2: 8, 3: 8}, {2: 8}])
    check_no_leak(dataset, [4, 5])
    check_no_leak(without_classes(dataset, [3]), [3])
    message = "2 of 4 training images of fake show .* the first is fake_001 with thing3"
    with pytest.raises(ValueError, match=message):
        check_no_leak(dataset, [3, 4])
    with pytest.raises(ValueError, match=r"1 of 2 .* is fake_002 with thing2, thing3"):
        check_no_leak(keep_images(dataset, [2, 0]), iter([2, 3]))


def test_episodes_on_a_view_show_no_held_out_class():
    dataset = fake_dataset(60)
    view = without_classes(dataset, [5, 6])
    sampler = EpisodeSampler(view, [1, 2, 3], shots=3, length=100)
    for episode in sampler:
        for image in (episode.query, *episode.support):
            assert not view.classes_shown(image) & {5, 6}
