"""The networks: settings, shapes, stages, gradients, reproducibility, precision."""

import io
from contextlib import nullcontext
from dataclasses import FrozenInstanceError, asdict, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pmms.backbones import Backbone, build_backbone
from pmms.heads import ConvBlock
from pmms.mixture import log_likelihood
from pmms.model_config import MODELS, ModelConfig
from pmms.models import FewShotSegmenter, Prediction, build_model, upsample

TRAINED = tuple(name for name in MODELS if name != "training_free")
CHANNELS = 40  # of the features in tests that begin there
WITH_P_CONV = ("pmms", "rpmms", "training_free")


@pytest.fixture(autouse=True)
def _same_draws_every_time() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return build_backbone("efficientnet_lite0").eval()


class NoBackbone(Backbone):
    """For tests that begin at the features."""

    def __init__(self) -> None:
        super().__init__("efficientnet_lite0", CHANNELS, mean=(0.5,) * 3, std=(0.5,) * 3)


def small(name: str, backbone: Backbone | None = None, **options: Any) -> FewShotSegmenter:
    """A network of width 16, its batch statistics not the initial ones, in eval mode."""
    model = build_model(name, backbone=backbone or NoBackbone(), **{"width": 16} | options)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d) and module not in model.backbone.modules():
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model.eval()


def episode(
    *, batch: int = 2, shots: int = 1, support: tuple[int, int] = (48, 56), query: int = 64
) -> tuple[Tensor, Tensor, Tensor]:
    mask = torch.zeros(batch, shots, 1, *support)
    for b in range(batch):
        for s in range(shots):
            mask[b, s, 0, 8 + 4 * s : 36 + 4 * b, 10 : 46 - 3 * s] = 1
    images = torch.rand(batch, shots, 3, *support), torch.rand(batch, 3, query, query - 16)
    return images[0], mask, images[1]


def feature_episode(
    *, batch: int = 2, shots: int = 1, size: int = 8
) -> tuple[Tensor, Tensor, Tensor]:
    mask = episode(batch=batch, shots=shots, support=(64, 64))[1]
    support = torch.randn(batch, shots, CHANNELS, size, size)
    return support, mask, torch.randn(batch, CHANNELS, size + 1, size - 1)


def same(one: Prediction, other: Prediction, **tolerance: float) -> bool:
    """All tensors equal; within the tolerance, if there is one."""

    def flat(p: Prediction) -> list[Tensor]:
        tensors = [p.logits, *p.stages, p.prob_map, *p.prototypes]
        return [t for t in tensors if t is not None]

    pairs = list(zip(flat(one), flat(other), strict=True))
    if not tolerance:
        return all(torch.equal(a, b) for a, b in pairs)
    return all(torch.allclose(a, b, **tolerance) for a, b in pairs)


# --- Settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, k",
    [("baseline", 1), ("no_support", 1), ("pmms_plus", 3), ("pmms", 3), ("training_free", 3)],
)
def test_default_number_of_prototypes(name: str, k: int) -> None:
    assert ModelConfig(name=name).k == (k,)
    assert ModelConfig(name=name, k=k).k == ModelConfig(name=name, k=[k]).k == (k,)


def test_defaults_are_those_of_the_paper() -> None:
    config = ModelConfig(name="rpmms")
    assert config.k == (1, 3, 6)
    assert (config.kernel, config.kappa, config.em_iterations) == ("vmf", 20.0, 10)
    assert (config.backbone, config.width) == ("resnet50", 256)
    assert config.prob_map_at == "fusion"
    with pytest.raises(FrozenInstanceError):
        config.kappa = 3.0


