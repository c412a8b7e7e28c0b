"""Means, intervals and paired differences are those that one computes by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_records import TABLE, made_comparison, made_record
from scipy import stats

from pmms.comparison import compare
from pmms.grid_rows import Row
from pmms.intervals import t_interval

VALUES = np.random.default_rng(0).normal(40, 3, size=(2, 3, 4))  # row, seed, fold


def score(label: str, seed: int, fold: int) -> float:
    return float(VALUES[["Gaussian", "vMF"].index(label), seed, fold])


def test_t_interval_is_that_of_scipy_and_of_the_formula() -> None:
    found = t_interval([1.0, 2.0, 4.0], over="seeds")
    # Mean 7/3, standard deviation sqrt(7/3), t with two degrees of freedom 4.302653.
    half = 4.302653 * np.sqrt(7 / 3 / 3)
    assert (found.low, found.high) == pytest.approx((7 / 3 - half, 7 / 3 + half), abs=1e-5)
    assert (found.over, found.count) == ("seeds", 3)
    with pytest.raises(ValueError, match="3 values at least, got 2"):
        t_interval([1.0, 2.0], over="seeds")


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    draws = np.random.default_rng(1).normal(5, 2, size=(2000, 5))
    found = [t_interval(list(map(float, draw)), over="seeds") for draw in draws]
    share = np.mean([one.low <= 5 <= one.high for one in found])
    assert 0.935 < share < 0.965


def test_mean_is_over_folds_and_its_interval_over_seeds(tmp_path: Path) -> None:
    found = made_comparison(tmp_path, score).row("vMF")
    assert found.folds == pytest.approx(dict(enumerate(VALUES[1].mean(axis=0))), abs=1e-5)
    assert found.mean == pytest.approx(VALUES[1].mean(), abs=1e-5)
    of_seeds = VALUES[1].mean(axis=1)
    ends = stats.t.interval(0.95, 2, of_seeds.mean(), stats.sem(of_seeds))
    assert (found.interval.low, found.interval.high) == pytest.approx(ends, abs=1e-5)
    assert (found.interval.over, found.interval.count) == ("seeds", 3)
    assert (found.runs, found.wanted, found.missing) == (12, 12, ())


def test_differences_are_paired_by_fold_and_seed(tmp_path: Path) -> None:
    comparison = made_comparison(tmp_path, score)
    found = comparison.row("vMF").difference
    differences = (VALUES[1] - VALUES[0]).ravel()
    test = stats.ttest_rel(VALUES[1].ravel(), VALUES[0].ravel()).confidence_interval(0.95)
    assert found.pairs == found.interval.count == 12
    assert found.mean == pytest.approx(differences.mean(), abs=1e-5)
    assert (found.interval.low, found.interval.high) == pytest.approx(tuple(test), abs=1e-5)
    assert comparison.row("Gaussian").difference is None


def test_pairing_removes_what_rows_have_in_common(tmp_path: Path) -> None:
    hard = {0: 10.0, 1: 60.0, 2: 30.0, 3: 80.0}

    def shared(label: str, seed: int, fold: int) -> float:
        return hard[fold] + 5 * seed + (1.0 if label == "vMF" else 0.0)

    found = made_comparison(tmp_path, shared).row("vMF")
    assert found.difference.mean == pytest.approx(1)
    assert found.difference.interval.high - found.difference.interval.low < 1e-5
    assert found.interval.high - found.interval.low > 10


def test_seeds_that_lack_a_fold_are_left_out(tmp_path: Path) -> None:
    def partly(label: str, seed: int, fold: int) -> float | None:
        return None if (label, seed, fold) == ("vMF", 2, 3) else score(label, seed, fold)

    found = made_comparison(tmp_path, partly).row("vMF")
    assert found.mean == pytest.approx(VALUES[1, :2].mean(), abs=1e-5)
    assert found.folds[0] == pytest.approx(VALUES[1, :2, 0].mean(), abs=1e-5)
    assert found.interval is None  # of two seeds
    # Of the same runs as the mean: else folds 0 to 2 would count more than fold 3.
    both = VALUES[:, :2]
    assert found.difference.mean == pytest.approx((both[1] - both[0]).mean(), abs=1e-5)
    assert (found.difference.pairs, found.difference.planned) == (8, 12)
    lacking = TABLE.config("mini", TABLE.row("vMF"), 2, 3).name
    assert (found.runs, found.missing) == (11, (lacking,))


def test_without_a_whole_seed_there_is_no_mean(tmp_path: Path) -> None:
    def first(label: str, seed: int, fold: int) -> float | None:
        return score(label, seed, fold) if fold == 0 else None

    found = made_comparison(tmp_path, first).row("vMF")
    assert found.folds == {0: pytest.approx(VALUES[1, :, 0].mean(), abs=1e-5)}
    assert found.mean is found.interval is None
    assert (found.difference.pairs, found.difference.planned) == (3, 12)


def test_one_seed_has_an_interval_over_episodes(tmp_path: Path) -> None:
    found = made_comparison(tmp_path, score, replace(TABLE, seeds=(0,))).row("vMF")
    assert found.interval.over == "episodes"
    # Four independent folds, each plus or minus 1.
    assert found.interval.high - found.mean == pytest.approx(1 / 2, abs=1e-5)
    assert found.difference.pairs == 4


def test_one_run_that_stands_for_all_seeds_has_no_spread_over_them(tmp_path: Path) -> None:
    table = replace(
        TABLE,
        rows=(Row(label="K = 1", parameters={"k": 1}), Row(label="K = 3", parameters={"k": 3})),
        shared={"model": "training_free"},
        against="K = 1",
        seed_name="em_seed",
    )
    found = made_comparison(
        tmp_path, lambda label, seed, fold: 20.0 + (seed if label == "K = 3" else 0), table
    )
    one, three = found.rows
    assert (one.runs, one.wanted, one.interval.over) == (4, 4, "episodes")
    assert (three.wanted, three.interval.over) == (12, "seeds")
    assert (three.difference.pairs, three.difference.mean) == (4, pytest.approx(1))
    assert three.difference.planned == 4


def test_controls_are_compared_on_the_first_episode_seed(tmp_path: Path) -> None:
    table = replace(
        TABLE,
        rows=(*TABLE.rows, Row(label="other", entry="wrong_support", paired=False)),
        first_episodes=True,
        seeds=(0,),
    )
    for fold in range(4):
        record = made_record(table, "vMF", 0, fold, 40)
        scores = record.scores | {"wrong_support": {"by_seed": [10.0], "interval": [9.0, 11.0]}}
        replace(record, scores=scores).save(tmp_path)
    found = compare(table, results=tmp_path)
    assert found.protocol.label == "ours (seeds=0)"
    assert found.row("vMF").mean == 40.5
    assert found.row("other").mean == 10
    assert found.row("other").difference is None


def test_a_record_without_the_scores_of_a_row_is_refused(tmp_path: Path) -> None:
    table = replace(TABLE, rows=(*TABLE.rows, Row(label="other", entry="seen_classes")))
    with pytest.raises(ValueError, match="no scores of 'seen_classes'"):
        made_comparison(tmp_path, lambda label, seed, fold: 40.0, table)


def test_two_protocols_have_no_place_in_one_table(tmp_path: Path) -> None:
    made_record(TABLE, "vMF", 0, 0, 40).save(tmp_path)
    other = made_record(TABLE, "vMF", 0, 1, 40)
    for change in ({"name": "hsnet", "preset": "hsnet"}, {"shots": 5}, {"seeds": [0]}):
        settings = {"name": "ours", "shots": 1, **change}
        replace(other, protocol=settings).save(tmp_path)
        with pytest.raises(ValueError, match="one protocol"):
            compare(TABLE, results=tmp_path)


def test_other_images_have_no_place_in_one_table(tmp_path: Path) -> None:
    made_record(TABLE, "vMF", 0, 0, 40).save(tmp_path)
    other = made_record(TABLE, "vMF", 0, 1, 40)
    replace(other, parameters=other.parameters | {"test_images": 60}).save(tmp_path)
    with pytest.raises(ValueError, match="test_images = 300, 60"):
        compare(TABLE, results=tmp_path)


def test_an_older_record_without_a_newer_parameter_is_of_the_same_images(tmp_path: Path) -> None:
    made_record(TABLE, "vMF", 0, 0, 40).save(tmp_path)
    other = made_record(TABLE, "vMF", 0, 1, 40)
    older = {name: value for name, value in other.parameters.items() if name != "min_images"}
    replace(other, parameters=older).save(tmp_path)
    assert compare(TABLE, results=tmp_path).row("vMF").runs == 2


def test_a_record_under_the_name_of_another_is_refused(tmp_path: Path) -> None:
    path = made_record(TABLE, "vMF", 0, 0, 40).save(tmp_path)
    path.rename(tmp_path / f"{TABLE.config('mini', TABLE.row('vMF'), 0, 1).name}.json")
    with pytest.raises(ValueError, match="holds the record"):
        compare(TABLE, results=tmp_path)


def test_failed_runs_are_told_from_those_not_run(tmp_path: Path) -> None:
    record = made_record(TABLE, "vMF", 1, 2, 40, status="failed: out of memory", scores={})
    record.save(tmp_path / "failed")
    at_home = made_record(TABLE, "vMF", 1, 3, 40, status="failed: stopped", scores={})
    at_home.save(tmp_path)
    found = compare(TABLE, results=tmp_path).row("vMF")
    assert found.failed == {
        record.name: "failed: out of memory",
        at_home.name: "failed: stopped",
    }
    assert found.runs == 0
    assert found.failed_folds == {2, 3}
    # A run that was repeated with success has not failed any more.
    made_record(TABLE, "vMF", 1, 2, 40).save(tmp_path)
    assert record.name not in compare(TABLE, results=tmp_path).row("vMF").failed


def test_the_papers_difference_needs_both_means(tmp_path: Path) -> None:
    found = compare(TABLE, results=tmp_path)
    against = TABLE.row(TABLE.against)
    assert found.row("vMF").paper_difference(against) == pytest.approx(0.59)
    assert found.row("Gaussian").paper_difference(against) is None
    assert found.row("vMF").paper_difference(Row(label="none")) is None
    assert found.protocol is None


def test_unknown_tables_and_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"table must be one of table-1, .*'table-7'"):
        compare("table-7", results=tmp_path)
    with pytest.raises(ValueError, match="no row 'PMMs'"):
        compare(TABLE, results=tmp_path).row("PMMs")
