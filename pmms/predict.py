"""Segment a person's own picture: support pictures with masks in, a mask out."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from pmms.datasets.label_index import as_rgb
from pmms.folds import VOID
from pmms.models import FewShotSegmenter, build_model, foreground
from pmms.transforms import EvalTransform

DEFAULT_SIZE = 320


@dataclass(frozen=True)
class Segmentation:
    """A segmented picture.

    Attributes:
        mask: bool (H, W), the object.
        probability: float32 (H, W) in [0, 1], softmax of the logits.
    """

    mask: np.ndarray
    probability: np.ndarray


def training_free_model(*, k: int = 3, kappa: float = 20.0) -> FewShotSegmenter:
    """P-Conv on pretrained EfficientNet-Lite0 features: needs no training and no download."""
    model = build_model(
        "training_free", backbone="efficientnet_lite0", k=k, kappa=kappa, init="kmeans++"
    )
    return model.eval()


@torch.inference_mode()
def segment_image(
    support: Sequence[tuple[np.ndarray, np.ndarray]],
    query: np.ndarray,
    *,
    model: FewShotSegmenter | None = None,
    size: int = DEFAULT_SIZE,
) -> Segmentation:
    """Segment in ``query`` what the masks show in the support pictures.

    Args:
        support: one or more pairs of a picture, uint8 (H, W, 3), and its mask, bool (H, W).
        query: uint8 (H, W, 3).
        model: put in eval mode; None for :func:`training_free_model`.
        size: side in pixels of the square that pictures are squashed to, as in the tests.

    Raises:
        ValueError: no support, an empty mask, or arrays of the wrong shape or type.
    """
    if not support:
        raise ValueError("segmenting needs at least one support picture with its mask")
    transform = EvalTransform(size)
    images, masks = [], []
    for number, (image, mask) in enumerate(support, start=1):
        _check_picture(image, f"support picture {number}")
        if mask.dtype != bool or mask.shape != image.shape[:2]:
            raise ValueError(
                f"mask {number} must be bool {image.shape[:2]} like its picture, got {mask.dtype} "
                f"{mask.shape} (a photo with an EXIF entry that turns it is read turned: draw the "
                "mask on what you see)"
            )
        if not mask.any():
            raise ValueError(f"mask {number} is empty: it must show the object in its picture")
        labels = torch.from_numpy(mask.astype(np.uint8))
        scaled, scaled_mask = transform(_tensor(image), labels)
        images.append(scaled)
        masks.append((scaled_mask == 1).float()[None])
    _check_picture(query, "query")
    model = training_free_model() if model is None else model.eval()
    height, width = query.shape[:2]
    scaled, _ = transform(_tensor(query), torch.zeros(height, width, dtype=torch.uint8))
    episode = (torch.stack(images)[None], torch.stack(masks)[None], scaled[None])
    device = next(model.parameters()).device
    prediction = model(*(tensor.to(device) for tensor in episode))
    logits = transform.restore(prediction.logits.float().cpu(), height=height, width=width)
    probability = logits.softmax(dim=1)[0, 1]
    return Segmentation(foreground(logits)[0].bool().numpy(), probability.numpy())


def read_picture(path: Path | str) -> np.ndarray:
    """Read a picture as uint8 (H, W, 3), turned as its EXIF data says.

    Raises:
        FileNotFoundError, ValueError: missing, damaged or no picture; the message names it.
    """
    return np.array(as_rgb(ImageOps.exif_transpose(_open(path)), path))


def _grey_palette(image: Image.Image) -> bool:
    """Whether all colours that a palette picture shows are grey."""
    colours = np.array(image.convert("RGB")).reshape(-1, 3)
    return bool((colours == colours[:, :1]).all())


def read_mask(path: Path | str, *, label: int | None = None) -> np.ndarray:
    """Read a mask as bool (H, W).

    Black-and-white masks, grey ones and palette PNGs are understood, with any bit depth. The value
    of a palette PNG is the index, unless no label is named and all its colours are grey. Where a
    mask is transparent there is no object. If it has an EXIF entry that turns it, it is turned.

    Args:
        path: the file.
        label: the value that marks the object. None: the mask must hold one value besides 0 (and
            besides 255, the void label, if there are others), and that is the object.

    Raises:
        FileNotFoundError, ValueError: missing or damaged; a colour picture; several labels and no
            ``label``; the label does not occur.
    """
    image = ImageOps.exif_transpose(_open(path))
    alpha = np.array(image.getchannel("A")) if "A" in image.getbands() else None
    if image.mode == "P" and label is None and _grey_palette(image):
        image = image.convert("L")
    values = np.array(image.getchannel("L") if image.mode == "LA" else image)
    if values.ndim == 3:
        colours = values[..., :3]
        if (colours != colours[..., :1]).any():
            raise ValueError(
                f"{path} is a colour picture; a mask is black and white, grey or a palette PNG "
                "with one value for the object and 0 elsewhere"
            )
        values = colours[..., 0]
    if alpha is not None:
        values = np.where(alpha > 0, values, 0)
    present = [int(v) for v in np.unique(values) if v != 0]
    if label is None:
        named = [v for v in present if v != VOID] or present
        if len(named) != 1:
            found = "only 0, an empty mask" if not named else f"the labels {named}"
            raise ValueError(f"{path} holds {found}; say which one is the object with label")
        label = named[0]
    if label not in present:
        raise ValueError(f"{path} does not hold the label {label}; it holds {present}")
    mask: np.ndarray = values == label
    return mask


def _open(path: Path | str) -> Image.Image:
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file at {path}")
    content = io.BytesIO(path.read_bytes())  # of a damaged file Pillow would keep the handle
    try:
        image = Image.open(content)
        image.load()
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        reason = "an unknown format" if isinstance(error, UnidentifiedImageError) else error
        raise ValueError(f"{path} cannot be read as a picture ({reason})") from error
    return image


def _tensor(picture: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))


def _check_picture(picture: np.ndarray, name: str) -> None:
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(
            f"{name} must be uint8 (H, W, 3), got {picture.dtype} {picture.shape}; read it with "
            "pmms.predict.read_picture"
        )


def overlay(picture: np.ndarray, mask: np.ndarray) -> Image.Image:
    """The picture with the mask tinted green and the rest dimmed."""
    shown = picture.astype(np.float32)
    shown[~mask] *= 0.45
    shown[mask] = 0.65 * shown[mask] + 0.35 * np.array([0, 158, 115], np.float32)
    return Image.fromarray(shown.round().astype(np.uint8))


def png_bytes(image: Image.Image) -> bytes:
    """A picture as the content of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
