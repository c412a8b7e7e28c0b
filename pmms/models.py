"""The networks of the paper (Figs. 2 and 5) - baseline, PMMs+, PMMs, RPMMs - and an untrained one.

::

    support -> backbone -> reduce -> S --mask--> S+ -> mixture -> mu+ --> P-Match --+
                                             +-> S- -> mixture -> mu- --> P-Conv  --+-> decoder
    query   -> backbone -> reduce -> Q -----------------------------------------------> logits

=============  ==========================  ==================  ======
name           prototypes                  P-Conv              stages
=============  ==========================  ==================  ======
baseline       1, masked average pooling   no                  1
pmms_plus      K foreground                no                  1
pmms           K foreground, K background  yes                 1
rpmms          K = 1, 3, 6 in turn         yes                 3
no_support     1, set to zero              no                  1
training_free  K foreground, K background  is the prediction   1
=============  ==========================  ==================  ======

The baseline is CANet (Zhang et al., CVPR 2019) without its iterations. ``no_support`` is a control:
the baseline, trained and tested without a word from the support. Where the paper is silent,
or its code differs, :class:`ModelConfig` has an option; ``pmms.authors`` sets all of them as the
authors' code does.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pmms.backbones import BACKBONES, Backbone, build_backbone
from pmms.densities import KERNELS
from pmms.heads import ASPP, BlockStyle, ConvBlock, PConv, PMatch, ResidualRefinement
from pmms.prototypes import PrototypeMixture, partition_samples
from pmms.seeding import INITS

MODELS = ("baseline", "pmms_plus", "pmms", "rpmms", "no_support", "training_free")
DEFAULT_K = {"baseline": (1,), "no_support": (1,), "rpmms": (1, 3, 6)}


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """All that decides a network besides its weights.

    Attributes:
        name: one of ``MODELS``.
        backbone: see :func:`pmms.backbones.build_backbone`.
        backbone_options: of the backbone's class.
        k: prototypes K, a number for each stage. None: 1, 3 and 6 for rpmms, 1 for the baseline, 3
            for the others.
        kernel: "vmf" or "gaussian" (Table 3).
        kappa: concentration of the E-step.
        em_iterations, init, seed, em_features, gradient: see
            :class:`pmms.prototypes.PrototypeMixture`.
        prototype_scale: "feature" (Eq. 5) or "unit".
        mask_partition: "weights" or "product", see :func:`pmms.prototypes.partition_samples`.
        fusion: "mean" or "sum" over the K maps of P-Match.
        prob_map_at: where M_p joins: "fusion", concatenated with Q' (Eq. 9), or "residual", in the
            first residual block.
        p_conv_kappa: None for plain products; a number for kappa times the cosine.
        width: channels C of the head; 256 in the paper.
        reduce_kernel: size of the convolution between backbone and head; 3 (dilated by 2) in the
            authors' code.
        norm, dropout: of the head, see :class:`pmms.heads.BlockStyle`; the reducing convolution
            has no dropout, and batch normalisation where the head has none.
        aspp_rates, aspp_dropout: of the pyramid.
    """

    name: str
    backbone: str = "resnet50"
    backbone_options: Mapping[str, Any] = field(default_factory=dict)
    k: tuple[int, ...] | None = None
    kernel: Literal["vmf", "gaussian"] = "vmf"
    kappa: float = 20.0
    em_iterations: int = 10
    init: Literal["random", "kmeans++"] = "random"
    seed: int = 0
    em_features: Literal["unit", "raw"] = "unit"
    prototype_scale: Literal["feature", "unit"] = "feature"
    gradient: Literal["none", "means", "em"] = "means"
    mask_partition: Literal["weights", "product"] = "weights"
    fusion: Literal["mean", "sum"] = "mean"
    prob_map_at: Literal["fusion", "residual"] = "fusion"
    p_conv_kappa: float | None = None
    width: int = 256
    reduce_kernel: int = 3
    norm: Literal["batch", "group", "none"] = "batch"
    dropout: float = 0.0
    aspp_rates: tuple[int, int, int] = (6, 12, 18)
    aspp_dropout: float = 0.5

    def __post_init__(self) -> None:
        _choice("name", self.name, MODELS)
        stages = 3 if self.name == "rpmms" else 1
        k = DEFAULT_K.get(self.name, (3,)) if self.k is None else self.k
        k = tuple(k) if isinstance(k, (list, tuple)) else (k,)
        rates = self.aspp_rates
        rates = tuple(rates) if isinstance(rates, (list, tuple)) else (rates,)
        object.__setattr__(self, "k", k)
        object.__setattr__(self, "aspp_rates", rates)
        _choice("backbone", self.backbone, tuple(BACKBONES))
        _choice("kernel", self.kernel, KERNELS)
        _choice("init", self.init, INITS)
        _choice("em_features", self.em_features, ("unit", "raw"))
        _choice("prototype_scale", self.prototype_scale, ("feature", "unit"))
        _choice("gradient", self.gradient, ("none", "means", "em"))
        _choice("mask_partition", self.mask_partition, ("weights", "product"))
        _choice("fusion", self.fusion, ("mean", "sum"))
        _choice("prob_map_at", self.prob_map_at, ("fusion", "residual"))
        fits = len(k) == stages and all(_whole(n, least=1) for n in k)
        _expect("k", k, f"{stages} whole number(s) >= 1", fits)
        if self.name in ("baseline", "no_support"):
            _expect("k", k, f"1 for {self.name}, which has a single prototype", k == (1,))
        _expect("kappa", self.kappa, "a finite number > 0", _positive(self.kappa))
        fits = self.p_conv_kappa is None or _positive(self.p_conv_kappa)
        _expect("p_conv_kappa", self.p_conv_kappa, "None or a finite number > 0", fits)
        for option, least in (("em_iterations", 1), ("seed", 0), ("width", 2)):
            value = getattr(self, option)
            _expect(option, value, f"a whole number >= {least}", _whole(value, least=least))
        _expect("reduce_kernel", self.reduce_kernel, "1 or 3", self.reduce_kernel in (1, 3))
        fits = len(rates) == 3 and all(_whole(rate, least=1) for rate in rates)
        _expect("aspp_rates", rates, "three dilations, whole numbers >= 1", fits)
        _expect("aspp_dropout", self.aspp_dropout, "in [0, 1)", 0 <= self.aspp_dropout < 1)
        if self.init == "kmeans++":
            _expect(
                "mask_partition",
                self.mask_partition,
                "'weights' for init='kmeans++', which else would start at masked-out zeros",
                self.mask_partition == "weights",
            )
        _ = self.style  # checks norm and dropout

    @property
    def style(self) -> BlockStyle:
        """Normalisation and dropout of the head."""
        return BlockStyle(norm=self.norm, dropout=self.dropout)

    @property
    def has_p_conv(self) -> bool:
        """Whether there is a background mixture and a probability map."""
        return self.name in ("pmms", "rpmms", "training_free")


class Prototypes(NamedTuple):
    """Prototypes of one stage, (B, K, C) each; ``background`` is None without P-Conv."""

    foreground: Tensor
    background: Tensor | None


class Prediction(NamedTuple):
    """What a model says of a query image.

    Attributes:
        logits: (B, 2, h, w) of the last stage, at feature resolution; background, foreground.
        stages: the logits of every stage, first to last.
        prob_map: (B, 2, h, w) M_p of Eq. 8 of the last stage, or None without P-Conv.
        prototypes: of the last stage.
    """

    logits: Tensor
    stages: tuple[Tensor, ...]
    prob_map: Tensor | None
    prototypes: Prototypes

    def masks(self, size: tuple[int, int]) -> Tensor:
        """(B, H, W) int64, 1 where the foreground has the larger logit after upsampling."""
        return upsample(self.logits, size).argmax(dim=1)


def upsample(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits (B, 2, h, w) to (B, 2, H, W), bilinearly, in float32."""
    return F.interpolate(logits.float(), size, mode="bilinear", align_corners=False)


