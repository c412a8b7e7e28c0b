"""EM against its matrix products alone, its plain form, and scikit-learn."""

import warnings

import torch
import torch.nn.functional as F
from harness import Run, measure, relate, where_time_goes
from plain import em
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from pmms.mixture import fit_mixture

ITERATIONS, K = 10, 3


@torch.inference_mode()
def main() -> None:
    run = Run("em", __doc__)
    warnings.simplefilter("ignore", ConvergenceWarning)  # ten iterations are what is measured
    B, N, C = (2, 400, 64) if run.quick else (8, 41 * 41, 256)
    generator = torch.Generator().manual_seed(0)
    # After the ReLU features are positive and lie close together.
    samples = F.normalize(torch.randn(B, N, C, generator=generator).relu(), dim=2)
    share = torch.linspace(0.1, 0.3, B)[:, None]  # another foreground in each element, 20 % in all
    weights = (torch.rand(B, N, generator=generator) < share).float()
    start = samples[:, :K].contiguous()
    shares = torch.rand(B, K, N, generator=generator)

    def products() -> None:
        for _ in range(ITERATIONS):
            torch.bmm(start, samples.transpose(1, 2))
            torch.bmm(shares, samples)

    def ours() -> torch.Tensor:
        return fit_mixture(samples, weights, k=K, n_iter=ITERATIONS, init=start).means

    channels_first = samples.transpose(1, 2).contiguous()

    def plain() -> torch.Tensor:
        return em(channels_first, weights, start, n_iter=ITERATIONS)

    of_foreground = [s[w > 0] for s, w in zip(samples, weights, strict=True)]
    foreground = [x.numpy() for x in of_foreground]
    starts = start.numpy()

    def ours_one_by_one() -> None:
        for x, means in zip(of_foreground, start, strict=True):
            fit_mixture(x[None], k=K, n_iter=ITERATIONS, init=means[None], kernel="gaussian")

    def scikit_gaussian() -> None:
        for x, means in zip(foreground, starts, strict=True):
            GaussianMixture(
                K, covariance_type="spherical", max_iter=ITERATIONS, tol=0, means_init=means,
                init_params="random_from_data", random_state=0,
            ).fit(x)  # fmt: skip

    def scikit_kmeans() -> None:
        for x, means in zip(foreground, starts, strict=True):
            KMeans(K, init=means, n_init=1, max_iter=ITERATIONS, tol=0, algorithm="lloyd").fit(x)

    # Four channels leave the products next to nothing to do, and all else as it is.
    narrow = F.normalize(samples[..., :4] + 1e-3, dim=2)

    def all_but_products() -> None:
        fit_mixture(narrow, weights, k=K, n_iter=ITERATIONS, init=narrow[:, :K])

    error = (ours() - plain()).abs().max() / plain().abs().max()
    times = measure(
        {
            "20 products": products,
            "ours": ours,
            "plain": plain,
            "all but the products": all_but_products,
        },
        rounds=3 if run.quick else 41,
    )
    row = relate(times)
    run.add(
        f"EM, batch {B}, {N}x{C}, K={K}",
        {
            **row,
            "goal": ["ours", "<=", 1.5],
            "error": float(error),
            "error_goal": 1e-4,
            "gigabytes_per_second_of_products": 2 * ITERATIONS * samples.nbytes
            / row["seconds"]["20 products"] / 1e9,
            "profile": where_time_goes(ours, top=10),
            "bound": [1 + row["ratio"]["all but the products"],
                      "the products and, timed apart, the softmax over K, sums and checks"],
        },
    )  # fmt: skip
    run.compare(
        "EM beside scikit-learn, one by one, foreground alone",
        {
            "ours": ours_one_by_one,
            "GaussianMixture": scikit_gaussian,
            "KMeans": scikit_kmeans,
        },
        rounds=9,
    )
    run.finish(batch=B, samples=N, channels=C, k=K, iterations=ITERATIONS)


if __name__ == "__main__":
    main()
