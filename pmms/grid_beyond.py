"""Tables that the paper does not have: without training, EM's settings, the authors' deviations."""

from collections.abc import Mapping
from typing import Any

from pmms.grid_rows import Row, Table

KAPPAS = (5.0, 10.0, 20.0, 40.0, 80.0)
STEPS = (1, 3, 10, 30)
DEFAULT = " (default)"
EM_ALONE = "κ of EM alone; P-Conv keeps its own."


def training_free(shared: Mapping[str, Any]) -> list[Table]:
    """Tables of the model that learns nothing, each run with several starts of EM."""
    note = "Nothing is trained: P-Conv on the backbone's features. The seed is the start of EM."

    def table(name: str, title: str, header: str, rows: list[Row], against: str) -> Table:
        return Table(
            name=f"free-{name}",
            title=f"Without training: {title}",
            header=header,
            rows=tuple(rows),
            # Left open, P-Conv's kappa would follow that of EM.
            shared={**shared, "model": "training_free", "p_conv_kappa": 20.0},
            against=against,
            seeds=tuple(range(5 if name == "k" else 3)),
            seed_name="em_seed",
            notes=(note, *{"k": (), "kappa": ("K = 3.", EM_ALONE)}.get(name, ("K = 3.",))),
        )

    return [
        table("k", "number of prototypes K", "K",
              [Row(label=f"K = {k}", parameters={"k": k}) for k in range(1, 6)], "K = 1"),
        table("kernel", "kernel", "kernel",
              [Row(label=name, parameters={"kernel": kernel})
               for name, kernel in (("Gaussian", "gaussian"), ("vMF", "vmf"))], "Gaussian"),
        table("kappa", "concentration", "κ", _kappa_rows(), f"κ = 20{DEFAULT}"),
        table("init", "start of EM", "start", _init_rows(), f"random{DEFAULT}"),
    ]  # fmt: skip


def _kappa_rows() -> list[Row]:
    return [
        Row(label=f"κ = {kappa:g}{DEFAULT * (kappa == 20)}", parameters={"kappa": kappa})
        for kappa in KAPPAS
    ]


def _init_rows() -> list[Row]:
    return [
        Row(label=f"random{DEFAULT}", parameters={"init": "random"}),
        Row(label="k-means++", parameters={"init": "kmeans++"}),
    ]


MINI_DEVIATIONS: dict[str, dict[str, Any]] = {
    "EM on features of any length": {"em_features": "raw"},
    # At unit length a feature at the mask's border would lose the weight that the product gave it.
    "the same, and masked-out features stay in EM": {
        "em_features": "raw",
        "mask_partition": "product",
    },
    "means of unit length": {"prototype_scale": "unit"},
    "no gradient through EM and P-Conv": {"gradient": "none"},
    "sum over K, not mean": {"fusion": "sum"},
    "probability map to the residual block": {"prob_map_at": "residual"},
    "P-Conv with plain products": {"p_conv_kappa": None},
    "batch normalisation": {"norm": "batch"},
    "void as background in training": {"train_void": "background"},
}
"""What the authors' code does otherwise than the paper says, or than the mini profile does."""

OURS = ("P-Conv with plain products", "batch normalisation")
"""Of these the ones that undo a choice of the mini profile; the paper profile is so anyway."""

PAPER_DEVIATIONS: dict[str, dict[str, Any]] = {
    name: change for name, change in MINI_DEVIATIONS.items() if name not in OURS
} | {"stride in the 1x1 convolution": {"backbone_options": {"stride_in_1x1": True}}}


def beyond(shared: Mapping[str, Any], deviations: Mapping[str, Mapping[str, Any]]) -> list[Table]:
    """Tables that the paper does not have, of PMMs with K = 3, one seed."""
    every: dict[str, Any] = {}
    for change in deviations.values():
        every |= change

    def table(
        name: str, title: str, header: str, rows: list[Row], against: str, *notes: str
    ) -> Table:
        return Table(
            name=name, title=title, header=header, rows=tuple(rows),
            shared={**shared, "model": "pmms"}, against=against,
            notes=("Of PMMs with K = 3.", *notes),
        )  # fmt: skip

    as_paper = "as in this book"
    ours = " and ".join(name for name in OURS if name in deviations)
    undone = [f"No deviation, but a choice of this book undone: {ours}."] if ours else []
    changed = [Row(label=name, parameters=change) for name, change in deviations.items()]
    return [
        table("kappa", "Concentration", "κ", _kappa_rows(), f"κ = 20{DEFAULT}", EM_ALONE),
        table("em-iterations", "Steps of EM", "steps",
              [Row(label=f"{n}{DEFAULT * (n == 10)}", parameters={"em_iterations": n})
               for n in STEPS], f"10{DEFAULT}"),
        table("init", "Start of EM", "start", _init_rows(), f"random{DEFAULT}"),
        table("em-features", "Length of the features in EM", "features in EM",
              [Row(label=f"unit length{DEFAULT}", parameters={"em_features": "unit"}),
               Row(label="as they are", parameters={"em_features": "raw"})],
              f"unit length{DEFAULT}"),
        table("gradient", "Gradient through EM", "gradient through",
              [Row(label="nothing", parameters={"gradient": "none"}),
               Row(label=f"the last means{DEFAULT}", parameters={"gradient": "means"}),
               Row(label="all of EM", parameters={"gradient": "em"})],
              f"the last means{DEFAULT}"),
        table("deviations", "The authors' code: each deviation alone, and all of them", "change",
              [Row(label=as_paper), *changed, Row(label="all of the above", parameters=every)],
              as_paper, *undone),
    ]  # fmt: skip


def photographs() -> list[Table]:
    """Tables of the records on COCO128: 128 photographs, nothing trained."""
    shared = {
        "dataset": "coco", "root": "data/coco128", "test_split": "train", "test_size": 320,
        "episode_seeds": [0, 1, 2], "model": "training_free",
    }  # fmt: skip
    return [
        Table(
            name=f"photos-{shots}-shot",
            title=f"Without training, on photographs of COCO128: {shots}-shot",
            header="K",
            rows=tuple(Row(label=f"K = {k}", parameters={"k": k}) for k in ks),
            shared={
                **shared,
                "shots": shots,
                "episodes": episodes,
                "min_images": shots + 1,
            },
            against="K = 1",
            seed_name="em_seed",
            folder="coco128",
            notes=(
                "128 photographs are few; a fold's classes are those with enough images for an "
                "episode. Here every fold weighs the same; in verdicts, which count classes, every "
                "class does.",
            ),
        )
        for shots, episodes, ks in ((1, 100, (1, 3, 5)), (5, 30, (1, 3)))
    ]
