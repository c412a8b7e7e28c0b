"""Episodes of other code: against recorded ones, against hand-drawn ones, against PyTorch."""

import hashlib
import json
import random
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import FakeDataset
from torch.utils.data import DataLoader, Dataset

from pmms.datasets import keep_images
from pmms.datasets.pascal_lists import AUTHORS_SHA256, read_pairs
from pmms.episodes import EpisodeIndex, EpisodeSampler
from pmms.protocol_episodes import (
    PFENET_AREA,
    authors_coco_episodes,
    authors_episodes,
    hsnet_coco_episodes,
    hsnet_episodes,
    pfenet_episodes,
    protocol_sampler,
)
from pmms.protocols import PROTOCOLS, Protocol

TESTS = Path(__file__).parent
LISTS = TESTS.parents[1] / "shared" / "data" / "pascal5i_lists"
GOLDEN = json.loads((TESTS / "golden" / "authors_episodes.json").read_text())

PAIRS = ((0, 1), (1, 2), (2, 1), (2, 2), (3, 1), (4, 2), (5, 1))
"""Class 1 in images 0, 2, 3, 5 and class 2 in images 1, 2, 4."""
CLASS_1, CLASS_2 = (0, 2, 3, 5), (1, 2, 4)


@pytest.mark.parametrize("shots", [1, 5])
@pytest.mark.parametrize("fold", range(4))
def test_the_authors_episodes_are_theirs(fold: int, shots: int) -> None:
    """Against the SHA-256 of the first 1,000 that their own code drew."""
    path = LISTS / f"split{fold}_val.txt"
    if not path.is_file():
        pytest.skip("the authors' lists are not here")
    named = read_pairs(path, sha256=AUTHORS_SHA256[f"split{fold}_val"])
    ids = list(dict.fromkeys(image_id for image_id, _ in named))
    pairs = [(ids.index(image_id), class_id) for image_id, class_id in named]
    lines = [
        f"{ids[query]} {','.join(ids[i] for i in support)} {class_id:02d}"
        for class_id, query, support in islice(authors_episodes(pairs, shots=shots), 1000)
    ]
    golden = GOLDEN[f"fold{fold}_{shots}shot"]
    assert lines[:3] == golden["first"]
    assert lines[-1] == golden["last"]
    text = "".join(f"{line}\n" for line in lines)
    assert hashlib.sha256(text.encode()).hexdigest() == golden["sha256"]


class Scripted(random.Random):
    """Numbers from a script instead of chance, and what was asked for."""

    script: list[Any]

    def randint(self, low: int, high: int) -> int:
        value = self.script.pop(0)
        assert low <= value <= high
        return value

    def sample(self, population: Any, k: int) -> list[int]:  # type: ignore[override]
        return [population[i] for i in self.script.pop(0)[:k]]

    def shuffle(self, order: list[Any]) -> None:  # type: ignore[override]
        order.reverse()


def scripted(monkeypatch: pytest.MonkeyPatch, *script: Any) -> None:
    def make(seed: int) -> Scripted:
        assert seed == 1385
        generator = Scripted()
        generator.script = list(script)
        return generator

    monkeypatch.setattr("pmms.protocol_episodes.random.Random", make)


def test_authors_by_hand_one_shot(monkeypatch: pytest.MonkeyPatch) -> None:
    """File order first, then shuffled; a draw that hits the query is repeated."""
    scripted(monkeypatch, 0, 1, 2, 1, 0, 0, 3, 1, 0, 2, 0, 3, 0)
    drawn = list(islice(authors_episodes(PAIRS, shots=1), 9))
    assert drawn == [
        (1, 0, (2,)),  # place 0 is the query itself, place 1 is image 2
        (2, 1, (4,)),
        (1, 2, (0,)),  # place 1 is the query, place 0 is image 0
        (2, 2, (1,)),
        (1, 3, (5,)),
        (2, 4, (2,)),
        (1, 5, (0,)),
        (1, 5, (3,)),  # the second pass, reversed by the script
        (2, 4, (1,)),
    ]


def test_authors_by_hand_two_shots(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, [2, 0], [1, 0], [0, 1])
    drawn = list(islice(authors_episodes(PAIRS, shots=2), 3))
    # Of 2, 3, 5 places 2 and 0; of 2, 4 places 1 and 0; of 0, 3, 5 places 0 and 1.
    assert drawn == [(1, 0, (5, 2)), (2, 1, (4, 2)), (1, 2, (0, 3))]


def test_authors_with_the_real_generator_by_hand() -> None:
    """The first episodes of the small list, from the numbers of ``random.Random(1385)``."""
    generator = random.Random(1385)
    expected = []
    for query, class_id in PAIRS[:3]:
        images = {1: CLASS_1, 2: CLASS_2}[class_id]
        while (support := images[generator.randrange(len(images))]) == query:
            pass
        expected.append((class_id, query, (support,)))
    assert list(islice(authors_episodes(PAIRS, shots=1), 3)) == expected


