"""Let torchvision import beside a PyTorch build that it was not compiled for.

The compiled half of torchvision (box operators, JPEG decoding) is built against one PyTorch build.
Beside another, typically a CPU build of PyTorch with the CUDA wheel of torchvision, it cannot load,
and ``import torchvision`` then stops with "operator torchvision::nms does not exist", although the
models and transforms are pure Python. Declaring the two operators that the import looks up is
enough; this book calls neither.
"""

import importlib.util
from pathlib import Path

import torch

# A library's declarations live as long as the object, so it is kept.
_operators: torch.library.Library | None = None


def declare_missing_operators() -> None:
    """Declare ``torchvision::nms`` and ``qnms`` if torchvision's compiled half cannot load."""
    global _operators
    spec = importlib.util.find_spec("torchvision")
    if _operators is not None or spec is None or spec.origin is None:
        return
    for compiled in Path(spec.origin).parent.glob("_C*.so"):
        try:
            torch.ops.load_library(str(compiled))
        except OSError:
            _operators = torch.library.Library("torchvision", "FRAGMENT")
            for name in ("nms", "qnms"):
                _operators.define(f"{name}(Tensor dets, Tensor scores, float threshold) -> Tensor")
            return


declare_missing_operators()
