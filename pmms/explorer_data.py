"""What the pictures of the explorer are drawn from: live, and computed beforehand for a page."""

import base64
import html
import io
import json
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from pmms.exploration import STRIDE, EMPath, Plane, Scene, Settings

ASSETS = Path(__file__).parent
TOP = 63  # on a page, shares have 64 levels: the page is smaller, the eye sees no difference


def scene_data(scene: Scene) -> dict[str, Any]:
    """Pictures (JPEG) and grid; ``cells`` are the object's positions, row by row, uint16."""
    h, w = scene.inside.shape
    cells = scene.cells[:, 0] * w + scene.cells[:, 1]
    return {
        "h": h,
        "w": w,
        "qh": scene.query.shape[1] // STRIDE,
        "qw": scene.query.shape[2] // STRIDE,
        "support": _jpeg(scene.support),
        "query": _jpeg(scene.query),
        "inside": to_bytes(scene.inside),
        "cells": cells.numpy().astype("<u2").tobytes(),
    }


def plane_data(plane: Plane) -> dict[str, Any]:
    """Name, and points (N, 2) as float32."""
    return {"name": plane.name, "points": plane.points.astype("<f4").tobytes()}


def frame_data(
    path: EMPath, scene: Scene, step: int, prototypes: np.ndarray, *, top: int = 255
) -> dict[str, Any]:
    """One step of EM; shares as bytes, ``top`` for 1: ``resp`` (N, K), ``probability`` (h', w') and
    ``maps`` (2 K, h', w'); ``prototypes`` (K, 2) in the plane as float32."""
    return {
        "k": path.means.shape[2],
        "step": step,
        "likelihood": path.log_likelihood[:, 0].tolist(),
        "resp": to_bytes(path.resp[step, 0][scene.cells[:, 0], scene.cells[:, 1]], top=top),
        "probability": to_bytes(path.probability(step), top=top),
        "maps": to_bytes(path.maps[step], top=top),
        "prototypes": prototypes.astype("<f4").tobytes(),
    }


def to_bytes(shares: torch.Tensor, *, top: int = 255) -> bytes:
    """Numbers in [0, 1] as bytes from 0 to ``top``."""
    return (shares.clamp(0, 1) * top).round().byte().numpy().tobytes()


def _jpeg(image: torch.Tensor) -> bytes:
    pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=88)
    return buffer.getvalue()


def still(
    scene: Scene,
    *,
    ks: Sequence[int],
    kappas: Sequence[float],
    settings: Settings | None = None,
    pixel: tuple[int, int] | None = None,
) -> str:
    """The explorer for a page without a kernel: K, kappa and EM step can be moved.

    All combinations are computed here and stand in the text, beside the code that draws them. The
    page asks no server for anything.

    Args:
        scene: what is shown.
        ks: choices of K.
        kappas: choices of kappa.
        settings: where the sliders start; kernel, start of EM, seed and level for all.
        pixel: row and column in the support that are chosen at first.

    Returns:
        HTML, to be shown once on a page.

    Raises:
        ValueError: the sliders would start at a choice that is not among the others.
    """
    settings = settings or Settings()
    if settings.k not in ks or settings.kappa not in kappas:
        raise ValueError(
            f"the sliders start at K = {settings.k}, kappa = {settings.kappa}: both must be among "
            f"the choices {tuple(ks)} and {tuple(kappas)}"
        )
    plane = scene.plane(settings.level)
    frames = []
    for k in ks:
        for kappa in kappas:
            of_path = replace(settings, k=k, kappa=kappa)
            path = scene.path(of_path)
            frames.append(path.log_likelihood[:, 0].numpy().astype("<f4").tobytes())
            for step in range(scene.steps + 1):
                prototypes = scene.place(plane, of_path, step)
                frame = frame_data(path, scene, step, prototypes, top=TOP)
                frames += [frame[name] for name in ("prototypes", "resp", "probability")]
    shown = scene_data(scene)
    for name in ("support", "query"):
        shown[name] = f"data:image/jpeg;base64,{_text(shown[name])}"
    start: dict[str, Any] = {
        "k": settings.k,
        "kappa": settings.kappa,
        "step": scene.steps,
        "pixel": None,
    }
    if pixel is not None:
        start["pixel"] = {"where": "support", "row": pixel[0], "column": pixel[1]}
    data = {
        "scene": shown | {name: _text(shown[name]) for name in ("inside", "cells")},
        "plane": {"name": plane.name, "points": _text(plane_data(plane)["points"])},
        "ks": list(ks),
        "kappas": list(kappas),
        "steps": scene.steps,
        "top": TOP,
        "start": start,
        "frames": _text(zlib.compress(b"".join(frames), 9)),
    }
    code, style = ((ASSETS / f"explorer.{kind}").read_text("utf-8") for kind in ("js", "css"))
    name = html.escape(scene.pair.name)
    return f"""<style>{style}</style>
<div id="px-still"><p>Here stands an explorer with sliders for K, kappa and EM step ({name}).
It needs JavaScript; in a notebook that was opened without being run, run this cell.</p></div>
<script type="module">{code}
mountStill(document.getElementById("px-still"), {json.dumps(data, separators=(",", ":"))});
</script>"""


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
