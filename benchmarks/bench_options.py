"""bfloat16, channels last, torch.compile: speed, and what each changes in mIoU."""

import copy
import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

import numpy as np
import torch
from harness import Run, timed
from torch import Tensor

from pmms.config import RunConfig, run_config
from pmms.data import Data, load_data
from pmms.evaluation import Result, evaluate
from pmms.experiment import new_model, prepare_images, train_model
from pmms.models import FewShotSegmenter, build_model

OPTIONS = ("bfloat16", "channels last", "compiled")


def with_option(model: FewShotSegmenter, option: str) -> FewShotSegmenter:
    """A copy of a model. Compiled are its two large parts, for the one size that they will see."""
    model = copy.deepcopy(model)
    if option == "channels last":
        return model.to(memory_format=torch.channels_last)
    if option == "compiled":
        model.backbone.compile(dynamic=False)
        model.decoder.compile(dynamic=False)
    return model


def precision(option: str) -> str:
    return "bfloat16" if option == "bfloat16" else "float32"


def autocast(option: str, device: torch.device) -> AbstractContextManager:
    return torch.autocast(device.type, torch.bfloat16, option == "bfloat16")


def given(option: str, images: Tensor) -> Tensor:
    last = option == "channels last"
    return images.contiguous(memory_format=torch.channels_last) if last else images


def speed(run: Run, name: str, models: Mapping[str, FewShotSegmenter], size: int) -> None:
    """Two rows for each option: of an embedding, and of what is left of an episode."""
    plain = models["default"]
    images = torch.rand(1, 3, size, size, device=run.device)
    mask = torch.zeros(1, 1, 1, size, size, device=run.device)
    mask[..., size // 5 : size // 2, size // 4 : 4 * size // 5] = 1
    embedding = plain.embed(images)

    def embed(model: FewShotSegmenter, option: str) -> Callable[[], object]:
        own = given(option, images)

        def side() -> Tensor:
            with autocast(option, run.device):
                return model.embed(own)

        return side

    def head(model: FewShotSegmenter, option: str) -> Callable[[], object]:
        own = given(option, embedding)

        def side() -> Tensor:
            with autocast(option, run.device):
                return model.compare(own[:, None], mask, own).logits

        return side

    for option, model in models.items():
        if option == "default":
            continue
        for part, make in (("embedding", embed), ("head", head)):
            side = make(model, option)
            first = timed(side)
            run.compare(
                f"{name} at {size}, {part}: {option}",
                {option: side, "default": make(plain, "default")},
                rounds=7,
                first_call_seconds=first,
            )


def trained(config: RunConfig, data: Data) -> FewShotSegmenter:
    model = new_model(config)
    train_model(config, model, data, prepare_images(config, data, model.backbone))
    return model.eval()


def change(default: Result, option: Result, *, resamples: int = 1000) -> dict[str, object]:
    """Change of mIoU in points, with its 95 % interval: bootstrap over episodes, drawn in pairs."""
    generator = np.random.default_rng(0)
    ids = default.class_ids.numpy()
    classes = np.unique(ids)
    before, after = (of.counts[:, :2].numpy().astype(np.float64) for of in (default, option))
    drawn = np.zeros(resamples)
    for class_id in classes:
        rows = np.flatnonzero(ids == class_id)
        picks = rows[generator.integers(len(rows), size=(resamples, len(rows)))]
        for counts, sign in ((after, 100), (before, -100)):
            intersection, union = counts[picks].sum(axis=1).T
            drawn += sign * intersection / union / len(classes)
    return {
        "miou": option.scores.miou,
        "change": option.scores.miou - default.scores.miou,
        "interval": {"change": np.percentile(drawn, [2.5, 97.5]).tolist()},
        "episodes": len(ids),
        "episodes_changed": int((default.counts != option.counts).any(dim=1).sum()),
    }


def main() -> None:
    run = Run("options", __doc__)
    options = [o for o in OPTIONS if not (run.quick and o == "compiled")]  # takes minutes
    # What was compiled before would hide how long the first call takes.
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = tempfile.mkdtemp()
    small = {"train_images": 16, "test_images": 40, "iterations": 1, "episodes": 30}
    full = {"train_images": 100, "test_images": 100, "iterations": 100, "episodes": 400}
    config = run_config(
        "mini", extra_classes=10, episode_seeds=(0,), **small if run.quick else full
    )
    data = load_data(config.data)

    def changed(model: FewShotSegmenter) -> dict[str, FewShotSegmenter]:
        return {o: with_option(model.eval().to(run.device), o) for o in ("default", *options)}

    models = changed(trained(config, data))
    with torch.inference_mode():
        speed(run, "EfficientNet-Lite0", models, config.data.test_size)
        resnet = build_model("pmms", weights=None)
        speed(run, "ResNet-50", changed(resnet), 65 if run.quick else 321)
    reached = {
        option: evaluate(
            model, data.test, data.test_classes, protocol=config.protocol,
            size=config.data.test_size, device=run.device, precision=precision(option),
        )
        for option, model in models.items()
    }  # fmt: skip
    default = reached["default"]
    for option in options:
        run.add(f"mIoU on PartsVOC: {option}", change(default, reached[option]))
    run.finish(
        miou_of_default=default.scores.miou,
        trained_steps=config.train.iterations,
        test_images=len(data.test),
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
    )


if __name__ == "__main__":
    main()
