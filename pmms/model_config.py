"""All that decides a network besides its weights, checked when it is written down."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pmms.backbones import BACKBONES
from pmms.checks import choice, expect, whole
from pmms.densities import KERNELS
from pmms.heads import FUSIONS, BlockStyle
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
        fusion: "mean", "sum" or "max" over the K maps of P-Match.
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
    fusion: Literal["mean", "sum", "max"] = "mean"
    prob_map_at: Literal["fusion", "residual"] = "fusion"
    p_conv_kappa: float | None = None
    width: int = 256
    reduce_kernel: int = 3
    norm: Literal["batch", "group", "none"] = "batch"
    dropout: float = 0.0
    aspp_rates: tuple[int, int, int] = (6, 12, 18)
    aspp_dropout: float = 0.5

    def __post_init__(self) -> None:
        choice("name", self.name, MODELS)
        stages = 3 if self.name == "rpmms" else 1
        k = DEFAULT_K.get(self.name, (3,)) if self.k is None else self.k
        k = tuple(k) if isinstance(k, (list, tuple)) else (k,)
        given: Any = self.aspp_rates
        rates = tuple(given) if isinstance(given, (list, tuple)) else (given,)
        object.__setattr__(self, "k", k)
        object.__setattr__(self, "aspp_rates", rates)
        choice("backbone", self.backbone, tuple(BACKBONES))
        choice("kernel", self.kernel, KERNELS)
        choice("init", self.init, INITS)
        choice("em_features", self.em_features, ("unit", "raw"))
        choice("prototype_scale", self.prototype_scale, ("feature", "unit"))
        choice("gradient", self.gradient, ("none", "means", "em"))
        choice("mask_partition", self.mask_partition, ("weights", "product"))
        choice("fusion", self.fusion, FUSIONS)
        choice("prob_map_at", self.prob_map_at, ("fusion", "residual"))
        fits = len(k) == stages and all(whole(n, least=1) for n in k)
        expect("k", k, f"{stages} whole number(s) >= 1", fits)
        if self.name in ("baseline", "no_support"):
            expect("k", k, f"1 for {self.name}, which has a single prototype", k == (1,))
        expect("kappa", self.kappa, "a finite number > 0", _positive(self.kappa))
        fits = self.p_conv_kappa is None or _positive(self.p_conv_kappa)
        expect("p_conv_kappa", self.p_conv_kappa, "None or a finite number > 0", fits)
        for option, least in (("em_iterations", 1), ("seed", 0), ("width", 2)):
            value = getattr(self, option)
            expect(option, value, f"a whole number >= {least}", whole(value, least=least))
        expect("reduce_kernel", self.reduce_kernel, "1 or 3", self.reduce_kernel in (1, 3))
        fits = len(rates) == 3 and all(whole(rate, least=1) for rate in rates)
        expect("aspp_rates", rates, "three dilations, whole numbers >= 1", fits)
        expect("aspp_dropout", self.aspp_dropout, "in [0, 1)", 0 <= self.aspp_dropout < 1)
        if self.init == "kmeans++":
            expect(
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
    def stages(self) -> tuple[int, ...]:
        """K of each stage: ``k``, in which None stands for nothing once it is set."""
        assert self.k is not None
        return self.k

    @property
    def learns(self) -> bool:
        """Whether there is a head to train."""
        return self.name != "training_free"

    @property
    def has_p_conv(self) -> bool:
        """Whether there is a background mixture and a probability map."""
        return self.name in ("pmms", "rpmms", "training_free")


def _positive(value: object) -> bool:
    return isinstance(value, (int, float)) and 0 < value < float("inf")
