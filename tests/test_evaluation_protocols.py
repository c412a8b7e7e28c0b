"""Each protocol on cases counted by hand: void, tiny objects, resizing, padding, votes."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from fakes import FakeDataset, TinyBackbone, tiny_model
from torch import Tensor, nn

from pmms.datasets.base import Sample
from pmms.episode_batches import scored_labels
from pmms.evaluation import evaluate, fuse
from pmms.feature_computing import feature_bank
from pmms.features import FeatureBank
from pmms.folds import VOID
from pmms.models import Prediction, Prototypes
from pmms.protocol_episodes import PFENET_AREA
from pmms.protocols import PROTOCOLS, Protocol
from pmms.transforms import EvalTransform


class Says(nn.Module):
    """Stands in for a model: foreground where a function of support mask and query says so."""

    def __init__(self, foreground: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.foreground = foreground
        self.masks: list[Tensor] = []

    def forward(self, support: Tensor, support_mask: Tensor, query: Tensor) -> Prediction:
        self.masks += list(support_mask)
        inside = self.foreground(support_mask, query).float() - 0.5
        logits = torch.stack([-inside, inside], dim=1)
        return Prediction(logits, (logits,), None, Prototypes(support, None))

    segment = compare = forward

    def embed(self, images: Tensor) -> Tensor:
        return images


def left_half(support_mask: Tensor, query: Tensor) -> Tensor:
    inside = torch.zeros_like(query[:, 0])
    inside[..., : inside.shape[-1] // 2] = 1
    return inside


def top_half(support_mask: Tensor, query: Tensor) -> Tensor:
    return left_half(support_mask, query).transpose(1, 2)


def what_the_support_shows(support_mask: Tensor, query: Tensor) -> Tensor:
    return support_mask.mean(dim=1)[:, 0] >= 0.5


class Given(FakeDataset):
    """Label maps as they are given, on black images; pairs of each image and its first class."""

    def __init__(self, label_maps: list[Tensor], *, min_area: int = 1) -> None:
        super().__init__([{1: 1}] * len(label_maps), classes=2, min_area=1)
        self.min_area = min_area
        self.label_maps = label_maps
        self.pairs = tuple((index, 1) for index in range(len(label_maps)))

    def __getitem__(self, index: int) -> Sample:
        labels = self.label_maps[self._position(index)]
        return Sample(torch.zeros(3, *labels.shape, dtype=torch.uint8), labels)

    def classes_in(self, index: int) -> frozenset[int]:
        return frozenset({1})

    def classes_shown(self, index: int) -> frozenset[int]:
        return frozenset({1})

    def fingerprint(self) -> str:
        return "given"


def columns(*ones: int, void: tuple[int, int] | None = None) -> Tensor:
    """4 x 4 labels with class 1 in some columns and perhaps a void pixel."""
    labels = torch.zeros(4, 4, dtype=torch.uint8)
    labels[:, list(ones)] = 1
    if void:
        labels[void] = VOID
    return labels


def test_authors_resize_the_query_mask_there_and_back() -> None:
    protocol = Protocol(name="authors", size=2, episodes=3)
    assert protocol.label == "authors (episodes=3, size=2)"
    images = Given([columns(1), columns(0), columns(1, 2, void=(3, 1))])
    result = evaluate(Says(left_half), images, [1], protocol=protocol)
    # 4 -> 2 by pixel centres takes rows and columns 1 and 3, 2 -> 4 doubles each.
    # Column 1 becomes columns 0 and 1: what is predicted, 8 pixels of 16.
    # Column 0 is lost: the class is missing in the query, 8 predicted pixels are all wrong.
    # Columns 1 and 2 become 0 and 1, and the void pixel (3, 1), background, rows 2 and 3 of them.
    assert result.counts.tolist() == [[8, 8, 8, 8], [0, 8, 8, 16], [4, 8, 8, 12]]
    assert result.scores.miou == pytest.approx(100 * 12 / 24)
    assert "fb_iou" not in result.summary()
    assert "FB-IoU" not in result.table()


def test_hsnet_scores_at_the_size_of_the_network_and_ignores_void() -> None:
    protocol = Protocol(name="hsnet", size=2, episodes=4)
    images = Given([columns(0), columns(1), columns(0, 2, void=(0, 2))])
    result = evaluate(Says(left_half), images, [1], protocol=protocol)
    # 4 -> 2 by PyTorch's "nearest" takes rows and columns 0 and 2. Column 0 of both is predicted.
    # Column 1 is lost. Of columns 0 and 2 one pixel is void. The fourth query is the first again.
    by_image = [[2, 2, 2, 2], [0, 2, 2, 4], [2, 3, 0, 1]]
    assert result.counts.tolist() == [*by_image, by_image[0]]
    # FB-IoU forgets classes: foreground 6 of 9, background 6 of 9.
    assert result.summary()["fb_iou"] == pytest.approx(100 * (6 / 9 + 6 / 9) / 2)


def test_hsnet_counts_void_as_background_on_coco() -> None:
    protocol = Protocol(name="hsnet", form="coco", size=2, episodes=5)
    images = Given([columns(0, void=(0, 0))] * 3)
    result = evaluate(Says(left_half), images, [1], protocol=protocol)
    assert result.counts.tolist() == [[1, 2, 2, 3]] * 5


@pytest.mark.parametrize("kept", [False, True])
def test_pfenet_cuts_off_the_padding_and_ignores_void(kept: bool) -> None:
    wide = torch.zeros(32, 64, dtype=torch.uint8)
    wide[:, :48] = 1
    wide[:2] = VOID
    tall = wide.T.contiguous()
    protocol = Protocol(name="pfenet", size=16, episodes=4)
    images = Given([wide, tall], min_area=PFENET_AREA)
    source = feature_bank(images, TinyBackbone(), size=16, keep_aspect=True) if kept else images
    result = evaluate(Says(top_half), source, [1], protocol=protocol)
    # The wide image fills the upper half of the square, and the upper half is predicted: all of it.
    # The tall one fills the left half: rows 0 to 31 of 64 are predicted. Two of 32 lines are void.
    of_wide = [30 * 48, 30 * 64, 0, 30 * 16]
    of_tall = [30 * 32, 30 * 48, 30 * 16, 30 * 32]
    assert result.counts.tolist() == [of_wide, of_tall] * 2


def test_a_bank_must_be_of_the_protocol() -> None:
    images = Given([columns(0)] * 4, min_area=PFENET_AREA)
    bank = feature_bank(images, TinyBackbone(), size=16)
    with pytest.raises(ValueError, match="keep_aspect=True"):
        evaluate(Says(left_half), bank, [1], protocol=Protocol(name="pfenet", size=16))
    with pytest.raises(ValueError, match="'hsnet' has size 400, got images of 16"):
        evaluate(Says(left_half), bank, [1], protocol=PROTOCOLS["hsnet"])
    with pytest.raises(ValueError, match="'hsnet' has size 400, got images of 16"):
        evaluate(Says(left_half), images, [1], protocol=PROTOCOLS["hsnet"], size=16)
    with pytest.raises(ValueError, match="size is 8, but the bank's images have 16"):
        evaluate(Says(left_half), bank, [1], size=8)


def test_ours_compares_with_the_annotation_itself() -> None:
    images = Given([columns(0, void=(0, 1)), columns(0, void=(0, 1))])
    protocol = Protocol(episodes=2, seeds=(0,))
    result = evaluate(Says(left_half), images, [1], protocol=protocol, size=2)
    # Columns 0 and 1 are predicted at the full size; pixel (0, 1) is void.
    assert result.counts.tolist() == [[4, 7, 8, 11]] * 2


def test_votes_are_measured_by_the_largest() -> None:
    def votes(*counts: int, shots: int = 5) -> list[int]:
        rows = [[int(shot < count) for count in counts] for shot in range(shots)]
        masks = [torch.tensor(row)[None, None] for row in rows]
        return fuse(masks)[0, 0].tolist()

    assert votes(5, 3, 2, 1, 0) == [1, 1, 0, 0, 0]
    assert votes(4, 2, 1, 0) == [1, 1, 0, 0]  # 2 / 4 ties with 0.5 and counts
    assert votes(2, 1, 0) == [1, 1, 0]
    assert votes(1, 0) == [1, 0]
    assert votes(0, 0) == [0, 0]
    assert votes(1, 0, 1, shots=1) == [1, 0, 1]


def test_the_largest_vote_is_that_of_each_image() -> None:
    first, second = torch.tensor([[[1, 1]], [[0, 0]]]), torch.tensor([[[1, 0]], [[0, 1]]])
    third = torch.tensor([[[1, 0]], [[0, 0]]])
    assert fuse([first, second, third]).tolist() == [[[1, 0]], [[0, 1]]]


def test_hsnet_asks_the_model_once_for_each_support_image() -> None:
    maps = [columns(0), columns(0, 2), columns(2)]
    images = Given(maps)
    protocol = Protocol(name="hsnet", size=4, episodes=3, shots=5)
    model = Says(what_the_support_shows)
    result = evaluate(model, images, [1], protocol=protocol)
    assert [mask.shape[0] for mask in model.masks] == [1] * 15
    from pmms.protocol_episodes import protocol_sampler

    sampler = protocol_sampler(protocol, images, [1], seed=0)
    for counts, (_, query, support) in zip(result.counts.tolist(), sampler, strict=True):
        votes = torch.stack([(maps[i] == 1).long() for i in support]).sum(0)
        predicted = votes / votes.max() >= 0.5
        target = maps[query] == 1
        assert counts[:2] == [int((predicted & target).sum()), int((predicted | target).sum())]
    joint = Says(what_the_support_shows)
    evaluate(joint, images, [1], protocol=Protocol(episodes=3, seeds=(0,), shots=2), size=4)
    assert [mask.shape[0] for mask in joint.masks] == [2] * 3


class ManySizes(FakeDataset):
    """Squares in images of four sizes, some upright, in turn."""

    SIZES = ((40, 60), (60, 40), (32, 32), (50, 37))

    def __getitem__(self, index: int) -> Sample:
        position = self._position(index)
        self.size = self.SIZES[position % 4]
        return super().__getitem__(position)


@pytest.fixture(scope="module")
def many() -> ManySizes:
    return ManySizes([{1 + i % 3: 9 + i % 5, 1 + (i + 1) % 3: 6} for i in range(18)], classes=3)


def exact_bank(images: FakeDataset, size: int, keep_aspect: bool) -> FeatureBank:
    """A bank that keeps features in float32, so that nothing is rounded."""
    plain = feature_bank(images, TinyBackbone(), size=size, keep_aspect=keep_aspect)
    transform = EvalTransform(size, keep_aspect=keep_aspect)
    pictures = torch.stack([transform(*sample)[0] for sample in images])
    with torch.inference_mode():
        features = TinyBackbone().eval()(pictures)[:, None]
    return FeatureBank(
        images, features, plain.labels, sizes=plain.sizes, keep_aspect=keep_aspect
    )  # fmt: skip


OWN = {
    "ours": Protocol(episodes=12, seeds=(0, 1)),
    "there and back": Protocol(name="a", episodes=21, seeds=0, query_mask="resized",
                               void="background"),
    "network": Protocol(name="b", episodes=21, seeds=0, query_mask="resized",
                        resolution="network"),
    "padded": Protocol(name="c", episodes=21, seeds=0, aspect="pad"),
    "padded at network": Protocol(name="d", episodes=21, seeds=0, aspect="pad",
                                  query_mask="resized", resolution="network"),
    "votes": Protocol(name="e", episodes=12, seeds=0, shots=3, fusion="vote"),
}  # fmt: skip


@pytest.mark.parametrize("name", OWN)
def test_kept_features_of_images_of_many_sizes_score_as_the_images(
    many: ManySizes, name: str
) -> None:
    protocol = OWN[name]
    bank = exact_bank(many, 32, protocol.aspect == "pad")
    assert len({tuple(size) for size in bank.sizes.tolist()}) == 4
    of_bank, of_images = (
        evaluate(tiny_model("pmms"), source, (1, 2, 3), protocol=protocol, size=32)
        for source in (bank, many)
    )
    assert torch.equal(of_bank.class_ids, of_images.class_ids)
    # Sums of one image and of twenty at once may differ in the last bit.
    assert (of_bank.counts - of_images.counts).abs().max() <= 2
    for control in (None, "everything", "all_objects"):
        of_bank, of_images = (
            evaluate(
                Says(left_half), source, (1, 2, 3), protocol=protocol, size=32, control=control
            )
            for source in (bank, many)
        )
        assert torch.equal(of_bank.counts, of_images.counts)


def test_an_object_lost_in_resizing_keeps_a_pixel_of_support_in_a_bank_too() -> None:
    labels = torch.zeros(64, 64, dtype=torch.uint8)
    labels[0:32] = 2
    labels[50, 51] = 1
    labels[8, 9] = 1
    images = Given([labels, labels.clone()])
    bank = feature_bank(images, TinyBackbone(), size=16)
    assert not (bank.labels == 1).any()
    protocol = Protocol(episodes=2, seeds=(0,))
    models = Says(left_half), Says(left_half)
    results = [
        evaluate(model, source, [1], protocol=protocol, size=16)
        for model, source in zip(models, (bank, images), strict=True)
    ]
    for one, other in zip(models[0].masks, models[1].masks, strict=True):
        assert torch.equal(one, other)
        assert one.sum() == 1
    assert torch.equal(results[0].counts, results[1].counts)
    assert results[0].counts[0].tolist() == [1, 64 * 32 + 1, 64 * 32 - 1, 64 * 64 - 1]


@pytest.mark.parametrize("shape", [(375, 500), (281, 500), (500, 333), (90, 120), (481, 481)])
def test_there_and_back_is_what_pillow_and_pytorch_do(shape: tuple[int, int]) -> None:
    """The authors' own steps, with their libraries."""
    import numpy as np
    from PIL import Image

    generator = torch.Generator().manual_seed(shape[0])
    labels = torch.randint(0, 4, shape, generator=generator, dtype=torch.uint8)
    small = Image.fromarray(labels.numpy()).resize((481, 481), Image.Resampling.NEAREST)
    there = torch.from_numpy(np.array(small))
    back = nn.functional.interpolate(there[None, None].float(), size=shape, mode="nearest")
    ours = scored_labels(labels, PROTOCOLS["authors"], EvalTransform(481))
    assert torch.equal(ours, back[0, 0].byte())


def test_names_stand_with_ids() -> None:
    protocol = Protocol(episodes=12, seeds=(0,))
    images = ManySizes([{2: 9, 3: 5}] * 6, classes=3)
    result = evaluate(Says(left_half), images, (3, 2), protocol=protocol, size=32)
    assert result.class_names == {2: "thing2", 3: "thing3"}
    lines = result.table().splitlines()
    for line, class_id in zip(lines[2:], (2, 3), strict=False):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[:2] == [str(class_id), f"thing{class_id}"]
        assert int(cells[2]) == int((result.class_ids == class_id).sum())
        assert float(cells[3]) == pytest.approx(result.scores.class_iou[class_id], abs=0.005)
    assert "mean (95 %: " in lines[4]
    assert "FB-IoU" in lines[5]
    assert result.protocol == protocol


def test_presets_keep_their_seed_for_every_class_list() -> None:
    """An own number of episodes is a shorter list of the same episodes."""
    images = Given([columns(0)] * 7)
    long, short = (
        evaluate(Says(left_half), images, [1],
                 protocol=replace(PROTOCOLS["hsnet"], size=4, episodes=n))
        for n in (20, 8)
    )  # fmt: skip
    assert torch.equal(long.counts[:8], short.counts)
