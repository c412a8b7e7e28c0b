"""bfloat16, channels last, torch.compile: speed, and what each changes in mIoU."""

import copy
from collections.abc import Callable
from functools import partial

import torch
from harness import Run, timed

from pmms.datasets.parts import PartsVOC
from pmms.evaluation import evaluate
from pmms.folds import split_classes
from pmms.models import FewShotSegmenter, build_model
from pmms.protocols import Protocol

OPTIONS = ("bfloat16", "channels last", "compiled")


def with_option(model: FewShotSegmenter, option: str) -> FewShotSegmenter:
    model = copy.deepcopy(model)
    if option == "channels last":
        return model.to(memory_format=torch.channels_last)
    if option == "compiled":
        model.backbone.compile()
    return model


def precision(option: str) -> str:
    return "bfloat16" if option == "bfloat16" else "float32"


def embedding(model: FewShotSegmenter, option: str, images: torch.Tensor) -> Callable[[], object]:
    def side() -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, option == "bfloat16"):
            return model.embed(images)

    return side


@torch.inference_mode()
def main() -> None:
    run = Run("options", __doc__)
    size = 97 if run.quick else 321
    options = [o for o in OPTIONS if not (run.quick and o == "compiled")]  # takes a minute
    plain = build_model("pmms", weights=None).eval()
    images = torch.rand(1, 3, size, size)
    for option in options:
        changed = with_option(plain, option)
        given = images
        if option == "channels last":
            given = images.contiguous(memory_format=torch.channels_last)
        side = embedding(changed, option, given)
        first = timed(side)
        run.compare(
            f"ResNet-50 at {size}: {option}",
            {option: side, "default": partial(plain.embed, images)},
            rounds=7,
            first_call_seconds=first,
        )

    dataset = PartsVOC("val", length=60)
    protocol = Protocol(episodes=20 if run.quick else 60, seeds=(0,))
    classes = split_classes("parts", 0).novel
    model = build_model("training_free", backbone="efficientnet_lite0").eval()
    reached = {
        option: evaluate(
            with_option(model, option), dataset, classes, protocol=protocol, size=160,
            precision=precision(option),
        )
        for option in ("default", *options)
    }  # fmt: skip
    low, high = reached["default"].scores.interval
    for option in options:
        run.add(
            f"mIoU on PartsVOC, nothing trained: {option}",
            {
                "miou": reached[option].scores.miou,
                "change": reached[option].scores.miou - reached["default"].scores.miou,
                "interval_of_default": [low, high],
                "episodes": protocol.episodes,
            },
        )
    run.finish(size=size, cpu_capability=torch.backends.cpu.get_cpu_capability())


if __name__ == "__main__":
    main()
