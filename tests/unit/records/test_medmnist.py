"""MedMNIST files: read directly, refused by name, never half there."""

from pathlib import Path

import numpy as np
import pytest

from dppm_model.errors import ConfigError, DataError
from dppm_model.records.importers import import_dataset
from dppm_model.records.shards import open_records


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def medmnist(path: Path, *, colour: bool = False, **changes: np.ndarray | None) -> Path:
    """A file as MedMNIST writes it: uint8 images (n, H, W[, 3]), labels (n, 1)."""
    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for split, count in (("train", 6), ("val", 3), ("test", 2)):
        shape = (count, 5, 5, 3) if colour else (count, 5, 5)
        arrays[f"{split}_images"] = rng.integers(0, 256, shape, dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count) % 3).astype(np.uint8)[:, None]
    arrays = {k: v for k, v in {**arrays, **changes}.items() if v is not None}
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("colour", [False, True])
def test_medmnist_is_imported_with_validation_in_training(tmp_path, store, colour: bool) -> None:
    source = medmnist(tmp_path / "m.npz", colour=colour)
    path = import_dataset(source, "med", root=store)
    train, test = open_records(path / "train"), open_records(path / "test")
    raw = np.load(source)
    images = np.concatenate([raw["train_images"], raw["val_images"]])
    expected = np.moveaxis(images, -1, 1) if colour else images[:, None]
    np.testing.assert_array_equal(train.images, expected)
    np.testing.assert_array_equal(train.labels, [0, 1, 2, 0, 1, 2, 0, 1, 2])
    assert (len(test), train.manifest.classes) == (2, ("0", "1", "2"))


def test_medmnist_without_test_or_validation_has_a_train_split(tmp_path, store) -> None:
    changes = dict.fromkeys(["val_images", "val_labels", "test_images", "test_labels"])
    path = import_dataset(medmnist(tmp_path / "m.npz", **changes), "med", root=store)
    assert [p.name for p in path.iterdir()] == ["train"]


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"train_images": None}, "lacks train_images"),
        ({"test_labels": None}, "lacks test_labels"),
        ({"train_images": np.full((6, 5, 5), np.nan)}, "not finite"),
        ({"train_images": np.zeros((6, 5, 5))}, "float64"),
        ({"train_images": np.zeros((6, 5, 5, 5), np.uint8)}, "volumes"),
        ({"train_images": np.zeros((5, 5, 5), np.uint8)}, "8 images for 9 labels"),
        ({"train_labels": np.zeros((6, 14), np.uint8)}, "labels have shape"),
        ({"train_labels": np.zeros((6, 1), np.float32)}, "whole numbers"),
        ({"train_images": np.array([None])}, "not readable"),
    ],
)
def test_a_wrong_npz_is_refused_and_leaves_nothing(tmp_path, store, changes, cause: str) -> None:
    with pytest.raises(DataError, match=cause):
        import_dataset(medmnist(tmp_path / "m.npz", **changes), "med", root=store)
    assert list(store.iterdir()) == []


def test_a_damaged_npz_is_refused(tmp_path: Path, store: Path) -> None:
    source = medmnist(tmp_path / "m.npz")
    content = source.read_bytes()
    for damaged in (b"", b"hello", content[:-40], content[:300] + b"\xff" * 40 + content[340:]):
        source.write_bytes(damaged)
        with pytest.raises(DataError, match=r"readable|no npz"):
            import_dataset(source, "med", root=store)
    with source.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(DataError, match="no npz"):
        import_dataset(source, "med", root=store)
    with pytest.raises(ConfigError, match="size"):
        import_dataset(source, "med", root=store, size=8)
