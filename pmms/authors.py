"""Checkpoints of the authors' code, and every known difference between their paper and their code.

The authors' repository (github.com/Yang-Bob/PMMs) holds the networks behind the paper's numbers. In
places it does something else than the paper says, or decides what the paper leaves open. Each such
place is an option of :class:`pmms.model_config.ModelConfig`; its default is the paper's reading.

================  ====================  ===================  =======================================
option            default               authors              what it is about
================  ====================  ===================  =======================================
em_features       unit                  raw                  Eq. 2 compares by cosine; their E-step
                                                             takes kappa mu^T s with s of any length
prototype_scale   feature               unit                 Eq. 5 is a weighted mean; their means
                                                             have unit norm
mask_partition    weights               product              masked-out features stay in EM as zeros
                                                             and the mask is bilinear
gradient          means                 none                 EM, means and P-Conv without gradient;
                                                             the paper does not say
fusion            mean                  sum                  of the K maps of P-Match; the paper
                                                             does not say
prob_map_at       fusion                residual (PMMs),     Eq. 9 concatenates M_p with Q'
                                        fusion (RPMMs)
norm, dropout     batch, 0              batch, 0 (PMMs);     not in the paper
                                        none, 0.5 (RPMMs)
stride_in_1x1     False                 True                 ResNet's strided convolution; the
                                                             ImageNet weights have it in the 3x3
================  ====================  ===================  =======================================

Not options, because they change what a result means: the authors draw the start of EM anew in
every forward pass of RPMMs and do not save it (here it is a buffer, drawn once from a seed); and
their 5-shot RPMMs sum the softmax of all stages (:func:`five_shot_scores`). BatchNorm in P-Match
sees the K maps of a batch together here and one after the other in their code, which differs in
training only.
"""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pmms.backbones import read_state_dict
from pmms.models import FewShotSegmenter, Prediction, build_model

AUTHORS_OPTIONS: dict[str, Any] = {
    "em_features": "raw",
    "prototype_scale": "unit",
    "mask_partition": "product",
    "gradient": "none",
    "fusion": "sum",
}
OPTIONS_BY_NAME: dict[str, dict[str, Any]] = {
    "pmms": {"prob_map_at": "residual", "norm": "batch", "dropout": 0.0},
    "rpmms": {"prob_map_at": "fusion", "norm": "none", "dropout": 0.5},
}

# Their names of layers -> ours. A trailing number counts modules inside nn.Sequential.
HEAD_NAMES = {
    "layer5.0": "reduce.conv",
    "layer5.1": "reduce.norm",
    "layer55.0": "p_match.block.conv",
    "layer55.1": "p_match.block.norm",
    "layer56.0": "decoder.fuse.conv",
    "layer56.1": "decoder.fuse.norm",
    "layer6.layer6_0.0": "decoder.aspp.image.conv",
    "layer6.layer6_1.0": "decoder.aspp.point.conv",
    "layer6.layer6_2.0": "decoder.aspp.atrous.0.conv",
    "layer6.layer6_3.0": "decoder.aspp.atrous.1.conv",
    "layer6.layer6_4.0": "decoder.aspp.atrous.2.conv",
    "layer7.0": "decoder.project.conv",
    "layer7.1": "decoder.project.norm",
    "layer9": "decoder.classify",
    **{
        f"residule{block + 1}.{n}": f"decoder.refine.blocks.{block}.{n}"
        for block in range(3)
        for n in (1, 3)
    },
}
VGG16_POOLINGS = (4, 9, 16, 23, 30)  # positions in torchvision's vgg16().features


def build_authors_model(
    name: str, *, backbone: str = "resnet50", weights: str | None = "imagenet", **options: Any
) -> FewShotSegmenter:
    """The network as the authors' code has it.

    Args:
        name: "pmms" or "rpmms".
        backbone: "resnet50" or "vgg16".
        weights: of the backbone, see :func:`pmms.backbones.build_backbone`.
        options: of :class:`pmms.model_config.ModelConfig`, to undo deviations one by one.
    """
    if name not in OPTIONS_BY_NAME:
        raise ValueError(f"the authors' code has 'pmms' and 'rpmms'; got {name!r}")
    if backbone == "resnet50":
        options = {"backbone_options": {"stride_in_1x1": True}} | options
    settings = AUTHORS_OPTIONS | OPTIONS_BY_NAME[name] | options
    return build_model(name, backbone=backbone, weights=weights, **settings)


