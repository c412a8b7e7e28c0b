"""What the explorer shows, without widgets: pictures to samples, EM step by step, the query's maps.

A :class:`Scene` holds the features of a pair of pictures. ``scene.path(settings)`` runs EM once and
keeps every step, so that looking at another step costs nothing.
"""

from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from torch import Tensor
from torchvision.transforms.v2 import functional as TF

from pmms.backbones import Backbone
from pmms.checks import choice, expect
from pmms.densities import KERNELS, Kernel
from pmms.heads import PConv
from pmms.metrics import episode_counts
from pmms.mixture import fit_mixture
from pmms.pairs import Pair
from pmms.prototypes import partition_samples
from pmms.seeding import INITS

LEVELS = ("all", "fine", "coarse", "colour")
SIZE = 320  # longer side of a picture in pixels: 40 positions
STEPS = 15
MAX_K = 8  # as many as there are colours
STRIDE = 8
KEPT_PATHS = 24  # of a 40x40 map with K = 8, 2 MB each
# Channels of the finer one of the two stages that a backbone concatenates.
FINE_CHANNELS = {"efficientnet_lite0": 112, "resnet50": 512}


@dataclass(frozen=True)
class Settings:
    """What decides a path of EM.

    Attributes:
        k: prototypes K of the object, and as many of the background; 1 to 8.
        kappa: concentration, > 0; also of P-Conv.
        kernel, init: see :func:`pmms.mixture.fit_mixture`.
        seed: of the starting means, 0 or more.
        level: "fine" or "coarse", one of the backbone's two stages; "all", both; "colour", the
            mean RGB values of each position in [-1, 1], without a network.
    """

    k: int = 3
    kappa: float = 20.0
    kernel: Kernel = "vmf"
    init: str = "random"
    seed: int = 0
    level: str = "all"

    def __post_init__(self) -> None:
        expect("k", self.k, f"1 to {MAX_K}", 1 <= self.k <= MAX_K)
        expect("kappa", self.kappa, "a finite number above 0", 0 < self.kappa < float("inf"))
        expect("seed", self.seed, "at least 0", self.seed >= 0)
        choice("kernel", self.kernel, KERNELS)
        choice("init", self.init, INITS)
        choice("level", self.level, LEVELS)


class EMPath(NamedTuple):
    """EM, step by step; T + 1 entries along the first axis, entry 0 before the first step.

    Attributes:
        means: (T + 1, 2, K, C), of the object and of the background.
        resp: (T + 1, 2, h, w, K), of every position of the support under either mixture.
        log_likelihood: (T + 1, 2) in nats per sample.
        maps: (T + 1, 2 K, h', w'), P-Conv's probability of each prototype on the query (Eq. 7), the
            object's first.
    """

    means: Tensor
    resp: Tensor
    log_likelihood: Tensor
    maps: Tensor

    def probability(self, step: int) -> Tensor:
        """M_p^+ on the query (Eq. 8), (h', w')."""
        return self.maps[step, : self.means.shape[2]].sum(dim=0)


class Plane(NamedTuple):
    """The object's samples in two dimensions.

    Attributes:
        name: "PCA" or "t-SNE".
        points: float32 (N, 2).
        explained: share of the variance that the plane shows; None for t-SNE.
    """

    name: str
    points: np.ndarray
    explained: float | None


