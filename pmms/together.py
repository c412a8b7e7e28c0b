"""A command of the command line in several processes."""

import argparse
import sys
from typing import Any

from pmms.distributed import Team, in_processes, start, started_outside


def together(options: argparse.Namespace, arguments: list[str]) -> int:
    """Do the command in ``options.devices`` processes on each of ``options.nodes`` machines.

    Under ``srun`` or ``torchrun`` this is one of the processes; else it starts them, and each reads
    the ``arguments`` again.

    Returns:
        The exit status.
    """
    where = {"devices": options.devices, "nodes": options.nodes, "device": options.device}
    if started_outside():
        options.fabric = start(**where)
        return options.command(options) or 0
    in_processes(_one, arguments, **where)
    return 0


def say(options: argparse.Namespace, text: str) -> None:
    """Print; of several processes the first does."""
    if Team(options.fabric).chief:
        print(text)


def _one(fabric: Any, arguments: list[str]) -> None:
    """What each process does."""
    from pmms.__main__ import parse
    from pmms.training import TrainingInterrupted

    options = parse(arguments)
    options.fabric = fabric
    try:
        options.command(options)
    except TrainingInterrupted as error:
        say(options, f"pmms: {error}")  # no failure
    sys.stdout.flush()
