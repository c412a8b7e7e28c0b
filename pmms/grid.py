"""Every table of the book, declared once: which runs it is made of, and what is compared.

A table is a list of rows; a row is one setting, run on every fold with every seed. A run is known
by the name of its record, ``pmms.run_config(profile, **parameters).name``, so tables that need the
same run share it. The profile "mini" is PartsVOC with EfficientNet-Lite0, "paper" is Pascal-5i and
COCO-20i with ResNet-50 and VGG16. The rows themselves stand in :mod:`pmms.grid_tables`.
"""

from collections.abc import Iterable, Mapping
from itertools import product
from typing import Any

from pmms.checks import choice
from pmms.config import PROFILES
from pmms.grid_rows import Row, Table
from pmms.grid_tables import MINI_ITERATIONS, mini_tables, paper_tables

__all__ = ["MINI_ITERATIONS", "Row", "Table", "runs", "tables", "weights_of"]


def tables(profile: str, *, protocol: str = "ours", root: str = "data") -> dict[str, Table]:
    """All tables of a profile by name, in the order of the book.

    Args:
        profile: "mini" or "paper".
        protocol: of the paper profile, see :mod:`pmms.protocols`; training lists and masks follow
            it. The mini profile has "ours" alone.
        root: folder that ``python -m pmms prepare`` filled; of the paper profile.

    Raises:
        ValueError: an unknown profile, or a protocol that the profile does not have.
    """
    choice("profile", profile, tuple(PROFILES))
    if profile == "mini":
        choice("protocol", protocol, ("ours",))
        found = mini_tables()
    else:
        found = paper_tables(protocol, root)
    return {table.name: table for table in found}


def runs(
    profile: str, names: Iterable[str] | None = None, *, protocol: str = "ours", root: str = ""
) -> dict[str, dict[str, Any]]:
    """Name of the record -> parameters of the run, as :func:`pmms.run_config` takes them.

    A run that several tables share stands once. Every row has its first seed before any has its
    second. Within a seed the order is that of importance: Table 1 and what explains it, what needs
    no training, the paper's other tables, what goes beyond it.

    Args:
        profile: "mini" or "paper".
        names: of tables; None takes all whose records the sweep makes.
        protocol: see :func:`tables`.
        root: folder of the data; "" leaves ``root`` out of the parameters of the paper profile, for
            the caller to add. It is no part of a record's name.

    Raises:
        ValueError: an unknown table, or as :func:`tables`.
    """
    every = tables(profile, protocol=protocol, root=root or "data")
    wanted = list(every) if names is None else list(names)
    for name in wanted:
        choice("table", name, tuple(every))
    found: dict[str, dict[str, Any]] = {}
    made_here = [every[name] for name in wanted if not every[name].folder]
    seeds = sorted({seed for table in made_here for seed in table.seeds})
    for seed, table in product(seeds, sorted(made_here, key=_urgency)):
        for fold, row in product(table.folds, table.rows):
            if (seed, fold) in table.cells(row):
                parameters = table.parameters(row, seed, fold)
                if not root:
                    parameters.pop("root", None)
                name = table.config(profile, row, seed, fold).name
                found.setdefault(name, _short(profile, parameters))
    return found


FIRST = ("table-1", "controls", "length", "reasons", "free-", "table-3", "table-2", "table-")


def _urgency(table: Table) -> int:
    order = [n for n, start in enumerate(FIRST) if table.name.startswith(start)]
    return order[0] if order else len(FIRST)


def _short(profile: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters without those that the profile has anyway; model, fold and seed stay."""
    kept = ("model", "fold", "seed")
    return {
        name: value
        for name, value in parameters.items()
        if name in kept or name not in PROFILES[profile] or PROFILES[profile][name] != value
    }


def weights_of(model: str, *, fold: int = 0, seed: int = 0) -> str:
    """File name of the weights that a run of the mini profile's Table 1 left, in ``models/``.

    Args:
        model: "baseline", "pmms_plus", "pmms" or "rpmms".
        fold, seed: of the run. Weights of fold 0 and seed 0 come with the book.

    Raises:
        ValueError: a model that Table 1 does not have.
    """
    table = tables("mini")["table-1"]
    rows = {(row.parameters or {})["model"]: row for row in table.rows}
    choice("model", model, tuple(rows))
    return f"{table.config('mini', rows[model], seed, fold).training_name}.safetensors"
