"""Shards, sources, imports and the split over sites: right content, or a refusal that says why."""

import gzip
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dppm_model.errors import ConfigError, DataError, DownloadError
from dppm_model.records import idx, sources
from dppm_model.records.importers import import_dataset
from dppm_model.records.partition import partition
from dppm_model.records.pixels import to_pixels, to_tensor
from dppm_model.records.routes import local
from dppm_model.records.shards import open_records, verify, write_records
from dppm_model.records.sources import Source, available, fetch, load
from tests.conftest import tiny_images

IMAGES, LABELS = tiny_images(40, 7)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DPPM_DATA", str(tmp_path / "store"))
    return tmp_path


def write(path: Path, **changes: object) -> None:
    settings = {"name": "toy", "split": "train", "classes": ("a", "b")} | changes
    images, labels = settings.pop("images", IMAGES), settings.pop("labels", LABELS)
    write_records(path, images, labels, **settings)  # type: ignore[arg-type]


def test_round_trip_views_and_verification(tmp_path: Path) -> None:
    write(tmp_path / "toy", persons=np.arange(40) // 2)
    records = open_records(tmp_path / "toy")
    assert isinstance(records.images, np.memmap)
    view = records.select(np.arange(0, 40, 2)).select(np.array([3, 1]))
    np.testing.assert_array_equal(view.labels, LABELS[[6, 2]])
    np.testing.assert_array_equal(view.pixels(), IMAGES[[6, 2]])
    np.testing.assert_array_equal(view.pixels(np.array([1])), IMAGES[[2]])
    assert view.persons is not None
    assert view.persons.tolist() == [3, 1]
    verify(tmp_path / "toy")
    np.testing.assert_array_equal(to_pixels(to_tensor(view.pixels())), view.pixels())


def test_the_digest_does_not_depend_on_chunks_and_sees_one_pixel(tmp_path: Path) -> None:
    write(tmp_path / "a")
    write(tmp_path / "b", images=iter([IMAGES[:7], IMAGES[7:]]))
    a, b = open_records(tmp_path / "a").manifest, open_records(tmp_path / "b").manifest
    assert a.digest == b.digest
    stored = np.load(tmp_path / "a" / "images.npy")
    stored[0, 0, 0, 0] ^= 1
    np.save(tmp_path / "a" / "images.npy", stored)
    with pytest.raises(DataError, match="changed"):
        verify(tmp_path / "a")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"images": IMAGES.astype(np.float32)}, "float32"),
        ({"images": IMAGES[:, 0]}, "shape"),
        ({"images": IMAGES[:-1]}, "39 images for 40 labels"),
        ({"labels": LABELS + 1}, "from 0 to 1"),
        ({"labels": LABELS[:0]}, "labels have shape"),
        ({"persons": np.zeros(3)}, "3 persons"),
    ],
)
def test_bad_records_are_refused_and_nothing_is_written(
    tmp_path: Path, changes: dict, reason: str
) -> None:
    with pytest.raises(DataError, match=reason):
        write(tmp_path / "toy", **changes)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_folder_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "toy")
    np.save(tmp_path / "toy" / "labels.npy", LABELS[:-1])
    with pytest.raises(DataError, match="do not fit"):
        open_records(tmp_path / "toy")
    (tmp_path / "toy" / "manifest.json").unlink()
    with pytest.raises(DataError, match="no readable shard folder"):
        open_records(tmp_path / "toy")


def idx_bytes(array: np.ndarray) -> bytes:
    return struct.pack(f">I{array.ndim}I", 0x800 + array.ndim, *array.shape) + array.tobytes()


def idx_folder(folder: Path) -> None:
    folder.mkdir(parents=True)
    for images, labels in idx.FILES.values():
        (folder / images).write_bytes(idx_bytes(IMAGES[:, 0]))
        (folder / f"{labels}.gz").write_bytes(gzip.compress(idx_bytes(LABELS.astype(np.uint8))))


def test_a_file_that_is_cut_short_and_a_pickle_that_runs_code_are_refused() -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return (print, ("owned",))

    with pytest.raises(DataError, match="complete idx"):
        idx.read_idx(idx_bytes(IMAGES[:, 0])[:-1], "short")
    with pytest.raises(DataError, match="print"):
        idx.read_pickle(gzip.compress(pickle.dumps(Evil())))


