"""Which records a sweep is made of: those of the book's tables, or of a file of one's own."""

import difflib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pmms.config import PROFILES, run_config

Runs = dict[str, dict[str, Any]]


def runs(
    profile: str,
    *,
    tables: Iterable[str] = (),
    names: Iterable[str] = (),
    file: Path | str = "",
    protocol: str = "",
    root: Path | str = "data",
) -> Runs:
    """Record name -> parameters of :func:`pmms.run_config` on top of the profile.

    Args:
        profile: "mini" or "paper".
        tables: names of tables of the book; none means all.
        names: only these records; none means all.
        file: a JSON list of objects, each the parameters of one run, in place of the book's grid.
        protocol: of the book's grid, see :func:`pmms.grid.runs`; "" means its own.
        root: folder of the data sets on disk; the data of a run lie in ``<root>/<dataset>``.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a profile, table, record or parameter that does not exist, or a file of
            another form.
    """
    if profile not in PROFILES:
        raise ValueError(f"profile must be one of {', '.join(PROFILES)}; got {profile!r}")
    tables, names = list(tables), list(names)
    if file:
        if tables or protocol:
            raise ValueError("tables and protocol are the book's: leave them out with a grid file")
        given = _read(Path(file))
    else:
        from pmms import grid

        chosen = {"protocol": protocol} if protocol else {}
        given = list(grid.runs(profile, tables or None, root=str(root), **chosen).values())
    placed = [_with_root(profile, parameters, Path(root)) for parameters in given]
    found = {run_config(profile, **parameters).name: parameters for parameters in placed}
    for name in names:
        if name not in found:
            near = difflib.get_close_matches(name, found, n=3, cutoff=0.3) or sorted(found)[:3]
            raise ValueError(
                f"no run named {name!r} in profile {profile!r}; there are {len(found)}, for "
                f"example {', '.join(near)}"
            )
    return {name: found[name] for name in names} if names else found


def previous(profile: str, runs: Runs) -> dict[str, str]:
    """Record name -> the record before it that shares its training, where there is one.

    Two runs that differ in testing alone share the weights: the first trains, the second finds
    them. In a chain, so that no two of them are under way at once.
    """
    latest: dict[str, str] = {}
    before = {}
    for name, parameters in runs.items():
        config = run_config(profile, **parameters)
        if config.model.learns:
            if config.training_name in latest:
                before[name] = latest[config.training_name]
            latest[config.training_name] = name
    return before


def trainings(profile: str, runs: Runs) -> dict[str, str]:
    """Training name -> the first record that has it."""
    first: dict[str, str] = {}
    for name, parameters in runs.items():
        config = run_config(profile, **parameters)
        if config.model.learns:
            first.setdefault(config.training_name, name)
    return first


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise FileNotFoundError(f"no grid file at {path}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON file: {error}") from error
    if not isinstance(content, list) or not all(isinstance(entry, dict) for entry in content):
        raise ValueError(
            f"{path} must hold a list of objects, each the parameters of one run, such as "
            '[{"model": "rpmms", "fold": 1}]'
        )
    return content


def _with_root(profile: str, parameters: dict[str, Any], root: Path) -> dict[str, Any]:
    dataset = parameters.get("dataset", PROFILES[profile]["dataset"])
    if dataset == "parts":
        return dict(parameters)
    # The notebook runs in a folder of its own.
    resolved = {"root": str(Path(parameters.get("root") or root / dataset).resolve())}
    if parameters.get("classes"):
        resolved["classes"] = str(Path(parameters["classes"]).resolve())
    return parameters | resolved
