"""Progress bars of long work, on the terminal and in notebooks."""

import os
from typing import Any

from tqdm.auto import tqdm


def progress_bar(total: int, description: str, *, unit: str, initial: int = 0) -> "tqdm[Any]":
    """A tqdm bar; none at all if the environment variable ``TQDM_DISABLE`` is set and not "0".

    tqdm reads that variable itself, except in notebooks, where the bar's widget would stand among
    the outputs that are compared.

    Args:
        total: number of units of the whole work.
        description: title.
        unit: what is counted, in the singular.
        initial: units done before, when work is gone on with.
    """
    disabled = os.environ.get("TQDM_DISABLE", "0") not in ("", "0")
    return tqdm(total=total, desc=description, unit=unit, initial=initial, disable=disabled)
