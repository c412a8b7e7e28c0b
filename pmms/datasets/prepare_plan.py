"""What a preparation will fetch, and whether the disk has room for it."""

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from pmms.arriving import bytes_arrived
from pmms.datasets.sources import Source, in_folder

DOWNLOADS = "downloads"
_ROOM = 1.03
"""Files take whole blocks of the disk: about 2 kB more than they are long, of some 100 kB."""

Say = Callable[[str], object]


def plan(sources: Iterable[Source], root: Path, given: Path | None, say: Say) -> int:
    """Say what is fetched, from where and how large; return the bytes of disk that are needed."""
    missing = unpacked = 0
    for source in sources:
        have = in_folder(source, given)
        arrived = bytes_arrived(root / DOWNLOADS / source.name)
        size = "size unknown" if source.size is None else size_text(source.size)
        if have is not None:
            origin = f"given: {have}"
        else:
            missing += max((source.size or 0) - arrived, 0)
            origin = source.urls[0]
            origin += f" ({size_text(arrived)} are there already)" if arrived else ""
        unpacked += source.unpacked
        say(f"  {source.name:<28} {size:>9}  {origin}")
    needed = missing + int(_ROOM * unpacked)
    say(
        f"to download: {size_text(missing)}; unpacked: {size_text(unpacked)}; "
        f"disk needed in {root}: {size_text(needed)}, free: {size_text(_free(root))}"
    )
    return needed


def check_room(needed: int, root: Path) -> None:
    """Raise OSError unless the disk of ``root`` has ``needed`` bytes free."""
    free = _free(root)
    if needed > free:
        raise OSError(
            f"too little room: {size_text(needed)} are needed in {root}, {size_text(free)} are "
            "free. Make room, choose another root folder, or take archives from another disk "
            "(--from)"
        )


def _free(root: Path) -> int:
    existing = next(folder for folder in (root, *root.absolute().parents) if folder.exists())
    return shutil.disk_usage(existing).free


def size_text(count: int) -> str:
    """A number of bytes for people: "1.2 GB"."""
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} B"
