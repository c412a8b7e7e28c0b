import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from searching import examples
from sklearn.metrics import jaccard_score
from torch import Tensor

from pmms.metrics import COLUMNS, Scores, episode_counts, paired_gain, scores


def tensor(*rows: str) -> Tensor:
    """One mask from rows of text: "." background, "#" foreground, "v" void."""
    values = {".": 0, "#": 1, "v": 255}
    return torch.tensor([[[values[c] for c in row] for row in rows]])


def test_counts_of_a_case_done_by_hand():
    prediction = tensor("##..", "##..", "....")
    target = tensor("#...", "###.", "...v")
    # both: 3; either: 5; neither: 11 - 5 = 6; background on one side at least: 11 - 3 = 8
    assert episode_counts(prediction, target).tolist() == [[3, 5, 6, 8]]


def test_void_pixels_count_nowhere_or_as_background():
    prediction = tensor("##..")
    target = tensor("#vv.")
    assert episode_counts(prediction, target).tolist() == [[1, 1, 1, 1]]
    assert episode_counts(prediction, target, void=None).tolist() == [[1, 2, 2, 3]]


def test_another_void_label():
    prediction, target = tensor("##"), torch.tensor([[[1, 9]]])
    assert episode_counts(prediction, target, void=9).tolist() == [[1, 1, 0, 0]]


@pytest.mark.parametrize(
    "prediction, target, expected",
    [
        ("....", "....", [0, 0, 4, 4]),  # empty target, empty prediction
        ("#...", "....", [0, 1, 3, 4]),  # empty target, one false pixel
        ("....", "##..", [0, 2, 2, 4]),  # nothing found
        ("..##", "##..", [0, 4, 0, 4]),  # all beside the target
        ("####", "####", [4, 4, 0, 0]),  # no background
        ("#.#.", "vvvv", [0, 0, 0, 0]),  # nothing to be judged
    ],
)
def test_counts_at_the_edges(prediction, target, expected):
    assert episode_counts(tensor(prediction), tensor(target)).tolist() == [expected]


def test_counts_are_per_episode_and_integer():
    prediction = torch.cat([tensor("##"), tensor("..")])
    target = torch.cat([tensor("##"), tensor("#.")])
    counts = episode_counts(prediction, target)
    assert counts.tolist() == [[2, 2, 0, 0], [0, 1, 1, 2]]
    assert counts.dtype == torch.int64
    assert counts.shape[1] == len(COLUMNS)
    assert torch.equal(episode_counts(prediction.bool(), target.to(torch.uint8)), counts)


masks = st.integers(1, 4).flatmap(
    lambda n: st.tuples(
        st.lists(
            st.lists(st.sampled_from([0, 1]), min_size=30, max_size=30), min_size=n, max_size=n
        ),
        st.lists(
            st.lists(st.sampled_from([0, 1, 255]), min_size=30, max_size=30), min_size=n, max_size=n
        ),
    )
)


@examples(100)
@given(masks)
def test_counts_add_up_to_the_judged_pixels(pair):
    prediction, target = (torch.tensor(m).reshape(-1, 5, 6) for m in pair)
    both, either, neither, background = episode_counts(prediction, target).T
    judged = (target != 255).flatten(1).sum(1)
    assert torch.equal(either + neither, judged)
    assert torch.equal(both + background, judged)
    assert (both <= either).all()
    assert (neither <= background).all()


@examples(100)
@given(masks)
def test_counts_agree_with_scikit_learn(pair):
    prediction, target = (torch.tensor(m).reshape(-1, 5, 6) for m in pair)
    for row, p, t in zip(episode_counts(prediction, target), prediction, target, strict=True):
        valid = t != 255
        if row[1] > 0:
            expected = jaccard_score(t[valid].numpy(), p[valid].numpy(), pos_label=1)
            assert float(row[0] / row[1]) == pytest.approx(expected)
        if row[3] > 0:
            expected = jaccard_score(t[valid].numpy(), p[valid].numpy(), pos_label=0)
            assert float(row[2] / row[3]) == pytest.approx(expected)


