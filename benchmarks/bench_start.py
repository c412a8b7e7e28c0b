"""Time until one can begin: `import pmms`, and an update of an explorer."""

import statistics
import subprocess
import sys

import torch
import torch.nn.functional as F
from harness import ROOT, Run, interval, timed

from pmms.mixture import fit_mixture, responsibilities


def importing(module: str) -> float:
    code = f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return float(done.stdout)


@torch.inference_mode()
def main() -> None:
    run = Run("start", __doc__)
    rounds = 2 if run.quick else 6
    pairs = [(importing("torch"), importing("pmms")) for _ in range(rounds + (not run.quick))][
        -rounds:
    ]
    more = [ours - torch_alone for torch_alone, ours in pairs]
    run.add(
        "import pmms beyond import torch",
        {
            "seconds": {
                "torch": statistics.median(pair[0] for pair in pairs),
                "pmms": statistics.median(pair[1] for pair in pairs),
                "more": statistics.median(more),
            },
            "interval": {"more": interval(more)},
            "goal": ["more", "<=", 0.5],
        },
    )

    side, channels = 40, 256
    features = F.normalize(torch.rand(1, side * side, channels), dim=2)
    mask = (torch.rand(1, side * side) < 0.3).float()
    query = F.normalize(torch.rand(1, side * side, channels), dim=2)

    def update() -> None:
        foreground = fit_mixture(features, mask, k=6, init="kmeans++")
        background = fit_mixture(features, 1 - mask, k=6, init="kmeans++")
        both = torch.cat([foreground.means, background.means], dim=1)
        responsibilities(query, both).unflatten(1, (side, side))

    times = [timed(update) for _ in range(rounds * 3)][1:]
    run.add(
        "explorer update, 40x40x256, K = 6 and 6",
        {
            "seconds": {"update": statistics.median(times)},
            "interval": {"update": interval(times)},
            "goal": ["update", "<=", 0.3],
        },
    )
    run.finish(side=side, channels=channels)


if __name__ == "__main__":
    main()
