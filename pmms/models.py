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
the baseline, trained and tested without a word from the support. Where the paper is silent, or its
code differs, :class:`pmms.model_config.ModelConfig` has an option; ``pmms.authors`` sets these as
the authors' code does.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pmms.backbones import Backbone, build_backbone
from pmms.checks import expect
from pmms.heads import ASPP, BlockStyle, ConvBlock, PConv, PMatch, ResidualRefinement
from pmms.model_config import ModelConfig
from pmms.prototypes import PrototypeMixture, partition_samples


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
        return foreground(upsample(self.logits, size))


def foreground(logits: Tensor) -> Tensor:
    """Where the foreground has the larger logit: (B, 2, H, W) to int64 (B, H, W), 0 or 1.

    What argmax over two channels gives, a hundred times as fast on a CPU.
    """
    return (logits[:, 1] > logits[:, 0]).long()


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
        beside: list[Tensor] = []
        if prob_map is not None and self.map_at == "fusion":
            matched = torch.cat([matched, prob_map.to(matched.dtype)], dim=1)
        elif prob_map is not None and self.map_at == "residual":
            beside.append(prob_map)
        beside += [] if previous is None else [previous]
        refined = self.refine(self.fuse(matched), torch.cat(beside, dim=1) if beside else None)
        logits: Tensor = self.classify(self.project(self.aspp(refined)))
        return logits


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
        return self.compare(support, support_mask, query)

    def embed(self, images: Tensor) -> Tensor:
        """All that is done to an image alone: (B, 3, H, W) float in [0, 1] to (B, C, h, w).

        An image that is in many episodes is embedded once; :meth:`compare` does the rest.
        """
        embedded: Tensor = self.reduce(self.backbone(images))
        return embedded

    def compare(self, support: Tensor, support_mask: Tensor, query: Tensor) -> Prediction:
        """Embeddings to a prediction.

        Args:
            support: (B, S, C, h, w) embeddings.
            support_mask: (B, S, 1, H, W) float in [0, 1], at any resolution.
            query: (B, C, h', w') embeddings.
        """
        positive, negative = partition_samples(
            support, support_mask, how=self.config.mask_partition
        )
        of_query = self.p_match.respond(query)  # once for all stages
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
            stages.append(
                self.decoder(self.p_match.match(of_query, foreground), prob_map, previous)
            )
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

    def embed(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) float in [0, 1] to the backbone's features (B, C0, h, w)."""
        features: Tensor = self.backbone(images)
        return features

    def segment(self, support: Tensor, support_mask: Tensor, query: Tensor) -> Prediction:
        """As :meth:`FewShotSegmenter.segment`; here features and embeddings are the same."""
        return self.compare(support, support_mask, query)

    def compare(self, support: Tensor, support_mask: Tensor, query: Tensor) -> Prediction:
        """As :meth:`FewShotSegmenter.compare`; the logits are the logarithm of M_p."""
        support = F.normalize(support, dim=2, eps=1e-6)
        samples = partition_samples(support, support_mask, how=self.config.mask_partition)
        of_object, of_rest = (self.mixtures[0](part) for part in samples)
        maps = self.p_conv.logits(query, of_object, of_rest).split(self.config.stages[0], dim=1)
        logits = torch.stack([maps[1].logsumexp(dim=1), maps[0].logsumexp(dim=1)], dim=1)
        logits = logits.log_softmax(dim=1)
        return Prediction(logits, (logits,), logits.exp(), Prototypes(of_object, of_rest))


def build_model(
    name: str,
    *,
    backbone: str | Backbone = "resnet50",
    weights: str | None = "imagenet",
    **options: Any,
) -> FewShotSegmenter:
    """Build a network.

    Args:
        name: one of ``pmms.model_config.MODELS``.
        backbone: a name, or one that is built already (to share it between models).
        weights: of a backbone given by name, see :func:`pmms.backbones.build_backbone`.
        options: fields of :class:`pmms.model_config.ModelConfig`.

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
        expect("backbone_options", own, f"those of the given backbone, {backbone.options}", fits)
        return _network(ModelConfig(name=name, backbone=backbone.name, **options), backbone)
    return model_of(ModelConfig(name=name, backbone=backbone, **options), weights=weights)


def model_of(config: ModelConfig, *, weights: str | None = "imagenet") -> FewShotSegmenter:
    """The network that ``config`` describes, its head with first weights of torch's generator.

    Args:
        config: of the model.
        weights: of the backbone, see :func:`pmms.backbones.build_backbone`.
    """
    backbone = build_backbone(config.backbone, weights, **config.backbone_options)
    return _network(config, backbone)


def _network(config: ModelConfig, backbone: Backbone) -> FewShotSegmenter:
    kind = FewShotSegmenter if config.learns else TrainingFreeSegmenter
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
        for k in config.stages
    )