@examples(100)
@given(masks)
def test_swapping_foreground_and_background_swaps_the_columns(pair):
    prediction, target = (torch.tensor(m).reshape(-1, 5, 6) for m in pair)
    swapped = torch.where(target == 255, target, 1 - target)
    counts = episode_counts(prediction, target)
    assert torch.equal(episode_counts(1 - prediction, swapped), counts[:, [2, 3, 0, 1]])


@pytest.mark.parametrize(
    "prediction, target, error, message",
    [
        (torch.zeros(2, 3, 3).long(), torch.zeros(2, 3, 4).long(), ValueError, "same shape"),
        (torch.zeros(3, 3).long(), torch.zeros(3, 3).long(), ValueError, r"\(B, H, W\)"),
        (torch.zeros(1, 3, 3), torch.zeros(1, 3, 3).long(), TypeError, "prediction must hold int"),
        (torch.zeros(1, 3, 3).long(), torch.zeros(1, 3, 3), TypeError, "target must hold int"),
        (torch.full((1, 3, 3), 2), torch.zeros(1, 3, 3).long(), ValueError, "prediction must hold"),
        (torch.zeros(1, 3, 3).long(), torch.full((1, 3, 3), 7), ValueError, "target must hold"),
    ],
)
def test_counts_refuse_what_is_no_mask(prediction, target, error, message):
    with pytest.raises(error, match=message):
        episode_counts(prediction, target)


@pytest.mark.parametrize("void", [0, 1])
def test_counts_refuse_a_void_label_that_means_something_else(void):
    with pytest.raises(ValueError, match="void must differ"):
        episode_counts(tensor("#."), tensor("#."), void=void)


def test_scores_of_a_case_done_by_hand():
    ids = torch.tensor([3, 3, 7])
    counts = torch.tensor([[10, 40, 60, 90], [0, 10, 90, 100], [30, 50, 50, 70]])
    result = scores(ids, counts)
    # class 3: 10 / 50; class 7: 30 / 50; foreground 40 / 100; background 200 / 260
    assert result.class_iou == pytest.approx({3: 20.0, 7: 60.0})
    assert result.miou == pytest.approx(40.0)
    assert result.fb_iou == pytest.approx((40.0 + 100 * 200 / 260) / 2)
    assert result.episodes == 3


def test_areas_are_summed_before_the_division():
    ids = torch.tensor([1, 1])
    counts = torch.tensor([[1, 1, 9, 9], [0, 99, 0, 99]])
    assert scores(ids, counts).miou == pytest.approx(1.0)  # not the mean of 100 and 0


def test_perfect_and_worthless_predictions():
    ids = torch.tensor([1, 2, 2])
    perfect = torch.tensor([[5, 5, 5, 5]] * 3)
    assert scores(ids, perfect) == Scores({1: 100.0, 2: 100.0}, 100.0, 100.0, 3, (100.0, 100.0))
    nothing = torch.tensor([[0, 5, 0, 5]] * 3)
    assert scores(ids, nothing) == Scores({1: 0.0, 2: 0.0}, 0.0, 0.0, 3, (0.0, 0.0))


def test_no_background_anywhere_counts_as_right():
    assert scores(torch.tensor([1]), torch.tensor([[5, 5, 0, 0]])).fb_iou == 100.0


def test_an_episode_without_foreground_changes_nothing_but_the_background():
    ids = torch.tensor([1, 1])
    with_empty = torch.tensor([[3, 6, 4, 7], [0, 0, 10, 10]])
    result, alone = scores(ids, with_empty), scores(ids[:1], with_empty[:1])
    assert result.class_iou == alone.class_iou
    assert result.fb_iou > alone.fb_iou
    assert np.isfinite(result.interval).all()


