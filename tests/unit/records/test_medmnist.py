"""MedMNIST by name: from a server here, whole, cut off or wrong; and from a file."""

import hashlib
import io
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from deploy.cli import main
from dppm_model.errors import ConfigError, DataError, DownloadError
from dppm_model.records import medmnist
from dppm_model.records.description import describe
from dppm_model.records.shards import open_records
from tests.support.mutations import twin

RNG = np.random.default_rng(0)
COUNTS = {"train": 16, "val": 8, "test": 8}


def published_file() -> bytes:
    arrays = {}
    for part, n in COUNTS.items():
        arrays[f"{part}_images"] = RNG.integers(0, 256, (n, 28, 28, 3), dtype=np.uint8)
        arrays[f"{part}_labels"] = (np.arange(n, dtype=np.uint8) % 8)[:, None]
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


FILE = published_file()


class Server(ThreadingHTTPServer):
    """Serves one file at each address; ``cut`` ends the next answer after so many bytes."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content, self.cut, self.asked = FILE, None, []
        self.ranges = True


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, wanted = self.server, self.headers["Range"]
        server.asked.append((self.path, wanted))
        start = int(wanted.split("=")[1].rstrip("-")) if wanted and server.ranges else 0
        if start >= len(server.content):
            self.send_error(416)
            return
        content = server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: server.cut])
        server.cut = None

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server() as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        monkeypatch.setattr(medmnist, "_BASE", f"http://127.0.0.1:{served.server_port}/files")
        monkeypatch.setitem(
            medmnist.SETS["bloodmnist"].md5,
            224,
            hashlib.md5(FILE, usedforsecurity=False).hexdigest(),
        )
        yield served
        served.shutdown()


NAME = "medmnist/bloodmnist@224"


def test_a_set_comes_by_name_with_classes_licence_and_its_own_split(server, store) -> None:
    notes: list[str] = []
    path = medmnist.fetch(NAME, store, say=notes.append)
    assert path == store / "bloodmnist-224"
    assert server.asked == [("/files/bloodmnist_224.npz", None)]
    assert len(open_records(path / "train")) == 24 and len(open_records(path / "test")) == 8
    found = describe("bloodmnist-224", store)
    assert found.classes == medmnist.SETS["bloodmnist"].classes
    with np.load(io.BytesIO(FILE)) as file:
        first = np.moveaxis(file["test_images"], -1, 1)
        assert (open_records(path / "test").images == first).all()
        assert (open_records(path / "test").labels == file["test_labels"][:, 0]).all()
    said = " ".join(notes)
    assert "Licence, as MedMNIST states it: CC BY 4.0" in said
    assert "does not say whose the images are" in said
    assert "validation split joins training" in said
    assert found.intake is not None and "bloodmnist_224.npz (MD5 " in found.intake.source
    assert [p.name for p in store.iterdir()] == ["bloodmnist-224"]
    assert medmnist.fetch(NAME, store) == path  # again: it is there
    assert len(server.asked) == 1


@twin(
    "a download that was cut off begins anew",
    "dppm_model.records.medmnist:_opened",
    lambda whole: lambda address, start: whole(address, 0),
)
def test_a_download_that_was_cut_off_goes_on(server, store) -> None:
    server.cut = 1000
    with pytest.raises(DownloadError, match=rf"ended after 1000 of {len(FILE)} bytes") as refusal:
        medmnist.fetch(NAME, store)
    assert "go on" in refusal.value.hint and "--from" in refusal.value.hint
    path = medmnist.fetch(NAME, store)
    assert [wanted for _, wanted in server.asked] == [None, "bytes=1000-"]
    assert len(open_records(path / "train")) == 24


def test_a_server_without_ranges_sends_it_whole(server, store) -> None:
    server.cut, server.ranges = 1000, False
    with pytest.raises(DownloadError):
        medmnist.fetch(NAME, store)
    assert len(open_records(medmnist.fetch(NAME, store) / "train")) == 24


def test_what_is_longer_than_the_file_is_brought_again(server, store) -> None:
    store.mkdir()
    (store / ".bloodmnist-224.npz").write_bytes(FILE + b"x")
    medmnist.fetch(NAME, store)
    assert [wanted for _, wanted in server.asked] == [f"bytes={len(FILE) + 1}-", None]


@twin(
    "any file is taken for the published one",
    "dppm_model.records.medmnist:_md5",
    lambda _: lambda *_: medmnist.SETS["bloodmnist"].md5[224],
)
def test_another_content_is_refused(server, store, tmp_path: Path) -> None:
    server.content = FILE[:-1] + b"\x01"
    with pytest.raises(DownloadError, match=r"is not what is published: its MD5 is \w{32}"):
        medmnist.fetch(NAME, store)
    own = tmp_path / "own.npz"
    own.write_bytes(server.content)
    with pytest.raises(DownloadError, match=r"own\.npz is not the published file"):
        medmnist.fetch(NAME, store, source=own)
    assert not (store / "bloodmnist-224").exists()
    server.content = FILE  # and nothing of the wrong one is left
    medmnist.fetch(NAME, store)


def test_without_network_a_file_does(server, store, tmp_path: Path) -> None:
    server.shutdown()
    server.server_close()
    with pytest.raises(DownloadError, match="cannot be had") as refusal:
        medmnist.fetch(NAME, store)
    assert "--from FILE" in refusal.value.hint
    own = tmp_path / "own.npz"
    with pytest.raises(DataError, match=r"own\.npz cannot be read"):
        medmnist.fetch(NAME, store, source=own)
    own.write_bytes(FILE)
    path = medmnist.fetch(NAME, store, source=own)
    assert len(open_records(path / "train")) == 24
    assert own.read_bytes() == FILE


def test_another_set_of_that_name_is_left_alone(server, store) -> None:
    path = medmnist.fetch(NAME, store)
    (path / "import.json").unlink()
    with pytest.raises(DataError, match="holds another data set"):
        medmnist.fetch(NAME, store)


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("medmnist/bloodmnis", "Did you mean bloodmnist"),
        ("medmnist/bloodmnist@32", "Give one of 28, 64, 128, 224"),
        ("medmnist/chestmnist", "fourteen labels"),
        ("medmnist/organmnist3d@64", "holds volumes"),
        ("medmnist/", "has no ''"),
    ],
)
def test_names_that_cannot_be_had_are_refused(store: Path, name: str, cause: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        medmnist.fetch(name, store)
    assert cause in str(refusal.value)
    assert not store.exists()


def test_the_facts_are_whole() -> None:
    sums = [one for known in medmnist.SETS.values() for one in known.md5.values()]
    assert len(medmnist.SETS) == 11 and len({*sums}) == 44
    assert all(re.fullmatch(r"[0-9a-f]{32}", one) for one in sums)
    for known in medmnist.SETS.values():
        assert tuple(known.md5) == medmnist.SIZES
        assert known.licence.startswith("CC BY")
        assert len({*known.classes}) == len(known.classes) >= 2


def test_the_command(server, store, monkeypatch, capsys) -> None:
    monkeypatch.setenv("DPPM_DATA", str(store))
    assert main(["data", "fetch", NAME]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "As a data set it is called bloodmnist-224." in said
    assert "Licence" in said and "protects single images" in said