class Scene:
    """A pair with its features. Not for several threads at once.

    Attributes:
        pair: as given.
        support, query: float32 (3, 8 h, 8 w) in [0, 1], as the backbone sees them.
        inside: (h, w), the share of each position that the mask covers.
        cells: (N, 2), row and column of the object's samples: positions with a share above zero.

    Args:
        pair: pictures and mask.
        backbone: of stride 8; put in eval mode.
        size: longer side in pixels that pictures are scaled to; the other one is rounded to whole
            positions.
        steps: EM iterations T of every path.
    """

    def __init__(
        self, pair: Pair, backbone: Backbone, *, size: int = SIZE, steps: int = STEPS
    ) -> None:
        self.pair, self.steps, self._name = pair, steps, backbone.name
        self.support, self.query = (_scaled(p, size) for p in (pair.support, pair.query))
        with torch.inference_mode():
            backbone.eval()
            self._features = [backbone(image[None])[0] for image in (self.support, self.query)]
        h, w = self._features[0].shape[1:]
        mask = torch.from_numpy(pair.mask)[None, None].float()
        self.inside = F.adaptive_avg_pool2d(mask, (h, w))[0, 0]
        self.cells = self.inside.nonzero()
        self._units: dict[str, tuple[Tensor, Tensor]] = {}
        self._paths: OrderedDict[Settings, EMPath] = OrderedDict()
        self._planes: dict[tuple[str, str], Plane] = {}
        self._pca: dict[str, PCA] = {}

    def features(self, level: str) -> tuple[Tensor, Tensor]:
        """Unit features of support (C, h, w) and query (C, h', w').

        Raises:
            ValueError: the backbone does not have the level.
        """
        if level in self._units:
            return self._units[level]
        maps = self._features
        if level == "colour":
            images = (self.support, self.query)
            maps = [
                F.adaptive_avg_pool2d(2 * image - 1, m.shape[1:])
                for image, m in zip(images, maps, strict=True)
            ]
        elif level != "all":
            choice("level", level, LEVELS)
            if self._name not in FINE_CHANNELS:
                raise ValueError(f"{self._name} has one stage: choose the level 'all' or 'colour'")
            cut = FINE_CHANNELS[self._name]
            maps = [m[:cut] if level == "fine" else m[cut:] for m in maps]
        support, query = (F.normalize(m, dim=0, eps=1e-6) for m in maps)
        self._units[level] = support, query
        return support, query

    def samples(self, level: str) -> Tensor:
        """The object's samples (N, C), in the order of ``cells``."""
        support, _ = self.features(level)
        return support[:, self.cells[:, 0], self.cells[:, 1]].T

    @torch.inference_mode()
    def path(self, settings: Settings) -> EMPath:
        """EM under these settings, all steps; kept for the next call.

        Raises:
            ValueError: fewer positions on the object, or beside it, than prototypes.
        """
        if settings in self._paths:
            self._paths.move_to_end(settings)
            return self._paths[settings]
        k, kappa = settings.k, settings.kappa
        support, query = self.features(settings.level)
        pair = partition_samples(support[None, None], self.inside[None, None, None])
        for side, where in zip(pair, ("on the object", "beside the object"), strict=True):
            count = int((side.weighted() > 0).sum())
            if count < k:
                raise ValueError(
                    f"K = {k} prototypes need as many positions; {count} lie {where}. Take a "
                    "smaller K or another mask"
                )
        samples = torch.cat([side.features for side in pair])
        weights = torch.cat([side.weighted() for side in pair])
        fit = partial(fit_mixture, samples, weights, k=k, kernel=settings.kernel, kappa=kappa)
        generator = torch.Generator().manual_seed(settings.seed)
        mixtures = [fit(n_iter=0, init=settings.init, generator=generator)]
        for _ in range(self.steps):
            init = mixtures[-1].means
            mixtures.append(fit(n_iter=1, init=init))
        means = torch.stack([m.means for m in mixtures])
        total = weights.sum(dim=1)
        # All steps at once, or the query would be normalised again for each of them.
        sides = means.transpose(0, 1).flatten(1, 2).unsqueeze(1)  # (2, 1, (T + 1) K, C)
        logits = PConv(kappa=kappa).logits(query[None], *sides)[0].unflatten(0, (2, -1, k))
        path = EMPath(
            means,
            torch.stack([m.resp.unflatten(1, self.inside.shape) for m in mixtures]),
            torch.stack([m.log_likelihood[:, -1] / total for m in mixtures]),
            logits.transpose(0, 1).flatten(1, 2).softmax(dim=1),
        )
        self._paths[settings] = path
        if len(self._paths) > KEPT_PATHS:
            self._paths.popitem(last=False)
        return path

    def iou(self, path: EMPath, step: int) -> float | None:
        """IoU of the object in the query where its probability is above one half; None if unknown.

        At the size of the query picture, the map magnified bilinearly, void left out.
        """
        if self.pair.truth is None:
            return None
        truth = torch.from_numpy(self.pair.truth)
        magnified = F.interpolate(path.probability(step)[None, None], truth.shape, mode="bilinear")
        counts = episode_counts((magnified[0] > 0.5).long(), truth.long()[None])[0].tolist()
        return counts[0] / counts[1] if counts[1] else 0.0

    def plane(self, level: str, name: str = "PCA", *, seed: int = 0) -> Plane:
        """The object's samples in the plane, computed once for each level.

        Raises:
            ValueError: t-SNE of fewer than five samples.
        """
        if (level, name) not in self._planes:
            samples = self.samples(level).numpy()
            if name == "PCA":
                with np.errstate(divide="ignore", invalid="ignore"):  # one sample: no variance
                    pca = PCA(min(2, *samples.shape), svd_solver="full").fit(samples)
                self._pca[level] = pca
                explained = float(np.nan_to_num(pca.explained_variance_ratio_).sum())
                self._planes[level, name] = Plane(name, _two(pca.transform(samples)), explained)
            else:
                if len(samples) < 5:
                    raise ValueError(f"t-SNE needs at least 5 positions, got {len(samples)}")
                tsne = TSNE(
                    metric="cosine",
                    init="random",
                    perplexity=min(30, (len(samples) - 1) / 3),
                    random_state=seed,
                )
                self._planes[level, name] = Plane(name, _two(tsne.fit_transform(samples)), None)
        return self._planes[level, name]

    def place(self, plane: Plane, settings: Settings, step: int) -> np.ndarray:
        """Where the object's prototypes stand in a plane, float32 (K, 2).

        PCA projects what the kernel compares: the mean's direction (vMF) or the mean (Gaussian).
        t-SNE has no formula for new points; a prototype stands in the middle of the five samples
        that it is most alike to.
        """
        means = self.path(settings).means[step, 0]
        directions = F.normalize(means, dim=1)
        if plane.name == "PCA":
            shown = directions if settings.kernel == "vmf" else means
            return _two(self._pca[settings.level].transform(shown.numpy()))
        alike = directions @ self.samples(settings.level).T
        nearest = alike.topk(min(5, alike.shape[1]), dim=1).indices
        middle: np.ndarray = plane.points[nearest.numpy()].mean(axis=1)
        return middle


def _scaled(picture: np.ndarray, size: int) -> Tensor:
    image = torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))
    scale = size / max(image.shape[1:])
    sides = [max(1, round(side * scale / STRIDE)) * STRIDE for side in image.shape[1:]]
    resized: Tensor = TF.resize(image, sides, antialias=True)
    return resized.float() / 255


def _two(points: np.ndarray) -> np.ndarray:
    """Two columns, filled with zeros where there are fewer."""
    return np.pad(points, ((0, 0), (0, 2 - points.shape[1]))).astype(np.float32)
