"""Which machine and which versions a run had, for the status page."""

import os
import platform
from importlib import metadata
from pathlib import Path

PACKAGES = ("torch", "torchvision", "timm", "numpy", "scikit-learn", "matplotlib")


def collect() -> dict[str, dict[str, str]]:
    """`machine` (processor, cores, accelerator, system) and `versions` (Python and packages)."""
    return {
        "machine": {
            "processor": _processor(),
            "cores": str(
                len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
            ),
            "accelerator": _accelerator(),
            "system": platform.system(),
        },
        "versions": {"python": platform.python_version()}
        | {name: metadata.version(name) for name in PACKAGES},
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _accelerator() -> str:
    import torch  # slow to import, and needed here alone

    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    if torch.backends.mps.is_available():
        return "Apple GPU"
    return "none"