def test_hsnet_by_hand() -> None:
    """Permutations of NumPy's seed 0: the first place of each is the draw."""
    generator = np.random.RandomState(0)
    episodes = hsnet_episodes(PAIRS, shots=3)
    repeats = 0
    for i in range(40):
        query, class_id = PAIRS[i % 7]
        images = {1: CLASS_1, 2: CLASS_2}[class_id]
        support: list[int] = []
        while len(support) < 3:
            image = images[generator.permutation(len(images))[0]]
            support += [] if image == query else [image]
        repeats += len(set(support)) < 3
        assert next(episodes) == (class_id, query, tuple(support))
    assert repeats > 10


def test_hsnet_does_what_the_old_global_generator_does() -> None:
    """``np.random.seed(0)`` and ``np.random.choice`` on names, as written there."""
    state = np.random.get_state()  # noqa: NPY002
    try:
        np.random.seed(0)  # noqa: NPY002
        names = {1: [f"image{i}" for i in CLASS_1], 2: [f"image{i}" for i in CLASS_2]}
        for episode, (query, class_id) in zip(
            hsnet_episodes(PAIRS, shots=1), PAIRS * 3, strict=False
        ):
            name = f"image{query}"
            while name == f"image{query}":
                name = np.random.choice(names[class_id], 1, replace=False)[0]  # noqa: NPY002
            assert f"image{episode.support[0]}" == name
    finally:
        np.random.set_state(state)  # noqa: NPY002


IMAGES = {4: tuple(range(10)), 8: (3, 11, 12, 13, 14), 12: (20, 21)}


def test_hsnet_on_coco_draws_class_then_query_then_support() -> None:
    generator = np.random.RandomState(0)
    for episode in islice(hsnet_coco_episodes(IMAGES, shots=1), 30):
        class_id = sorted(IMAGES)[generator.permutation(3)[0]]
        of_class = IMAGES[class_id]
        query = of_class[generator.permutation(len(of_class))[0]]
        while (support := of_class[generator.permutation(len(of_class))[0]]) == query:
            pass
        assert episode == (class_id, query, (support,))


def test_authors_on_coco_draw_query_and_support_together() -> None:
    drawn = list(islice(authors_coco_episodes(IMAGES, shots=1), 600))
    assert drawn == list(islice(authors_coco_episodes(IMAGES, shots=1, seed=1385), 600))
    for class_id, query, support in drawn:
        assert len({query, *support}) == 2
        assert {query, *support} <= set(IMAGES[class_id])
    counts = {c: sum(e.class_id == c for e in drawn) for c in IMAGES}
    assert all(150 < count < 250 for count in counts.values())


class Large(FakeDataset):
    """Images as given, with the area from which on an image counts."""

    def __init__(self, contents: list[dict[int, int]]) -> None:
        super().__init__(contents, min_area=PFENET_AREA)

    def classes_shown(self, index: int) -> frozenset[int]:
        return frozenset(self.contents[self._position(index)])


class PythonDraws(Dataset[list[int]]):
    """Item i: numbers that Python's global generator gives a worker, as PFENet's data set asks."""

    def __init__(self, highs: list[int]) -> None:
        self.highs = highs

    def __len__(self) -> int:
        return len(self.highs)

    def __getitem__(self, index: int) -> list[int]:
        return [random.randint(1, self.highs[index]) for _ in range(3)]


def test_pfenet_workers_are_pytorch_s() -> None:
    """Real worker processes, seeded as PFENet seeds them, draw the numbers that ours do.

    Images 0 to 5 show class 1 only, so an episode takes one number for the class, one that is not
    looked at, and one or more for the support: the first that is not the query.
    """
    images = Large([{1: 50}] * 6)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(321)
        loader = DataLoader(PythonDraws([6] * 6), batch_size=1, num_workers=2, shuffle=False)
        passes = [[[int(n) for n in numbers] for numbers in loader] for _ in range(2)]
    episodes = iter(pfenet_episodes(images, [1], shots=1, workers=2))
    base = torch.Generator().manual_seed(321)
    for numbers in passes:
        start = int(torch.empty((), dtype=torch.int64).random_(generator=base))
        workers = [random.Random(start + worker) for worker in range(2)]
        for place, row in enumerate(numbers):
            ours = [workers[place % 2].randint(1, 6) for _ in range(3)]
            assert ours == row
        again = [random.Random(start + worker) for worker in range(2)]
        for query in range(6):
            draw = again[query % 2]
            draw.randint(1, 1)
            draw.randint(1, 6)
            while (support := draw.randint(1, 6) - 1) == query:
                pass
            assert next(episodes) == (1, query, (support,))


