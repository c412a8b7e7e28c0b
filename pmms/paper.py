"""The numbers of the paper: Tables 1 to 6, size and speed. The only numbers here typed by hand.

Yang, Liu, Li, Jiao, Ye: Prototype Mixture Models for Few-shot Semantic Segmentation, ECCV 2020.
All scores are mIoU in percent. Tables 1 to 5 are of Pascal-5i, Table 6 is of COCO-20i. "PMMs+" is
P-Match alone, "PMMs" is P-Match with P-Conv; Tables 2 and 3 are of PMMs+, as the text beside them
says. The paper does not say which episodes were drawn, how void pixels count, or which checkpoint
was tested; the authors' code does (:mod:`pmms.protocols`, "authors"). No run is repeated with
another seed, and no spread is given.
"""

from collections.abc import Mapping
from dataclasses import dataclass

FOLDS = ("0", "1", "2", "3")
COLUMNS = (*FOLDS, "mean")
"""Columns of Tables 2 to 6: one for each fold, and the mean over folds."""

Row = tuple[float | None, float | None, float | None, float | None, float]
"""The values of ``COLUMNS``; None where the paper has a dash."""


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """One table of the paper.

    Attributes:
        number: 1 to 6.
        caption: what it shows, in the words of this book.
        rows: row -> values of ``COLUMNS``. A row of Tables 4 to 6 is named "group, method", as
            "Resnet50, PMMs"; where the method is other work, the name has no "ours".
        ours: rows that are the paper's own work or its baseline.
    """

    number: int
    caption: str
    rows: Mapping[str, Row]
    ours: tuple[str, ...]

    def values(self, row: str) -> dict[str, float]:
        """Column -> value of one row, without the dashes.

        Raises:
            KeyError: if there is no such row.
        """
        pairs = zip(COLUMNS, self.rows[row], strict=True)
        return {column: value for column, value in pairs if value is not None}

    @property
    def other_work(self) -> tuple[str, ...]:
        """Rows quoted from other papers."""
        return tuple(row for row in self.rows if row not in self.ours)


def _mean(value: float) -> Row:
    return (None, None, None, None, value)


