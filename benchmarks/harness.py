"""What the benchmarks share: measuring sides in turn, ratios with their spread, and the machine.

A time says little without the machine, so every result is a ratio of two sides that ran in one
process, one after the other, round by round. What slows the machine down for a while slows both.
"""

import argparse
import gc
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from report import update  # noqa: E402

from pmms.results import RunRecord, environment, peak_memory_mb  # noqa: E402

RESULTS = ROOT / "results"

Side = Callable[[], object]


class Run:
    """One benchmark: its settings from the command line, its rows, its record.

    Args:
        name: of the benchmark; the record is ``bench-<name>.json``.
        title: what is measured, for ``--help``.

    Attributes:
        quick: a few small sizes and repetitions, to see that everything runs.
        full: the size of the goal, where a run of its size takes long.
        device: where the models run; a benchmark that is of the CPU alone takes no notice of it.
        rows: results by name.
    """

    def __init__(self, name: str, title: str) -> None:
        parser = argparse.ArgumentParser(description=title)
        parser.add_argument("--quick", action="store_true", default=bool(os.environ.get("QUICK")),
                            help="small sizes, no record (also by QUICK=1)")  # fmt: skip
        parser.add_argument("--output", type=Path, help="folder of the record")
        parser.add_argument("--device", default="cpu", help="of the models, such as cuda")
        parser.add_argument("--full", action="store_true",
                            help="the goal's own size; another record")  # fmt: skip
        arguments = parser.parse_args()
        self.full: bool = arguments.full
        self.device = torch.device(arguments.device)
        suffixes = ["full"] * self.full + [self.device.type] * (self.device.type != "cpu")
        self.name = "-".join([name, *suffixes])
        self.quick: bool = arguments.quick
        self.output: Path | None = arguments.output or (None if self.quick else RESULTS)
        self.rows: dict[str, Any] = {}
        self._began = time.perf_counter()
        torch.manual_seed(0)

    def compare(self, row: str, sides: Mapping[str, Side], *, rounds: int, **more: Any) -> None:
        """Measure some sides in turn and keep the row; the first side is what others relate to.

        Args:
            row: its name.
            sides: each is called once a round.
            rounds: without ``quick``; one more before them does not count.
            more: goes into the row as it is: a goal, an error.
        """
        result = compare(sides, rounds=3 if self.quick else rounds)
        self.add(row, {**result, **more})

    def add(self, row: str, values: Mapping[str, Any]) -> None:
        """Keep a row and show it."""
        self.rows[row] = dict(values)
        print(f"{row}: {_shown(values)}", flush=True)

    def finish(self, **parameters: Any) -> None:
        """Write the record and draw anew what is drawn from it."""
        self.rows["machine"] = roofline(quick=self.quick, device=self.device)
        print(f"machine: {_shown(self.rows['machine'])}")
        if self.output is None:
            return
        record = RunRecord(
            name=f"bench-{self.name}",
            parameters={"benchmark": self.name, "quick": self.quick, **parameters},
            protocol={"name": "bench", "sides": "in turn, in one process",
                      "ratio": "median over rounds; 95 % interval of the median"},
            scores=self.rows,
            seconds={"benchmark": time.perf_counter() - self._began},
            peak_memory_mb=peak_memory_mb(),
            environment=environment(self.device),
        )  # fmt: skip
        record.save(self.output)
        if self.output == RESULTS:
            update(RESULTS, ROOT)


def compare(sides: Mapping[str, Side], *, rounds: int) -> dict[str, Any]:
    """Run the sides in turn and relate all to the first: see :func:`measure`, :func:`relate`."""
    return relate(measure(sides, rounds=rounds))


