"""P-Match (Eq. 6) against its plain form: concatenate and convolve, K times."""

from functools import partial

import torch
from harness import Run, where_time_goes
from plain import p_match

from pmms.heads import BlockStyle, PMatch


@torch.inference_mode()
def main() -> None:
    run = Run("p-match", __doc__)
    channels = 64 if run.quick else 256
    for norm in ("batch", "none"):
        module = PMatch(channels, style=BlockStyle(norm=norm)).eval()
        for size in (41, 61):
            query = torch.randn(1, channels, size, size)
            for k, goal in ((3, 4.0), (10, 8.0)):
                prototypes = torch.randn(1, k, channels)
                ours = partial(module, query, prototypes)
                plain = partial(p_match, module, query, prototypes)
                got, expected = ours(), plain()
                run.compare(
                    f"P-Match, K={k}, {size}x{size}, norm {norm}",
                    {"ours": ours, "plain": plain},
                    rounds=15,
                    goal=["plain", ">=", goal],
                    error=float((got - expected).abs().max() / expected.abs().max()),
                    error_goal=2e-6,
                    profile=where_time_goes(ours),
                )
    run.finish(channels=channels, batch=1)


if __name__ == "__main__":
    main()