def convert_state_dict(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the entries of an authors' state dict to ours.

    Raises:
        ValueError: for an entry that no network of theirs has.
    """
    return {_our_name(name): value for name, value in theirs.items()}


def load_authors_checkpoint(path: str | Path, *, name: str, backbone: str) -> FewShotSegmenter:
    """Load a checkpoint written by the authors' code, in eval mode.

    The start of EM is not in their checkpoints, so ours (``seed`` 0) is used. The image
    normalisation of their data loader is that of our backbones.

    Args:
        path: a ``.pth`` file: a state dict, or a dict with one under ``state_dict``.
        name: "pmms" or "rpmms".
        backbone: "resnet50" or "vgg16".

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be read, or is a checkpoint of something else; the message lists
            what does not fit.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}")
    state = read_state_dict(path)
    model = build_authors_model(name, backbone=backbone, weights=None)
    load_authors_state(model, state)
    return model.eval()


def load_authors_state(model: FewShotSegmenter, theirs: dict[str, Tensor]) -> None:
    """Fill ``model`` with an authors' state dict; see :func:`load_authors_checkpoint`."""
    # Checkpoints of nn.DataParallel carry a prefix.
    ours = convert_state_dict({n.removeprefix("module."): v for n, v in theirs.items()})
    own = {n for n, _ in model.named_buffers() if n.startswith("mixtures.")}
    own |= {"backbone.mean", "backbone.std"}
    expected = {n: v.shape for n, v in model.state_dict().items() if n not in own}
    problems = [f"missing: {n}" for n in expected.keys() - ours.keys()]
    problems += [f"unexpected: {n}" for n in ours.keys() - expected.keys()]
    problems += [
        f"{n}: shape {tuple(ours[n].shape)} where {tuple(expected[n])} is expected"
        for n in expected.keys() & ours.keys()
        if ours[n].shape != expected[n]
    ]
    if problems:
        shown = "; ".join(sorted(problems)[:5])
        raise ValueError(
            f"this is no checkpoint of the authors' {model.config.name} with "
            f"{model.config.backbone}: {len(problems)} entries do not fit ({shown}); check name "
            "and backbone"
        )
    model.load_state_dict(ours, strict=False)


def five_shot_scores(prediction: Prediction) -> Tensor:
    """What the authors' 5-shot test takes the argmax of, (B, 2, h, w).

    For RPMMs the softmax of all three stages, summed and divided by 5; else the logits.
    """
    if len(prediction.stages) == 1:
        return prediction.logits
    return torch.stack([stage.softmax(dim=1) for stage in prediction.stages]).sum(dim=0) / 5


def _our_name(name: str) -> str:
    if name.startswith("model_res."):
        return "backbone.net." + name.removeprefix("model_res.")
    if name.startswith("model_backbone.cls.0."):
        return "backbone.last." + name.removeprefix("model_backbone.cls.0.")
    if vgg := re.fullmatch(r"model_backbone\.features_([1-5])\.(\d+)\.(\w+)", name):
        return f"backbone.net.{_vgg_start(int(vgg[1])) + int(vgg[2])}.{vgg[3]}"
    layer, _, entry = name.rpartition(".")
    if layer not in HEAD_NAMES:
        raise ValueError(f"{name!r} is no entry of the authors' networks")
    return f"{HEAD_NAMES[layer]}.{entry}"


def _vgg_start(group: int) -> int:
    """First position of their ``features_<group>`` in torchvision's flat list.

    Their groups close with the pooling that the next convolutions follow.
    """
    return 0 if group == 1 else VGG16_POOLINGS[group - 2] + 1