def test_pfenet_lists_large_objects_and_draws_any_class_that_shows() -> None:
    contents = [{1: 50, 2: 9}, {2: 50}, {3: 50}, {1: 50}, {2: 46}, {2: 44}, {1: 46}, {1: 3}]
    images = Large([*contents, {2: 60}])
    drawn = list(islice(pfenet_episodes(images, [1, 2], shots=2, seed=3), 600))
    # 46 * 46 = 2116 pixels are enough, 44 * 44 = 1936 are not; class 3 is not asked for.
    assert [e.query for e in drawn[:10]] == [0, 1, 3, 4, 6, 8, 0, 1, 3, 4]
    assert {e.class_id for e in drawn if e.query == 0} == {1, 2}
    for class_id, query, support in drawn:
        assert class_id in images.classes_shown(query)
        assert len({query, *support}) == 3
        assert set(support) <= {1: {0, 3, 6}, 2: {1, 4, 8}}[class_id]


def test_pfenet_needs_images_listed_by_area() -> None:
    small = FakeDataset([{1: 50}] * 6)
    with pytest.raises(ValueError, match="min_area=2048"):
        protocol_sampler(PROTOCOLS["pfenet"], small, [1], seed=321)
    view = keep_images(Large([{1: 50}] * 6), [1, 3, 5])
    sampler = protocol_sampler(Protocol(name="pfenet", episodes=6), view, [1], seed=321)
    assert [episode.query for episode in sampler] == [0, 1, 2, 0, 1, 2]


class Listed(FakeDataset):
    """A data set with the pairs of ``PAIRS``."""

    def __init__(self) -> None:
        super().__init__([{1: 5}, {2: 5}, {1: 5, 2: 5}, {1: 5}, {2: 5}, {1: 5}])
        self.pairs = PAIRS


@pytest.mark.parametrize("form", ["pascal", "coco"])
@pytest.mark.parametrize("name", list(PROTOCOLS))
def test_samplers_offer_what_ours_does(name: str, form: Any) -> None:
    dataset = Large([{1: 50}, {2: 50}] * 3) if name == "pfenet" else Listed()
    protocol = Protocol(name=name, form=form, episodes=17, shots=1)
    old = np.random.get_state
    state = random.getstate(), old()[1].tolist(), torch.random.get_rng_state()
    sampler = protocol_sampler(protocol, dataset, (2, 1), seed=7)
    again = protocol_sampler(protocol, dataset, (1, 2), seed=7)
    assert random.getstate() == state[0]
    assert old()[1].tolist() == state[1]
    assert torch.equal(torch.random.get_rng_state(), state[2])
    assert len(sampler) == 17
    assert list(sampler) == [sampler[i] for i in range(17)] == list(again)
    assert all(isinstance(episode, EpisodeIndex) for episode in sampler)
    assert all(type(n) is int for e in sampler for n in (e.class_id, e.query, *e.support))
    assert sampler[-1] == sampler[16]
    with pytest.raises(IndexError):
        sampler[17]
    assert (sampler.dataset, sampler.classes, sampler.shots, sampler.seed) == (
        dataset, (1, 2), 1, 7,
    )  # fmt: skip
    assert isinstance(sampler, EpisodeSampler) == (name == "ours")
    other = protocol_sampler(protocol, dataset, (1, 2), seed=8)
    assert list(other) != list(sampler)


def test_what_has_no_pairs_is_refused() -> None:
    with pytest.raises(ValueError, match="PairVOC"):
        protocol_sampler(PROTOCOLS["authors"], FakeDataset([{1: 5}] * 4), [1], seed=0)
    with pytest.raises(ValueError, match=r"pairs of the classes \[1, 2\].* test are \[1\]"):
        protocol_sampler(PROTOCOLS["hsnet"], Listed(), [1], seed=0)
    with pytest.raises(ValueError, match="got none"):
        protocol_sampler(Protocol(name="authors", form="coco"), Listed(), [], seed=0)


@pytest.mark.parametrize("form", ["pascal", "coco"])
def test_too_few_images_are_refused_where_they_are_too_few(form: Any) -> None:
    for shots, fits in ((2, True), (3, False)):
        protocol = Protocol(name="authors", form=form, shots=shots, episodes=3)
        if fits:
            protocol_sampler(protocol, Listed(), [1, 2], seed=0)
        else:
            with pytest.raises(ValueError, match=r"needs 4 images .* thing2 \(class 2\) has 3"):
                protocol_sampler(protocol, Listed(), [1, 2], seed=0)
    repeated = Protocol(name="hsnet", form=form, shots=9, episodes=3)
    sampler = protocol_sampler(repeated, Listed(), [1, 2], seed=0)
    assert [len(episode.support) for episode in sampler] == [9, 9, 9]
