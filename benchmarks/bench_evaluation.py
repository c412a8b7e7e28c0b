"""Evaluation with kept embeddings against the loop that goes episode by episode."""

import statistics

import torch
from harness import Run, compare, gigaflops, timed
from plain import evaluate as plain_evaluate
from torch import Tensor

from pmms.datasets.base import images_of_class, keep_images
from pmms.datasets.parts import PartsVOC
from pmms.episodes import EpisodeSampler
from pmms.evaluation import evaluate
from pmms.metrics import scores
from pmms.models import build_model
from pmms.protocols import Protocol

EPISODES, IMAGES = 1000, 346  # of the goal; a run without --full has as many episodes an image
GOALS = {1: 3.0, 5: 8.0}
LOOP = {1: 8, 5: 3}  # episodes of the loop: one takes as long as another
LOOP_AT_FULL_SIZE = 40


def main() -> None:
    run = Run("evaluation", __doc__)
    images = IMAGES if run.full else 6
    size = 65 if run.quick else 481
    episodes = round(images * EPISODES / IMAGES)
    if run.full:
        dataset = PartsVOC("val", length=images)
        classes = [c for c, of in images_of_class(dataset).items() if len(of) > 1]
    else:
        whole = PartsVOC("val", length=60)
        class_id, of_class = max(images_of_class(whole).items(), key=lambda item: len(item[1]))
        dataset, classes = keep_images(whole, of_class[:images]), [class_id]
    model = build_model("pmms", weights=None).eval()

    picture = torch.rand(1, 3, size, size)
    mask = torch.zeros(1, 1, 1, size, size)
    mask[..., size // 5 : size // 2, size // 4 : 4 * size // 5] = 1
    with torch.inference_mode():
        embedding = model.embed(picture)
        parts = compare(
            {
                "embed": lambda: model.embed(picture),
                "compare": lambda: model.compare(embedding[:, None], mask, embedding),
            },
            rounds=3 if run.quick else 5,
        )
    embed, head = parts["seconds"]["embed"], parts["seconds"]["compare"]
    with torch.device("meta"):
        empty = build_model("pmms", weights=None).eval()
    on_meta = (embedding[:, None].to("meta"), mask.to("meta"), embedding.to("meta"))
    work = [gigaflops(lambda: empty.embed(picture.to("meta"))),
            gigaflops(lambda: empty.compare(*on_meta))]  # fmt: skip
    run.add("parts of an episode", {**parts, "gigaflops": work})

    def at_full_size(embed: float, head: float, shots: int) -> float:
        """The loop's work over ours: S + 1 embeddings an episode against one an image."""
        return ((shots + 1) * embed + head) / (IMAGES / EPISODES * embed + head)

    for shots in (1,) if run.full else GOALS:
        protocol = Protocol(shots=shots, episodes=episodes, seeds=(0,))
        in_loop = LOOP_AT_FULL_SIZE if run.full else 2 if run.quick else LOOP[shots]
        sampler = EpisodeSampler(dataset, classes, shots=shots, length=in_loop, seed=0)
        plain: list[Tensor] = []
        ours: list[Tensor] = []

        def by_episode(sampler=sampler, plain=plain) -> None:
            plain[:] = [plain_evaluate(model, sampler, size)[1]]

        def by_image(protocol=protocol, ours=ours) -> None:
            ours[:] = [evaluate(model, dataset, classes, protocol=protocol, size=size).counts]

        rounds = range(1 if run.quick or run.full else 2)
        times = [(timed(by_image), timed(by_episode)) for _ in rounds]
        ratios = [slow / in_loop * episodes / fast for fast, slow in times]
        ids = torch.tensor([sampler[i].class_id for i in range(in_loop)])
        run.add(
            f"{shots}-shot, {episodes} episodes of {images} images at {size}",
            {
                "seconds": {
                    "ours": statistics.median(fast for fast, _ in times),
                    "plain": statistics.median(slow / in_loop * episodes for _, slow in times),
                },
                "ratio": {"plain": statistics.median(ratios)},
                **({"interval": {"plain": [min(ratios), max(ratios)]}} if len(ratios) > 1 else {}),
                "goal": ["plain", ">=", GOALS[shots]],
                "episodes_of_the_loop": in_loop,
                "expected_at_full_size": at_full_size(embed, head, shots),
                "ratio_by_arithmetic": at_full_size(*work, shots),
                "miou": {"ours": scores(ids, ours[0][:in_loop]).miou,
                         "plain": scores(ids, plain[0]).miou},
                "counts_equal": bool(torch.equal(ours[0][:in_loop], plain[0])),
                "bound": [at_full_size(embed, head, shots),
                          "embeddings, one an image, and comparisons, timed apart"],
            },
        )  # fmt: skip
    run.finish(backbone="resnet50", size=size, images=images, episodes=episodes)


if __name__ == "__main__":
    main()
