"""SIGINT at a moment when work can be saved."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def sigint_noted(folder: Path | None) -> Iterator[Callable[[], bool]]:
    """Within the block SIGINT is only noted, so that a step ends and can be saved.

    A second SIGINT works as ever, for a step that does not end. Without a folder nothing could be
    saved, and outside the main thread no handler can be set: there the first one does, too.
    """
    noted: list[int] = []  # no threading.Event: its lock is no place to be interrupted at
    if folder is None or threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return

    def note(number: int, _: object) -> None:
        noted.append(number)
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(noted)
    finally:
        signal.signal(signal.SIGINT, before)