@pytest.mark.parametrize(
    "option, value, message",
    [
        ("name", "pmm", "name must be one of baseline, .*'pmm'"),
        ("backbone", "resnet18", "backbone must be .*resnet50.*'resnet18'"),
        ("kernel", "rbf", "kernel must be one of vmf, gaussian; got 'rbf'"),
        ("kappa", 0, "kappa must be .* > 0; got 0"),
        ("kappa", -1.0, "kappa .*-1.0"),
        ("kappa", float("inf"), "kappa must be a finite .*inf"),
        ("kappa", float("nan"), "kappa .*nan"),
        ("kappa", "20", "kappa .*'20'"),
        ("em_iterations", 0, "em_iterations must be .* >= 1; got 0"),
        ("em_iterations", 2.5, "em_iterations must be a whole number .*2.5"),
        ("init", "kmeans", r"init must be one of random, kmeans\+\+; got 'kmeans'"),
        ("seed", 1.5, "seed must be a whole number >= 0; got 1.5"),
        ("seed", -1, "seed .*-1"),
        ("em_features", "cosine", "em_features must be one of unit, raw; got 'cosine'"),
        ("prototype_scale", "raw", "prototype_scale must be one of feature, unit; got 'raw'"),
        ("gradient", True, "gradient must be one of none, means, em; got True"),
        ("mask_partition", "soft", "mask_partition must be one of weights, product; got 'soft'"),
        ("fusion", "min", "fusion must be one of mean, sum, max; got 'min'"),
        ("prob_map_at", "both", "prob_map_at must be one of fusion, residual; got 'both'"),
        ("p_conv_kappa", 0.0, "p_conv_kappa must be None or .* > 0; got 0.0"),
        ("p_conv_kappa", float("inf"), "p_conv_kappa .*inf"),
        ("width", 1, "width must be a whole number >= 2; got 1"),
        ("width", 48.0, "width .*48.0"),
        ("reduce_kernel", 2, "reduce_kernel must be 1 or 3; got 2"),
        ("norm", "layer", "norm must be .*'layer'"),
        ("dropout", 1.0, "dropout must lie .*1.0"),
        ("dropout", -0.5, "dropout must lie .*-0.5"),
        ("aspp_rates", (6, 12), r"aspp_rates must be three .*\(6, 12\)"),
        ("aspp_rates", (0, 6, 12), r"aspp_rates must be .*\(0, 6, 12\)"),
        ("aspp_rates", 6, r"aspp_rates must be .*\(6,\)"),
        ("aspp_dropout", 1.0, r"aspp_dropout must be in \[0, 1\); got 1.0"),
        ("k", 0, r"k must be 1 whole number\(s\) >= 1; got \(0,\)"),
        ("k", 2.5, r"k .*\(2.5,\)"),
        ("k", "3", r"k .*\('3',\)"),
        ("k", (), r"k .*\(\)"),
        ("k", (1, 3, 6), r"k must be 1 whole .*\(1, 3, 6\)"),
    ],
)
def test_bad_settings_are_refused_by_name(option: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelConfig(**{"name": "pmms", option: value})


def test_settings_that_contradict_each_other_are_refused() -> None:
    for name in ("baseline", "no_support"):
        with pytest.raises(ValueError, match=rf"k must be 1 for {name}.*\(3,\)"):
            ModelConfig(name=name, k=3)
    with pytest.raises(ValueError, match=r"k must be 3 whole.*\(3,\)"):
        ModelConfig(name="rpmms", k=3)
    with pytest.raises(ValueError, match=r"mask_partition .*kmeans\+\+.*'product'"):
        ModelConfig(name="pmms", init="kmeans++", mask_partition="product")


def test_unknown_options_are_refused_with_the_list_of_known_ones(backbone: Backbone) -> None:
    with pytest.raises(ValueError, match=r"unknown option\(s\) kapa, wdth; .*kappa.*width"):
        build_model("pmms", backbone=backbone, kapa=3, wdth=2)
    with pytest.raises(ValueError, match=r"name must be one of .*'pmm'"):
        build_model("pmm", backbone=backbone)
    with pytest.raises(ValueError, match="no option dilated"):
        build_model("pmms", weights=None, backbone_options={"dilated": True})


def test_backbone_by_name_or_built(backbone: Backbone) -> None:
    named = build_model("pmms", backbone="efficientnet_lite0", weights=None, width=4)
    assert named.config.backbone == "efficientnet_lite0"
    built = build_model("pmms", backbone=backbone, weights="nowhere", width=4)
    assert built.backbone is backbone
    assert replace(built.config, backbone_options={}) == named.config


def test_settings_hold_the_options_of_a_given_backbone() -> None:
    """Else a saved model would come back with another stride."""
    backbone = build_backbone("efficientnet_lite0", None, magnify=1)
    model = build_model("pmms", backbone=backbone, width=4)
    assert model.config.backbone_options == {"magnify": 1}
    again = build_model(weights=None, **asdict(model.config)).eval()
    assert again.backbone.magnify == 1
    with pytest.raises(ValueError, match=r"backbone_options must be .*'magnify': 1.*'magnify': 2"):
        build_model("pmms", backbone=backbone, width=4, backbone_options={"magnify": 2})


# --- Shapes and stages ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("shots", [1, 5])
def test_forward_is_segment_of_the_features(name: str, shots: int, backbone: Backbone) -> None:
    model = small(name, backbone)
    support, mask, query = episode(shots=shots)
    with torch.no_grad():
        prediction = model(support, mask, query)
        of_support = backbone(support.flatten(0, 1)).unflatten(0, (2, shots))
        assert same(prediction, model.segment(of_support, mask, backbone(query)))

    stages = 3 if name == "rpmms" else 1
    assert prediction.logits.shape == (2, 2, 8, 6)
    assert len(prediction.stages) == stages
    assert prediction.logits is prediction.stages[-1]
    assert all(stage.shape == (2, 2, 8, 6) for stage in prediction.stages)
    width = backbone.channels if name == "training_free" else 16
    k = {"baseline": 1, "no_support": 1, "rpmms": 6}.get(name, 3)
    foreground, background = prediction.prototypes
    assert foreground.shape == (2, k, width)
    if name in WITH_P_CONV:
        assert background.shape == (2, k, width)
        assert prediction.prob_map.shape == (2, 2, 8, 6)
        torch.testing.assert_close(prediction.prob_map.sum(dim=1), torch.ones(2, 8, 6))
    else:
        assert background is None
        assert prediction.prob_map is None
    assert all(t.isfinite().all() for t in (*prediction.stages, foreground))


@pytest.mark.parametrize("name", MODELS)
def test_masks(name: str, backbone: Backbone) -> None:
    with torch.no_grad():
        prediction = small(name, backbone)(*episode())
    masks = prediction.masks((83, 67))
    assert masks.shape == (2, 83, 67)
    assert masks.dtype == torch.int64
    large = upsample(prediction.logits, (83, 67))
    assert torch.equal(masks == 1, large[:, 1] > large[:, 0])


def test_upsample_keeps_corners_apart_and_works_in_float32() -> None:
    logits = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2).expand(1, 2, 1, 2).bfloat16()
    large = upsample(logits, (1, 4))
    assert large.dtype == torch.float32
    torch.testing.assert_close(large[0, 0, 0], torch.tensor([0.0, 0.25, 0.75, 1.0]))


