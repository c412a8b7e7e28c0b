"""Print the oldest version that pyproject.toml allows of every package it names, for pip -c.

`make test-oldest` installs exactly these and runs the package tests.
"""

import tomllib
from itertools import chain
from pathlib import Path

from packaging.requirements import Requirement


def oldest(pyproject: Path) -> dict[str, str]:
    """Name of the package -> its lower bound.

    Raises:
        ValueError: a requirement without one.
    """
    project = tomllib.loads(pyproject.read_text("utf-8"))["project"]
    named = chain(project["dependencies"], *project["optional-dependencies"].values())
    found = {}
    for requirement in map(Requirement, named):
        bounds = [s.version for s in requirement.specifier if s.operator in (">=", "==", "~=")]
        if len(bounds) != 1:
            raise ValueError(f"{requirement} must have one lower bound in {pyproject.name}")
        found[requirement.name] = bounds[0]
    return found


if __name__ == "__main__":
    for name, version in oldest(Path(__file__).resolve().parents[1] / "pyproject.toml").items():
        print(f"{name}=={version}")
