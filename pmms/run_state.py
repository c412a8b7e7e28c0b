"""What a training run has reached, and its way to and from the disk."""

import csv
import io
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from filelock import FileLock, Timeout
from torch import Tensor, nn

from pmms.files import check_writable, write_atomically

CHECKPOINT = "checkpoint.pt"
LOG = "loss.csv"
ASK_AGAIN = 1.0  # seconds until a process that waits for a folder tries again


class LossPoint(NamedTuple):
    """One row of the log: steps done, mean loss since the last row, learning rate."""

    step: int
    loss: float
    learning_rate: float


@contextmanager
def alone_in(
    folder: Path | None, *, agreed: Callable[[bool], bool] = bool, chief: bool = True
) -> Iterator[None]:
    """Have a run's folder to oneself within the block; wait, and say so, while another has it.

    The lock is a file beside the folder, ``.<name>.lock``, which stays. A process that dies loses
    its lock.

    Args:
        folder: of checkpoint and log; None needs no lock.
        agreed: called with whether this process may go on; says whether all of a team may.
        chief: whether this process locks for its team; the others go along.
    """
    if folder is None:
        yield
        return
    folder = folder.absolute()  # "." has no name
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    if chief:
        check_writable(folder.parent)
        folder.parent.mkdir(parents=True, exist_ok=True)
    told = False
    while not agreed(not chief or _acquired(lock)):
        if chief and not told:
            print(
                f"another process trains in {folder}; waiting until it has ended", file=sys.stderr
            )
            told = True
        time.sleep(ASK_AGAIN)
    try:
        yield
    finally:
        lock.release()


def _acquired(lock: FileLock) -> bool:
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return False
    return True


class RunState:
    """Step, log, weights and momentum of a run.

    Attributes:
        step: steps done.
        history: the log so far.
        pending: losses since the last row of the log.

    Args:
        model: its weights are saved and restored, those of a frozen backbone excepted: they are the
            same in every run, and without them checkpoints are small.
        optimizer: its momentum likewise.
        settings: JSON values that decide the run; a checkpoint of other settings is refused.
        folder: for checkpoint and log; None keeps nothing.
        writes: whether this process writes them, or another one of its team.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        settings: dict[str, Any],
        folder: Path | None,
        writes: bool = True,
    ) -> None:
        self.model, self.optimizer, self.folder = model, optimizer, folder
        self.writes = writes
        self.settings = json.dumps(settings, sort_keys=True)
        self.step = 0
        self.history: list[LossPoint] = []
        self.pending: list[Tensor] = []

    def log(self, rate: float) -> LossPoint:
        """Close a row of the log.

        Raises:
            FloatingPointError: if the mean loss is NaN or infinite.
        """
        self.history.append(LossPoint(self.step, self._mean_loss(), rate))
        self.pending.clear()
        return self.history[-1]

    def resume(self) -> None:
        """Go on from the checkpoint in the folder, if there is one.

        Raises:
            ValueError: if it is damaged, or of a run with other settings.
        """
        if self.folder is None or not (self.folder / CHECKPOINT).is_file():
            return
        path = self.folder / CHECKPOINT
        saved = load_checkpoint(path)
        if saved["settings"] != self.settings:
            raise ValueError(
                f"{path} belongs to a run with other settings; take another folder, or delete it "
                "to start anew"
            )
        self.model.load_state_dict(saved["model"], strict=False)
        self.optimizer.load_state_dict(saved["optimizer"])
        self.step = saved["step"]
        self.history = [LossPoint(*point) for point in saved["history"]]
        self.pending = list(saved["pending"])

    def save(self) -> None:
        """Write checkpoint and log, each atomically.

        Raises:
            FloatingPointError: if a loss since the last row of the log is NaN or infinite: the last
                checkpoint is worth more than this one.
        """
        if self.folder is None:
            return
        if self.pending:
            self._mean_loss()
        if not self.writes:
            return
        content = {
            "settings": self.settings,
            "step": self.step,
            "model": self._weights(),
            "optimizer": self.optimizer.state_dict(),
            "history": [tuple(point) for point in self.history],
            "pending": [loss.cpu() for loss in self.pending],
        }
        buffer = io.BytesIO()
        torch.save(content, buffer)
        write_atomically(self.folder / CHECKPOINT, buffer.getvalue())
        rows = io.StringIO()
        table = csv.writer(rows, lineterminator="\n")
        table.writerow(LossPoint._fields)
        table.writerows(self.history)
        write_atomically(self.folder / LOG, rows.getvalue().encode())

    def _mean_loss(self) -> float:
        """Of the pending steps; those from a checkpoint are on the CPU, wherever the model is."""
        loss = torch.stack([loss.cpu() for loss in self.pending]).mean().item()
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the loss became {loss} in the {len(self.pending)} steps before step {self.step}; "
                "lower learning_rate, or start again from the last checkpoint"
            )
        return loss

    def _weights(self) -> dict[str, Tensor]:
        backbone = self.model.get_submodule("backbone")
        frozen = not any(p.requires_grad for p in backbone.parameters())
        return {
            name: value
            for name, value in self.model.state_dict().items()
            if not (frozen and name.startswith("backbone."))
        }


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a training checkpoint.

    Raises:
        ValueError: if the file is damaged or something else; says what to do.
    """
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        missing = {"settings", "step", "model", "optimizer", "history", "pending"} - set(content)
        if missing:
            raise ValueError(f"entries are missing: {sorted(missing)}")
    except Exception as error:  # a file of the wrong kind fails in many ways
        # PyTorch goes on to advise loading with pickle.
        first = str(error).partition("\n")[0].partition(". ")[0]
        raise ValueError(
            f"{path} is no training checkpoint of this package, or damaged ({first}); delete it to "
            "start anew"
        ) from error
    return content
