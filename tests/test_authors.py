"""The authors' networks: their numbers from their weights; checkpoints that do not fit."""

import json
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pmms import authors
from pmms.authors import (
    AUTHORS_OPTIONS,
    OPTIONS_BY_NAME,
    build_authors_model,
    convert_state_dict,
    five_shot_scores,
    load_authors_checkpoint,
    load_authors_state,
)
from pmms.model_config import ModelConfig
from pmms.models import FewShotSegmenter, Prediction
from pmms.prototypes import partition_samples

GOLDEN = Path(__file__).parent / "golden"
sys.path.insert(0, str(GOLDEN))
import fill  # noqa: E402

NETWORKS = (("pmms", "resnet50"), ("rpmms", "resnet50"), ("pmms", "vgg16"))


def keys(name: str, backbone: str) -> dict[str, list[int]]:
    return json.loads((GOLDEN / f"{name}_{backbone}.keys.json").read_text())


@lru_cache
def their_state(name: str, backbone: str) -> dict[str, Tensor]:
    filled = fill.fill_state_dict(keys(name, backbone))
    return {entry: torch.from_numpy(np.asarray(value)) for entry, value in filled.items()}


@pytest.fixture(scope="module")
def models() -> dict[tuple[str, str], FewShotSegmenter]:
    """Each network with the golden weights and the golden start of EM."""
    built = {}
    for name, backbone in NETWORKS:
        model = build_authors_model(name, backbone=backbone, weights=None).eval()
        load_authors_state(model, their_state(name, backbone))
        for mixture in model.mixtures:
            start = torch.from_numpy(fill.prototypes_init(mixture.k))
            mixture.start.copy_(start.transpose(1, 2))
        built[name, backbone] = model
    return built


def predict(model: FewShotSegmenter, shots: int) -> Prediction:
    """The golden inputs are normalised already; the model does so itself, hence the way back."""
    given = {name: torch.from_numpy(value) for name, value in fill.inputs(shots).items()}
    support, query = (
        given[name] * model.backbone.std + model.backbone.mean for name in ("support", "query")
    )
    with torch.no_grad():
        return model(support, given["mask"], query)


def relative_error(got: Tensor, expected: np.ndarray) -> float:
    assert got.shape == expected.shape
    return (got - torch.from_numpy(expected)).abs().max().item() / np.abs(expected).max()


# --- The same numbers -----------------------------------------------------------------------------


@pytest.mark.parametrize("network", NETWORKS, ids="-".join)
def test_one_shot_forward_is_theirs(
    network: tuple[str, str], models: dict[tuple[str, str], FewShotSegmenter]
) -> None:
    model, golden = models[network], np.load(GOLDEN / f"{'_'.join(network)}.npz")
    prediction = predict(model, shots=1)
    query = torch.from_numpy(fill.inputs(1)["query"])
    with torch.no_grad():
        feature = model.reduce(model.backbone.features(query))
    got = {"query_feature": feature, "logits": prediction.logits}
    got |= {f"stage{i}_logits": stage for i, stage in enumerate(prediction.stages, start=1)}
    got["prototypes_fg"] = prediction.prototypes.foreground
    compared = [name for name in golden if name != "five_shot_output"]
    assert len(compared) == (4 if network[0] == "rpmms" else 3)
    for name in compared:
        assert relative_error(got[name], golden[name]) < 1e-4, name


@pytest.mark.parametrize("network", NETWORKS, ids="-".join)
def test_five_shot_output_is_theirs(
    network: tuple[str, str], models: dict[tuple[str, str], FewShotSegmenter]
) -> None:
    golden = np.load(GOLDEN / f"{'_'.join(network)}.npz")["five_shot_output"]
    prediction = predict(models[network], shots=5)
    assert relative_error(five_shot_scores(prediction), golden) < 1e-4


@pytest.mark.parametrize("k", [1, 3, 5])
def test_support_branch_is_theirs(k: int, models: dict[tuple[str, str], FewShotSegmenter]) -> None:
    """The golden networks have nearly equal features; these are features that EM tells apart."""
    golden = {n: torch.from_numpy(v) for n, v in np.load(GOLDEN / "em_pconv.npz").items()}
    backbone = models["pmms", "resnet50"].backbone
    for options, close in (({}, True), ({"em_features": "unit"}, k == 1)):
        model = build_authors_model("pmms", backbone=backbone, k=k, **options).eval()
        model.mixtures[0].start.copy_(golden[f"mu0_k{k}"].transpose(1, 2))
        parts = partition_samples(
            golden["feature"][:, None], golden["mask"][:, None], how=model.config.mask_partition
        )
        prototypes = [model.mixtures[0](part) for part in parts]
        prob_map = model.p_conv(golden["query"], *prototypes)
        for got, name in zip((*prototypes, prob_map), ("mu_fg", "mu_bg", "prob_map"), strict=True):
            assert (relative_error(got, golden[f"{name}_k{k}"].numpy()) < 1e-5) == close


