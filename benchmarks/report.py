"""From the records to the pages: tables and figures of ``book/speed.md``, ``book/scale.md``."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import report_paper
from matplotlib.figure import Figure

from pmms.figures import COLOURS, save_figure, use_style
from pmms.files import write_if_changed
from pmms.results import RunRecord, load_records
from pmms.tables import fill

PAGE = "book/speed.md"
ORDER = (
    "p-match", "em", "forward", "evaluation", "evaluation-full", "training", "data", "start",
    "options",
)  # fmt: skip


def update(results: Path, root: Path) -> None:
    """Fill the pages and draw the figures anew from the records in ``results``."""
    found = records(results)
    for name, generated in ((PAGE, blocks(found)), (report_paper.PAGE, report_paper.blocks(found))):
        page = root / name
        write_if_changed(page, fill(page.read_text(encoding="utf-8"), generated).encode())
    use_style()
    for label, figure in figures(found).items():
        save_figure(figure, label, folder=root / "figures")
        plt.close(figure)


def records(results: Path) -> dict[str, RunRecord]:
    """The benchmarks' records by name."""
    found = load_records(results, quick=False)
    return {r.parameters["benchmark"]: r for r in found if "benchmark" in r.parameters}


def blocks(found: Mapping[str, RunRecord]) -> dict[str, str]:
    """Generated parts of the page by name."""
    return {
        "speed-goals": goals(found),
        "speed-bounds": bounds(found),
        "speed-options": options(found),
        "speed-data": data(found),
        "speed-growth": growth(found),
        "speed-machine": machine({name: found[name] for name in found if name != "paper"}),
    }


def rows(found: Mapping[str, RunRecord]) -> Iterable[tuple[str, dict[str, Any]]]:
    for name in ORDER:
        if name in found:
            yield from found[name].scores.items()


def value(row: Mapping[str, Any]) -> tuple[float, list[float] | None]:
    """What the goal of a row speaks of, a ratio or else seconds, and its interval."""
    of, *_ = row["goal"]
    place = row["ratio"] if of in row.get("ratio", {}) else row["seconds"]
    return place[of], row.get("interval", {}).get(of)


def met(row: Mapping[str, Any]) -> bool:
    """Whether a row reaches its goal."""
    got, (_, sign, goal) = value(row)[0], row["goal"]
    good = got >= goal if sign == ">=" else got <= goal
    return good and row.get("error", 0) <= row.get("error_goal", 0)


def goals(found: Mapping[str, RunRecord]) -> str:
    """A row for each goal: what was measured, its interval, the goal."""
    lines = ["| what | measured | interval | goal | reached |", "|---|---:|---:|---:|---|"]
    for name, row in rows(found):
        if "goal" in row:
            got, between = value(row)
            span = f"{between[0]:.3g} to {between[1]:.3g}" if between else "one run"
            sign = "at least" if row["goal"][1] == ">=" else "at most"
            reached = "yes" if met(row) else "no"
            lines.append(f"| {name} | {got:.3g} | {span} | {sign} {row['goal'][2]:g} | {reached} |")
    return "\n".join(lines) if len(lines) > 2 else "No record yet."


def bounds(found: Mapping[str, RunRecord]) -> str:
    """What could be reached at most, where the record knows it, and what it is that bounds."""
    lines = ["| what | measured | at best | goal | bounded by |", "|---|---:|---:|---:|---|"]
    for name, row in rows(found):
        if "bound" in row:
            best, by = row["bound"]
            goal = row["goal"][2]
            lines.append(f"| {name} | {value(row)[0]:.3g} | {best:.3g} | {goal:g} | {by} |")
    return "\n".join(lines) if len(lines) > 2 else "No record yet."


def options(found: Mapping[str, RunRecord]) -> str:
    """Speed of each option on each network, and what it does to mIoU."""
    parts = [of_options(found[name]) for name in ("options", "options-cuda") if name in found]
    return "\n\n".join(parts) or "No record yet."


def of_options(record: RunRecord) -> str:
    speed = ["| network | option | speed, default = 1 | interval | first call |",
             "|---|---|---:|---:|---:|"]  # fmt: skip
    miou = ["| option | change of mIoU | interval | episodes with other counts |",
            "|---|---:|---:|---:|"]  # fmt: skip
    for name, row in record.scores.items():
        what, _, option = name.rpartition(": ")
        if "first_call_seconds" in row:
            low, high = row["interval"]["default"]
            speed.append(
                f"| {what} | {option} | {row['ratio']['default']:.2f} | {low:.2f} to {high:.2f} | "
                f"{row['first_call_seconds']:.1f} s |"
            )
        elif "change" in row:
            low, high = row["interval"]["change"]
            miou.append(
                f"| {option} | {row['change']:+.3f} | {low:+.3f} to {high:+.3f} | "
                f"{row['episodes_changed']} of {row['episodes']} |"
            )
    given = record.parameters
    about = (
        f"The mini profile after {given['trained_steps']} steps reaches an mIoU of "
        f"{given['miou_of_default']:.2f} on {given['test_images']} images."
    )
    return "\n".join([*speed, "", about, "", *miou])


