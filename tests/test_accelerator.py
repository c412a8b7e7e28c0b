"""On a pretended GPU: nothing makes the host wait, and no tensor lies on the wrong device.

Fake tensors have a shape and a device, but no values, and no GPU is needed for them. Reading a
value (``item``, ``bool``, a shape that depends on one) raises there; so does mixing devices.
Autograd wants a real GPU; test_models.py has it on the meta device.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

from pmms.mixture import fit_mixture
from pmms.model_config import MODELS
from pmms.models import FewShotSegmenter, build_model
from pmms.training import segmentation_loss


class _Indexing(TorchFunctionMode):
    """``x[...]`` through operators: a CPU build of PyTorch refuses it for a tensor on a GPU."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is Tensor.__getitem__:
            return _indexed(*args)
        return func(*args, **(kwargs or {}))


def _indexed(tensor: Tensor, key: Any) -> Tensor:
    key = list(key) if isinstance(key, tuple) else [key]
    if all(isinstance(entry, Tensor) for entry in key):
        return torch.ops.aten.index(tensor, key)
    if Ellipsis in key:
        at = key.index(Ellipsis)
        key[at : at + 1] = [slice(None)] * (tensor.ndim + key.count(None) - len(key) + 1)
    dim = 0
    for entry in key:
        if entry is None:
            tensor = tensor.unsqueeze(dim)
        elif isinstance(entry, int):
            tensor = tensor.select(dim, entry)
            continue
        else:
            tensor = torch.ops.aten.slice(tensor, dim, entry.start, entry.stop, entry.step or 1)
        dim += 1
    return tensor


@contextmanager
def pretended_gpu() -> Iterator[None]:
    with FakeTensorMode(), _Indexing(), torch.no_grad():
        yield


def on_gpu(model: FewShotSegmenter) -> FewShotSegmenter:
    """The model with fake parameters and buffers; within :func:`pretended_gpu`."""
    for module in model.modules():
        for name, value in list(module.named_parameters(recurse=False)):
            fake = torch.empty(value.shape, dtype=value.dtype, device="cuda")
            setattr(module, name, nn.Parameter(fake))
        for name, value in list(module.named_buffers(recurse=False)):
            setattr(module, name, torch.empty(value.shape, dtype=value.dtype, device="cuda"))
    return model


def images(*, shots: int = 2, size: int = 65) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.empty(2, shots, 3, size, size, device="cuda"),
        torch.empty(2, shots, 1, size, size, device="cuda"),
        torch.empty(2, 3, size, size, device="cuda"),
    )


@pytest.fixture(autouse=True)
def _autocast_without_a_gpu(recwarn: pytest.WarningsRecorder) -> Iterator[None]:
    """Autocast says that there is no GPU, and does nothing; here that is known."""
    yield
    recwarn.clear()


pytestmark = pytest.mark.filterwarnings("ignore:.*CUDA is not available")


def test_the_pretence_works() -> None:
    with pretended_gpu():
        x = torch.empty(3, 4, 5, device="cuda")
        assert x[:, 1, None, 2:4].shape == (3, 1, 2)
        assert x[..., None, 0].shape == (3, 4, 1)
        x[..., 1:3].add_(1)
        for read in (bool, float, torch.Tensor.item):
            with pytest.raises(RuntimeError, match=r"_local_scalar_dense|not linked|CUDA driver"):
                read(x.sum())
        with pytest.raises(RuntimeError, match=r"nonzero|not linked|CUDA driver"):
            x.nonzero()
        with pytest.raises(RuntimeError, match="devices"):
            x + torch.ones(3, 4, 5)


@pytest.mark.parametrize(
    "name, options",
    [
        *((name, {}) for name in MODELS),
        ("pmms", {"init": "kmeans++"}),
        ("pmms", {"norm": "group", "gradient": "em"}),
        ("rpmms", {"mask_partition": "product", "prob_map_at": "residual"}),
    ],
)
def test_a_model_never_makes_the_host_wait(name: str, options: dict[str, Any]) -> None:
    model = build_model(name, backbone="resnet50", weights=None, width=16, **options).eval()
    trained = build_model(name, backbone=model.backbone, width=16, **options | {"norm": "group"})
    trained.train().backbone.eval()
    with pretended_gpu():
        prediction = on_gpu(model)(*images())
        assert prediction.logits.device.type == "cuda"
        assert prediction.masks((65, 65)).shape == (2, 65, 65)
        target = torch.empty(2, 65, 65, dtype=torch.int64, device="cuda")
        loss = segmentation_loss(on_gpu(trained)(*images(shots=1)), target)
        assert loss.device.type == "cuda"


@pytest.mark.parametrize("kernel", ["vmf", "gaussian"])
@pytest.mark.parametrize("init", ["random", "kmeans++"])
@pytest.mark.parametrize("weighted", [True, False])
def test_em_never_makes_the_host_wait(kernel: str, init: str, weighted: bool) -> None:
    with pretended_gpu():
        samples = torch.empty(2, 50, 8, device="cuda")
        weights = torch.empty(2, 50, device="cuda") if weighted else None
        mixture = fit_mixture(samples, weights, k=3, kernel=kernel, init=init)
        assert {t.device.type for t in mixture if isinstance(t, Tensor)} == {"cuda"}
