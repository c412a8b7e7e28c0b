"""What a COCO annotation file says, in a few arrays that are kept beside it.

The JSON of COCO's 118,287 training images takes minutes to read and gigabytes of Python objects,
which every worker process would copy piece by piece. The arrays hold the same masks as run-length
codes; a later start reads them alone, and processes share them.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pmms.datasets.kept_arrays import Arrays, content_hash, file_stamp, kept_arrays, load_arrays
from pmms.datasets.polygons import (
    Rle,
    annotation_rle,
    empty_rle,
    first_polygon_rle,
    merged,
    rle_area,
)
from pmms.progress import progress_bar

RULE = "1"
"""Changes whenever equal annotation files give other arrays, so that older files are not used."""

_MASKS: dict[str, Callable[..., Rle]] = {"all": annotation_rle, "first_polygon": first_polygon_rle}


class CocoIndex(NamedTuple):
    """N images in ascending id, M annotations grouped by image, K categories.

    The annotations of an image stand in the order in which they are painted, the first at the
    bottom: crowds, then the others from the largest to the smallest, of equal ones the earlier.

    Attributes:
        image_ids: int64 (N,).
        file_names: names of the photos, "\\n" between them, UTF-8 as uint8.
        sizes: int32 (N, 2), height and width in pixels.
        first: int64 (N + 1,), image i has the annotations ``first[i]`` to ``first[i + 1] - 1``.
        categories: int32 (M,), position of the category in ``category_names``.
        crowd: bool (M,), a crowd is void.
        visible: int32 (M,), pixels that no later annotation covers.
        rle_first: int64 (M + 1,), annotation j has the bytes ``rle_first[j]`` on of ``rle``.
        rle: uint8, the counts of all masks, compressed as by pycocotools.
        category_names: names, "\\n" between them, UTF-8 as uint8.
        digest: hash of all the others.
    """

    image_ids: np.ndarray
    file_names: np.ndarray
    sizes: np.ndarray
    first: np.ndarray
    categories: np.ndarray
    crowd: np.ndarray
    visible: np.ndarray
    rle_first: np.ndarray
    rle: np.ndarray
    category_names: np.ndarray
    digest: np.ndarray

    def codes(self, image: int) -> list[Rle]:
        """Masks of an image in the order of painting."""
        size = self.sizes[image].tolist()
        rows = range(int(self.first[image]), int(self.first[image + 1]))
        return [
            {"size": size, "counts": self.rle[self.rle_first[j] : self.rle_first[j + 1]].tobytes()}
            for j in rows
        ]


def coco_index(annotations: Path, cache: Path, *, masks: str) -> CocoIndex:
    """Index of an annotation file, taken from the file ``cache`` while that is current.

    Args:
        annotations: a file such as ``instances_val2017.json``.
        cache: where the arrays are kept, see ``kept_arrays``.
        masks: "all" or "first_polygon", see ``CocoInstances``.

    Raises:
        FileNotFoundError: there is no annotation file.
        ValueError: it is no COCO file, or an annotation in it cannot be drawn; names both.
    """
    arrays = kept_arrays(
        cache,
        _stamp(annotations, masks),
        lambda: _build(annotations, masks),
        content=f"the index of {annotations.name}",
    )
    return CocoIndex(**arrays)


def kept_coco_index(annotations: Path, cache: Path, *, masks: str) -> CocoIndex | None:
    """The index if ``cache`` has it and is current, else None. Nothing is built."""
    arrays = load_arrays(cache, _stamp(annotations, masks)) if annotations.is_file() else None
    return None if arrays is None else CocoIndex(**arrays)


def _stamp(annotations: Path, masks: str) -> str:
    return file_stamp([annotations], masks, RULE)


def join_names(names: list[str]) -> np.ndarray:
    """Names as one array of bytes: no pickle, and no width of the longest for each."""
    return np.frombuffer("\n".join(names).encode(), dtype=np.uint8).copy()


def split_names(joined: np.ndarray) -> list[str]:
    """The names that ``join_names`` joined."""
    return joined.tobytes().decode().split("\n")


def _build(path: Path, masks: str) -> Arrays:
    images, annotations, names = _read(path)
    by_image: list[list[dict[str, Any]]] = [[] for _ in images]
    place = {image["id"]: i for i, image in enumerate(images)}
    for annotation in annotations:
        with _naming(path, annotation):
            if annotation.get("image_id") not in place:
                raise ValueError(f"is of image {annotation.get('image_id')}, which is not listed")
            if annotation.get("category_id") not in names:
                raise ValueError(
                    f"is of category {annotation.get('category_id')}, which is not listed"
                )
        by_image[place[annotation["image_id"]]].append(annotation)
    positions = {category: i for i, category in enumerate(names)}
    columns: dict[str, list[Any]] = {"categories": [], "crowd": [], "visible": [], "counts": []}
    first = [0]
    with progress_bar(len(images), f"index of {path.name}", unit="image") as bar:
        for image, own in zip(images, by_image, strict=True):
            drawn = _draw(path, image, own, masks)
            columns["categories"] += [positions[a["category_id"]] for a, _ in drawn]
            columns["crowd"] += [bool(a.get("iscrowd", 0)) for a, _ in drawn]
            columns["visible"] += _visible([code for _, code in drawn])
            columns["counts"] += [code["counts"] for _, code in drawn]
            first.append(len(columns["counts"]))
            own.clear()
            bar.update()
    lengths = [len(counts) for counts in columns["counts"]]
    arrays = {
        "image_ids": np.array([image["id"] for image in images], dtype=np.int64),
        "file_names": join_names([image["file_name"] for image in images]),
        "sizes": np.array([(i["height"], i["width"]) for i in images], dtype=np.int32),
        "first": np.array(first, dtype=np.int64),
        "categories": np.array(columns["categories"], dtype=np.int32),
        "crowd": np.array(columns["crowd"], dtype=np.bool_),
        "visible": np.array(columns["visible"], dtype=np.int32),
        "rle_first": np.cumsum([0, *lengths], dtype=np.int64),
        "rle": np.frombuffer(b"".join(columns["counts"]), dtype=np.uint8).copy(),
        "category_names": join_names(list(names.values())),
    }
    return {**arrays, "digest": np.array(content_hash(arrays))}


def _draw(
    path: Path, image: dict[str, Any], annotations: list[dict[str, Any]], masks: str
) -> list[tuple[dict[str, Any], Rle]]:
    """Annotations of one image with their masks, in the order of painting."""
    size = {"height": image["height"], "width": image["width"]}
    drawn = []
    for annotation in annotations:
        with _naming(path, annotation, image):
            if masks == "first_polygon" and annotation.get("iscrowd", 0):
                code = empty_rle(**size)
            else:
                code = _MASKS[masks](annotation.get("segmentation"), **size)
        drawn.append((annotation, code))
    areas = [rle_area(code) for _, code in drawn]
    order = sorted(range(len(drawn)), key=lambda i: (not drawn[i][0].get("iscrowd", 0), -areas[i]))
    return [drawn[i] for i in order]


def _visible(codes: list[Rle]) -> list[int]:
    """Pixels of each mask that the masks after it leave free; from unions, without decoding."""
    visible: list[int] = []
    covered: Rle | None = None
    before = 0
    for code in reversed(codes):
        covered = code if covered is None else merged([covered, code])
        area = rle_area(covered)
        visible.append(area - before)
        before = area
    return visible[::-1]


def _read(path: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[int, str]]:
    """Images by ascending id, annotations, and the name of each category id."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no annotation file {path}")
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:  # also of bytes that are no text
        raise ValueError(
            f"cannot read {path} ({path.stat().st_size} bytes) as JSON: {error}; "
            "copy it or unpack its archive again"
        ) from error
    for part in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(part), list):
            raise ValueError(
                f"{path} is no file of COCO instances: it has no list {part!r}; "
                "expected one like annotations/instances_val2017.json"
            )
    if not content["images"]:
        raise ValueError(f"{path} lists no image")
    for image in content["images"]:
        _check_image(path, image)
    images = sorted(content["images"], key=lambda image: image["id"])
    for one, two in pairwise(images):
        if one["id"] == two["id"]:
            raise ValueError(f"{path} lists image {one['id']} twice")
    names = {}
    for category in content["categories"]:
        name = category.get("name") if isinstance(category, dict) else None
        if not isinstance(name, str) or "\n" in name or type(category.get("id")) is not int:
            raise ValueError(f"{path}: a category needs an integer id and a name, got {category}")
        if category["id"] in names:
            raise ValueError(f"{path} lists category {category['id']} twice")
        names[category["id"]] = name
    return images, content["annotations"], names


def _check_image(path: Path, image: Any) -> None:
    expected = {"id": int, "file_name": str, "width": int, "height": int}
    fits = isinstance(image, dict) and all(type(image.get(k)) is v for k, v in expected.items())
    if not fits or min(image["width"], image["height"]) < 1:
        raise ValueError(
            f"{path}: an image needs an integer id, a file_name, and width and height in pixels, "
            f"got {image}"
        )
    parts = Path(image["file_name"]).parts
    if not parts or ".." in parts or Path(image["file_name"]).is_absolute():
        raise ValueError(f"{path}: image {image['id']} has the file_name {image['file_name']!r}")
    if "\n" in image["file_name"]:
        raise ValueError(f"{path}: the file_name of image {image['id']} has a line break")


@contextmanager
def _naming(path: Path, annotation: Any, image: dict[str, Any] | None = None) -> Iterator[None]:
    """Say of which file, annotation and image an error speaks."""
    try:
        if not isinstance(annotation, dict):
            raise ValueError("is no JSON object")
        yield
    except ValueError as error:
        where = "" if image is None else f" (image {image['file_name']})"
        number = annotation.get("id") if isinstance(annotation, dict) else annotation
        raise ValueError(f"{path}: annotation {number}{where} {error}") from error