def test_mask_may_have_any_resolution() -> None:
    model = small("pmms")
    support, mask, query = feature_episode()
    twice = mask.repeat_interleave(2, dim=3).repeat_interleave(2, dim=4)
    with torch.no_grad():
        assert same(
            model.segment(support, mask, query),
            model.segment(support, twice, query),
            rtol=1e-4,
            atol=1e-5,
        )


@pytest.mark.parametrize("name", MODELS)
def test_shots_have_no_order_and_the_same_one_twice_adds_nothing(name: str) -> None:
    model = small(name)
    support, mask, query = feature_episode(shots=3)
    one, two = support[:, :1], mask[:, :1]
    with torch.no_grad():
        pairs = [
            ((support, mask), (support.flip(1), mask.flip(1))),
            ((one, two), (one.expand(-1, 2, -1, -1, -1), two.expand(-1, 2, -1, -1, -1))),
        ]
        for first, second in pairs:
            assert same(
                model.segment(*first, query), model.segment(*second, query), rtol=1e-3, atol=1e-4
            )


@pytest.mark.parametrize("name", ["baseline", "pmms_plus", "pmms"])
def test_one_prototype_is_the_masked_average(name: str) -> None:
    model = small(name, k=1)
    support, mask, query = feature_episode()
    with torch.no_grad():
        reduced = model.reduce(support[:, 0])
        share = F.avg_pool2d(mask[:, 0], 8)
        prototypes = model.segment(support, mask, query).prototypes
    parts = [(prototypes.foreground, share), (prototypes.background, 1 - share)]
    for got, weight in parts if name == "pmms" else parts[:1]:
        expected = (weight * reduced).sum(dim=(2, 3)) / weight.sum(dim=(2, 3))
        torch.testing.assert_close(got[:, 0], expected)


