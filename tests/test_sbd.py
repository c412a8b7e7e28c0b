"""The merge of VOC and SBD: what the published one is, on all its real label maps, and ours."""

import hashlib
import io
import tarfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tiny_archives as tiny
from PIL import Image

from pmms.archives import members
from pmms.datasets.sbd import PUBLISHED_MERGE, hard_link, labels_digest, merge_sbd, read_sbd_labels

REAL = Path(__file__).parents[2] / "shared" / "data"
ARCHIVE = REAL / "voc2012_SegmentationClassAug.tar"


def decoded(content: bytes) -> tuple[int, np.ndarray]:
    """CRC-32 of the labels, and how many pixels each label has."""
    with Image.open(io.BytesIO(content)) as picture:
        return zlib.crc32(picture.tobytes()), np.array(picture.histogram()[:256])


@pytest.mark.slow
def test_the_published_merge_is_as_the_docstring_says() -> None:
    if not ARCHIVE.is_file():
        pytest.skip("needs the real label maps in ../shared/data")
    maps = {Path(name).stem: content.read() for name, content, _ in members(ARCHIVE)}
    ids = sorted(maps)
    assert len(ids) == 12_031
    with ThreadPoolExecutor(2) as pool:
        rows = dict(zip(ids, pool.map(decoded, [maps[i] for i in ids]), strict=True))
    void = {i for i, (_, pixels) in rows.items() if pixels[255]}
    assert len(void) == 2_913
    assert not any(pixels[21:255].any() for _, pixels in rows.values())
    lines = "".join(f"{i} {rows[i][0]:08x}\n" for i in ids)
    assert hashlib.sha256(lines.encode()).hexdigest() == PUBLISHED_MERGE
    # Void marks the maps that VOC made: every image of the authors' val lists is one of them, and
    # nothing is in two lists.
    lists = [REAL / "pascal5i_lists" / f"split{fold}_val.txt" for fold in range(4)]
    tested = {line[:11] for path in lists for line in path.read_text().splitlines()}
    assert len(tested) == 1381
    assert tested <= void


def test_the_digest_is_of_labels_not_of_files(tmp_path: Path) -> None:
    labels = {i: tiny.labels_of(i, void=True) for i in tiny.TRAIN}
    digests = []
    for level in (0, 9):
        folder = tmp_path / str(level)
        folder.mkdir()
        for image_id, array in labels.items():
            Image.fromarray(array).save(folder / f"{image_id}.png", compress_level=level)
        digests.append(labels_digest(folder))
        assert len(list(folder.iterdir())) == len(labels)
    lines = "".join(f"{i} {zlib.crc32(labels[i].tobytes()):08x}\n" for i in sorted(labels))
    assert digests == [hashlib.sha256(lines.encode()).hexdigest()] * 2


@pytest.mark.skipif(not ARCHIVE.is_file(), reason="needs the real label maps in ../shared/data")
def test_our_files_have_the_palette_of_the_published_ones(tmp_path: Path) -> None:
    with tarfile.open(ARCHIVE) as file:
        member = file.next()
        while not member.isreg():
            member = file.next()
        with Image.open(file.extractfile(member)) as picture:
            palette = picture.getpalette()
    labels = tiny.labels_of(tiny.TRAIN[0], void=False)
    with Image.open(io.BytesIO(tiny.png(labels))) as ours:
        assert ours.getpalette() == palette


def test_a_label_map_of_sbd_is_read() -> None:
    labels = tiny.labels_of(tiny.ONLY_SBD[0], void=False)
    found = read_sbd_labels(tiny.mat(labels), "x.mat")
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, labels)


@pytest.mark.parametrize(
    "content",
    [b"", b"MATLAB 5.0", tiny.mat(np.full((3, 3), 21, np.uint8)), tiny.mat(np.eye(3))],
    ids=["empty", "header", "label 21", "float"],
)
def test_what_is_no_label_map_of_sbd_is_named(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"cls/x\.mat is no label map of SBD"):
        read_sbd_labels(content, "cls/x.mat")


@pytest.mark.parametrize("cut", [0.1, 0.5, 0.9])
def test_a_cut_label_map_is_named(cut: float) -> None:
    whole = tiny.mat(tiny.labels_of(tiny.ONLY_SBD[0], void=False))
    with pytest.raises(ValueError, match="is no label map of SBD"):
        read_sbd_labels(whole[: int(cut * len(whole))], "cls/x.mat")


def test_a_folder_without_label_maps_is_refused(tmp_path: Path) -> None:
    (tmp_path / "voc" / "SegmentationClass").mkdir(parents=True)
    (tmp_path / "benchmark_RELEASE").mkdir()
    with pytest.raises(ValueError, match="holds no file dataset/cls"):
        merge_sbd(tmp_path / "voc", tmp_path / "benchmark_RELEASE")


def test_links_fall_back_to_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"1")
    hard_link(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").samefile(tmp_path / "a")

    def unsupported(self: Path, target: Path) -> None:
        raise OSError("not here")

    monkeypatch.setattr(Path, "hardlink_to", unsupported)
    hard_link(tmp_path / "a", tmp_path / "c")
    assert (tmp_path / "c").read_bytes() == b"1"
    assert not (tmp_path / "c").samefile(tmp_path / "a")
