"""Arrays that take long to make, kept in one file beside the data they were made from."""

import hashlib
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from pmms.files import replacing

STAMP = "stamp"
# Damage in a zip's own fields may look like encryption, another compression or a huge array.
_DAMAGED = (
    *(OSError, ValueError, KeyError, EOFError, RuntimeError, MemoryError, struct.error),
    *(zipfile.BadZipFile, zlib.error),
)

Arrays = dict[str, np.ndarray]


def kept_arrays(cache: Path, stamp: str, build: Callable[[], Arrays], *, content: str) -> Arrays:
    """The arrays in the file ``cache`` if it was written for ``stamp``; else those of ``build``.

    A file that is old, damaged or no archive is replaced in one step: several processes may do so
    at once, and a reader finds the old file or a new one. A folder that cannot be written is
    reported by a UserWarning, and the arrays are used all the same.

    Args:
        cache: path of the file, an ``.npz``.
        stamp: names everything that the arrays follow from; see ``file_stamp``.
        build: makes the arrays; what it raises comes through.
        content: what they are, for the warning, e.g. "the index of 12 label maps".
    """
    arrays = load_arrays(cache, stamp)
    if arrays is None:
        arrays = build()
        try:
            with replacing(cache) as part, part.open("wb") as file:
                named = {STAMP: np.array([stamp, *arrays]), **arrays}
                np.savez_compressed(file, allow_pickle=False, **named)
        except OSError as error:
            warnings.warn(
                f"{content} could not be written to {cache} ({error}), so the next start makes "
                "it again; give a writable cache folder",
                stacklevel=3,
            )
    return arrays


def load_arrays(cache: Path, stamp: str) -> Arrays | None:
    """The kept arrays, or None where there are none, or old or damaged ones."""
    try:
        with cache.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            written_for, *names = kept[STAMP].tolist()
            return {name: kept[name] for name in names} if written_for == stamp else None
    except _DAMAGED:
        return None


def file_stamp(paths: Iterable[Path], *settings: str) -> str:
    """Hash of names, sizes and modification times of files, and of settings.

    Raises:
        FileNotFoundError: a file is missing.
    """
    digest = hashlib.sha256()
    for path in paths:
        state = path.stat()
        digest.update(f"{path.name} {state.st_size} {state.st_mtime_ns}\n".encode())
    for setting in settings:
        digest.update(f"{setting}\n".encode())
    return digest.hexdigest()


def content_hash(arrays: Mapping[str, np.ndarray]) -> str:
    """Hash of names, shapes and values of arrays; the same on every machine."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        digest.update(f"{name} {little.dtype.str} {little.shape}\n".encode())
        digest.update(little.data)
    return digest.hexdigest()