def test_control_without_support_does_not_see_it() -> None:
    """The baseline with a prototype of zeros: whatever the support shows, the same prediction."""
    model, baseline = small("no_support"), small("baseline")
    baseline.load_state_dict(model.state_dict())
    support, mask, query = feature_episode()
    with torch.no_grad():
        one = model.segment(support, mask, query)
        other = model.segment(torch.randn_like(support), 1 - mask, query)
        assert same(one, other)
        assert (one.prototypes.foreground == 0).all()
        matched = baseline.p_match(baseline.reduce(query), torch.zeros(2, 1, 16))
        torch.testing.assert_close(baseline.decoder(matched, None, None), one.logits)


def test_each_stage_of_rpmms_is_fed_by_the_last_one() -> None:
    model = small("rpmms")
    inputs = feature_episode()
    with torch.no_grad():
        before = model.segment(*inputs).stages
        assert not torch.equal(before[0], before[1])
        # Without the two channels through which the last prediction enters: the first stage sees
        # zeros there anyway, the later ones do not.
        model.decoder.refine.blocks[0][1].weight[:, -2:] = 0
        after = model.segment(*inputs).stages
    assert torch.equal(before[0], after[0])
    assert not torch.allclose(before[1], after[1])
    assert not torch.allclose(before[2], after[2])


@pytest.mark.parametrize("name", ["pmms", "rpmms"])
@pytest.mark.parametrize("place", ["fusion", "residual"])
def test_probability_map_enters_where_the_setting_says(name: str, place: str) -> None:
    model = small(name, prob_map_at=place)
    fuse, first = model.decoder.fuse.conv.weight, model.decoder.refine.blocks[0][1].weight
    assert fuse.shape[1] == 16 + 2 * (place == "fusion")
    assert first.shape[1] == 16 + 2 * (place == "residual") + 2 * (name == "rpmms")
    inputs = feature_episode()
    with torch.no_grad():
        before = model.segment(*inputs).stages[0]
        (fuse if place == "fusion" else first)[:, 16:18] = 0
        assert not torch.allclose(before, model.segment(*inputs).stages[0])


@pytest.mark.parametrize(
    "options",
    [
        dict(reduce_kernel=1),
        dict(norm="group"),
        dict(norm="none"),
        dict(kernel="gaussian"),
        dict(init="kmeans++"),
        dict(em_features="raw"),
        dict(prototype_scale="unit"),
        dict(mask_partition="product"),
        dict(fusion="sum"),
        dict(prob_map_at="residual"),
        dict(p_conv_kappa=20.0),
        dict(kappa=3.0),
        dict(em_iterations=1),
        dict(seed=1),
        dict(k=5),
        dict(aspp_rates=(1, 2, 3)),
    ],
    ids=str,
)
def test_every_option_changes_the_prediction(options: dict) -> None:
    """With the weights of the default network wherever the shapes allow it."""
    default = small("pmms")
    changed = small("pmms", **options)
    own = {n: v.shape for n, v in changed.state_dict().items()}
    shared = {
        n: v
        for n, v in default.state_dict().items()
        if own.get(n) == v.shape and not n.startswith("mixtures.")
    }
    changed.load_state_dict(shared, strict=False)
    inputs = feature_episode()
    with torch.no_grad():
        one, other = default.segment(*inputs), changed.segment(*inputs)
    assert other.logits.isfinite().all()
    assert not torch.allclose(one.logits, other.logits, rtol=1e-4, atol=1e-6)


def test_reduce_kernel() -> None:
    for size in (1, 3):
        model = small("pmms", reduce_kernel=size)
        assert model.reduce.conv.kernel_size == (size, size)
        assert isinstance(model.reduce, ConvBlock)


# --- The network without training -----------------------------------------------------------------


@pytest.mark.parametrize("kappa", [5.0, 20.0, 100.0])
def test_training_free_compares_the_two_mixtures(kappa: float) -> None:
    model = small("training_free", kappa=kappa)
    support, mask, query = feature_episode()
    with torch.no_grad():
        prediction = model.segment(support, mask, query)
    torch.testing.assert_close(prediction.logits, prediction.prob_map.log(), atol=1e-4, rtol=1e-4)
    # A query position at a time: how likely it is under either mixture.
    positions = F.normalize(query, dim=1).permute(0, 2, 3, 1).reshape(-1, 1, CHANNELS)
    foreground, background = (
        log_likelihood(positions, p.repeat_interleave(63, dim=0), kappa=kappa).view(2, 9, 7)
        for p in prediction.prototypes
    )
    torch.testing.assert_close(
        prediction.logits[:, 1] - prediction.logits[:, 0],
        foreground - background,
        atol=1e-3,
        rtol=1e-4,
    )


