"""P-Match (Eq. 6) against its plain form: concatenate and convolve, K times."""

import statistics
from functools import partial

import torch
from harness import Run, measure, relate, where_time_goes
from plain import p_match

from pmms.heads import BlockStyle, PMatch


@torch.inference_mode()
def main() -> None:
    run = Run("p-match", __doc__)
    channels = 64 if run.quick else 256
    for norm in ("batch", "none"):
        module = PMatch(channels, style=BlockStyle(norm=norm)).eval().to(run.device)
        for size in (41, 61):
            query = torch.randn(1, channels, size, size, device=run.device)
            for k, goal in ((3, 4.0), (10, 8.0)):
                prototypes = torch.randn(1, k, channels, device=run.device)
                ours = partial(module, query, prototypes)
                plain = partial(p_match, module, query, prototypes)
                got, expected = ours(), plain()
                sides = {
                    "ours": ours,
                    "plain": plain,
                    "convolution of the query": partial(module.respond, query),
                }
                times = measure(sides, rounds=3 if run.quick else 15)
                alone = times["convolution of the query"]
                at_best = [a / b for a, b in zip(times["plain"], alone, strict=True)]
                run.add(
                    f"P-Match, K={k}, {size}x{size}, norm {norm}",
                    {
                        **relate(times),
                        "goal": ["plain", ">=", goal],
                        "error": float((got - expected).abs().max() / expected.abs().max()),
                        "error_goal": 2e-6,
                        "profile": where_time_goes(ours),
                        "ratio_by_arithmetic": 2.0 * k,
                        "bound": [statistics.median(at_best), "the convolution of the query alone"],
                    },
                )
    run.finish(channels=channels, batch=1)


if __name__ == "__main__":
    main()
