"""The twenty classes of PartsVOC by name, in VOC order."""

from __future__ import annotations

from pmms.datasets import parts_creatures as creatures
from pmms.datasets import parts_indoor as indoor
from pmms.datasets import parts_vehicles as vehicles
from pmms.datasets.parts_recipe import Recipe
from pmms.folds import PASCAL_CLASSES


def _find(name: str) -> Recipe:
    found: Recipe = next(
        getattr(m, name) for m in (vehicles, creatures, indoor) if hasattr(m, name)
    )
    return found


RECIPES: dict[str, Recipe] = {name: _find(name) for name in PASCAL_CLASSES}
