"""Each image is embedded once, memory is bounded, and the results are those without a memory."""

from collections import Counter

import pytest
import torch
from fakes import fake_dataset, tiny_model
from torch import Tensor

from pmms.embeddings import embedded_batches
from pmms.episodes import EpisodeDataset, EpisodeSampler, collate
from pmms.model_config import MODELS
from pmms.transforms import EvalTransform

SIZE = 32


class Counting:
    """Embeds an image as itself, and counts how often each one came."""

    def __init__(self) -> None:
        self.seen: Counter[bytes] = Counter()

    def __call__(self, images: Tensor) -> Tensor:
        assert images.shape == (1, 3, SIZE, SIZE)
        self.seen[images.numpy().tobytes()] += 1
        return images


def samplers(length: int = 30, *, shots: int = 2, seeds: int = 2) -> list[EpisodeSampler]:
    dataset = fake_dataset(20)
    return [
        EpisodeSampler(dataset, [1, 2, 3], shots=shots, length=length, seed=seed)
        for seed in range(seeds)
    ]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_is_embedded_once_for_all_seeds(workers: int) -> None:
    embed = Counting()
    batches = list(embedded_batches(samplers(), EvalTransform(SIZE), embed, workers=workers))
    assert len(batches) == 60
    assert set(embed.seen.values()) == {1}


@pytest.mark.parametrize("keep", [1, 5, 12, 100])
def test_what_is_kept_changes_the_work_and_nothing_else(keep: int) -> None:
    embed, transform = Counting(), EvalTransform(SIZE)
    episodes = [
        collate([episode])
        for sampler in samplers()
        for episode in map(EpisodeDataset(sampler, transform).__getitem__, range(len(sampler)))
    ]
    batches = embedded_batches(samplers(), transform, embed, keep=keep)
    for batch, expected in zip(batches, episodes, strict=True):
        assert torch.equal(batch.support, expected.support)
        assert torch.equal(batch.support_mask, expected.support_mask)
        assert torch.equal(batch.query, expected.query)
        assert batch.class_id.tolist() == expected.class_id.tolist()
    needed = 60 * 3
    assert len(embed.seen) <= embed.seen.total() < needed
    assert (embed.seen.total() == len(embed.seen)) == (keep >= len(embed.seen))


def test_no_more_embeddings_than_said_are_alive() -> None:
    alive = 0

    class Tracked(torch.Tensor):
        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def embed(images: Tensor) -> Tensor:
        nonlocal alive
        alive += 1
        return images.as_subclass(Tracked)

    for _ in embedded_batches(samplers(), EvalTransform(SIZE), embed, keep=4):
        # A row of an embedding is a tensor of its own; the batch holds stacked copies.
        assert alive <= 4


def test_wrong_support_comes_with_its_own_masks() -> None:
    transform = EvalTransform(SIZE)
    right, wrong = (
        list(embedded_batches(samplers(seeds=1), transform, Counting(), wrong_support=wrong))
        for wrong in (False, True)
    )
    for one, other in zip(right, wrong, strict=True):
        assert torch.equal(one.query, other.query)
        assert one.class_id.tolist() == other.class_id.tolist()
        assert not torch.equal(one.support, other.support)


def test_no_seed_gives_nothing() -> None:
    assert list(embedded_batches([], EvalTransform(SIZE), Counting())) == []


@pytest.mark.parametrize("name", MODELS)
def test_forward_is_embed_then_compare(name: str) -> None:
    model = tiny_model(name).eval()
    generator = torch.Generator().manual_seed(0)
    support = torch.rand(2, 3, 3, SIZE, SIZE, generator=generator)
    query = torch.rand(2, 3, SIZE, SIZE, generator=generator)
    mask = torch.zeros(2, 3, 1, SIZE, SIZE)
    mask[..., :20, 5:25] = 1
    with torch.no_grad():
        of_support = model.embed(support.flatten(0, 1)).unflatten(0, (2, 3))
        got = model.compare(of_support, mask, model.embed(query))
        expected = model(support, mask, query)
    torch.testing.assert_close(got.logits, expected.logits)
