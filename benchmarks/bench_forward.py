"""Forward passes of PMMs and RPMMs against the baseline's, with ResNet-50."""

from functools import partial

import torch
from harness import Run, gigaflops, measure, relate, where_time_goes
from torch import Tensor

from pmms.models import FewShotSegmenter, build_model

GOALS = {"pmms": 0.95, "rpmms": 0.75}
BOUNDED_BY = {
    "pmms": "arithmetic: two mixtures of 10 iterations, and P-Conv",
    "rpmms": "arithmetic: three passes of the decoder",
}


def episode(size: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor, Tensor]:
    image = torch.rand(1, 1, 3, size, size, device=device)
    mask = torch.zeros(1, 1, 1, size, size, device=device)
    mask[..., size // 5 : size // 2, size // 4 : 4 * size // 5] = 1
    return image, mask, image[:, 0]


def arithmetic(name: str, size: int) -> float:
    """GFLOP of one forward pass."""
    with torch.device("meta"):
        model = build_model(name, weights=None).eval()
    return gigaflops(partial(model, *episode(size, "meta")))


@torch.inference_mode()
def main() -> None:
    run = Run("forward", __doc__)
    baseline = build_model("baseline", weights=None).eval().to(run.device)
    models = {"baseline": baseline}
    for name in GOALS:
        models[name] = build_model(name, backbone=baseline.backbone).eval().to(run.device)
    for size in (65,) if run.quick else (321, 481):
        given = episode(size, run.device)
        work = {name: arithmetic(name, size) for name in models}
        whole = {name: partial(model, *given) for name, model in models.items()}
        times = measure(whole, rounds=3 if run.quick else 9 if size == 321 else 5)
        heads = compare_heads(run, models, given)
        for name, goal in GOALS.items():
            run.add(
                f"rate of {name}, the baseline's = 1, at {size}",
                {
                    **relate({name: times[name], "baseline": times["baseline"]}),
                    "goal": ["baseline", ">=", goal],
                    "gigaflops": [work[name], work["baseline"]],
                    "rate_by_arithmetic": work["baseline"] / work[name],
                    "rate_by_parts": rate(heads, name),
                    "profile": where_time_goes(whole[name]),
                    "bound": [work["baseline"] / work[name], BOUNDED_BY[name]],
                },
            )
    run.finish(backbone="resnet50", batch=1, shots=1)


def compare_heads(
    run: Run, models: dict[str, FewShotSegmenter], given: tuple[Tensor, Tensor, Tensor]
) -> dict[str, float]:
    """Seconds of two embeddings, the same for all models, and of each model's head.

    The whole is mostly backbone, whose time changes from call to call by more than the heads
    differ. From the parts one sees how much they do.
    """
    image, mask, query = given
    baseline = models["baseline"]
    support = baseline.embed(image[:, 0])[:, None]
    embedding = baseline.embed(query)

    def embed() -> None:
        baseline.embed(image[:, 0])
        baseline.embed(query)

    sides = {name: partial(m.compare, support, mask, embedding) for name, m in models.items()}
    found = measure({"embed": embed, **sides}, rounds=3 if run.quick else 7)
    row = relate(found)
    run.add(f"heads at {query.shape[-1]}", row)
    return row["seconds"]


def rate(seconds: dict[str, float], name: str) -> float:
    """Rate of a model, the baseline's = 1, from the times of the parts."""
    of = {key: seconds["embed"] + seconds[key] for key in ("baseline", name)}
    return of["baseline"] / of[name]


if __name__ == "__main__":
    main()