@pytest.mark.parametrize(
    "option",
    ["prototype_scale", "mask_partition", "gradient", "fusion", "prob_map_at", "stride_in_1x1"],
)
def test_every_deviation_matters_for_the_golden_numbers(
    option: str, models: dict[tuple[str, str], FewShotSegmenter]
) -> None:
    """So that none of them could be dropped unnoticed. The gradient setting shows in training."""
    own = models["pmms", "resnet50"]
    if option == "stride_in_1x1":
        model = build_authors_model("pmms", weights=None, backbone_options={}).eval()
        model.load_state_dict(own.state_dict())
    else:
        paper = getattr(ModelConfig(name="pmms"), option)
        model = build_authors_model("pmms", backbone=own.backbone, **{option: paper}).eval()
        if option == "prob_map_at":
            ours, theirs = (m.decoder.fuse.conv.weight.shape for m in (model, own))
            assert ours != theirs
            return
        model.load_state_dict(own.state_dict())
    golden = np.load(GOLDEN / "pmms_resnet50.npz")
    prediction = predict(model, shots=1)
    error = max(
        relative_error(prediction.logits, golden["logits"]),
        relative_error(prediction.prototypes.foreground, golden["prototypes_fg"]),
    )
    assert (error < 1e-4) == (option == "gradient")


@pytest.mark.parametrize("name, millions", [("pmms", 19.630), ("rpmms", 19.633)])
def test_number_of_parameters(
    name: str, millions: float, models: dict[tuple[str, str], FewShotSegmenter]
) -> None:
    """As in the paper, which says 19.5 M and 19.6 M."""
    count = sum(p.numel() for p in models[name, "resnet50"].parameters())
    assert round(count / 1e6, 3) == millions


def test_five_shot_scores() -> None:
    stages = tuple(torch.randn(2, 2, 3, 3) for _ in range(3))
    nothing = (None, None)
    single = Prediction(stages[0], stages[:1], None, nothing)
    assert torch.equal(five_shot_scores(single), stages[0])
    scores = five_shot_scores(Prediction(stages[2], stages, None, nothing))
    assert scores.shape == (2, 2, 3, 3)
    # Three distributions over two channels, divided by 5.
    torch.testing.assert_close(scores.sum(dim=1), torch.full((2, 3, 3), 3 / 5))


# --- Options --------------------------------------------------------------------------------------


def test_the_table_of_deviations_is_what_the_code_does() -> None:
    rows = {}
    for line in authors.__doc__.splitlines():
        cells = line[:18].strip(), line[18:40].strip(), line[40:61].strip()
        if cells[0] and cells[1] and cells[2] and not line.startswith("="):
            rows[cells[0]] = cells[1:]
    config = ModelConfig(name="pmms")
    for option, value in AUTHORS_OPTIONS.items():
        assert rows[option] == (getattr(config, option), value)
    assert rows["prob_map_at"] == ("fusion", "residual (PMMs),")
    assert config.prob_map_at == "fusion"
    assert (config.norm, config.dropout) == ("batch", 0)
    assert rows["norm, dropout"] == ("batch, 0", "batch, 0 (PMMs);")
    assert OPTIONS_BY_NAME["pmms"] == dict(prob_map_at="residual", norm="batch", dropout=0)
    assert OPTIONS_BY_NAME["rpmms"] == dict(prob_map_at="fusion", norm="none", dropout=0.5)
    assert rows["stride_in_1x1"] == ("False", "True")


def test_deviations_can_be_undone_one_by_one() -> None:
    model = build_authors_model(
        "rpmms", backbone="resnet50", weights=None, fusion="mean", backbone_options={}
    )
    assert model.config.fusion == "mean"
    assert model.config.em_features == "raw"
    assert model.backbone.net.get_submodule("layer2.0.conv2").stride == (2, 2)
    own = build_authors_model("rpmms", backbone="resnet50", weights=None)
    assert own.backbone.net.get_submodule("layer2.0.conv1").stride == (2, 2)


@pytest.mark.parametrize("name", ["baseline", "pmms_plus", "PMMs"])
def test_networks_that_they_do_not_have(name: str) -> None:
    with pytest.raises(ValueError, match=f"'pmms' and 'rpmms'; got '{name}'"):
        build_authors_model(name, weights=None)


# --- Checkpoints ----------------------------------------------------------------------------------


