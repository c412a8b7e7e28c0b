"""The paper's numbers are those that it prints, and where it contradicts itself we know it."""

import re
from pathlib import Path

import pytest

from pmms import paper

TEXT = (
    Path(__file__).parents[2] / "shared" / "paper" / "prototype-mixture-models.txt"
)  # of the authors, not part of this repository
OFF = {("Resnet50, RPMMs", 5): 57.285, ("VGG16, PANet", 5): 55.5625, ("VGG16, FWB", 4): 51.865}
"""Rows whose mean is further from the mean of their folds than rounding explains."""


@pytest.fixture(scope="module")
def text() -> str:
    if not TEXT.is_file():
        pytest.skip(f"the paper's text is not at {TEXT.name} beside the repository")
    return TEXT.read_text(encoding="utf-8").replace("<b>", "").replace("</b>", "")


def printed_rows(text: str, number: int) -> list[tuple[str, list[float | None]]]:
    """Rows below a table's caption: what stands before the numbers, and the numbers."""
    below = text.split(f"**Table {number}.**", 1)[1].split("\n\n", 2)[1]
    rows = []
    for line in below.splitlines()[1:]:
        cells = [re.sub(r"<.*?>|\*|\[\d+\]", "", cell).strip() for cell in line.split("\t")]
        numeric = [c for c in cells if re.fullmatch(r"-|\d+\.\d\d", c)]
        name = " ".join(c for c in cells if c and c not in numeric)
        rows.append((name, [None if c == "-" else float(c) for c in numeric]))
    return rows


@pytest.mark.parametrize("number", paper.TABLES)
def test_every_value_stands_in_the_paper_in_its_row_and_column(text: str, number: int) -> None:
    table = paper.TABLES[number]
    printed = printed_rows(text, number)
    assert len(printed) == len(table.rows)
    for (name, values), (row, ours) in zip(printed, table.rows.items(), strict=True):
        assert values == ([ours[-1]] if number == 1 else list(ours)), row
        if number > 1:  # Table 1 names its rows by ticks
            method = row.split(", ")[-1]
            assert method in name


def test_size_and_speed_stand_in_the_paper(text: str) -> None:
    flat = " ".join(text.split())
    for part in (
        "The size of PMMs model is 19.5M",
        "the baseline CANet [19] (19M)",
        "with $K = 3$ , our inference speed on single 2080Ti GPU is 26 FPS",
        "that of CANet (29 FPS)",
        "With RPMMs the speed decreases to 20 FPS while the model size (19.6M)",
        "to determine the number of prototypes using PMMs<sup>+</sup> with P-Match",
    ):
        assert part in flat
    assert paper.PARAMETERS == {"baseline": 19, "pmms": 19.5, "rpmms": 19.6}
    assert paper.FRAMES == {"baseline": 29, "pmms": 26, "rpmms": 20}


@pytest.mark.parametrize("number", paper.TABLES)
def test_means_are_those_of_the_folds_but_where_noted(number: int) -> None:
    for row, values in paper.TABLES[number].rows.items():
        if values[0] is None:
            continue
        of_folds = sum(values[:4]) / 4
        one_decimal = all(round(value, 1) == value for value in values)
        rounding = 0.05 if one_decimal else 0.0075  # half a digit, and the rounding of the folds
        if (row, number) not in OFF:
            assert values[4] == pytest.approx(of_folds, abs=rounding + 1e-6), row
        else:
            assert of_folds == pytest.approx(OFF[row, number], abs=1e-9)
            assert abs(values[4] - of_folds) > rounding


def test_contradictions_are_as_noted() -> None:
    one, four, six = paper.TABLE_1, paper.TABLE_4, paper.TABLE_6
    assert one.values("PMMs")["mean"] == 55.27
    assert four.values("Resnet50, PMMs")["mean"] == 55.22
    assert one.values("RPMMs")["mean"] == four.values("Resnet50, RPMMs")["mean"] == 56.34
    assert six.values("1-shot, RPMMs")["3"] < six.values("1-shot, PMMs")["3"]
    # What tables share they agree on.
    assert paper.TABLE_2.rows["3"] == paper.TABLE_3.rows["VMF"]
    assert paper.TABLE_2.values("3")["mean"] == one.values("PMMs+")["mean"]
    # K = 1 of PMMs+ is one prototype, as the baseline is: not the same number.
    assert paper.TABLE_2.values("1")["mean"] != one.values("Baseline")["mean"]


def test_rows_of_the_paper_and_of_others() -> None:
    table = paper.TABLE_5
    assert table.other_work == (
        "VGG16, OSLSM", "VGG16, SG-One", "VGG16, FWB", "VGG16, PANet", "Resnet50, CANet",
    )  # fmt: skip
    assert table.values("Resnet50, CANet") == {"mean": 55.80}
    assert table.values("VGG16, RPMMs")["2"] == 51.94
    with pytest.raises(KeyError):
        table.values("PMMs")