def random_episodes(n: int, classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = np.random.default_rng(seed)
    union = generator.integers(50, 500, size=n)
    inside = generator.binomial(union, generator.uniform(0.1, 0.9, size=n))
    background = generator.integers(500, 900, size=n)
    counts = np.stack([inside, union, background, background + union - inside], axis=1)
    return torch.from_numpy(np.arange(n) % classes + 1), torch.from_numpy(counts)


def test_interval_is_the_bootstrap_done_plainly():
    ids, counts = random_episodes(60, 3)
    result = scores(ids, counts, resamples=4000, confidence=0.9)
    generator = np.random.default_rng(99)
    means = []
    for _ in range(4000):
        ious = []
        for class_id in (1, 2, 3):
            rows = counts[ids == class_id].numpy()
            rows = rows[generator.integers(len(rows), size=len(rows))]
            ious.append(100 * rows[:, 0].sum() / rows[:, 1].sum())
        means.append(np.mean(ious))
    assert result.interval == pytest.approx(tuple(np.percentile(means, [5, 95])), abs=0.3)


@pytest.mark.parametrize(
    "counts",
    [
        random_episodes(30, 1)[1],
        torch.tensor([[0, 1, 9, 10], [1, 1, 9, 9], [0, 0, 10, 10], [0, 0, 10, 10]]),
    ],
    ids=["many pixels", "one pixel"],
)
def test_interval_is_that_of_the_same_resamples_drawn_plainly(counts):
    """1,000 of them with seed 0 where nothing else is said."""
    n = len(counts)
    drawn = np.random.default_rng(0).integers(n, size=(1000, n))
    both, union = counts.numpy()[drawn, :2].sum(axis=1).T
    resampled = 100 * both[union > 0] / union[union > 0]
    for settings, tails in (({}, [2.5, 97.5]), ({"confidence": 0.4}, [30, 70])):
        result = scores(torch.ones(n, dtype=torch.long), counts, **settings)
        assert result.interval == pytest.approx(np.percentile(resampled, tails), rel=1e-12)


def test_interval_covers_the_true_value_about_as_often_as_it_says():
    ids, counts = random_episodes(20_000, 4)
    truth = scores(ids, counts, resamples=1).miou
    hits = 0
    for start in range(0, 20_000, 200):
        part = slice(start, start + 200)
        low, high = scores(ids[part], counts[part], resamples=200, confidence=0.8).interval
        hits += low <= truth <= high
    assert 68 <= hits <= 92  # of 100, for 80 %


def test_interval_narrows_with_more_episodes():
    def width(n: int) -> float:
        low, high = scores(*random_episodes(n, 5)).interval
        return high - low

    assert width(4000) == pytest.approx(width(1000) / 2, rel=0.25)


def test_interval_depends_on_the_seed_alone():
    ids, counts = random_episodes(50, 2)
    state = np.random.get_state()[1].copy()  # noqa: NPY002 (the global state must stay as it is)
    first = scores(ids, counts, seed=4)
    assert scores(ids, counts, seed=4) == first
    assert scores(ids, counts, seed=5).interval != first.interval
    assert scores(ids, counts, seed=5).miou == first.miou
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002


@examples(50)
@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 10_000))
def test_scores_stay_in_range_and_ignore_the_order(n, classes, seed):
    ids, counts = random_episodes(n, min(n, classes), seed)
    result = scores(ids, counts, resamples=20)
    for value in (result.miou, result.fb_iou, *result.interval, *result.class_iou.values()):
        assert 0 <= value <= 100
    order = torch.from_numpy(np.random.default_rng(seed).permutation(n))
    shuffled = scores(ids[order], counts[order], resamples=20)
    assert shuffled.class_iou == result.class_iou
    assert (shuffled.miou, shuffled.fb_iou) == (result.miou, result.fb_iou)


def test_one_episode_has_an_interval_without_width():
    result = scores(torch.tensor([4]), torch.tensor([[1, 4, 5, 8]]))
    assert result.interval == pytest.approx((25.0, 25.0))


def test_a_missing_class_is_named():
    ids, counts = random_episodes(10, 2)
    with pytest.raises(ValueError, match=r"no episode of class \[3, 5\] among 10"):
        scores(ids, counts, classes=[1, 2, 3, 5])
    with pytest.raises(ValueError, match=r"episodes of class \[2\], which is not in classes"):
        scores(ids, counts, classes=[1])
    assert scores(ids, counts, classes=[2, 1]) == scores(ids, counts)


