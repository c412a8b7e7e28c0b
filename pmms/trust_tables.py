"""What the long tests of trust saw, as Markdown: kill points and mutants."""

from collections.abc import Sequence
from pathlib import Path

from pmms.rendering import NOT_RUN
from pmms.results import RunRecord, load_record

KILL_POINTS = "trust-kill-points-{}"
"""Name of the record of a work that was killed."""

KILLED = ("training", "evaluation", "preparation", "sweep")
"""The works that ``tests/kill_points.py`` kills."""


def kill_points(results: Path | str) -> str:
    """What ``tests/kill_points.py`` saw, as a Markdown table."""
    lines = ["| killed | kills | after seconds | found after a kill | ran on to the end, equal |"]
    lines.append("|---|---:|---:|---|---:|")
    records = []
    for work in KILLED:
        path = Path(results) / f"{KILL_POINTS.format(work)}.json"
        if not path.is_file():
            lines.append(f"| {work} | {NOT_RUN} | – | – | – |")
            continue
        records.append(record := load_record(path))
        seen = record.scores
        found = ", ".join(f"{stage}: {times}" for stage, times in seen["left"].items())
        moments = f"{seen['first']:.2f} to {seen['last']:.2f}"
        lines.append(f"| {work} | {seen['kills']} | {moments} | {found} | {seen['ends']} |")
    return "\n".join([*lines, "", _made_by("make kills", records)])


def mutants(results: Path | str) -> str:
    """What ``tests/mutants.py`` saw, as a Markdown table with the reasons below."""
    path = Path(results) / "trust-mutants.json"
    if not path.is_file():
        return f"{NOT_RUN}: `make mutants`."
    record = load_record(path)
    columns = ("mutants", "found", "wording", "the same", "not found")
    lines = ["| module | " + " | ".join(columns) + " | score |"]
    lines.append("|---|" + "---:|" * (len(columns) + 1))
    modules = record.scores["modules"]
    total = {name: sum(seen[name] for seen in modules.values()) for name in columns}
    for module, seen in {**modules, "all": total}.items():
        of_meaning = seen["mutants"] - seen["wording"] - seen["the same"]
        cells = [f"{seen[name]:,}" for name in columns]
        label = "all" if seen is total else f"`{module}`"
        score = f"{100 * seen['found'] / of_meaning:.1f} %"
        lines.append(f"| {label} | {' | '.join(cells)} | {score} |")
    lines += ["", "Mutants that do the same as the original, and why:", ""]
    lines += [f"- {reason} ({times})" for reason, times in sorted(record.scores["reasons"].items())]
    return "\n".join([*lines, "", _made_by("make mutants", [record])])


def _made_by(command: str, records: Sequence[RunRecord]) -> str:
    if not records:
        return f"`{command}` runs them."
    minutes = sum(sum(record.seconds.values()) for record in records) / 60
    devices = sorted({str(record.environment["device"]) for record in records})
    commits = sorted({str(record.environment["commit"]) for record in records})
    of_code = f"commit{'s' * (len(commits) > 1)} {' and '.join(commits)}"
    return f"`{command}`, {minutes:.0f} minutes on {' and '.join(devices)}, {of_code}."
