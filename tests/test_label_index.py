"""Arrays kept in a file beside their data, and the index of label maps in them."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pmms.datasets.kept_arrays import (
    Arrays,
    content_hash,
    file_stamp,
    kept_arrays,
    load_arrays,
)
from pmms.datasets.label_index import label_index


def arrays(value: int = 1) -> Arrays:
    return {"a": np.arange(value), "b": np.full((2, 3), value, dtype=np.int32)}


def same(one: Arrays, other: Arrays) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[k], other[k]) for k in one)


def test_arrays_are_built_once_for_a_stamp(tmp_path):
    cache = tmp_path / "deep" / "x.npz"
    built: list[int] = []

    def build() -> Arrays:
        built.append(1)
        return arrays(len(built))

    assert same(kept_arrays(cache, "s", build, content="it"), arrays(1))
    assert same(kept_arrays(cache, "s", build, content="it"), arrays(1))
    assert same(kept_arrays(cache, "t", build, content="it"), arrays(2))
    assert len(built) == 2
    assert load_arrays(cache, "s") is None
    assert same(load_arrays(cache, "t"), arrays(2))
    assert [path.name for path in cache.parent.iterdir()] == ["x.npz"]


def test_what_building_raises_comes_through_and_leaves_nothing(tmp_path):
    def build() -> Arrays:
        raise ValueError("no such class")

    with pytest.raises(ValueError, match="no such class"):
        kept_arrays(tmp_path / "x.npz", "s", build, content="it")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("cut", [0, 10, 200, -30])
def test_a_damaged_file_is_none(tmp_path, cut):
    cache = tmp_path / "x.npz"
    kept_arrays(cache, "s", lambda: arrays(500), content="it")
    cache.write_bytes(cache.read_bytes()[:cut])
    assert load_arrays(cache, "s") is None


def test_a_flipped_byte_is_noticed_anywhere(tmp_path):
    """Or it does not matter: no place in the file changes what is read."""
    cache = tmp_path / "x.npz"
    kept_arrays(cache, "s", arrays, content="it")
    whole = cache.read_bytes()
    for place in range(len(whole)):
        cache.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        found = load_arrays(cache, "s")
        assert found is None or same(found, arrays()), place


def test_objects_are_not_unpickled(tmp_path):
    cache = tmp_path / "x.npz"
    np.savez(cache, stamp=np.array(["s", "a"]), a=np.array([{"a": 1}], dtype=object))
    assert load_arrays(cache, "s") is None


def test_threads_and_readers_never_meet_a_part(tmp_path):
    cache = tmp_path / "x.npz"
    stop = threading.Event()
    strange: list[Arrays] = []

    def read() -> None:
        while not stop.is_set():
            for number in range(4):
                found = load_arrays(cache, str(number))
                if found is not None and not same(found, arrays(number + 500)):
                    strange.append(found)

    reader = threading.Thread(target=read)
    reader.start()
    with ThreadPoolExecutor(6) as pool:
        made = pool.map(
            lambda i: kept_arrays(cache, str(i % 4), lambda: arrays(i % 4 + 500), content="it"),
            range(120),
        )
        assert all(same(found, arrays(i % 4 + 500)) for i, found in enumerate(made))
    stop.set()
    reader.join()
    assert strange == []


def test_stamp_follows_name_size_time_and_settings(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"1")
    before = file_stamp([path], "x")
    assert file_stamp([path], "x") == before
    assert file_stamp([path], "y") != before
    os.utime(path, ns=(1, 1))
    assert file_stamp([path], "x") != before
    with pytest.raises(FileNotFoundError):
        file_stamp([tmp_path / "none"])


def test_content_hash_follows_names_shapes_types_and_values():
    one = np.arange(6, dtype=np.int32)
    hashes = {
        content_hash(content)
        for content in (
            {"a": one},
            {"b": one},
            {"a": one.reshape(2, 3)},
            {"a": one.astype(np.int64)},
            {"a": one + 1},
            {"a": one[:0], "b": one},
        )
    }
    assert len(hashes) == 6
    assert content_hash({"a": one.astype(">i4")}) == content_hash({"a": one})
    assert content_hash({"a": one, "b": one + 1}) == content_hash({"b": one + 1, "a": one})


def test_index_of_label_maps(tmp_path):
    paths = []
    for number in range(3):
        labels = np.full((4, 5 + number), number, dtype=np.uint8)
        labels[0] = 255
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(labels).save(paths[-1])
    index = label_index(paths, tmp_path / "x.npz")
    assert index.sizes.tolist() == [[4, 5], [4, 6], [4, 7]]
    assert index.pixels.shape == (3, 256)
    assert index.pixels[2, 2] == 21
    assert index.pixels[:, 255].tolist() == [5, 6, 7]
    assert len(set(index.checksums.tolist())) == 3
    again = label_index([Path(path) for path in paths], tmp_path / "x.npz")
    assert all(np.array_equal(a, b) for a, b in zip(index, again, strict=True))
