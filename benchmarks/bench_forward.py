"""Forward passes of PMMs and RPMMs against the baseline's, with ResNet-50."""

from functools import partial

import torch
from harness import Run, gigaflops, where_time_goes
from torch import Tensor

from pmms.models import FewShotSegmenter, build_model

GOALS = {"pmms": 0.95, "rpmms": 0.75}


def episode(size: int, device: str = "cpu") -> tuple[Tensor, Tensor, Tensor]:
    image = torch.rand(1, 1, 3, size, size, device=device)
    mask = torch.zeros(1, 1, 1, size, size, device=device)
    mask[..., size // 5 : size // 2, size // 4 : 4 * size // 5] = 1
    return image, mask, image[:, 0]


def arithmetic(name: str, size: int) -> float:
    """GFLOP of one forward pass."""
    model = build_model(name, weights=None).eval().to("meta")
    return gigaflops(partial(model, *episode(size, "meta")))


@torch.inference_mode()
def main() -> None:
    run = Run("forward", __doc__)
    models: dict[str, FewShotSegmenter] = {}
    baseline = build_model("baseline", weights=None).eval()
    for name in GOALS:
        models[name] = build_model(name, backbone=baseline.backbone).eval()
    for size in (97,) if run.quick else (321, 481):
        given = episode(size)
        work = {name: arithmetic(name, size) for name in ("baseline", *GOALS)}
        for name, goal in GOALS.items():
            run.compare(
                f"rate of {name}, the baseline's = 1, at {size}",
                {name: partial(models[name], *given), "baseline": partial(baseline, *given)},
                rounds=9 if size == 321 else 7,
                goal=["baseline", ">=", goal],
                gigaflops=[work[name], work["baseline"]],
                rate_by_arithmetic=work["baseline"] / work[name],
                profile=where_time_goes(partial(models[name], *given)),
            )
    run.finish(backbone="resnet50", batch=1, shots=1)


if __name__ == "__main__":
    main()