def data(found: Mapping[str, RunRecord]) -> str:
    if "data" not in found:
        return "No record yet."
    lines = ["| what | figure |", "|---|---:|"]
    for name, row in found["data"].scores.items():
        if name != "machine" and "goal" not in row:
            lines += [f"| {name}: {k.replace('_', ' ')} | {v:.3g} |" for k, v in row.items()]
    return "\n".join(lines)


def growth(found: Mapping[str, RunRecord]) -> str:
    if "growth" not in found:
        return "No record yet."
    lines = ["| what | exponent of time | of memory | expected at most |", "|---|---:|---:|---:|"]
    for name, row in found["growth"].scores.items():
        if "exponent" in row:
            of = row["exponent"]
            lines.append(f"| {name} | {of['time']:.2f} | {of['memory']:.2f} | {row['expected']} |")
    return "\n".join(lines)


def machine(found: Mapping[str, RunRecord]) -> str:
    """Where and when the numbers were measured, and what this machine can do."""
    lines = ["| record | threads | float32 products | memory copied | load | commit |",
             "|---|---:|---:|---:|---:|---|"]  # fmt: skip
    for name, record in found.items():
        can = record.scores["machine"]
        lines.append(
            f"| {name} | {can['threads']} | {can['gflops']:.0f} GFLOP/s | "
            f"{can['gigabytes_per_second']:.1f} GB/s | {can['load']:.1f} | "
            f"{record.environment['commit']} |"
        )
    devices = sorted({record.environment["device"] for record in found.values()})
    return "\n".join([*lines, "", f"Processor: {', '.join(devices) or 'none yet'}."])


def figures(found: Mapping[str, RunRecord]) -> dict[str, Figure]:
    """Figures by label."""
    drawn = {}
    with_goal = [(name, row) for name, row in rows(found) if "goal" in row]
    if with_goal:
        drawn["speed-goals"] = draw_goals(with_goal)
    if "growth" in found:
        drawn["speed-growth"] = draw_growth(found["growth"])
    return drawn


def draw_goals(with_goal: list[tuple[str, dict[str, Any]]]) -> Figure:
    """How far beyond its goal each measurement lies: 1 is the goal, right of it is better."""
    figure, axes = plt.subplots(figsize=(7, 0.27 * len(with_goal) + 0.9))
    for place, (_, row) in enumerate(reversed(with_goal)):
        got, between = value(row)
        sign, goal = row["goal"][1:]

        def beyond(x: float, sign: str = sign, goal: float = goal) -> float:
            # A difference of times may come out at zero or below: much better than the goal.
            x = max(x, 1e-2 * goal)
            return x / goal if sign == ">=" else goal / x

        colour = COLOURS[0] if met(row) else COLOURS[4]
        if between:
            axes.plot([beyond(x) for x in between], [place, place], color=colour, linewidth=2)
        axes.plot(beyond(got), place, "o" if met(row) else "s", color=colour, markersize=5)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xlim(0.4, 20)  # what lies beyond is far enough
    axes.set_yticks(range(len(with_goal)), [name for name, _ in reversed(with_goal)], fontsize=7)
    axes.set_xlabel("measured, as a multiple of the goal (right of the line: reached)")
    return figure


def draw_growth(record: RunRecord) -> Figure:
    """Time and memory against each size, with the slope that is expected at most."""
    kinds = [(name, row) for name, row in record.scores.items() if "exponent" in row]
    figure, axes = plt.subplots(2, len(kinds), figsize=(2.1 * len(kinds), 4.2), squeeze=False)
    for column, (name, row) in enumerate(kinds):
        sizes = row["sizes"]
        for line, (what, unit, factor) in enumerate(
            (("seconds", "time (ms)", 1e3), ("megabytes", "peak memory (MB)", 1))
        ):
            values = [row[what][str(size)] * factor for size in sizes]
            ax = axes[line, column]
            ax.loglog(sizes, values, "o-", markersize=3)
            slope = [values[-1] * (size / sizes[-1]) ** row["expected"] for size in sizes]
            ax.loglog(sizes, slope, ":", color="black", linewidth=1)
            ax.set_ylim(min(values) / 2, max(values) * 2)
            if column == 0:
                ax.set_ylabel(unit)
            ax.minorticks_off()
        axes[0, column].set_title(name.replace(" against ", "\nagainst "), fontsize=7)
        axes[1, column].set_xlabel(row["unit"])
    return figure


if __name__ == "__main__":
    here = Path(__file__).resolve().parents[1]
    update(here / "results", here)