class Decoder(nn.Module):
    """Q', M_p and the last stage's prediction to logits: the right half of Figs. 2 and 5."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, style = config.width, config.style
        self.map_at = config.prob_map_at if config.has_p_conv else None
        self.fuse = ConvBlock(width + 2 * (self.map_at == "fusion"), width, style=style)
        extra = 2 * (self.map_at == "residual") + 2 * (config.name == "rpmms")
        self.refine = ResidualRefinement(width, extra=extra)
        self.aspp = ASPP(width, rates=config.aspp_rates, dropout=config.aspp_dropout)
        self.project = ConvBlock(5 * width, width, kernel=1, style=style)
        self.classify = nn.Conv2d(width, 2, 1)

    def forward(self, matched: Tensor, prob_map: Tensor | None, previous: Tensor | None) -> Tensor:
        """Q' (B, C, h, w), M_p and the last stage's softmax (B, 2, h, w) to logits (B, 2, h, w)."""
        if self.map_at == "fusion":
            matched = torch.cat([matched, prob_map.to(matched.dtype)], dim=1)
        beside = [prob_map] if self.map_at == "residual" else []
        beside += [] if previous is None else [previous]
        refined = self.refine(self.fuse(matched), torch.cat(beside, dim=1) if beside else None)
        return self.classify(self.project(self.aspp(refined)))


class FewShotSegmenter(nn.Module):
    """Segment a query image from support images with masks. Built by :func:`build_model`."""

    def __init__(self, config: ModelConfig, backbone: Backbone) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        style = BlockStyle(norm="group" if config.norm == "group" else "batch")
        self.reduce = ConvBlock(
            backbone.channels, config.width, kernel=config.reduce_kernel, dilation=2, style=style
        )
        self.mixtures = _mixtures(config, config.width)
        self.p_match = PMatch(config.width, fusion=config.fusion, style=config.style)
        self.p_conv = PConv(kappa=config.p_conv_kappa)
        self.decoder = Decoder(config)

    def forward(self, support: Tensor, support_mask: Tensor, query: Tensor) -> Prediction:
        """Images to a prediction.

        Args:
            support: (B, S, 3, H, W) float in [0, 1], S the number of shots.
            support_mask: (B, S, 1, H, W) float in [0, 1], 1 on the object.
            query: (B, 3, H', W') float in [0, 1].
        """
        of_support = self.backbone(support.flatten(0, 1)).unflatten(0, support.shape[:2])
        return self.segment(of_support, support_mask, self.backbone(query))

    def segment(self, support: Tensor, support_mask: Tensor, query: Tensor) -> Prediction:
        """Backbone features to a prediction; for features that are computed once and kept.

        Args:
            support: (B, S, C0, h, w) backbone features.
            support_mask: (B, S, 1, H, W) float in [0, 1], at any resolution.
            query: (B, C0, h', w') backbone features.
        """
        query = self.reduce(query)
        support = self.reduce(support.flatten(0, 1)).unflatten(0, support.shape[:2])
        positive, negative = partition_samples(
            support, support_mask, how=self.config.mask_partition
        )
        stages: list[Tensor] = []
        previous = torch.zeros_like(query[:, :2]) if self.config.name == "rpmms" else None
        prob_map = background = None
        for mixture in self.mixtures:
            foreground = mixture(positive)
            if self.config.name == "no_support":
                foreground = torch.zeros_like(foreground)
            if self.config.has_p_conv:
                background = mixture(negative)
                frozen = self.config.gradient == "none"
                prob_map = self.p_conv(query.detach() if frozen else query, foreground, background)
            stages.append(self.decoder(self.p_match(query, foreground), prob_map, previous))
            if previous is not None:
                previous = stages[-1].softmax(dim=1)
        return Prediction(stages[-1], tuple(stages), prob_map, Prototypes(foreground, background))


class TrainingFreeSegmenter(FewShotSegmenter):
    """P-Conv on the backbone's own features, nothing learned.

    Features have unit norm and P-Conv is the vMF posterior: a query position is foreground where
    the foreground mixture explains it better than the background mixture does.
    """

    def __init__(self, config: ModelConfig, backbone: Backbone) -> None:
        nn.Module.__init__(self)
        self.config = config
        self.backbone = backbone
        self.mixtures = _mixtures(config, backbone.channels)
        self.p_conv = PConv(kappa=config.p_conv_kappa or config.kappa)

    def segment(self, support: Tensor, support_mask: Tensor, query: Tensor) -> Prediction:
        """As :meth:`FewShotSegmenter.segment`; the logits are the logarithm of M_p."""
        support = F.normalize(support, dim=2, eps=1e-6)
        samples = partition_samples(support, support_mask, how=self.config.mask_partition)
        prototypes = Prototypes(*(self.mixtures[0](part) for part in samples))
        maps = self.p_conv.logits(query, *prototypes).split(self.config.k[0], dim=1)
        logits = torch.stack([maps[1].logsumexp(dim=1), maps[0].logsumexp(dim=1)], dim=1)
        logits = logits.log_softmax(dim=1)
        return Prediction(logits, (logits,), logits.exp(), prototypes)


def build_model(
    name: str,
    *,
    backbone: str | Backbone = "resnet50",
    weights: str | None = "imagenet",
    **options: Any,
) -> FewShotSegmenter:
    """Build a network.

    Args:
        name: one of ``MODELS``.
        backbone: a name, or one that is built already (to share it between models).
        weights: of a backbone given by name, see :func:`pmms.backbones.build_backbone`.
        options: fields of :class:`ModelConfig`.

    Raises:
        ValueError: for an unknown option, or a value that does not fit.
    """
    known = ModelConfig.__dataclass_fields__
    unknown = set(options) - set(known)
    if unknown:
        raise ValueError(
            f"unknown option(s) {', '.join(sorted(unknown))}; a model has {', '.join(known)}"
        )
    if isinstance(backbone, Backbone):
        own = options.setdefault("backbone_options", backbone.options)
        fits = {**backbone.options, **own} == backbone.options
        _expect("backbone_options", own, f"those of the given backbone, {backbone.options}", fits)
        config = ModelConfig(name=name, backbone=backbone.name, **options)
    else:
        config = ModelConfig(name=name, backbone=backbone, **options)
        backbone = build_backbone(backbone, weights, **config.backbone_options)
    kind = TrainingFreeSegmenter if name == "training_free" else FewShotSegmenter
    return kind(config, backbone)


def _mixtures(config: ModelConfig, channels: int) -> nn.ModuleList:
    return nn.ModuleList(
        PrototypeMixture(
            channels,
            k,
            kernel=config.kernel,
            kappa=config.kappa,
            em_iterations=config.em_iterations,
            init=config.init,
            seed=config.seed,
            em_features=config.em_features,
            scale=config.prototype_scale,
            gradient=config.gradient,
        )
        for k in config.k
    )


def _whole(value: object, *, least: int) -> bool:
    return isinstance(value, int) and value >= least


def _positive(value: object) -> bool:
    return isinstance(value, (int, float)) and 0 < value < float("inf")


def _choice(option: str, value: object, choices: tuple[str, ...]) -> None:
    _expect(option, value, f"one of {', '.join(choices)}", value in choices)


def _expect(option: str, value: object, expected: str, holds: bool) -> None:
    if not holds:
        raise ValueError(f"{option} must be {expected}; got {value!r}")
