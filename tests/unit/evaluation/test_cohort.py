"""Records and persons of each class, and equal pictures, are counted as they are."""

import numpy as np

from sampler.evaluation.cohort import cohort_figures, copy_figures


def test_persons_count_once_in_each_class_that_they_are_in() -> None:
    labels, persons = np.array([0, 0, 0, 2, 2, 0]), np.array([5, 5, 9, 5, 5, 9])
    found = cohort_figures(labels, persons, 3)
    assert found == {"records_per_class": [4, 0, 2], "persons_per_class": [2, 0, 1]}
    assert cohort_figures(labels, None, 3)["persons_per_class"] is None


def test_each_copy_is_counted() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 3, 4, 4)).astype(np.uint8)
    images[1], images[4] = images[0], images[3]
    records = rng.integers(0, 256, (9, 3, 4, 4)).astype(np.uint8)
    records[8] = records[2]
    none = {"images": 6, "records": 9, "of_records": 0, "among_images": 2, "among_records": 1}
    assert copy_figures(images, records) == none
    records[5] = images[3]
    assert copy_figures(images, records) == none | {"of_records": 2}
    records[5, 0, 0, 0] ^= 1  # nearly equal is not equal
    assert copy_figures(images, records) == none