@pytest.mark.parametrize("network", NETWORKS, ids="-".join)
def test_every_entry_of_theirs_has_one_of_ours(
    network: tuple[str, str], models: dict[tuple[str, str], FewShotSegmenter]
) -> None:
    theirs = {entry: torch.empty(shape) for entry, shape in keys(*network).items()}
    ours = convert_state_dict(theirs)
    assert len(ours) == len(theirs)
    rest = models[network].state_dict().keys() - ours.keys()
    starts = {f"mixtures.{i}.start" for i in range(len(models[network].mixtures))}
    assert rest == starts | {"backbone.mean", "backbone.std"}


@pytest.mark.parametrize("form", ["plain", "data parallel, wrapped"])
def test_checkpoint_from_a_file(
    form: str, tmp_path: Path, models: dict[tuple[str, str], FewShotSegmenter]
) -> None:
    state = their_state("pmms", "resnet50")
    content: dict[str, Any] = state
    if form == "data parallel, wrapped":
        content = {"state_dict": {f"module.{n}": v for n, v in state.items()}, "step": 7}
    torch.save(content, tmp_path / "c.pth")
    model = load_authors_checkpoint(tmp_path / "c.pth", name="pmms", backbone="resnet50")
    assert not model.training
    expected = models["pmms", "resnet50"].state_dict()
    for entry, value in model.state_dict().items():
        if not entry.startswith("mixtures."):
            assert torch.equal(value, expected[entry]), entry
    # The start of EM is not in their checkpoints: ours is that of seed 0.
    fresh = build_authors_model("pmms", backbone="resnet50", weights=None)
    assert torch.equal(model.mixtures[0].start, fresh.mixtures[0].start)


@pytest.fixture
def model(models: dict[tuple[str, str], FewShotSegmenter]) -> FewShotSegmenter:
    return models["pmms", "resnet50"]


def test_checkpoint_of_another_network(model: FewShotSegmenter) -> None:
    before = {entry: value.clone() for entry, value in model.state_dict().items()}
    with pytest.raises(
        ValueError, match=r"no checkpoint of the authors' pmms with resnet50.*check name and"
    ):
        load_authors_state(model, their_state("rpmms", "resnet50"))
    with pytest.raises(ValueError, match=r"resnet50: \d+ entries do not fit.*missing: backbone"):
        load_authors_state(model, their_state("pmms", "vgg16"))
    assert all(torch.equal(value, before[entry]) for entry, value in model.state_dict().items())


def test_checkpoint_with_entries_missing_added_or_misshapen(model: FewShotSegmenter) -> None:
    state = dict(their_state("pmms", "resnet50"))
    bias = state.pop("layer9.bias")
    with pytest.raises(ValueError, match=r"1 entries .*missing: decoder\.classify\.bias"):
        load_authors_state(model, state)
    wrong = state | {"layer9.bias": bias[:1]}
    with pytest.raises(ValueError, match=r"classify\.bias: shape \(1,\) where \(2,\) is expected"):
        load_authors_state(model, wrong)
    more = state | {"layer9.bias": bias, "model_res.layer4.0.conv1.weight": bias}
    with pytest.raises(ValueError, match=r"1 entries .*unexpected: backbone\.net\.layer4"):
        load_authors_state(model, more)
    with pytest.raises(ValueError, match="entries do not fit"):
        load_authors_state(model, {})


@pytest.mark.parametrize(
    "entry",
    [
        "conv1.weight",
        "layer5.weight",
        "layer9",
        "",
        "model_backbone.features_1",
        "model_backbone.features_9.0.weight",
        "model_backbone.features_1.x.weight",
        "model_backbone.classifier.0.weight",
    ],
)
def test_entries_of_no_network_of_theirs(entry: str) -> None:
    with pytest.raises(ValueError, match="is no entry of the authors' networks"):
        convert_state_dict({entry: torch.ones(1)})


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*nothing\.pth"):
        load_authors_checkpoint(tmp_path / "nothing.pth", name="pmms", backbone="resnet50")


class _Payload:
    """Runs code when it is unpickled without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_files_that_are_no_checkpoint(tmp_path: Path) -> None:
    path, trace = tmp_path / "c.pth", tmp_path / "trace"

    def refused(message: str) -> None:
        with pytest.raises(ValueError, match=message):
            load_authors_checkpoint(path, name="pmms", backbone="resnet50")

    torch.save({"layer9.bias": torch.ones(2000)}, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused(r"c\.pth cannot be read .*fetch it again")
    torch.save({"layer9.bias": _Payload(trace)}, path)
    refused(r"c\.pth cannot be read .*other objects than tensors")
    assert not trace.exists()
    for content in (torch.ones(3), {"epoch": 3}, {"state_dict": [1]}):
        torch.save(content, path)
        refused(r"c\.pth holds no state dict")
    # A file that is read well, but is the checkpoint of something else.
    torch.save({"fc.weight": torch.ones(3)}, path)
    refused(r"'fc\.weight' is no entry of the authors' networks")
