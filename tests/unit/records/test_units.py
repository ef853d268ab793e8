"""Units: whose records are whose, and which of them a unit answers through."""

from pathlib import Path

import numpy as np
import pytest

from dppm_model.errors import DataError
from dppm_model.records.shards import Records, open_records
from dppm_model.records.units import Units
from dppm_model.records.writing import write_records
from tests.support.seeded_rng import chi_square

OWNERS = np.array([7, 2, 7, 9, 7, 2, 7, 7])


def records(folder: Path, owners: np.ndarray | None = OWNERS) -> Records:
    images = np.arange(8, dtype=np.uint8).reshape(8, 1, 1, 1)
    labels = np.zeros(8, dtype=int)
    write_records(folder, images, labels, name="x", split="train", classes="a", persons=owners)
    return open_records(folder)


def numbers(units: int) -> np.ndarray:
    return np.arange(units, dtype=np.int64)


def test_persons_are_whole_and_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    units = Units.of(records(tmp_path / "x"), "person", 100)
    assert len(units) == 3
    chosen = units.choose(numbers(3), numbers(3))
    np.testing.assert_array_equal(chosen.counts, [2, 5, 1])
    np.testing.assert_array_equal(chosen.records, [1, 5, 0, 2, 4, 6, 7, 3])
    again = units.choose(np.array([2, 0]), numbers(2))
    np.testing.assert_array_equal(again.records, [3, 1, 5])


def test_records_are_units_of_their_own_with_the_seeds_as_they_are(tmp_path: Path) -> None:
    units = Units.of(records(tmp_path / "x", None), "record", 1)
    seeds = np.array([5, 2**63 - 1, 0])
    chosen = units.choose(np.array([0, 3, 7]), seeds)
    np.testing.assert_array_equal(chosen.records, [0, 3, 7])
    np.testing.assert_array_equal(chosen.seeds, seeds)
    np.testing.assert_array_equal(chosen.counts, 1)


def test_a_selection_has_its_own_units(tmp_path: Path) -> None:
    units = Units.of(records(tmp_path / "x").select(np.array([0, 3, 4])), "person", 5)
    chosen = units.choose(numbers(2), numbers(2))
    np.testing.assert_array_equal(chosen.records, [0, 2, 1])  # as they are numbered in it
    np.testing.assert_array_equal(chosen.counts, [2, 1])


def test_nobody_is_asked_for_nothing(tmp_path: Path) -> None:
    chosen = Units.of(records(tmp_path / "x"), "person", 2).choose(numbers(0), numbers(0))
    assert [part.shape for part in chosen] == [(0,)] * 3
    assert [part.dtype for part in chosen] == [np.int64] * 3


def test_every_set_of_a_persons_records_is_chosen_equally_often(tmp_path: Path) -> None:
    """Ten sets of 2 out of 5; a chi-square test that alarms falsely once in a million."""
    units, counts = Units.of(records(tmp_path / "x"), "person", 2), np.zeros(10)
    place = {0: 0, 2: 1, 4: 2, 6: 3, 7: 4}
    pairs = {(a, b): i for i, (a, b) in enumerate(zip(*np.triu_indices(5, 1), strict=True))}
    for seed in np.random.default_rng(0).integers(0, 2**63 - 1, 5000):
        a, b = units.choose(np.array([1]), np.array([seed])).records
        counts[pairs[place[a], place[b]]] += 1
    assert chi_square(counts, np.full(10, 500.0)) > 1e-6


def test_seeds_of_a_persons_records_differ_also_in_their_low_bits(tmp_path: Path) -> None:
    """The generators that draw noise look at 32 bits of a seed."""
    units = Units.of(records(tmp_path / "x"), "person", 5)
    for seed in (0, 2**63 - 1, 12345):
        seeds = units.choose(np.array([1]), np.array([seed])).seeds
        assert seeds.min() >= 0 and seeds[0] == seed
        assert len(set((seeds % 2**32).tolist())) == 5


def test_records_without_persons_cannot_be_gathered_by_person(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="names no persons"):
        Units.of(records(tmp_path / "x", None), "person", 8)
