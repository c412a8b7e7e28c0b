"""Several processes for one run, on one machine or several: Lightning Fabric, with DDP.

Each process does its share of every batch and of every evaluation. Shares are added up where their
sum is meant, so that the number of processes is no setting of a run: it enters no name and no
checkpoint.
"""

import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

from pmms.checks import whole

if TYPE_CHECKING:
    from lightning_fabric import Fabric

TIMEOUT = timedelta(minutes=30)
"""How long one process waits for another before it gives up. One that dies is noticed sooner."""

INTERRUPTED = 130
"""Exit status of a process that SIGINT ended, as shells have it."""

Item = TypeVar("Item")


class Team:
    """The processes of a run as one of them sees them; without Fabric there is only this one.

    Attributes:
        rank: of this process, from 0.
        size: number of processes.
        chief: whether this process writes files and shows progress: rank 0.
    """

    def __init__(self, fabric: "Fabric | None" = None) -> None:
        self.fabric = fabric
        self.rank = 0 if fabric is None else fabric.global_rank
        self.size = 1 if fabric is None else fabric.world_size
        self.chief = self.rank == 0

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over the processes, element by element; each of them calls it. A new tensor."""
        if self.size == 1:
            return tensor.clone()
        there = tensor.to(self.device, copy=True)
        # Not by way of Fabric, which puts a barrier before: on GPUs the host would wait at each.
        torch.distributed.all_reduce(there)
        return there.to(tensor.device)

    def any(self, here: bool) -> bool:
        """Whether it holds in one of the processes at least."""
        return here if self.size == 1 else bool(self.total(torch.tensor(int(here))) > 0)

    def all(self, here: bool) -> bool:
        """Whether it holds in all of them."""
        return not self.any(not here)

    def wait(self) -> None:
        """Go on when all processes have come here."""
        if self.size > 1:
            self._joined.barrier()

    def chief_first(self) -> AbstractContextManager[None]:
        """Within the block the others wait until the chief has left it."""
        if self.size == 1:
            return nullcontext()
        return self._joined.rank_zero_first()

    def wrapped(self, module: nn.Module) -> nn.Module:
        """The module with its gradients averaged over the processes."""
        return module if self.size == 1 else self._joined.setup_module(module)

    def part(self, module: nn.Module, *, last: bool) -> AbstractContextManager[None]:
        """For forward and backward of one part; gradients are averaged at the ``last`` alone."""
        wrapped: Any = module
        return (
            nullcontext()
            if self.size == 1
            else self._joined.no_backward_sync(wrapped, enabled=not last)
        )

    def backward(self, loss: Tensor) -> None:
        """Gradients of ``loss``, from a wrapped module."""
        if self.size == 1:
            loss.backward()
        else:
            self._joined.backward(loss)

    @property
    def device(self) -> torch.device:
        """Where this process computes, of several."""
        return self._joined.device

    @property
    def _joined(self) -> "Fabric":
        assert self.fabric is not None  # asked only where there are several processes
        return self.fabric


def start(*, devices: int = 1, nodes: int = 1, device: str = "cpu") -> "Fabric":
    """Join the processes that something else has started: ``srun``, ``torchrun``,
    :func:`in_processes`.

    Args:
        devices: processes on each machine, each with its own GPU, or all of them on the CPU.
        nodes: machines.
        device: "cpu" (gloo), or "cuda" (NCCL).

    Raises:
        ImportError: without the package lightning-fabric.
        ValueError: numbers that do not fit, or another device.
    """
    _check(devices, nodes, device)
    try:
        from lightning_fabric import Fabric
        from lightning_fabric.plugins.environments.lightning import LightningEnvironment
        from lightning_fabric.strategies.ddp import DDPStrategy
    except ImportError as error:
        raise ImportError(
            "several processes need the package lightning-fabric: pip install 'pmms[scale]'"
        ) from error
    strategy: Any = DDPStrategy(timeout=TIMEOUT)
    # Otherwise a job of SLURM with one task would be taken for one whose tasks are the processes.
    plugins: Any = [LightningEnvironment()] if "PMMS_RANKS" in os.environ else None
    fabric = Fabric(
        accelerator=device.partition(":")[0], devices=devices, num_nodes=nodes, strategy=strategy,
        plugins=plugins,
    )  # fmt: skip
    fabric.launch()
    if fabric.global_rank > 0:
        os.environ["TQDM_DISABLE"] = "1"
    return fabric


def started_outside() -> bool:
    """Whether ``torchrun`` or ``srun`` has started this process as one of several."""
    torchrun = "TORCHELASTIC_RUN_ID" in os.environ
    return torchrun or int(os.environ.get("SLURM_NTASKS", "1")) > 1


def in_processes(
    function: Callable[..., None],
    *arguments: Any,
    devices: int,
    nodes: int = 1,
    device: str = "cpu",
) -> None:
    """Start processes on this machine and call ``function(fabric, *arguments)`` in each of them.

    With several machines the same call is made on each, with the environment variables MASTER_ADDR
    and MASTER_PORT (of the first machine) and NODE_RANK (from 0). Under ``srun`` and ``torchrun``,
    which start processes themselves, use :func:`start`.

    SIGINT is handed on to the first process, once.

    Args:
        function: importable by name; its arguments are pickled, tensors shared.
        arguments: for it.
        devices, nodes, device: as for :func:`start`.

    Raises:
        RuntimeError: a process failed or was killed; the others are ended.
        KeyboardInterrupt: after SIGINT, when the processes have ended.
        ValueError, ImportError: as for :func:`start`.
    """
    _check(devices, nodes, device)
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    if nodes > 1:
        missing = [n for n in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK") if n not in os.environ]
        if missing:
            raise ValueError(
                f"several nodes need the environment variable(s) {', '.join(missing)}, or a start "
                "by srun or torchrun"
            )
        address = {name: os.environ[name] for name in address}
    place = address | {
        "NODE_RANK": os.environ.get("NODE_RANK", "0") if nodes > 1 else "0",
        "WORLD_SIZE": str(devices * nodes),
        "PMMS_RANKS": "1",
    }
    started = spawn(
        _process, (place, devices, nodes, device, function, arguments), devices, join=False
    )
    interrupted = False
    while True:
        try:
            if started.join():
                break
        except KeyboardInterrupt:
            if interrupted:  # the second one works as ever
                for process in started.processes:
                    process.kill()
                raise
            interrupted = True
            os.kill(started.processes[0].pid, signal.SIGINT)
        except Exception as error:
            if interrupted:
                raise KeyboardInterrupt from error
            raise RuntimeError(f"one of {devices} processes failed: {error}") from error
    if interrupted:
        raise KeyboardInterrupt


def share(items: list[Item], team: Team) -> list[Item]:
    """This process's run of neighbouring items; lengths differ by one at most."""
    bounds = [len(items) * rank // team.size for rank in (team.rank, team.rank + 1)]
    return items[slice(*bounds)]


def _process(
    local_rank: int,
    place: dict[str, str],
    devices: int,
    nodes: int,
    device: str,
    function: Callable[..., None],
    arguments: tuple[Any, ...],
) -> None:
    os.setpgrp()  # so that Ctrl-C reaches the process that started this one, and through it rank 0
    os.environ |= place | {"LOCAL_RANK": str(local_rank)}
    fabric = start(devices=devices, nodes=nodes, device=device)
    try:
        function(fabric, *arguments)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)  # else torch takes it for a success, and the others wait
    fabric.barrier()
    torch.distributed.destroy_process_group()


def _check(devices: int, nodes: int, device: str) -> None:
    for name, value in (("devices", devices), ("nodes", nodes)):
        if not whole(value, least=1):
            raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
    if device.partition(":")[0] not in ("cpu", "cuda"):
        raise ValueError(f"device must be 'cpu' or 'cuda' for several processes, got {device!r}")
    if device.startswith("cuda") and devices > torch.cuda.device_count():
        raise ValueError(
            f"devices is {devices}, but this machine has {torch.cuda.device_count()} GPU(s)"
        )


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
