import re

import pytest
import torch
from fakes import FakeDataset, fake_dataset

from pmms.datasets import images_of_class, keep_images, without_classes


def test_images_of_class_lists_every_class_once():
    dataset = FakeDataset([{1: 8}, {2: 8, 1: 8}, {3: 1}], classes=3)
    assert images_of_class(dataset) == {1: (0, 1), 2: (1,), 3: ()}  # class 3 is below min_area


def test_images_of_class_refuses_a_class_without_a_name():
    with pytest.raises(ValueError, match="fake_001 of fake reports class 4"):
        images_of_class(FakeDataset([{1: 8}, {4: 8}], classes=3))


def test_classes_shown_reads_the_labels_without_void_and_background():
    dataset = FakeDataset([{1: 8, 2: 1}], min_area=4)
    assert dataset.classes_in(0) == {1}
    assert dataset.classes_shown(0) == {1, 2}


def test_view_shows_the_kept_images_in_order():
    dataset = fake_dataset(10)
    view = keep_images(dataset, [7, 2, -1])
    assert [view.image_id(i) for i in range(3)] == ["fake_007", "fake_002", "fake_009"]
    assert view.indices == (7, 2, 9)
    assert torch.equal(view[1].labels, dataset[2].labels)
    assert torch.equal(view[-1].image, dataset[9].image)
    assert view.classes_in(0) == dataset.classes_in(7)
    assert view.classes_shown(0) == dataset.classes_shown(7)
    assert (view.name, view.class_names) == (dataset.name, dataset.class_names)
    assert len(list(view)) == len(view) == 3
    assert "3 of 10 images" in repr(view)


def test_view_of_a_view_points_to_the_first_data_set():
    dataset = fake_dataset(10)
    view = keep_images(keep_images(dataset, [7, 2, 9]), [2, 0])
    assert view.base is dataset
    assert view.indices == (9, 7)
    assert view.fingerprint() == keep_images(dataset, [9, 7]).fingerprint()


def test_fingerprint_of_a_view_names_the_images_and_their_order():
    dataset = fake_dataset(10)
    prints = {keep_images(dataset, kept).fingerprint() for kept in ([1, 2], [2, 1], [1], [1, 3])}
    assert len(prints | {dataset.fingerprint()}) == 5
    assert keep_images(dataset, (1, 2)).fingerprint() == keep_images(dataset, [1, 2]).fingerprint()
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", p) for p in prints)


def test_view_refuses_repeated_and_absent_images():
    with pytest.raises(ValueError, match="must not repeat"):
        keep_images(fake_dataset(5), [1, 1])
    with pytest.raises(ValueError, match="must not repeat"):
        keep_images(fake_dataset(5), [4, -1])
    with pytest.raises(IndexError, match="has 5 images, index 5"):
        keep_images(fake_dataset(5), [5])
    with pytest.raises(IndexError, match="has 2 images"):
        keep_images(fake_dataset(5), [0, 1])[2]


def test_without_classes_drops_images_with_a_single_pixel_of_the_class():
    dataset = FakeDataset([{1: 8}, {1: 8, 2: 1}, {2: 8}, {3: 8}], min_area=4)
    assert 2 not in dataset.classes_in(1)
    assert without_classes(dataset, [2]).indices == (0, 3)
    assert without_classes(dataset, []).indices == (0, 1, 2, 3)


def test_without_classes_refuses_an_unknown_class():
    with pytest.raises(ValueError, match="class ids 1 to 6, got 7"):
        without_classes(fake_dataset(5), [7])


def test_class_name():
    assert fake_dataset(2).class_name(6) == "thing6"
    with pytest.raises(ValueError, match="class ids 1 to 6, got 0"):
        fake_dataset(2).class_name(0)
