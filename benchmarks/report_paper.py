"""From the record of ``bench_paper.py`` to the tables of ``book/scale.md``."""

from collections.abc import Mapping
from typing import Any

from pmms.results import RunRecord

PAGE = "book/scale.md"
PRECISIONS = ("float32", "bfloat16")
BATCH = 8
ITERATIONS = 200_000
RATES = (5, 20, 100)
"""TFLOP/s that training may reach; no measurement."""


def blocks(found: Mapping[str, RunRecord]) -> dict[str, str]:
    """Generated parts of the page by name."""
    record = found.get("paper")
    names = ("measured", "memory", "time", "machine")
    if record is None:
        return {f"scale-{name}": "No record yet." for name in names}
    parts = (measured, memory, hours)
    filled = {f"scale-{n}": part(record.scores) for n, part in zip(names[:3], parts, strict=True)}
    return filled | {"scale-machine": machine(record)}


def networks(scores: Mapping[str, Any]) -> list[str]:
    """Names of the networks that the record holds, in its order."""
    return [name.removesuffix(": measured") for name in scores if name.endswith(": measured")]


def megabytes(scores: Mapping[str, Any], network: str, precision: str, episodes: int) -> float:
    """What a step needs at least when it computes some episodes at a time, in 10^6 bytes."""
    kept = scores[f"{network}: counted, {precision}"]
    fixed = scores[f"{network}: counted, float32"]
    activations = kept["activations_mb_besides"] + episodes * kept["activations_mb_per_episode"]
    return fixed["weights_mb"] + fixed["gradients_and_momentum_mb"] + activations


def measured(scores: Mapping[str, Any]) -> str:
    """A row for each network that was trained, killed, gone on with and tested."""
    lines = [
        "| network | processor seconds a step | a test episode | largest memory, MB | "
        "counted, MB | checkpoint, MB | seconds to write it | killed after step | logged steps |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    for name in networks(scores):
        row = scores[f"{name}: measured"]
        weights = scores[f"{name}: counted, float32"]["weights_mb"]
        counted = megabytes(scores, name, "float32", BATCH) - weights
        logged = ", ".join(map(str, row["steps_logged"]))
        lines.append(
            f"| {name} | {row['processor_seconds_per_step']:.0f} | "
            f"{row['processor_seconds_per_test_episode']:.1f} | "
            f"{row['peak_mb'] - row['peak_mb_before']:.0f} | {counted:.0f} | "
            f"{row['checkpoint_mb']:.0f} | {row['seconds_to_save']:.1f} | "
            f"{row['killed_after_step']} | {logged} |"
        )
    return "\n".join(lines)


def memory(scores: Mapping[str, Any]) -> str:
    """Memory of a step by network, precision and episodes at a time."""
    at_a_time = (BATCH, BATCH // 2, BATCH // 4, 1)
    columns = " | ".join(f"{n} at a time" for n in at_a_time)
    lines = [f"| network | precision | {columns} |", "|---|---|" + "---:|" * len(at_a_time)]
    for name in networks(scores):
        for precision in PRECISIONS:
            needs = (megabytes(scores, name, precision, n) / 1e3 for n in at_a_time)
            cells = " | ".join(f"{gigabytes:.1f}" for gigabytes in needs)
            lines.append(f"| {name} | {precision} | {cells} |")
    return "\n".join(lines)


def hours(scores: Mapping[str, Any]) -> str:
    """Arithmetic of a step and of a training, and hours at some rates."""
    columns = " | ".join(f"hours at {rate} TFLOP/s" for rate in RATES)
    lines = [
        f"| network | TFLOP a step | of {ITERATIONS:,} steps, EFLOP | {columns} |",
        "|---|---:|---:|" + "---:|" * len(RATES),
    ]
    for name in networks(scores):
        step = scores[f"{name}: counted, float32"]["teraflops_per_step"]
        cells = " | ".join(f"{step * ITERATIONS / rate / 3600:.0f}" for rate in RATES)
        lines.append(f"| {name} | {step:.2f} | {step * ITERATIONS / 1e6:.2f} | {cells} |")
    return "\n".join(lines)


def machine(record: RunRecord) -> str:
    """Where the record was made."""
    can, where = record.scores["machine"], record.environment
    return (
        f"Measured on one thread of an {where['device']}, PyTorch {where['versions']['torch']}, "
        f"commit {where['commit']}, load {can['load']:.1f} on {where['cores']} cores."
    )