def test_training_free_has_logits_where_probabilities_underflow() -> None:
    model = small("training_free", kappa=1e4)
    with torch.no_grad():
        prediction = model.segment(*feature_episode())
    assert (prediction.prob_map == 0).any()
    assert prediction.logits.isfinite().all()


def test_training_free_segments_what_the_features_tell_apart() -> None:
    """An object of two parts on a background of two kinds, with noise; another layout to find."""
    directions = F.normalize(torch.randn(4, CHANNELS), dim=1)
    support_kind = torch.zeros(8, 8, dtype=torch.int64)
    support_kind[:, 4:] = 1
    support_kind[2:5, 1:6] = 2
    support_kind[3:5, 1:6] = 3
    query_kind = support_kind.roll((2, 1), dims=(0, 1)).T
    support, query = (
        (directions[kind] + 0.05 * torch.randn(8, 8, CHANNELS)).permute(2, 0, 1)
        for kind in (support_kind, query_kind)
    )
    mask = (support_kind >= 2).float()
    model = small("training_free", k=2, init="kmeans++")
    prediction = model.segment(support[None, None], mask[None, None, None], query[None])
    assert torch.equal(prediction.masks((8, 8))[0], (query_kind >= 2).long())


def test_training_free_is_blind_to_the_length_of_features() -> None:
    model = small("training_free")
    support, mask, query = feature_episode()
    lengths = 1 + 9 * torch.rand(2, 1, 1, 8, 8)
    one = model.segment(support, mask, query)
    other = model.segment(lengths * support, mask, 7 * query)
    assert same(one, other, rtol=1e-3, atol=1e-4)


def test_training_free_has_nothing_to_train() -> None:
    assert not list(small("training_free").parameters())


# --- Gradients ------------------------------------------------------------------------------------


