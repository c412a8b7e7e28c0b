"""Pascal-5i on the disk: VOC 2012, the merge with SBD, and the authors' lists, in one VOC tree."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pmms.archives import unpack
from pmms.datasets.pascal import PascalVOC
from pmms.datasets.pascal_lists import PAIR_LISTS, PairVOC
from pmms.datasets.prepare import Part, prepare
from pmms.datasets.sbd import PUBLISHED_MERGE, hard_link, labels_digest, merge_sbd
from pmms.datasets.sources import LISTS, PASCAL, SBD, VOC, Source
from pmms.files import write_atomically
from pmms.folds import FOLDS

VOC_FOLDER = Path("VOCdevkit") / "VOC2012"
_NEEDED = ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation")


def prepare_pascal(root: str | Path, *, sources: Sequence[Source] = PASCAL, **options: Any) -> bool:
    """Make ``root/VOCdevkit``; see ``pmms.datasets.prepare.prepare`` for options and errors.

    The tree has VOC's folders, ``SegmentationClassAug`` (see ``sbd``), the list ``train_aug``, the
    authors' lists in ``ImageSets/Pascal5i``, and the index of the label maps, so that the first run
    starts at once.
    """
    say = options.get("say", print)
    part = Part("pascal", tuple(sources), ("VOCdevkit",), partial(_build, say=say))
    return prepare([part], Path(root), **options)


def _build(paths: Mapping[str, Path], work: Path, *, say: Any) -> dict[str, Any]:
    voc = work / VOC_FOLDER
    if paths[VOC.name].is_dir():
        _link_tree(paths[VOC.name], work / "VOCdevkit")
    else:
        unpack(paths[VOC.name], work)
    missing = [folder for folder in _NEEDED if not (voc / folder).is_dir()]
    if missing:
        raise ValueError(f"{paths[VOC.name]} holds no VOC2012/{missing[0]}; it is not VOC 2012")
    merge_sbd(voc, paths[SBD.name])
    for source in LISTS:
        write_atomically(voc / PAIR_LISTS / source.name, paths[source.name].read_bytes())
    _index(voc)
    digest = labels_digest(voc / "SegmentationClassAug")
    same = digest == PUBLISHED_MERGE
    say(
        "SegmentationClassAug is, label by label, the merge that was published"
        if same
        else f"SegmentationClassAug differs from the published merge (digest {digest})"
    )
    return {"labels_digest": digest, "same_as_published": same}


def _index(voc: Path) -> None:
    """See that every listed image has its files, and read the label maps that training reads."""
    for split in ("train", "val"):
        PascalVOC(voc, split, labels="SegmentationClass")
    for split in ("train_aug", "val"):
        PascalVOC(voc, split, labels="SegmentationClassAug").classes_shown(0)
    for fold in range(FOLDS):
        for part in ("train", "val"):  # their checksums were right when they came
            PairVOC(voc, fold, part, checked=False).classes_shown(0)


def _link_tree(tree: Path, target: Path) -> None:
    """A tree of the same files under other names; folders that are not needed stay behind."""
    for folder in _NEEDED:
        source = tree / "VOC2012" / folder
        (target / "VOC2012" / folder).mkdir(parents=True)
        for path in sorted(source.iterdir()) if source.is_dir() else ():
            if path.is_file():
                hard_link(path, target / "VOC2012" / folder / path.name)
