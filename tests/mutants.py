"""Mutation testing: change the package at one place at a time; do the tests notice?

    python tests/mutants.py    some 1,600 mutants of four modules, by mutmut; keeps the record

A mutant that no test notices is one of three things: a change of wording in a message; the same
program, written otherwise, which ``tests/equal_mutants.toml`` has with its reason; or a gap in the
tests. A gap ends this script with an error, and so does a reason whose mutant is gone.
"""

import json
import platform
import re
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pmms.results import RunRecord, environment, peak_memory_mb  # noqa: E402  (after the path)
from pmms.tables import fill_files  # noqa: E402

MODULES = (
    "metrics",
    "heads",
    "episodes",
    "mixture",
)  # [tool.mutmut] of pyproject.toml has them too
REASONS = Path(__file__).with_name("equal_mutants.toml")
RECORD = "trust-mutants"
NOTICED = ("killed", "timeout", "segfault", "suspicious")


def mutmut(*arguments: str, quiet: bool = False) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "mutmut", *arguments],
        cwd=ROOT, check=True, text=True, stdout=subprocess.PIPE if quiet else None,
    )  # fmt: skip
    return done.stdout or ""


def outcomes(said: str) -> dict[str, dict[str, str]]:
    """Module -> name of each of its mutants -> what became of it, from ``mutmut results --all``."""
    found: dict[str, dict[str, str]] = {module: {} for module in MODULES}
    for name, outcome in re.findall(r"^\s*(pmms\.\S+): (.+)$", said, re.MULTILINE):
        found[name.split(".")[1]][name] = outcome
    return found


def duration(found: dict[str, dict[str, str]], folder: Path) -> float:
    """Seconds that all mutants took, also those of a run that was stopped and resumed."""
    total = 0.0
    for module, of_module in found.items():
        kept = json.loads((folder / f"{module}.py.meta").read_text("utf-8"))["durations_by_key"]
        total += sum(kept.get(name) or 0.0 for name in of_module)
    return total


def described(module: str, name: str) -> str:
    """A mutant in one line: where it is, what stood there and what stands there now."""
    function = re.sub(r"^x_|__mutmut_\d+$", "", name.rpartition(".")[2]).lstrip("x").strip("ǁ")
    shown = mutmut("show", name, quiet=True).splitlines()
    old, new = (
        " ".join(" ".join(line[1:].split()) for line in shown if re.match(mark, line))
        for mark in (r"-(?!--)", r"\+(?!\+\+)")
    )
    return f"{module}.{function.replace('ǁ', '.')}: {old} => {new}"


def is_wording(mutant: str) -> bool:
    """Whether nothing but the words of a sentence in quotes differ."""
    old, new = mutant.partition(": ")[2].split(" => ", 1)
    sentence = re.search(r'"[^"]* [^"]*"', old)
    return bool(sentence) and old.casefold() == new.replace("XX", "").casefold()


def judged(
    found: dict[str, list[tuple[str, str]]], reasons: dict[str, str]
) -> tuple[dict[str, Counter[str]], list[str], Counter[str]]:
    """Counts of each module, the mutants that nobody found, and how often a reason was used.

    Args:
        found: module -> name of each mutant, or of one not noticed its description, and outcome.
        reasons: description -> why it does the same.
    """
    counts, gaps, used = {}, [], Counter[str]()
    for module, mutants in found.items():
        seen = Counter(dict.fromkeys(("mutants", "found", "wording", "the same", "not found"), 0))
        for mutant, outcome in mutants:
            seen["mutants"] += 1
            if outcome in NOTICED:
                seen["found"] += 1
            elif mutant in reasons:
                seen["the same"] += 1
                used[reasons[mutant]] += 1
            elif is_wording(mutant):
                seen["wording"] += 1
            else:
                seen["not found"] += 1
                gaps.append(mutant)
        counts[module] = seen
    return counts, gaps, used


def read_reasons() -> dict[str, str]:
    """Description of a mutant -> why it does the same."""
    entries: list[dict[str, Any]] = tomllib.loads(REASONS.read_text("utf-8"))["same"]
    return {mutant: entry["reason"] for entry in entries for mutant in entry["mutants"]}


def main() -> None:
    mutmut("run", *sys.argv[1:])
    by_name = outcomes(mutmut("results", "--all", "true", quiet=True))
    found = {
        module: [
            (name if outcome in NOTICED else described(module, name), outcome)
            for name, outcome in of_module.items()
        ]
        for module, of_module in by_name.items()
    }
    reasons = read_reasons()
    counts, gaps, used = judged(found, reasons)
    met = {mutant for mutants in found.values() for mutant, _ in mutants}
    gone = [mutant for mutant in reasons if mutant not in met]
    for title, mutants in (("not found by any test", gaps), ("a reason, but no such mutant", gone)):
        for mutant in mutants:
            print(f"{title}: {mutant}")
    record = RunRecord(
        name=RECORD,
        parameters={"modules": list(MODULES), "python": platform.python_version()},
        protocol={"name": "mutants"},
        scores={"modules": {m: dict(seen) for m, seen in counts.items()}, "reasons": dict(used)},
        seconds={"mutants": duration(by_name, ROOT / "mutants" / "pmms")},
        peak_memory_mb=peak_memory_mb(),
        environment=environment("cpu"),
    )
    print(record.save(ROOT / "results"))
    fill_files(ROOT / "results", [ROOT / "book" / "trust.md"])
    if gaps or gone:
        sys.exit(1)


if __name__ == "__main__":
    main()