@pytest.mark.parametrize(
    "ids, counts, settings, error, message",
    [
        ([], np.zeros((0, 4)), {}, ValueError, "no episodes to score"),
        ([1, 1], [[1, 2, 3, 4]], {}, ValueError, r"class_ids \(N,\) and counts \(N, 4\)"),
        ([1], [[1, 2, 3]], {}, ValueError, r"class_ids \(N,\) and counts \(N, 4\)"),
        ([9], [[0, 0, 8, 8]], {}, ValueError, "class 9 has no foreground pixel"),
        *(
            ([1], [[1, 2, 3, 4]], {"confidence": confidence}, ValueError, "confidence must lie")
            for confidence in (0, 1, 1.5, 95)
        ),
        ([1], [[1, 2, 3, 4]], {"resamples": 0}, ValueError, "resamples must be at least 1"),
    ],
)
def test_scores_refuse_what_cannot_be_scored(ids, counts, settings, error, message):
    with pytest.raises(error, match=message):
        scores(torch.tensor(ids).long(), torch.tensor(np.array(counts)).long(), **settings)


def test_scores_refuse_fractions():
    with pytest.raises(TypeError, match=r"expected integers, got torch.int64 and torch.float32"):
        scores(torch.tensor([1]), torch.tensor([[0.5, 1.0, 2.0, 3.0]]))


def better(counts: Tensor) -> Tensor:
    """Each episode with a tenth of its misses found."""
    found = counts.clone()
    found[:, 0] += (counts[:, 1] - counts[:, 0]) // 10
    return found


def test_gain_is_that_of_the_same_resamples_drawn_plainly():
    ids, counts = random_episodes(45, 3)
    other = random_episodes(45, 3, seed=1)[1]
    generator, per_class = np.random.default_rng(0), []
    for class_id in (1, 2, 3):
        drawn = generator.integers(15, size=(1000, 15))
        sides = (rows[ids == class_id].numpy()[drawn, :2].sum(axis=1) for rows in (counts, other))
        per_class.append(np.subtract(*(100 * both / union for both, union in (s.T for s in sides))))
    differences = np.mean(per_class, axis=0)
    for settings, tails in (({}, [2.5, 97.5]), ({"confidence": 0.4}, [30, 70])):
        gain, interval = paired_gain(ids, counts, other, **settings)
        assert gain == pytest.approx(scores(ids, counts).miou - scores(ids, other).miou)
        assert interval == pytest.approx(np.percentile(differences, tails), rel=1e-9)


def test_gain_tells_apart_what_two_intervals_do_not():
    ids, counts = random_episodes(100, 5)
    gain, (low, high) = paired_gain(ids, better(counts), counts)
    assert scores(ids, better(counts)).interval[0] < scores(ids, counts).interval[1]
    assert 0 < low < gain < high


def test_gain_over_itself_is_zero_and_turns_with_its_sides():
    ids, counts = random_episodes(30, 2)
    assert paired_gain(ids, counts, counts) == (0, (0, 0))
    gain, (low, high) = paired_gain(ids, better(counts), counts, seed=3, resamples=50)
    back, (lowest, highest) = paired_gain(ids, counts, better(counts), seed=3, resamples=50)
    assert (back, lowest, highest) == pytest.approx((-gain, -high, -low))
    assert paired_gain(ids, better(counts), counts, seed=4, resamples=50)[1] != (low, high)


def test_gain_refuses_other_episodes():
    ids, counts = random_episodes(10, 2)
    with pytest.raises(ValueError, match=r"got \(10,\) and \(9, 4\)"):
        paired_gain(ids, counts, counts[1:])
    with pytest.raises(ValueError, match="confidence must lie between 0 and 1"):
        paired_gain(ids, counts, counts, confidence=1.0)
    with pytest.raises(ValueError, match="resamples must be at least 1"):
        paired_gain(ids, counts, counts, resamples=0)
    with pytest.raises(TypeError, match="expected integers"):
        paired_gain(ids, counts, counts / 2)
