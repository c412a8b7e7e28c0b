"""Size and speed of the models beside the paper's: parameters counted, rates from the benchmark."""

from functools import cache
from pathlib import Path

import torch

from pmms import paper
from pmms.config import run_config
from pmms.grid_tables import LABELS
from pmms.models import model_of
from pmms.rendering import NONE, NOT_RUN, Sheet
from pmms.results import RunRecord, load_record

BENCHMARK = "bench-forward"
SIZES = (321, 481)


@cache
def parameters_in_millions(profile: str, model: str, *, backbone: str | None = None) -> float:
    """Weights of a model as a profile has it, the backbone's among them. No weight is loaded."""
    given = {"model": model, "root": "."} | ({} if backbone is None else {"backbone": backbone})
    config = run_config(profile, **given).model
    with torch.device("meta"):
        network = model_of(config, weights=None)
    return sum(weights.numel() for weights in network.parameters()) / 1e6


def size_sheet(results: Path | str) -> Sheet:
    """Parameters, and images a second relative to the baseline's.

    Args:
        results: folder of run records; the rates are those of ``bench-forward.json`` in it.
    """
    path = Path(results) / f"{BENCHMARK}.json"
    record = load_record(path) if path.is_file() else None
    rows = tuple(
        (
            label,
            f"{paper.PARAMETERS[model]:.1f}" if model in paper.PARAMETERS else NONE,
            *(f"{parameters_in_millions('paper', model, backbone=b):.3f}" for b in BACKBONES),
            f"{parameters_in_millions('mini', model):.3f}",
            _paper_rate(model),
            *(_rate(record, model, size) for size in SIZES),
        )
        for model, label in LABELS.items()
    )
    return Sheet(
        title="Size and speed",
        header=(
            "model", "paper, M", "ResNet-50, M", "VGG16, M", "mini, M", "paper, rate",
            *(f"rate at {size}" for size in SIZES),
        ),
        rows=rows,
        notes=(" ".join(_notes(record)),),
    )  # fmt: skip


BACKBONES = ("resnet50", "vgg16")


def _paper_rate(model: str) -> str:
    if model not in paper.FRAMES:
        return NONE
    return f"{paper.FRAMES[model] / paper.FRAMES['baseline']:.2f}"


def _rate(record: RunRecord | None, model: str, size: int) -> str:
    if model == "baseline":
        return "1.00"
    if record is None:
        return NOT_RUN
    entry = record.scores.get(f"rate of {model}, the baseline's = 1, at {size}")
    if entry is None:
        return NONE
    low, high = entry["interval"]["baseline"]
    return f"{entry['ratio']['baseline']:.2f} ({low:.2f} to {high:.2f})"


def _notes(record: RunRecord | None) -> tuple[str, ...]:
    frames = ", ".join(f"{LABELS[model]} {rate}" for model, rate in paper.FRAMES.items())
    notes = [
        "M: millions of weights, backbone included, head as in the paper profile, or all as in the "
        "mini profile. The paper's baseline is CANet.",
        f"Rate: images a second, the baseline's = 1; the paper's from {frames} on one 2080Ti.",
    ]
    if record is None:
        return (*notes, "Ours is not run: `make bench`.")
    machine, threads = record.environment["device"], record.environment["threads"]
    return (
        *notes,
        "Ours: ResNet-50, 1-shot, batch 1, images of 321 and 481 pixels, each in turn with the "
        f"baseline; median of the ratios with its 95 % interval; {machine}, {threads} threads.",
    )
