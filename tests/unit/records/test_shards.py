"""Shard folders: what is written is what opens; what was damaged or edited does not pass."""

import itertools
import json
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from dppm_model.errors import DataError
from dppm_model.records.shards import Records, open_records
from dppm_model.records.writing import digest, replacing, verify, write_records
from tests.support.fault_injection import ended, forked


def make(path: Path, count: int = 12, *, seed: int = 0, persons: bool = True) -> np.ndarray:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 3, 5, 4), dtype=np.uint8)
    write_records(
        path,
        images,
        np.arange(count) % 3,
        name="toy",
        split="train",
        classes=("a", "b", "c"),
        persons=np.arange(count) // 2 if persons else None,
    )
    return images


@pytest.mark.parametrize("persons", [True, False])
def test_what_is_written_is_what_opens(tmp_path: Path, persons: bool) -> None:
    images = make(tmp_path / "s", persons=persons)
    records = open_records(tmp_path / "s")
    verify(tmp_path / "s")
    assert isinstance(records.images, np.memmap)
    assert records.manifest.shape == (3, 5, 4)
    assert records.manifest.classes == ("a", "b", "c")
    assert (len(records), records.manifest.count, records.manifest.persons) == (12, 12, persons)
    np.testing.assert_array_equal(records.images, images)
    np.testing.assert_array_equal(records.labels, np.arange(12) % 3)
    if persons:
        np.testing.assert_array_equal(records.persons, np.arange(12) // 2)
    else:
        assert records.persons is None


def test_the_digest_is_of_content_and_not_of_chunking(tmp_path: Path) -> None:
    images = make(tmp_path / "whole", persons=False)
    pieces = write_records(
        tmp_path / "pieces",
        iter([images[:5], images[5:5], images[5:]]),
        np.arange(12) % 3,
        name="other",
        split="test",
        classes="xyz",
    )
    assert pieces.digest == open_records(tmp_path / "whole").manifest.digest


@pytest.mark.parametrize("what", ["shape", "image", "label", "person", "no persons"])
def test_the_digest_sees_every_part(what: str) -> None:
    images, labels, persons = np.zeros((4, 1, 2, 8), np.uint8), np.arange(4), np.arange(4)
    before = digest((1, 2, 8), [images], labels, persons)
    assert digest((1, 2, 8), [images.copy()], labels.copy(), persons.copy()) == before
    shape = (1, 4, 4) if what == "shape" else (1, 2, 8)
    if what == "image":
        images[3, 0, 1, 7] = 1
    if what == "label":
        labels[0] = 1
    if what == "person":
        persons[3] = 0
    assert digest(shape, [images], labels, None if what == "no persons" else persons) != before


def test_views_compose_and_read_lazily(tmp_path: Path) -> None:
    images = make(tmp_path / "s")
    view = open_records(tmp_path / "s").select(np.array([9, 1, 4, 7])).select(np.array([3, 0]))
    assert isinstance(view, Records)
    assert len(view) == 2
    np.testing.assert_array_equal(view.labels, [7 % 3, 9 % 3])
    np.testing.assert_array_equal(view.persons, [3, 4])
    np.testing.assert_array_equal(view.images, images[[7, 9]])
    np.testing.assert_array_equal(view.pixels(np.array([1])), images[[9]])
    assert view.pixels(np.array([], dtype=int)).shape == (0, 3, 5, 4)
    assert view.select(np.array([], dtype=int)).images.shape == (0, 3, 5, 4)


@pytest.mark.parametrize(
    ("index", "cause"),
    [
        (np.array([12]), "outside"),
        (np.array([-1]), "outside"),
        (np.array([3, 3]), "twice"),
        (np.ones(12, dtype=bool), "bool"),
        (np.array([0.5]), "float"),
        (np.array([[1, 2]]), "shape"),
    ],
)
def test_a_wrong_index_is_refused(tmp_path: Path, index: np.ndarray, cause: str) -> None:
    make(tmp_path / "s")
    with pytest.raises(DataError, match=cause):
        open_records(tmp_path / "s").select(index)


GOOD = np.zeros((4, 1, 2, 2), np.uint8)
NAN = np.full((4, 1, 2, 2), np.nan, np.float32)


@pytest.mark.parametrize(
    ("images", "labels", "persons", "cause"),
    [
        (GOOD, [0, 1, 0], None, "4 images for 3 labels"),
        (GOOD, [0, 1, 2, 0], None, "label 2"),
        (GOOD, [0, -1, 1, 0], None, "whole numbers"),
        (GOOD, [0.0, 1.0, 0.0, 1.0], None, "whole numbers"),
        (GOOD, [], None, "labels have shape"),
        (GOOD, [0, 1, 0, 1], [1, 2], "2 persons for 4 labels"),
        (GOOD, [0, 1, 0, 1], [0.0, 1.5, 2.0, 3.0], "persons are not whole"),
        (NAN, [0, 1, 0, 1], None, "not finite"),
        (GOOD.astype(np.float32), [0, 1, 0, 1], None, "float32"),
        (GOOD[:, 0], [0, 1, 0, 1], None, "shape"),
        (GOOD[:, :, :0], [0, 1, 0, 1], None, "shape"),
        (iter([]), [0, 1], None, "0 images for 2 labels"),
        (iter([GOOD[:2], np.zeros((2, 1, 2, 3), np.uint8)]), [0, 1, 0, 1], None, "of shapes"),
    ],
)
def test_what_does_not_fit_is_refused_and_leaves_nothing(
    tmp_path: Path, images: np.ndarray, labels: list, persons: list | None, cause: str
) -> None:
    owners = None if persons is None else np.array(persons)
    with pytest.raises(DataError, match=cause) as refusal:
        write_records(
            tmp_path / "s",
            images,
            np.array(labels),
            name="toy",
            split="train",
            classes="ab",
            persons=owners,
        )
    assert refusal.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_crash_while_writing_keeps_the_old_records(tmp_path: Path) -> None:
    make(tmp_path / "s")
    before = open_records(tmp_path / "s").manifest

    def crashing() -> Iterator[np.ndarray]:
        yield GOOD
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_records(
            tmp_path / "s", crashing(), np.zeros(8, int), name="n", split="train", classes="a"
        )
    assert open_records(tmp_path / "s").manifest == before
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


def test_a_shard_folder_is_replaced_whole_and_nothing_else_is(tmp_path: Path) -> None:
    make(tmp_path / "s", persons=True)
    make(tmp_path / "s", 5, seed=1, persons=False)
    verify(tmp_path / "s")
    assert len(open_records(tmp_path / "s")) == 5
    assert not (tmp_path / "s" / "persons.npy").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["s"]
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("dear")
    for other in (tmp_path / "home", tmp_path / "home" / "letter.txt"):
        with pytest.raises(DataError, match="not a shard folder"):
            make(other)
    assert (tmp_path / "home" / "letter.txt").read_text() == "dear"


FILES = ("manifest.json", "images.npy", "labels.npy", "persons.npy")


def test_a_full_disk_is_reported(tmp_path: Path) -> None:
    def full() -> Iterator[np.ndarray]:
        raise OSError(28, "No space left on device")
        yield GOOD

    with pytest.raises(DataError, match="No space left on device"):
        write_records(tmp_path / "s", full(), np.zeros(4, int), name="n", split="t", classes="a")


def edit_manifest(key: str, value: object) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        manifest = json.loads((path / "manifest.json").read_text())
        (path / "manifest.json").write_text(json.dumps({**manifest, key: value}))

    return edit


def save(name: str, array: np.ndarray) -> Callable[[Path], None]:
    return lambda path: np.save(path / name, array, allow_pickle=True)


@pytest.mark.parametrize(
    "damage",
    [
        *(lambda path, name=name: (path / name).unlink() for name in FILES),
        edit_manifest("count", 11),
        edit_manifest("count", "12"),
        edit_manifest("shape", [1, 5, 4]),
        edit_manifest("shape", 3),
        edit_manifest("classes", ["a", "b"]),
        edit_manifest("surprise", 1),
        save("images.npy", np.zeros((12, 3, 5, 4), np.float32)),
        save("images.npy", np.zeros((11, 3, 5, 4), np.uint8)),
        save("labels.npy", np.zeros(11, np.int64)),
        save("labels.npy", np.zeros(12, np.float64)),
        save("labels.npy", np.full(12, -1)),
        save("labels.npy", np.array([None] * 12)),
        save("persons.npy", np.zeros(11, np.int64)),
        lambda path: np.savez((path / "labels.npy").open("wb"), np.zeros(12, np.int64)),
    ],
)
def test_a_damaged_folder_does_not_open(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    make(tmp_path / "s")
    open_records(tmp_path / "s")
    damage(tmp_path / "s")
    with pytest.raises(DataError):
        open_records(tmp_path / "s")


@pytest.mark.parametrize("name", FILES[1:])
def test_verify_catches_one_edited_value(tmp_path: Path, name: str) -> None:
    make(tmp_path / "s")
    verify(tmp_path / "s")
    array = np.load(tmp_path / "s" / name)
    array.flat[1] = (int(array.flat[1]) + 1) % 3
    np.save(tmp_path / "s" / name, array)
    open_records(tmp_path / "s")  # the shapes are right, so only the digest can tell
    with pytest.raises(DataError, match="changed"):
        verify(tmp_path / "s")


def test_a_set_larger_than_the_memory_allowed_is_written_and_opened(tmp_path: Path) -> None:
    """96 MB in 3 MB chunks: the peak stays far below the whole, and opening reads no image."""
    chunk = np.zeros((16, 3, 256, 256), np.uint8)
    tracemalloc.start()
    write_records(
        tmp_path / "s",
        itertools.repeat(chunk, 32),
        np.zeros(512, int),
        name="big",
        split="train",
        classes="a",
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32e6, peak
    start = time.perf_counter()
    records = open_records(tmp_path / "s")
    assert time.perf_counter() - start < 0.1
    assert records.pixels(np.array([500])).shape == (1, 3, 256, 256)


def _grey(path: Path) -> int:
    return int(open_records(path).images[0, 0, 0, 0])


def write(path: Path, grey: int, count: int = 50) -> None:
    images = np.full((count, 1, 8, 8), grey, np.uint8)
    labels = np.zeros(count, np.int64)
    write_records(path, images, labels, name="x", split="train", classes=["a"])


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