TABLE_1 = PaperTable(
    number=1,
    caption="Ablation on Pascal-5i, three prototypes",
    rows={
        "Baseline": _mean(51.93),
        "PMMs+": _mean(54.63),
        "PMMs": _mean(55.27),
        "RPMMs": _mean(56.34),
    },
    ours=("Baseline", "PMMs+", "PMMs", "RPMMs"),
)
TABLE_2 = PaperTable(
    number=2,
    caption="Number of prototypes K, PMMs+ on Pascal-5i",
    rows={
        "1": (49.38, 66.42, 51.29, 47.68, 53.69),
        "2": (50.85, 66.65, 51.89, 48.25, 54.41),
        "3": (51.88, 66.72, 51.14, 48.80, 54.63),
        "4": (51.89, 66.96, 51.36, 47.91, 54.53),
        "5": (50.76, 66.89, 50.76, 47.94, 54.09),
    },
    ours=("1", "2", "3", "4", "5"),
)
TABLE_3 = PaperTable(
    number=3,
    caption="Kernel of the mixture, PMMs+ on Pascal-5i",
    rows={
        "Gaussian": (50.94, 66.70, 50.59, 47.91, 54.04),
        "VMF": (51.88, 66.72, 51.14, 48.80, 54.63),
    },
    ours=("Gaussian", "VMF"),
)
TABLE_4 = PaperTable(
    number=4,
    caption="1-shot on Pascal-5i; CANet is tested at several scales",
    rows={
        "VGG16, OSLSM": (33.60, 55.30, 40.90, 33.50, 40.80),
        "VGG16, co-FCN": (36.70, 50.60, 44.90, 32.40, 41.10),
        "VGG16, SG-One": (40.20, 58.40, 48.40, 38.40, 46.30),
        "VGG16, PANet": (42.30, 58.00, 51.10, 41.20, 48.10),
        "VGG16, FWB": (47.04, 59.64, 52.51, 48.27, 51.90),
        "VGG16, RPMMs": (47.14, 65.82, 50.57, 48.54, 53.02),
        "Resnet50, CANet": (49.56, 64.97, 49.83, 51.49, 53.96),
        "Resnet50, PMMs": (51.98, 67.54, 51.54, 49.81, 55.22),
        "Resnet50, RPMMs": (55.15, 66.91, 52.61, 50.68, 56.34),
    },
    ours=("VGG16, RPMMs", "Resnet50, PMMs", "Resnet50, RPMMs"),
)
TABLE_5 = PaperTable(
    number=5,
    caption="5-shot on Pascal-5i",
    rows={
        "VGG16, OSLSM": (35.90, 58.10, 42.70, 39.10, 43.95),
        "VGG16, SG-One": (41.90, 58.60, 48.60, 39.40, 47.10),
        "VGG16, FWB": (50.87, 62.86, 56.48, 50.09, 55.08),
        "VGG16, PANet": (51.80, 64.60, 59.80, 46.05, 55.70),
        "VGG16, RPMMs": (50.00, 66.46, 51.94, 47.64, 54.01),
        "Resnet50, CANet": _mean(55.80),
        "Resnet50, PMMs": (55.03, 68.22, 52.89, 51.11, 56.81),
        "Resnet50, RPMMs": (56.28, 67.34, 54.52, 51.00, 57.30),
    },
    ours=("VGG16, RPMMs", "Resnet50, PMMs", "Resnet50, RPMMs"),
)
TABLE_6 = PaperTable(
    number=6,
    caption="COCO-20i with ResNet-50, FWB with ResNet-101",
    rows={
        "1-shot, PANet": _mean(20.90),
        "1-shot, FWB": (16.98, 17.98, 20.96, 28.85, 21.19),
        "1-shot, Baseline": (25.08, 30.25, 24.45, 24.67, 26.11),
        "1-shot, PMMs": (29.28, 34.81, 27.08, 27.27, 29.61),
        "1-shot, RPMMs": (29.53, 36.82, 28.94, 27.02, 30.58),
        "5-shot, FWB": (19.13, 21.46, 23.93, 30.08, 23.65),
        "5-shot, PANet": _mean(29.70),
        "5-shot, Baseline": (25.95, 32.38, 26.11, 26.98, 27.86),
        "5-shot, PMMs": (33.00, 40.55, 30.29, 33.27, 34.28),
        "5-shot, RPMMs": (33.82, 41.96, 32.99, 33.33, 35.52),
    },
    ours=(
        "1-shot, Baseline", "1-shot, PMMs", "1-shot, RPMMs",
        "5-shot, Baseline", "5-shot, PMMs", "5-shot, RPMMs",
    ),
)  # fmt: skip

TABLES = {table.number: table for table in (TABLE_1, TABLE_2, TABLE_3, TABLE_4, TABLE_5, TABLE_6)}

PARAMETERS = {"baseline": 19.0, "pmms": 19.5, "rpmms": 19.6}
"""Size in millions, Section 4.3; the baseline is CANet. OSLSM has 272.6."""

FRAMES = {"baseline": 29, "pmms": 26, "rpmms": 20}
"""Images a second on one 2080Ti, 1-shot, K = 3, Section 4.3; the baseline is CANet."""

CONTRADICTIONS = (
    "Table 1 and the text give PMMs 55.27; Table 4 gives 55.22, which is the mean of its folds.",
    "One prototype without P-Conv is the baseline's network. Table 2 gives it 53.69 (K = 1), "
    "Table 1 51.93: 1.76 of the 2.70 between baseline and PMMs+.",
    "Table 5: the folds of RPMMs with ResNet-50 average to 57.29, the mean is given as 57.30.",
    "Table 5: the folds of PANet average to 55.56, the mean is given as 55.70.",
    "Table 6, 1-shot, fold 3: RPMMs' 27.02 is set in bold as the best; PMMs has 27.27, FWB 28.85.",
    "The abstract says that PMMs improve 5-shot COCO by up to 5.82. In Section 4.4 and Table 6 "
    "this is RPMMs' gain over PANet; that of PMMs is 4.58.",
    "Section 4.4 says that PMMs and RPMMs outperform the state of the art in 5-shot. Table 5 has "
    "RPMMs 54.01 with VGG16, below FWB, 55.08, and PANet, 55.70. The same section then calls that "
    "comparable.",
)
"""Where the paper disagrees with itself. The values above are those that it prints."""
