"""What the long tests of trust saw, as Markdown: kill points and mutants."""

from pathlib import Path

from pmms.rendering import NOT_RUN
from pmms.results import RunRecord, load_record


def kill_points(results: Path | str) -> str:
    """What ``tests/kill_points.py`` saw, as a Markdown table."""
    path = Path(results) / "trust-kill-points.json"
    if not path.is_file():
        return f"{NOT_RUN}: `make kills`."
    record = load_record(path)
    lines = ["| killed | kills | after seconds | found after a kill | ran on to the end, equal |"]
    lines.append("|---|---:|---:|---|---:|")
    for work, seen in record.scores.items():
        found = ", ".join(f"{stage}: {times}" for stage, times in seen["left"].items())
        moments = f"{seen['first']:.2f} to {seen['last']:.2f}"
        lines.append(f"| {work} | {seen['kills']} | {moments} | {found} | {seen['ends']} |")
    return "\n".join([*lines, "", _made_by("make kills", record)])


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
        cells = [f"{seen[name]:,}" for name in columns] + [
            f"{100 * seen['found'] / of_meaning:.1f} %"
        ]
        lines.append(
            f"| `{module}` | {' | '.join(cells)} |"
            if module != "all"
            else f"| all | {' | '.join(cells)} |"
        )
    lines += ["", "Mutants that do the same as the original, and why:", ""]
    lines += [f"- {reason} ({times})" for reason, times in sorted(record.scores["reasons"].items())]
    return "\n".join([*lines, "", _made_by("make mutants", record)])


def _made_by(command: str, record: RunRecord) -> str:
    minutes = sum(record.seconds.values()) / 60
    return f"`{command}`, {minutes:.0f} minutes on {record.environment['device']}."
