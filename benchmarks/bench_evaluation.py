"""Evaluation with kept embeddings against the loop that goes episode by episode."""

import torch
from harness import Run, compare, gigaflops, timed
from plain import evaluate as plain_evaluate

from pmms.datasets.base import images_of_class, keep_images
from pmms.datasets.parts import PartsVOC
from pmms.episodes import EpisodeSampler
from pmms.evaluation import evaluate
from pmms.models import build_model
from pmms.protocols import Protocol

EPISODES, IMAGES = 1000, 346  # of the goal; the run has as many episodes an image
GOALS = {1: 3.0, 5: 8.0}


def main() -> None:
    run = Run("evaluation", __doc__)
    images = 7 if run.quick else 9
    size = 97 if run.quick else 481
    episodes = round(images * EPISODES / IMAGES)
    whole = PartsVOC("val", length=100)
    class_id, of_class = max(images_of_class(whole).items(), key=lambda item: len(item[1]))
    dataset = keep_images(whole, of_class[:images])
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
            rounds=3 if run.quick else 7,
        )
    embed, head = parts["seconds"]["embed"], parts["seconds"]["compare"]
    empty = build_model("pmms", weights=None).eval().to("meta")
    on_meta = (embedding[:, None].to("meta"), mask.to("meta"), embedding.to("meta"))
    work = [gigaflops(lambda: empty.embed(picture.to("meta"))),
            gigaflops(lambda: empty.compare(*on_meta))]  # fmt: skip
    run.add("parts of an episode", {**parts, "gigaflops": work})

    def at_full_size(embed: float, head: float, shots: int) -> float:
        """The loop's work over ours: S + 1 embeddings an episode against one an image."""
        return ((shots + 1) * embed + head) / (IMAGES / EPISODES * embed + head)

    for shots, goal in GOALS.items():
        protocol = Protocol(shots=shots, episodes=episodes, seeds=(0,))
        sampler = EpisodeSampler(dataset, [class_id], shots=shots, length=episodes, seed=0)
        plain: list = []
        ours: list = []

        def by_episode(sampler=sampler, plain=plain) -> None:
            plain[:] = plain_evaluate(model, sampler, size)

        def by_image(protocol=protocol, ours=ours) -> None:
            ours[:] = [evaluate(model, dataset, [class_id], protocol=protocol, size=size)]

        fast, slow = timed(by_image), timed(by_episode)
        run.add(
            f"{shots}-shot, {episodes} episodes of {images} images at {size}",
            {
                "seconds": {"ours": fast, "plain": slow},
                "ratio": {"plain": slow / fast},
                "goal": ["plain", ">=", goal],
                "expected_at_full_size": at_full_size(embed, head, shots),
                "ratio_by_arithmetic": at_full_size(*work, shots),
                "miou": {"ours": ours[0].scores.miou, "plain": plain[0].miou},
                "counts_equal": bool(torch.equal(ours[0].counts, plain[1])),
            },
        )
    run.finish(backbone="resnet50", size=size, images=images, episodes=episodes)


if __name__ == "__main__":
    main()
