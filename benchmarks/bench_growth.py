"""How time and memory grow: with K, samples, channels, shots and image size."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from harness import Run, compare, exponent, peak_megabytes

from pmms.mixture import fit_mixture
from pmms.models import build_model

START = {"n": 4096, "k": 3, "c": 128}


def em(*, n: int, k: int, c: int) -> Callable[[], object]:
    generator = torch.Generator().manual_seed(0)
    samples = F.normalize(torch.randn(1, n, c, generator=generator), dim=2)
    start = F.normalize(torch.randn(1, k, c, generator=generator), dim=2)
    return partial(fit_mixture, samples, k=k, init=start)


def measure(
    run: Run, row: str, sizes: Sequence[int], side: Callable[[int], Callable[[], object]],
    *, expected: float, tail: int, unit: str,
) -> None:  # fmt: skip
    """Time and memory at each size; the exponents are those of the ``tail`` largest sizes.

    What does not depend on the size, the calls themselves, hides the slope at small ones.
    """
    sides = {str(size): side(size) for size in sizes}
    times = compare(sides, rounds=5)["seconds"]
    memory = {name: peak_megabytes(one) for name, one in sides.items()}
    last = [str(size) for size in sizes[-tail:]]
    run.add(
        row,
        {
            "sizes": list(sizes),
            "seconds": times,
            "megabytes": memory,
            "exponent": {
                "time": exponent(sizes[-tail:], [times[name] for name in last]),
                "memory": exponent(sizes[-tail:], [memory[name] for name in last]),
            },
            "expected": expected,
            "unit": unit,
        },
    )


@torch.inference_mode()
def main() -> None:
    run = Run("growth", __doc__)
    quick = run.quick

    measure(run, "EM against K", (1, 4, 16) if quick else (1, 2, 4, 8, 16, 32),
            lambda k: em(**START | {"k": k}), expected=1, tail=3, unit="prototypes K")  # fmt: skip
    samples = (1000, 4000, 16000) if quick else (1000, 3000, 10_000, 30_000, 100_000)
    measure(run, "EM against samples", samples,
            lambda n: em(**START | {"n": n}), expected=1, tail=3, unit="samples N")  # fmt: skip
    measure(run, "EM against channels", (32, 128, 512) if quick else (64, 128, 256, 512, 1024),
            lambda c: em(**START | {"c": c}), expected=1, tail=3, unit="channels C")  # fmt: skip

    model = build_model("pmms", backbone="efficientnet_lite0", width=64, norm="batch").eval()

    def shots(s: int) -> Callable[[], object]:
        support, mask = torch.randn(1, s, 64, 41, 41), torch.zeros(1, s, 1, 41, 41)
        mask[..., 10:25, 5:30] = 1
        return partial(model.compare, support, mask, torch.randn(1, 64, 41, 41))

    measure(run, "an episode without its embeddings against shots", (1, 5) if quick else
            (1, 2, 5, 10, 20), shots, expected=1, tail=2, unit="shots")  # fmt: skip

    def image(size: int) -> Callable[[], object]:
        return partial(model.embed, torch.rand(1, 3, size, size))

    measure(run, "embedding an image against its side", (65, 97, 161) if quick else
            (97, 161, 241, 321, 481), image, expected=2, tail=3, unit="side, pixels")  # fmt: skip
    run.finish(start=START, backbone="efficientnet_lite0", width=64)


if __name__ == "__main__":
    main()
