"""COCO-20i on the disk: photos and instance annotations in COCO's usual folders."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pmms.archives import unpack
from pmms.datasets.coco import CocoInstances
from pmms.datasets.prepare import Part, prepare
from pmms.datasets.sources import COCO, Source

SPLITS = ("train", "val")
YEARS = (2017, 2014)


def prepare_coco(
    root: str | Path,
    *,
    year: int = 2017,
    splits: Sequence[str] = SPLITS,
    sources: Mapping[tuple[int, str], Source] = COCO,
    **options: Any,
) -> bool:
    """Make ``root/train<year>``, ``root/val<year>`` and ``root/annotations/instances_*.json``.

    The annotations of both splits come in one archive and are always unpacked; the photos are those
    of ``splits``. Their masks are indexed, so that the first run starts at once. See
    ``pmms.datasets.prepare.prepare`` for options and errors.

    Raises:
        ValueError: an unknown year or split, or none.
    """
    if year not in YEARS:
        raise ValueError(f"year must be one of {', '.join(map(str, YEARS))}, got {year}")
    unknown = [split for split in splits if split not in SPLITS]
    if unknown or not splits:
        raise ValueError(f"splits must be some of {', '.join(SPLITS)}, got {list(splits)}")
    archive = sources[year, "annotations"]
    wanted = tuple(f"annotations/instances_{split}{year}.json" for split in SPLITS)
    parts = [_part(f"coco annotations{year}", archive, wanted)]
    for split in dict.fromkeys(splits):
        folder = f"{split}{year}"
        parts.append(_part(f"coco {folder}", sources[year, split], (folder,)))
    done = prepare(parts, Path(root), **options)
    for split in splits if done else ():
        options.get("say", print)(f"indexing {split}{year}")
        CocoInstances(root, f"{split}{year}")
    return done


def _part(name: str, archive: Source, targets: tuple[str, ...]) -> Part:
    def build(paths: Mapping[str, Path], work: Path) -> dict[str, Any]:
        path = paths[archive.name]
        unpack(path, work, wanted=lambda n: n in targets or n.split("/")[0] in targets)
        missing = [target for target in targets if not (work / target).exists()]
        if missing:
            raise ValueError(f"{path} holds no {missing[0]}; it is not COCO's {archive.name}")
        return {}

    return Part(name, (archive,), targets, build)
