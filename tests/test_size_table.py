"""Sizes are counted on the networks, rates are those of the benchmark."""

from pathlib import Path

import pytest

from pmms.authors import build_authors_model
from pmms.results import load_record
from pmms.size_table import parameters_in_millions, size_sheet

RESULTS = Path(__file__).parents[1] / "results"


def test_sizes_are_those_of_the_authors_networks_but_for_where_the_map_joins() -> None:
    # Theirs, counted by building them: 19.630 and 19.633 million.
    theirs = build_authors_model("pmms", weights=None)
    count = sum(weights.numel() for weights in theirs.parameters()) / 1e6
    assert count == pytest.approx(19.630, abs=5e-4)
    assert parameters_in_millions("paper", "pmms") == pytest.approx(count, abs=0.01)
    assert parameters_in_millions("paper", "rpmms") == pytest.approx(19.633, abs=0.01)


def test_rows_have_sizes_and_rates() -> None:
    sheet = size_sheet(RESULTS)
    rows = {row[0]: row[1:] for row in sheet.rows}
    assert list(rows) == ["baseline", "PMMs+", "PMMs", "RPMMs"]
    assert rows["baseline"][0] == "19.0"
    assert [rows[name][4] for name in rows] == ["1.00", "–", "0.90", "0.69"]
    entry = load_record(RESULTS / "bench-forward.json").scores
    of_321 = entry["rate of pmms, the baseline's = 1, at 321"]
    assert rows["PMMs"][5].startswith(f"{of_321['ratio']['baseline']:.2f} (")
    assert float(rows["RPMMs"][1]) > float(rows["PMMs"][1]) > float(rows["PMMs+"][1])
    assert rows["PMMs+"][1:4] == rows["baseline"][1:4]  # prototypes have no weights
    assert float(rows["PMMs"][3]) < 4
    assert "2 threads" in " ".join(sheet.notes)


def test_without_the_benchmark_the_rates_are_not_run(tmp_path: Path) -> None:
    sheet = size_sheet(tmp_path)
    assert sheet.rows[2][6:] == ("not run", "not run")
    assert "make bench" in sheet.notes[-1]
