"""Label maps of VOC and SBD merged into ``SegmentationClassAug``, and the list ``train_aug``.

SBD (Hariharan et al., Semantic Contours from Inverse Detectors, ICCV 2011) has label maps for
11,355 images of VOC, as MATLAB files and without void. The merge that everybody trains on takes
VOC's own map of an image where there is one, else SBD's, pixel by pixel as it is. So reads the
published merge, all 12,031 maps of it: exactly 2,913 hold void (255), which is the number of
images that VOC 2012 segments itself (1,464 for training, 1,449 for validation), and the other 9,118
hold 0 to 20 and no void at all. Objects of SBD hence have no void border.
"""

import hashlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import IO, Any

import numpy as np
from PIL import Image
from scipy.io import loadmat

from pmms.archives import damage_reported, members
from pmms.datasets.label_index import label_index
from pmms.datasets.parts_voc import voc_colour_map
from pmms.files import write_atomically
from pmms.folds import PASCAL_CLASSES
from pmms.progress import progress_bar

PUBLISHED_MERGE = "9f39703107edc00efa5c3a24b8f1c76e17a6caebfa895cef5246eca6e9f73448"
"""``labels_digest`` of the published merge of all 12,031 label maps."""

_LISTS = Path("ImageSets") / "Segmentation"


def read_sbd_labels(content: bytes, name: str) -> np.ndarray:
    """Label map of one ``cls/<id>.mat`` of SBD: uint8 (H, W), 0 background, 1 to 20 classes.

    Raises:
        ValueError: not such a file; gives ``name``.
    """
    labels: np.ndarray
    try:
        file: Any = io.BytesIO(content)  # scipy-stubs knows of paths alone
        labels = loadmat(file)["GTcls"]["Segmentation"][0, 0]
    # scipy raises many kinds on damaged files, zlib.error and struct.error among them.
    except Exception as error:
        raise ValueError(
            f"{name} is no label map of SBD: {error or type(error).__name__}"
        ) from error
    whole = getattr(labels, "ndim", 0) == 2 and labels.dtype == np.uint8
    if not whole or labels.max(initial=0) > len(PASCAL_CLASSES):
        raise ValueError(
            f"{name} is no label map of SBD: expected uint8 (H, W) with labels 0 to "
            f"{len(PASCAL_CLASSES)}"
        )
    return labels


def merge_sbd(voc: Path, sbd: Path) -> None:
    """Write ``SegmentationClassAug`` and the list ``train_aug`` into a VOC tree.

    ``train_aug`` holds, in the order of the ids, every image with a label map that is not in VOC's
    list val: 10,582 of them.

    Args:
        voc: the folder VOC2012 with SegmentationClass and the lists train and val.
        sbd: the archive benchmark.tgz, or the folder benchmark_RELEASE that comes out of it.

    Raises:
        ValueError: a damaged archive or label map, or an archive without any.
    """
    target = voc / "SegmentationClassAug"
    target.mkdir()
    for path in sorted((voc / "SegmentationClass").glob("*.png")):
        hard_link(path, target / path.name)
    palette = voc_colour_map().ravel().tolist()
    found = False
    with progress_bar(11_355, "merging SBD", unit="map") as bar:
        for image_id, content, name in _sbd_maps(sbd):
            found = True
            bar.update()
            path = target / f"{image_id}.png"
            if path.exists():  # VOC's own, with void
                continue
            picture = Image.fromarray(read_sbd_labels(content(), name))
            picture.putpalette(palette)
            picture.save(path, format="PNG")
    if not found:
        raise ValueError(f"{sbd} holds no file dataset/cls/<id>.mat; it is not SBD's benchmark.tgz")
    held_out = set(_ids(voc, "val"))
    train = sorted({path.stem for path in target.glob("*.png")} - held_out)
    write_atomically(voc / _LISTS / "train_aug.txt", "".join(f"{i}\n" for i in train).encode())


def labels_digest(folder: Path) -> str:
    """SHA-256 over ids and decoded label maps of a folder, whatever the PNG encoder was."""
    paths = sorted(folder.glob("*.png"))
    with TemporaryDirectory() as scratch:
        index = label_index(paths, Path(scratch) / "index.npz")
    lines = (f"{p.stem} {c:08x}\n" for p, c in zip(paths, index.checksums, strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def hard_link(source: Path, target: Path) -> None:
    """A second name for a file where the file system has that, else a copy."""
    try:
        target.hardlink_to(source)
    except OSError:
        write_atomically(target, source.read_bytes())


def _sbd_maps(sbd: Path) -> Iterator[tuple[str, Callable[[], bytes], str]]:
    """Image id, a function that reads the content, and the name to speak of it."""
    if sbd.is_dir():
        for path in sorted((sbd / "dataset" / "cls").glob("*.mat")):
            yield path.stem, path.read_bytes, str(path)
        return
    for name, content, _ in members(sbd):
        member = PurePosixPath(name)
        if member.suffix == ".mat" and member.parts[-3:-1] == ("dataset", "cls"):

            def read(content: IO[bytes] = content) -> bytes:
                with damage_reported(sbd):
                    return content.read()

            yield member.stem, read, f"{name} in {sbd}"


def _ids(voc: Path, split: str) -> list[str]:
    return (voc / _LISTS / f"{split}.txt").read_text(encoding="utf-8").split()
