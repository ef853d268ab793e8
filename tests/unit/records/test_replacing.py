"""A data set takes its place whole; what a killed import leaves of people's records is removed."""

from pathlib import Path

import numpy as np
import pytest

from dppm_model.errors import DataError
from dppm_model.records.shards import open_records, verify
from dppm_model.records.writing import replacing, write_records
from tests.support.fault_injection import ended, forked, killed, left_over


def _grey(path: Path) -> int:
    return int(open_records(path).images[0, 0, 0, 0])


def write(path: Path, grey: int, count: int = 50) -> None:
    images = np.full((count, 1, 8, 8), grey, np.uint8)
    labels = np.zeros(count, np.int64)
    write_records(path, images, labels, name="x", split="train", classes=["a"])


def test_killed_at_any_moment_the_old_records_or_the_new_are_there(tmp_path: Path) -> None:
    path = tmp_path / "train"
    write(path, 0)

    def work() -> None:
        for grey in range(1, 250):
            write(path, grey)

    left = 0
    for n in range(60):
        killed(work, 0.004 + n * 0.0005)
        left += bool(left_over(tmp_path))
        if path.exists():  # or a kill came between the renames: the next writer brings it back
            verify(path)
        with pytest.raises(DataError):
            write_records(path, [], np.array([0]), name="x", split="train", classes=["a"])
        verify(path)
        assert [p.name for p in tmp_path.iterdir()] == ["train"]
    assert left > 10


def test_killed_between_the_renames_the_old_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "train"
    write(path, 7)
    (tmp_path / ".train.new").mkdir()
    path.rename(tmp_path / ".train.new" / "old")
    with pytest.raises(DataError), replacing(path):
        raise DataError("The new one cannot be made.", "")
    assert _grey(path) == 7 and [p.name for p in tmp_path.iterdir()] == ["train"]


def test_two_writers_take_turns(tmp_path: Path) -> None:
    path = tmp_path / "train"

    def work(grey: int) -> None:
        for _ in range(15):
            write(path, grey)

    children = [forked(lambda grey=grey: work(grey)) for grey in (1, 2, 3)]  # type: ignore[misc]
    assert [ended(child) for child in children] == [0, 0, 0]
    verify(path)
    assert [p.name for p in tmp_path.iterdir()] == ["train"]