def measure(sides: Mapping[str, Side], *, rounds: int) -> dict[str, list[float]]:
    """Seconds of each side in each round. The sides run in turn: A B C, A B C, ..."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds + 1):
        for name, side in sides.items():
            seconds = timed(side)
            if turn:  # the first round fills caches
                times[name].append(seconds)
    return times


def relate(times: Mapping[str, list[float]]) -> dict[str, Any]:
    """What a row says of the times of some sides.

    Returns:
        ``seconds``: median for each side; ``spread``: half the interquartile range over the
        median; ``ratio``: for each other side its time over the first side's, the median over
        rounds; ``interval``: of that median.
    """
    first, *others = times
    ratios = {
        name: [b / a for a, b in zip(times[first], times[name], strict=True)] for name in others
    }
    return {
        "seconds": {name: statistics.median(values) for name, values in times.items()},
        "spread": {name: spread(values) for name, values in times.items()},
        "ratio": {name: statistics.median(values) for name, values in ratios.items()},
        "interval": {name: interval(values) for name, values in ratios.items()},
        "rounds": len(times[first]),
    }


def timed(side: Side) -> float:
    """Seconds of one call, without the garbage collector's pauses."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        _finish_on_gpu()
        begin = time.perf_counter()
        side()
        _finish_on_gpu()
        return time.perf_counter() - begin
    finally:
        if collecting:
            gc.enable()


def _finish_on_gpu() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def spread(values: list[float]) -> float:
    """Half the interquartile range, as a share of the median."""
    low, middle, high = statistics.quantiles(values, n=4)
    return (high - low) / 2 / middle


def interval(values: list[float]) -> list[float]:
    """95 % interval of the median: a pair of order statistics (binomial, no assumption)."""
    ordered = sorted(values)
    n, reach = len(ordered), 0.98 * len(ordered) ** 0.5  # 1.96 sqrt(n) / 2
    low, high = int(max(0, n / 2 - reach)), int(min(n - 1, n / 2 + reach))
    return [ordered[low], ordered[high]]


def peak_megabytes(side: Side) -> float:
    """Largest memory that tensors take during a call beyond what they took before, in 10^6 bytes.

    Read from the allocator, through PyTorch's profiler; temporaries inside operators count.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as seen:
        side()
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak / 1e6


def where_time_goes(side: Side, *, top: int = 6) -> dict[str, float]:
    """Share of each operator in the time of a call, the largest first."""
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as seen:
        side()
    events = seen.key_averages()
    total = sum(event.self_cpu_time_total for event in events)
    events = sorted(events, key=lambda event: -event.self_cpu_time_total)[:top]
    return {event.key: event.self_cpu_time_total / total for event in events}


def gigaflops(side: Side) -> float:
    """Arithmetic of a call on tensors of the meta device, where nothing is computed."""
    # Autocast knows no meta device.
    with (
        torch.no_grad(),
        mock.patch.object(torch, "autocast", return_value=nullcontext()),
        FlopCounterMode(display=False) as counter,
    ):
        side()
    return counter.get_total_flops() / 1e9


def roofline(*, quick: bool = False, device: torch.device | str = "cpu") -> dict[str, float]:
    """What this machine can do at most: matrix products in float32, and copying memory."""
    n = 512 if quick else 1536
    a, b = torch.rand(n, n, device=device), torch.rand(n, n, device=device)
    best = min(timed(lambda: a @ b) for _ in range(5))
    source = torch.rand((4 if quick else 64) * 2**20, device=device)
    target = torch.empty_like(source)
    copied = min(timed(lambda: target.copy_(source)) for _ in range(5))
    return {
        "gflops": 2 * n**3 / best / 1e9,
        "gigabytes_per_second": 2 * source.nbytes / copied / 1e9,
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0,
    }


def exponent(sizes: list[float], values: list[float]) -> float:
    """Slope in log-log coordinates, by least squares: the p of ``value ~ size ** p``."""
    x, y = torch.tensor(sizes).double().log(), torch.tensor(values).double().log()
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).sum() / (x * x).sum())


def _shown(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {_number(value)}" for key, value in values.items())


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, Mapping):
        return "{" + _shown(value) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_number, value)) + "]"
    return str(value)
