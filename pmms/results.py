"""Run records: one JSON file for each run, from which every number of the book is read.

A record says what was run (parameters, seed, fold, protocol), on what (commit, versions, device),
how long it took, and what came out. It is written once, atomically, under a name that its
parameters decide, so a run that is repeated replaces its own record and no other.
"""

import hashlib
import json
import math
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from pmms.files import write_atomically

SCHEMA = 1
PACKAGES = ("pmms", "torch", "torchvision", "timm", "numpy", "scikit-learn")


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One run.

    Attributes:
        name: file stem, unique to the parameters; letters, digits, ".", "_", "-".
        parameters: everything that decides the run, seed and fold among it.
        protocol: the evaluation protocol's name and settings.
        scores: what came out: percentages, intervals, per-class tables. JSON values.
        loss: rows (step, mean loss) of the training log; empty without training.
        seconds: duration of each step of the run.
        peak_memory_mb: largest resident memory of the process, in 10^6 bytes.
        environment: commit, versions, device, threads; see :func:`environment`.
        status: "complete", or "failed: ..." with the error.
        schema: version of this format.

    All values become those that JSON has: string keys, lists, floats of 6 decimals. So a record
    equals the one that is read back from its file.

    Raises:
        ValueError: a name that is no file stem, or a number that is not finite.
    """

    name: str
    parameters: Mapping[str, Any]
    protocol: Mapping[str, Any]
    scores: Mapping[str, Any]
    loss: tuple[tuple[int, float], ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    peak_memory_mb: float = 0.0
    environment: Mapping[str, Any] = field(default_factory=dict)
    status: str = "complete"
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9._-]+", self.name):
            raise ValueError(
                f"the name of a record is a file stem of letters, digits, '.', '_' and '-'; got "
                f"{self.name!r}"
            )
        # As they are read back from a file.
        for part in ("parameters", "protocol", "scores", "seconds", "environment"):
            object.__setattr__(self, part, _plain(dict(getattr(self, part))))
        loss = tuple((int(step), _plain(float(value))) for step, value in self.loss)
        object.__setattr__(self, "loss", loss)

    def save(self, folder: Path | str) -> Path:
        """Write ``<name>.json`` atomically, and return its path."""
        path = Path(folder) / f"{self.name}.json"
        text = json.dumps(asdict(self), indent=1, allow_nan=False, ensure_ascii=False)
        write_atomically(path, (text + "\n").encode())
        return path


def load_record(path: Path | str) -> RunRecord:
    """Read a record.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no record, or one of another format version.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no run record at {path}; run the experiment that writes it")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version = content["schema"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no run record ({error}); delete it and run again") from error
    if version != SCHEMA:
        raise ValueError(
            f"{path} has format {version}, this package reads {SCHEMA}; delete it and run again"
        )
    try:
        return RunRecord(**content)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is no run record ({error}); delete it and run again") from error


def load_records(folder: Path | str, **wanted: Any) -> list[RunRecord]:
    """All complete records of a folder whose parameters have the wanted values, sorted by name.

    Example: ``load_records("results", dataset="parts", model="pmms", fold=0)``.
    """
    wanted = _plain(wanted)
    records = [load_record(path) for path in sorted(Path(folder).glob("*.json"))]
    return [
        record
        for record in records
        if record.status == "complete"
        and all(record.parameters.get(name) == value for name, value in wanted.items())
    ]


def record_name(parameters: Mapping[str, Any], leading: Iterable[str]) -> str:
    """A readable, unique file stem: the ``leading`` parameters, then a hash of all of them."""
    shown = [f"{parameters[key]}" for key in leading]
    text = json.dumps(_plain(dict(parameters)), sort_keys=True)
    digest = hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
    return re.sub(r"[^A-Za-z0-9._-]+", "-", "-".join([*shown, digest]))


def environment(device: torch.device | str = "cpu") -> dict[str, Any]:
    """Commit, versions and machine, for a record. No names of machines, users or folders."""
    device = torch.device(device)
    accelerator = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "commit": _commit(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "device": accelerator or _processor(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
    }


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far, in 10^6 bytes; 0 where it is not known.

    Elsewhere than on Linux what its parent had when it was started may count as well.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return round(int(line.split()[1]) * 1024 / 1e6, 1)
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    unit = 1 if platform.system() == "Darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6, 1)


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # run from a source tree
        return "not installed"


def _commit() -> str:
    """The commit of the working tree, with "-dirty" if the package differs from it."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # else it is another project's
        commit = git("rev-parse", "--short=12", "HEAD")
        return commit + ("-dirty" if git("status", "--porcelain", "--", str(here)) else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        found = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text(errors="ignore"))
        if found:
            return re.sub(r"\s+", " ", found.group(1).strip())
    return platform.processor() or platform.machine()


def _plain(value: Any) -> Any:
    """JSON values only: string keys, lists, finite floats rounded to six decimals.

    Those below 0.001 keep six significant digits, so that no two settings become one.
    """
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"a run record holds finite numbers only, got {value}")
        return round(value, 6) if abs(value) >= 1e-3 else float(f"{value:.6g}")
    return value
