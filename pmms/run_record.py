"""The record of a run that has ended, and the time that its parts took."""

import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from pmms.config import RunConfig
from pmms.results import RunRecord, environment, peak_memory_mb
from pmms.run_state import LossPoint


def make_record(
    config: RunConfig,
    scores: Mapping[str, Any],
    history: Sequence[LossPoint],
    seconds: Mapping[str, float],
    *,
    started_with: Mapping[str, Any] | None = None,
    left_out: Mapping[str, int] = MappingProxyType({}),
    processes: int = 1,
) -> RunRecord:
    """The record of a run that has ended; see :class:`pmms.results.RunRecord`.

    ``started_with`` is what :func:`pmms.results.environment` said when the run began: a commit may
    have been made since. None takes what it says now, of the CPU.

    Where the data lay is left out, see :meth:`pmms.config.RunConfig.portable`. ``left_out`` names
    the classes that were not scored, see :class:`pmms.data.Data`; it stands with the protocol.
    Several ``processes`` stand with the environment, and ``peak_memory_mb`` is of the first.
    """
    protocol = config.protocol.record()
    if left_out:
        protocol["left_out"] = dict(left_out)
    return RunRecord(
        name=config.name,
        parameters=config.portable(),
        protocol=protocol,
        scores=scores,
        loss=tuple((point.step, point.loss) for point in history),
        seconds=seconds,
        peak_memory_mb=peak_memory_mb(),
        environment=dict(started_with or environment())
        | ({"processes": processes} if processes > 1 else {}),
    )


class Stopwatch:
    """Seconds spent on named parts of a run."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Add the time since the last call to ``name``."""
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now
