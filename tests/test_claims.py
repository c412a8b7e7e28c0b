"""Verdicts on claims, at any filling of the grid."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from made_records import made_record
from scipy import stats

from pmms.claims import (
    FREE_CLAIMS,
    PAPER_CLAIMS,
    Claim,
    Finding,
    claims_sheet,
    find,
    gain_beyond,
    spread,
    verdict,
    whole_cells,
)
from pmms.comparison import compare
from pmms.difference_figures import show_differences
from pmms.grid import tables
from pmms.grid_rows import Table
from pmms.power import pairs_needed

CLAIM = Claim(text="PMMs over the baseline", table="table-1", row="PMMs", than="baseline")
ENTRIES = ("model", "untrained", "wrong_support", "everything", "all_objects", "seen_classes")
VALUES = np.random.default_rng(0).normal(0, 3, size=(5, 4))  # seed, fold


def save(folder: Path, table: Table, label: str, score: Callable[[int, int], float | None]) -> None:
    """The runs of one row; ``score`` of (seed, fold) gives a mIoU, or None for no run."""
    for seed, fold in table.cells(table.row(label)):
        miou = score(seed, fold)
        if miou is not None:
            classes = {str(5 * fold + n): miou + n - 3 for n in range(1, 6)}
            summary = {
                "miou": miou, "interval": [miou - 1, miou + 1], "by_seed": [miou],
                "class_iou": classes,
            }  # fmt: skip
            entries = dict.fromkeys(ENTRIES, summary)
            made_record(table, label, seed, fold, miou, scores=entries).save(folder)


def found(values: dict[int, tuple[float, ...]], **changes: object) -> Finding:
    fields = {"claim": CLAIM, "unit": "pairs", "values": values, "folds": (0, 1, 2, 3)}
    return Finding(**fields | changes)


@pytest.mark.parametrize(
    "interval, count, complete, expected",
    [
        (None, 0, False, "not run"),
        (None, 1, False, "undecided"),
        ((1.0, 2.0), 12, True, "holds"),
        ((1.0, 2.0), 12, False, "undecided"),
        ((-2.0, -1.0), 12, True, "does not hold"),
        ((-1.0, 2.0), 12, True, "undecided"),
        ((0.0, 2.0), 12, True, "undecided"),
    ],
)
def test_verdict_is_the_rule_of_the_text(
    interval: tuple[float, float] | None, count: int, complete: bool, expected: str
) -> None:
    assert verdict(interval, count=count, complete=complete) == expected


def test_a_claim_is_found_in_pairs_as_the_table_has_them(tmp_path: Path) -> None:
    table = tables("mini")["table-1"]
    save(tmp_path, table, "baseline", lambda seed, fold: 30.0 + fold)
    save(tmp_path, table, "PMMs", lambda seed, fold: 32.0 + fold + float(VALUES[seed, fold]))
    result = find(CLAIM, results=tmp_path)
    in_table = compare("table-1", results=tmp_path).row("PMMs").difference
    assert result.mean == pytest.approx(in_table.mean)
    assert result.interval == pytest.approx((in_table.interval.low, in_table.interval.high))
    assert (result.unit, len(result.all_values)) == ("pairs", in_table.pairs)
    assert result.values[2] == pytest.approx(2 + VALUES[:, 2], abs=1e-5)
    assert result.paper == pytest.approx(55.27 - 51.93)
    assert result.folds_for == sum(VALUES.mean(axis=0) > -2)
    assert result.verdict == ("holds" if in_table.interval.low > 0 else "undecided")


def test_only_runs_with_a_partner_count_and_all_folds_are_needed(tmp_path: Path) -> None:
    table = tables("mini")["table-1"]
    assert find(CLAIM, results=tmp_path).verdict == "not run"
    save(tmp_path, table, "baseline", lambda seed, fold: 30.0 if fold < 3 else None)
    assert find(CLAIM, results=tmp_path).verdict == "not run"
    save(tmp_path, table, "PMMs", lambda seed, fold: 40.0 + 0.1 * seed if seed < 2 else None)
    result = find(CLAIM, results=tmp_path)
    assert (set(result.values), len(result.all_values)) == ({0, 1, 2}, 6)
    assert result.interval[0] > 9
    assert (result.complete, result.verdict) == (False, "undecided")
    save(tmp_path, table, "baseline", lambda seed, fold: 30.0 if fold == 3 else None)
    assert find(CLAIM, results=tmp_path).verdict == "holds"


def test_a_verdict_waits_for_all_runs_and_counts_whole_seeds(tmp_path: Path) -> None:
    table = tables("mini")["table-3"]
    save(tmp_path, table, "Gaussian", lambda seed, fold: 40.0)
    # Seed 1 has fold 0 alone, whose gain is larger.
    gain = {0: 9.0, 1: 1.0, 2: 2.0, 3: 1.5}
    partly = {(0, fold) for fold in range(4)} | {(1, 0)}
    save(
        tmp_path, table, "vMF",
        lambda seed, fold: 40 + gain[fold] if (seed, fold) in partly else None,
    )  # fmt: skip
    (claim,) = [claim for claim in PAPER_CLAIMS if claim.table == "table-3"]
    result = find(claim, results=tmp_path)
    assert result.all_values == pytest.approx(list(gain.values()))
    assert (result.planned, result.whole) == (12, False)
    shown = compare(table, results=tmp_path).row("vMF").difference
    assert (shown.mean, shown.pairs) == (pytest.approx(result.mean), 4)

    free = tables("mini")["free-kernel"]
    save(tmp_path, free, "Gaussian", lambda seed, fold: 20.0)
    save(tmp_path, free, "vMF", lambda seed, fold: 21.0 + 0.1 * fold if seed == 0 else None)
    claim = next(claim for claim in FREE_CLAIMS if claim.table == "free-kernel")
    result = find(claim, results=tmp_path)
    assert (result.verdict, result.whole, result.early) == ("holds", False, True)


def test_the_opposite_of_a_claim_is_noticed(tmp_path: Path) -> None:
    table = tables("mini")["table-3"]
    save(tmp_path, table, "Gaussian", lambda seed, fold: 40.0 + 0.1 * seed)
    save(tmp_path, table, "vMF", lambda seed, fold: 30.0 + 0.1 * fold)
    (claim,) = [claim for claim in PAPER_CLAIMS if claim.table == "table-3"]
    assert find(claim, results=tmp_path).verdict == "does not hold"


def test_starts_of_em_are_no_repetitions(tmp_path: Path) -> None:
    table = tables("mini")["free-k"]
    save(tmp_path, table, "K = 1", lambda seed, fold: 20.0)
    save(tmp_path, table, "K = 3", lambda seed, fold: 22.0 + fold + 0.01 * seed)
    claim = next(claim for claim in FREE_CLAIMS if claim.table == "free-k")
    result = find(claim, results=tmp_path)
    assert (result.unit, len(result.all_values)) == ("classes", 20)
    # The made classes of a fold gain alike, so the interval is that of four folds, five times each.
    gains = np.repeat([2.02, 3.02, 4.02, 5.02], 5)
    assert result.all_values == pytest.approx(gains)
    ends = stats.t.interval(0.95, 19, gains.mean(), stats.sem(gains))
    assert result.interval == pytest.approx(ends)
    assert compare(table, results=tmp_path).row("K = 3").difference.pairs == 4


def test_claims_across_tables_differ_in_shots_alone(tmp_path: Path) -> None:
    one, five = tables("mini")["table-4"], tables("mini")["table-5"]
    save(tmp_path, one, "PMMs", lambda seed, fold: 40.0)
    save(tmp_path, five, "PMMs", lambda seed, fold: 43.0 + fold)
    shots = Claim(text="", table="table-5", row="PMMs", than="PMMs", than_table="table-4")
    result = find(shots, results=tmp_path)
    assert result.mean == pytest.approx(4.5)
    assert len(result.all_values) == 12  # Table 4 has more seeds
    assert result.paper == pytest.approx(56.81 - 55.22)
    photos = tables("mini")["photos-1-shot"]
    save(tmp_path / "coco128", photos, "K = 3", lambda seed, fold: 20.0)
    with pytest.raises(ValueError, match="differ in more than"):
        find(replace(shots, than_table="photos-1-shot", than="K = 3"), results=tmp_path)


def test_a_gain_beyond_another_needs_all_four_runs(tmp_path: Path) -> None:
    one, five = tables("mini")["table-4"], tables("mini")["table-5"]
    save(tmp_path, one, "PMMs", lambda seed, fold: 40.0)
    save(tmp_path, five, "PMMs", lambda seed, fold: 43.0 + 10 * seed + fold)
    save(tmp_path, one, "baseline", lambda seed, fold: 30.0 if fold else None)
    save(tmp_path, five, "baseline", lambda seed, fold: 31.0 if seed else None)
    pmms, baseline = (
        Claim(text="", table="table-5", row=name, than=name, than_table="table-4")
        for name in ("PMMs", "baseline")
    )
    gains = gain_beyond(pmms, baseline, results=tmp_path)
    assert gains == pytest.approx([2 + 10 * seed + fold for seed in (1, 2) for fold in (1, 2, 3)])
    assert gain_beyond(baseline, pmms, results=tmp_path) == pytest.approx([-g for g in gains])
    assert gain_beyond(pmms, baseline, results=tmp_path / "empty") == []


def test_whole_cells_are_those_of_every_row(tmp_path: Path) -> None:
    table = tables("mini")["table-3"]
    save(tmp_path, table, "Gaussian", lambda seed, fold: 40.0 + fold)
    save(tmp_path, table, "vMF", lambda seed, fold: 41.0 if (seed, fold) == (1, 2) else None)
    cells = whole_cells(compare(table, results=tmp_path))
    assert cells == {(1, 2): {"Gaussian": 42.0, "vMF": 41.0}}
    assert whole_cells(compare("table-2", results=tmp_path)) == {}


def test_entries_of_one_record_are_no_pairs(tmp_path: Path) -> None:
    save(tmp_path, tables("mini")["controls"], "PMMs", lambda seed, fold: 40.0)
    claim = Claim(text="", table="controls", row="PMMs", than="PMMs, wrong support")
    with pytest.raises(ValueError, match="entries of one record"):
        find(claim, results=tmp_path)


@pytest.mark.parametrize("claim", PAPER_CLAIMS + FREE_CLAIMS, ids=lambda claim: claim.text)
def test_claims_name_rows_that_exist(claim: Claim, tmp_path: Path) -> None:
    result = find(claim, results=tmp_path)
    assert (result.mean, result.interval, result.verdict) == (None, None, "not run")
    assert (result.paper is not None) == (claim in PAPER_CLAIMS)
    assert result.paper is None or result.paper > 0


def test_power_is_what_draws_show() -> None:
    # Known spread: (1.960 + 0.842)^2 (3.6 / 2)^2 = 25.4; the t distribution asks for two more.
    count = pairs_needed(3.6, resolve=2)
    assert count == 28
    draws = np.random.default_rng(0).normal(2, 3.6, size=(4000, count))
    lows = [found({0: tuple(draw)}).interval[0] for draw in draws[:1000]]
    assert 0.77 < np.mean(np.array(lows) > 0) < 0.83
    assert pairs_needed(3.6, resolve=2, power=0.95) > count > pairs_needed(3.6, resolve=4)
    assert pairs_needed(1e-4, resolve=2) == 3  # fewer have no interval
    for wrong in ({"spread": 0}, {"resolve": -1}, {"power": 1}):
        with pytest.raises(ValueError, match="must be positive"):
            pairs_needed(**{"spread": 1, "resolve": 1} | wrong)


def test_spread_is_pooled_about_each_mean() -> None:
    few = [found({0: (1.0, 3.0), 1: (2.0,)}), found({0: (10.0, 14.0)}), found({0: (99.0,)})]
    assert spread(few) == pytest.approx(((2 + 8) / 3) ** 0.5)
    assert spread(few[2:]) is None


def test_sheet_says_how_much_there_is() -> None:
    sure = {fold: (2.0 + fold, 2.5) for fold in range(4)}
    findings = [
        found(sure, paper=3.34),
        found({0: (2.0,)}),
        found({0: (2.0,) * 9, 1: (-1.0,)}, unit="classes", folds=(0, 1)),
        found({}),
        found(sure, planned=20, whole=False),
        found({0: (2.0,)}, planned=20, whole=False),
        found(sure, planned=8),
        found({0: (2.0,) * 9, 1: (-1.0,)}, unit="classes", folds=(0, 1), whole=False),
    ]
    assert [row[1:] for row in claims_sheet(findings).rows] == [
        ("+3.34", "+3.00 ± 0.84", "8 pairs", "4 of 4", "holds"),
        ("–", "+2.00", "1 pair", "1 of 1", "undecided, runs missing"),
        ("–", "+1.70 ± 0.68", "10 classes", "1 of 2", "holds"),
        ("–", "not run", "–", "–", "not run"),
        ("–", "+3.00 ± 0.84", "8 of 20 pairs", "4 of 4", "holds so far"),
        ("–", "+2.00", "1 of 20 pairs", "1 of 1", "undecided, runs missing"),
        ("–", "+3.00 ± 0.84", "8 pairs", "4 of 4", "holds"),
        ("–", "+1.70 ± 0.68", "10 classes", "1 of 2", "holds so far"),
    ]


def test_figure_has_a_dot_for_each_difference_and_says_what_is_missing() -> None:
    figure, axes = plt.subplots()
    findings = [found({0: (1.0, 2.0), 3: (4.0,)}, paper=0.5), found({}), found({1: (5.0,)})]
    show_differences(axes, findings)
    drawn = [line for line in axes.lines if line.get_marker() == "o" and len(line.get_xdata())]
    assert [list(line.get_xdata()) for line in drawn] == [[1, 2], [4], [5]]
    rows = [np.round(line.get_ydata().mean()) for line in drawn]
    assert rows == [0, 0, 2]
    assert [text.get_text() for text in axes.texts] == ["not run"]
    means = [
        line.get_xdata()[0]
        for line in axes.lines
        if line.get_marker() == "|" and len(line.get_xdata())
    ]
    assert means == pytest.approx([7 / 3, 5])
    labels = axes.get_legend_handles_labels()[1]
    assert labels == ["fold 0", "fold 1", "fold 3", "mean, 95 % interval", "paper"]
    plt.close(figure)
