"""A training step of the mini profile: with features that are kept, and with the backbone."""

import torch
from harness import Run, compare, where_time_goes

from pmms.config import run_config
from pmms.datasets.base import images_of_class
from pmms.datasets.parts import PartsVOC
from pmms.episodes import EpisodeDataset, EpisodeSampler, collate
from pmms.feature_computing import feature_bank
from pmms.models import build_model
from pmms.training import segmentation_loss
from pmms.transforms import TrainTransform


def main() -> None:
    run = Run("training", __doc__)
    config = run_config("mini")
    batch_size, size = config.train.batch_size, 160
    settings = {
        name: getattr(config.model, name)
        for name in ("width", "reduce_kernel", "p_conv_kappa", "norm", "aspp_rates", "aspp_dropout")
    }
    dataset = PartsVOC("train", length=40, extra_classes=10)
    classes = [c for c, images in images_of_class(dataset).items() if len(images) > 1]
    sampler = EpisodeSampler(dataset, classes, length=10_000)
    model = build_model("pmms", backbone="efficientnet_lite0", **settings)
    bank = feature_bank(dataset, model.backbone, size=size, views=2)
    optimizer = torch.optim.SGD(
        [p for n, p in model.named_parameters() if "backbone." not in n], lr=1e-3, momentum=0.9
    )
    model.backbone.requires_grad_(False)
    model.train().backbone.eval()
    from_images = EpisodeDataset(sampler, TrainTransform(size))
    step = iter(range(10_000))

    def learn(prediction, mask: torch.Tensor) -> None:
        loss = segmentation_loss(prediction, mask)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    def episodes() -> range:
        first = next(step) * batch_size % 5000
        return range(first, first + batch_size)

    def kept() -> None:
        batch = bank.batch([sampler[i] for i in episodes()], seed=1)
        learn(model.segment(batch.support, batch.support_mask, batch.query), batch.query_mask)

    def computed() -> None:
        batch = collate([from_images[i] for i in episodes()])
        learn(model(batch.support, batch.support_mask, batch.query), batch.query_mask)

    for first in range(0, 200, batch_size):  # a bank measures the area of each class once
        bank.batch([sampler[i] for i in range(first, first + batch_size)], seed=1)
    run.compare(
        "training step, mini profile",
        {"features kept": kept, "features computed": computed},
        rounds=7,
        profile=where_time_goes(kept, top=10),
    )
    batch = bank.batch([sampler[i] for i in range(batch_size)], seed=1)

    def only_head() -> None:
        learn(model.segment(batch.support, batch.support_mask, batch.query), batch.query_mask)

    run.add(
        "share of the head in a step with kept features",
        compare({"step": kept, "head alone": only_head}, rounds=3 if run.quick else 11)
        | {"goal": ["head alone", ">=", 0.8]},
    )
    run.finish(profile="mini", batch=batch_size, size=size)


if __name__ == "__main__":
    main()