def test_fetch_tries_routes_in_turn_and_takes_the_pinned_content_only(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    idx_folder(store / "good")
    write(store / "reference")
    digest = open_records(store / "reference").manifest.digest
    routes = (local(store / "missing"), local(store / "good"))
    source = Source(("a", "b"), {"train": digest, "test": digest}, routes)
    monkeypatch.setitem(sources.DATASETS, "toy", source)
    fetch("toy")
    np.testing.assert_array_equal(load("toy", "test").pixels(), IMAGES)
    assert available()[0]["counts"] == {"train": 40, "test": 40}
    wrong = Source(("a", "b"), {"train": digest, "test": "0" * 64}, routes)
    monkeypatch.setitem(sources.DATASETS, "toy", wrong)
    with pytest.raises(DownloadError, match=r"missing.*\|.*not what is pinned"):
        fetch("toy")


def test_unknown_and_unfetched_names_are_told_apart(store: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean mnist"):
        fetch("mnits")
    with pytest.raises(DataError, match="dppm data fetch mnist"):
        load("mnist", "train")


def png(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def test_import_a_folder_per_class(store: Path) -> None:
    for i in range(20):
        png(store / "scans" / "ab"[LABELS[i]] / f"{i:02d}.png", IMAGES[i, 0])
    import_dataset(store / "scans", "scans", test_fraction=0.25)
    train, test = load("scans", "train"), load("scans", "test")
    assert (len(train), len(test), train.manifest.classes) == (15, 5, ("a", "b"))
    (store / "scans" / "a" / "broken.png").write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"broken\.png"):
        import_dataset(store / "scans", "scans")


def test_images_of_different_sizes_are_resized_only_when_asked(store: Path) -> None:
    png(store / "rgb" / "a" / "1.png", np.zeros((10, 12, 3), np.uint8))
    png(store / "rgb" / "b" / "2.png", np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(DataError, match="--size"):
        import_dataset(store / "rgb", "rgb", test_fraction=0)
    import_dataset(store / "rgb", "rgb", size=8, test_fraction=0)
    assert load("rgb", "train").manifest.shape == (3, 8, 8)


def test_a_csv_keeps_persons_on_one_side(store: Path) -> None:
    rows = ["file,label,person"]
    for i in range(30):
        png(store / "x" / f"{i}.png", IMAGES[i, 0])
        rows.append(f"x/{i}.png,{'ab'[LABELS[i]]},p{i % 6}")
    (store / "list.csv").write_text("\n".join(rows))
    import_dataset(store / "list.csv", "people", test_fraction=0.34)
    train, test = load("people", "train").persons, load("people", "test").persons
    assert train is not None
    assert test is not None
    assert len(train) + len(test) == 30


def test_medmnist(store: Path) -> None:
    arrays = {
        f"{split}_{kind}": value
        for split in ("train", "val", "test")
        for kind, value in (("images", IMAGES[:, 0]), ("labels", LABELS[:, None]))
    }
    np.savez(store / "med.npz", **arrays)
    import_dataset(store / "med.npz", "med")
    assert (len(load("med", "train")), len(load("med", "test"))) == (80, 40)
    arrays["train_images"] = np.full((40, 8, 8), np.nan)
    np.savez(store / "med.npz", **arrays)
    with pytest.raises(DataError, match="not finite"):
        import_dataset(store / "med.npz", "med")


@pytest.mark.parametrize(
    ("name", "settings", "error"),
    [
        ("Bad Name", {}, ConfigError),
        ("mnist", {}, ConfigError),
        ("ok", {"test_fraction": 1.0}, ConfigError),
        ("ok", {"size": 0}, ConfigError),
        ("ok", {}, DataError),
    ],
)
def test_bad_imports_are_refused(store: Path, name: str, settings: dict, error: type) -> None:
    with pytest.raises(error):
        import_dataset(store / "nowhere", name, **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"scheme": "even"},
        {"scheme": "dirichlet", "alpha": 0.5},
        {"scheme": "sizes", "sizes": [1, 2, 3, 50]},
    ],
)
def test_partitions_hold_every_record_once_and_repeat(settings: dict) -> None:
    labels = np.random.default_rng(0).integers(0, 10, 3000)
    parts = partition(labels, 4, seed=1, **settings)
    assert sorted(np.concatenate(parts).tolist()) == list(range(3000))
    again = partition(labels, 4, seed=1, **settings)
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))
    if settings["scheme"] == "even":
        assert {len(p) for p in parts} == {750}
    if settings["scheme"] == "sizes":
        assert len(parts[3]) == pytest.approx(3000 * 50 / 56, abs=1)
    if settings["scheme"] == "dirichlet":
        shares = [np.bincount(labels[p], minlength=10) / len(p) for p in parts]
        assert np.std(shares, axis=0).max() > 0.1


def test_partitions_keep_persons_whole_and_refuse_empty_sites() -> None:
    labels, persons = np.zeros(100, dtype=np.int64), np.arange(100) // 10
    owners = [set(persons[p]) for p in partition(labels, 3, scheme="even", seed=0, persons=persons)]
    assert not owners[0] & owners[1]
    assert not owners[1] & owners[2]
    with pytest.raises(ConfigError, match="would have no record"):
        partition(labels, 11, scheme="even", seed=0, persons=persons)
    for bad in ({"scheme": "odd"}, {"scheme": "sizes"}, {"scheme": "dirichlet", "alpha": 0.0}):
        with pytest.raises(ConfigError):
            partition(labels, 3, seed=0, **bad)