def head_gradients(model: FewShotSegmenter, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
    prediction = model.segment(*inputs)
    target = (torch.arange(63).view(1, 9, 7) % 3 == 0).long().expand(len(inputs[0]), 9, 7)
    loss = sum(F.cross_entropy(stage, target) for stage in prediction.stages)
    head = dict(model.named_parameters())
    return dict(zip(head, torch.autograd.grad(loss, list(head.values())), strict=True))


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("norm", ["batch", "group", "none"])
def test_gradient_reaches_every_parameter(name: str, norm: str) -> None:
    model = small(name, norm=norm).double().train()
    inputs = tuple(t.double() for t in feature_episode(batch=3))
    gradients = head_gradients(model, inputs)
    idle = {n for n, g in gradients.items() if g.abs().max() < 1e-12}
    # BatchNorm takes the mean away, so a bias before it has no effect.
    before_batch_norm = {
        "batch": {"reduce", "p_match.block", "decoder.fuse", "decoder.project"},
        "group": set(),
        "none": {"reduce"},
    }[norm]
    assert idle == {f"{block}.conv.bias" for block in before_batch_norm}


def test_gradient_setting_decides_what_the_support_learns() -> None:
    """With "none" the support features have no gradient at all; with the others they have."""
    gradients = {}
    for setting in ("none", "means", "em"):
        torch.manual_seed(0)
        model = small("pmms", gradient=setting)
        support, mask, query = feature_episode()
        prediction = model.segment(support.requires_grad_(), mask, query.requires_grad_())
        prediction.logits[:, 1].sum().backward()
        assert (query.grad != 0).any()
        gradients[setting] = support.grad
        assert prediction.prob_map.requires_grad == (setting != "none")
    assert gradients["none"] is None
    assert (gradients["means"] != 0).any()
    assert not torch.allclose(gradients["means"], gradients["em"])


# --- Reproducibility ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("init", ["random", "kmeans++"])
def test_nothing_is_drawn_in_eval_mode(name: str, init: str, backbone: Backbone) -> None:
    model = small(name, backbone, init=init)
    inputs = episode()
    state = torch.get_rng_state()
    with torch.no_grad():
        first, second = model(*inputs), model(*inputs)
    assert same(first, second)
    assert torch.equal(torch.get_rng_state(), state)


def test_dropout_is_all_that_is_drawn_in_training() -> None:
    inputs = feature_episode()
    still = small("rpmms", norm="group", aspp_dropout=0.0).train()
    assert same(still.segment(*inputs), still.segment(*inputs))
    drops = small("rpmms", norm="group").train()
    assert not same(drops.segment(*inputs), drops.segment(*inputs))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("init", ["random", "kmeans++"])
def test_episodes_of_a_batch_do_not_see_each_other(name: str, init: str) -> None:
    model = small(name, init=init)
    inputs = feature_episode(batch=3, shots=2)
    with torch.no_grad():
        together = model.segment(*inputs)
        for b in range(3):
            alone = model.segment(*(t[b : b + 1] for t in inputs))
            for one, many in zip(alone.stages, together.stages, strict=True):
                torch.testing.assert_close(one[0], many[b], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("init", ["random", "kmeans++"])
def test_a_state_dict_is_the_whole_model(name: str, init: str) -> None:
    """The start of EM included: the receiving model was built with another seed."""
    model, other = (small(name, init=init, seed=seed) for seed in (1, 2))
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    inputs = feature_episode()
    with torch.no_grad():
        assert same(model.segment(*inputs), other.segment(*inputs))


def test_a_state_dict_holds_the_backbone(backbone: Backbone) -> None:
    model = small("pmms", backbone)
    other = build_model("pmms", backbone="efficientnet_lite0", weights=None, width=16).eval()
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        inputs = episode()
        assert same(model(*inputs), other(*inputs))


def test_seed_is_that_of_the_start_of_em() -> None:
    one, two, other = (small("rpmms", seed=seed).mixtures for seed in (1, 1, 2))
    for a, b, c in zip(one, two, other, strict=True):
        assert torch.equal(a.start, b.start)
        assert not torch.equal(a.start, c.start)


def test_an_empty_support_mask_is_refused_in_words(backbone: Backbone) -> None:
    support, mask, query = episode()
    mask[1] = 0
    with pytest.raises(ValueError, match="mask that shows the object"):
        small("pmms", backbone)(support, mask, query)


# --- Precision and devices ------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_bfloat16_autocast_stays_close(name: str, backbone: Backbone) -> None:
    model = small(name, backbone, norm="group", width=32)
    inputs = episode()
    with torch.no_grad():
        single = model(*inputs)
        with torch.autocast("cpu", torch.bfloat16):
            half = model(*inputs)
    assert half.prototypes.foreground.dtype == torch.float32
    # bfloat16 keeps three digits through some thirty layers, of which most are the backbone's.
    for one, other in zip(single.stages, half.stages, strict=True):
        error = (one - other.float()).abs() / one.abs().max()
        assert error.max() < 0.2
        assert error.mean() < 0.03
    if single.prob_map is not None:
        assert half.prob_map.dtype == torch.float32
        assert (single.prob_map - half.prob_map).abs().max() < 0.1


@pytest.mark.parametrize("name", TRAINED)
def test_training_step_under_bfloat16_autocast(name: str) -> None:
    model = small(name, norm="group").train()
    with torch.autocast("cpu", torch.bfloat16):
        gradients = head_gradients(model, feature_episode())
    assert all(g.isfinite().all() for g in gradients.values())
    assert all(g.dtype == torch.float32 for g in gradients.values())


@pytest.mark.parametrize("name", MODELS)
def test_double_precision(name: str) -> None:
    single = small(name)
    inputs = feature_episode()
    with torch.no_grad():
        expected = single.segment(*inputs)
        double = single.double().segment(*(t.double() for t in inputs))
    assert double.logits.dtype == double.prototypes.foreground.dtype == torch.float64
    torch.testing.assert_close(double.logits.float(), expected.logits, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    "name, init", [*((name, "random") for name in MODELS), ("pmms", "kmeans++")]
)
@pytest.mark.parametrize("training", [False, True])
def test_the_host_never_waits_for_an_accelerator(
    name: str, init: str, training: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the meta device a value cannot be read back, nor a shape depend on one: that would raise.

    So whatever runs there runs without synchronisation on a GPU.
    """
    with pytest.raises(RuntimeError):
        bool(torch.ones(1, device="meta"))
    # Autocast knows no meta device, and has nothing to do with synchronisation.
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    model = small(name, init=init, norm="group").to("meta").train(training)
    prediction = model.segment(*(t.to("meta") for t in feature_episode(shots=2)))
    assert prediction.logits.is_meta
    assert prediction.masks((80, 64)).is_meta
    if training and name in TRAINED:
        sum(stage.sum() for stage in prediction.stages).backward()
