"""The local store: public data sets by any route, all of them the pinned content."""

from pathlib import Path

import numpy as np
import pytest

from dppm_model.errors import ConfigError, DataError, DownloadError
from dppm_model.records import routes, sources
from dppm_model.records.shards import digest, open_records, verify
from dppm_model.records.writing import write_records
from tests.unit.records.toys import SPLITS, idx_folder


def failing(reason: str) -> routes.Route:
    def get(_work: Path) -> Path:
        raise OSError(reason)

    return reason, get


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A public data set `toy` with the digests of SPLITS, and two routes that fail."""
    digests = {s: digest((1, 28, 28), [i], y, None) for s, (i, y) in SPLITS.items()}
    source = sources.Source(tuple("0123456789"), digests, (failing("one"), failing("two")))
    monkeypatch.setitem(sources.DATASETS, "toy", source)
    monkeypatch.delenv("DPPM_DATA_SOURCE", raising=False)
    monkeypatch.setenv("DPPM_DATA", str(tmp_path / "store"))
    return tmp_path / "store"


def test_fetch_takes_the_first_route_that_brings_the_pinned_content(toy: Path, tmp_path) -> None:
    said = []
    folder = idx_folder(tmp_path / "given", zipped=True)
    path = sources.fetch("toy", source=folder, progress=lambda *what: said.append(what))
    assert path == toy / "toy"
    assert said[0] == (f"toy: folder {folder}", 0.0)
    assert said[-1] == ("toy: done", 1.0)
    for split, (images, labels) in SPLITS.items():
        verify(path / split)
        records = sources.load("toy", split)
        np.testing.assert_array_equal(records.images, images)
        np.testing.assert_array_equal(records.labels, labels)


def test_fetch_is_idempotent_and_mends_what_was_damaged(toy: Path, tmp_path: Path) -> None:
    folder = idx_folder(tmp_path / "given")
    sources.fetch("toy", source=folder)
    inode = (toy / "toy" / "train" / "images.npy").stat().st_ino
    sources.fetch("toy")  # every route fails, so none may be needed
    assert (toy / "toy" / "train" / "images.npy").stat().st_ino == inode
    with (toy / "toy" / "test" / "images.npy").open("r+b") as file:
        file.seek(-1, 2)
        file.write(bytes([SPLITS["test"][0].flat[-1] ^ 1]))
    with pytest.raises(DownloadError):
        sources.fetch("toy")
    sources.fetch("toy", source=folder)
    verify(toy / "toy" / "test")


def test_when_all_routes_fail_each_reason_is_named(toy: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("DPPM_DATA_SOURCE", str(tmp_path / "nothing"))
    with pytest.raises(DownloadError) as refusal:
        sources.fetch("toy")
    cause = refusal.value.message
    assert "\n" not in cause
    for reason in ("nothing/toy/train-images-idx3-ubyte", "one: OSError", "two: OSError"):
        assert reason in cause
    assert "DPPM_DATA_SOURCE" in refusal.value.hint
    assert not toy.exists()


def test_the_folder_of_the_environment_is_tried_first(toy: Path, tmp_path, monkeypatch) -> None:
    idx_folder(tmp_path / "mine" / "toy")
    monkeypatch.setenv("DPPM_DATA_SOURCE", str(tmp_path / "mine"))
    verify(sources.fetch("toy") / "train")


def test_content_that_is_not_pinned_is_refused(toy: Path, tmp_path: Path) -> None:
    """The broken twin: one edited pixel in the source."""
    folder = idx_folder(tmp_path / "given")
    path = folder / "t10k-images-idx3-ubyte"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DownloadError, match="test split is not what is pinned"):
        sources.fetch("toy", source=folder)
    assert not (toy / "toy").exists()


def test_a_wrong_name_gets_near_matches(toy: Path) -> None:
    for act in (sources.fetch, lambda name: sources.load(name, "train")):
        with pytest.raises(ConfigError) as refusal:
            act("fashion-mnits")
        assert "fashion-mnist" in refusal.value.hint


def test_load_tells_what_is_missing(toy: Path) -> None:
    with pytest.raises(DataError, match="not fetched"):
        sources.load("toy", "train")
    write_records(
        toy / "own" / "train", *SPLITS["train"], name="own", split="train", classes="0123456789"
    )
    assert sources.fetch("own") == toy / "own"
    with pytest.raises(DataError, match="no test split"):
        sources.load("own", "test")


def test_the_list_names_damaged_splits_and_passes_over_unfinished_ones(toy: Path, tmp_path) -> None:
    assert sources.available() == []
    sources.fetch("toy", source=idx_folder(tmp_path / "given"))
    (toy / ".half.x1" / "train").mkdir(parents=True)
    (toy / "toy" / "evaluation").mkdir()
    good = {
        "name": "toy",
        "shape": [1, 28, 28],
        "classes": 10,
        "counts": {"train": 12, "test": 4},
        "persons": False,
        "damaged": [],
    }
    assert sources.available() == sources.available(toy) == [good]
    (toy / "toy" / "train" / "labels.npy").unlink()
    assert sources.available() == [{**good, "counts": {"test": 4}, "damaged": ["train"]}]


def test_the_store_lies_where_the_environment_says(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DPPM_DATA", str(tmp_path / "a"))
    assert sources.data_root() == tmp_path / "a"
    monkeypatch.setenv("DPPM_DATA", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    assert sources.data_root() == tmp_path / "b" / "dppm" / "data"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "c"))
    assert sources.data_root() == tmp_path / "c" / ".cache" / "dppm" / "data"


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_the_cached_public_data_are_the_pinned_ones(name: str, split: str) -> None:
    path = sources.data_root() / name / split
    if not path.is_dir():
        pytest.skip(f"{name} is not in the local store; `dppm data fetch {name}` brings it")
    verify(path)
    manifest = open_records(path).manifest
    assert manifest.digest == sources.DATASETS[name].digests[split]
    assert manifest.shape == (1, 28, 28)
    assert manifest.count == {"train": 60_000, "test": 10_000}[split]
