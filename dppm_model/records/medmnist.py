"""MedMNIST by name, such as ``medmnist/bloodmnist@224``: from its address, or from a file at hand.

Addresses, and the facts in ``medmnist.yaml``, are those that the package ``medmnist`` publishes.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import BinaryIO

import yaml

from dppm_model.errors import ConfigError, DataError, DownloadError
from dppm_model.locks import locked
from dppm_model.progress import Progress, part, silent
from dppm_model.reading import check_regular, reason
from dppm_model.records.importers import Say, import_dataset
from dppm_model.records.intake import Intake
from dppm_model.records.listing import Published
from dppm_model.records.sources import SPLITS, data_root
from dppm_model.records.writing import verify

PREFIX = "medmnist/"
SIZES = (28, 64, 128, 224)
_BASE = "https://zenodo.org/records/10519652/files"
_SECONDS = 60  # without a byte
_CHUNK = 2**20
_BY_HAND = "Or bring the file from another machine, and pass it as --from FILE."


@dataclass(frozen=True)
class MedMNIST:
    """A set of images with one label each; ``md5`` is of the file of each size."""

    classes: tuple[str, ...]
    licence: str
    md5: dict[int, str]


SETS = {
    name: MedMNIST(tuple(facts["classes"]), facts["licence"], facts["md5"])
    for name, facts in yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text()).items()
}

_NOT_HERE = {
    "chestmnist": "has fourteen labels an image, where one is needed",
    **dict.fromkeys(
        ("organ", "nodule", "adrenal", "fracture", "vessel", "synapse"), "holds volumes"
    ),
}


def fetch(
    name: str,
    root: Path | None = None,
    progress: Progress = silent,
    *,
    source: Path | None = None,
    say: Say = lambda _: None,
) -> Path:
    """Bring a set of MedMNIST into the local store, unless it is there and whole.

    ``bloodmnist@224`` is stored as ``bloodmnist-224``; without a size it is that of 28 pixels. Its
    own test split is kept, its validation split joins training. A download that was cut off goes
    on. ``root`` is the local store, by default `data_root()`. ``source`` is the file, for machines
    without network: it has to be the published one. ``say`` gets what is worth knowing. Returns the
    folder that holds the splits.

    Raises
    ------
    ConfigError
        If there is no such set or size, or it is none of images with one label each.
    DataError
        If another data set has its name, or it is damaged; or ``source`` cannot be read.
    DownloadError
        If it cannot be had, or what came is not what is published.
    """
    key, side = _parsed(name)
    wanted, stored = SETS[key], f"{key}-{side}"
    root = data_root() if root is None else root
    address = f"{_BASE}/{key}{'' if side == SIZES[0] else f'_{side}'}.npz"
    published = Published(
        f"{address} (MD5 {wanted.md5[side]})",
        dict(zip(map(str, range(len(wanted.classes))), wanted.classes, strict=True)),
        (
            f"Licence, as MedMNIST states it: {wanted.licence}.",
            "MedMNIST does not say whose the images are: ε protects single images, not persons.",
        ),
    )
    if (root / stored).exists():
        _check_present(root / stored, published)
        return root / stored
    root.mkdir(parents=True, exist_ok=True)
    taking = part(progress, 0.5, 0.5)
    if source is not None:
        _check_own(source, wanted.md5[side], address, part(progress, 0.0, 0.5))
        return import_dataset(
            source, stored, root=root, published=published, progress=taking, say=say
        )
    kept = root / f".{stored}.npz"
    with locked(kept) as handle, os.fdopen(handle, "r+b", closefd=False) as file:
        if (root / stored).exists():  # another process brought it meanwhile
            _check_present(root / stored, published)
        else:
            _download(address, file, wanted.md5[side], part(progress, 0.0, 0.5))
            import_dataset(kept, stored, root=root, published=published, progress=taking, say=say)
        kept.unlink()
    return root / stored


def _parsed(name: str) -> tuple[str, int]:
    """Take ``medmnist/NAME@SIZE`` apart."""
    key, _, size = name.removeprefix(PREFIX).partition("@")
    for kind, why in _NOT_HERE.items():
        if key.startswith(kind) and (key == "chestmnist" or key.endswith("3d")):
            raise ConfigError(
                f"{key} {why}.", "Import it yourself: a CSV with one label per image."
            )
    if key not in SETS:
        near = difflib.get_close_matches(key, SETS, n=2, cutoff=0.5) or SETS
        raise ConfigError(f"MedMNIST has no {key!r}.", f"Did you mean {' or '.join(near)}?")
    if size and size not in map(str, SIZES):
        raise ConfigError(
            f"{key} has no {size!r} pixels.", f"Give one of {', '.join(map(str, SIZES))}."
        )
    return key, int(size or SIZES[0])


def _check_present(folder: Path, published: Published) -> None:
    """Accept what is there if it is whole and was imported from the published file."""
    account = Intake.read(folder)
    if account is None or account.source != published.source:
        raise DataError(
            f"{folder} holds another data set.", "Rename or remove that folder, then fetch again."
        )
    for split in SPLITS:
        verify(folder / split)


def _check_own(path: Path, md5: str, address: str, progress: Progress) -> None:
    try:
        check_regular(path)
        with path.open("rb") as file:
            found = _md5(file, progress)
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({reason(error)}).", f"Name a copy of {address}."
        ) from None
    if found != md5:
        raise DownloadError(
            f"{path} is not the published file: its MD5 is {found}, not {md5}.",
            f"Get {address} again, on any machine.",
        )


def _md5(file: BinaryIO, progress: Progress = silent) -> str:
    state = hashlib.md5(usedforsecurity=False)  # no other sum is published
    size = os.fstat(file.fileno()).st_size
    file.seek(0)
    while chunk := file.read(_CHUNK):
        state.update(chunk)
        progress("checking the MD5 sum", file.tell() / max(size, 1))
    return state.hexdigest()


@contextmanager
def _network(address: str) -> Iterator[None]:
    try:
        yield
    except (OSError, HTTPException) as error:
        raise DownloadError(
            f"{address} cannot be had ({reason(error)}).",
            f"Type the same command again to go on. {_BY_HAND}",
        ) from None


def _opened(address: str, start: int) -> HTTPResponse:
    """Ask for the bytes from ``start`` on; a server may send all of them."""
    request = urllib.request.Request(address)
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        answer: HTTPResponse = urllib.request.urlopen(request, timeout=_SECONDS)
    except urllib.error.HTTPError as error:
        if start and error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return _opened(address, 0)
        raise
    return answer


def _download(address: str, file: BinaryIO, md5: str, progress: Progress) -> None:
    """Bring the rest of a file; DownloadError leaves what has come for the next try."""
    done = file.seek(0, os.SEEK_END)
    if done and _md5(file) == md5:
        return
    with _network(address):
        answer = _opened(address, done)
    with answer:
        if answer.status != HTTPStatus.PARTIAL_CONTENT:
            done = 0
        file.seek(done)
        file.truncate()
        length = answer.headers["Content-Length"]
        total = done + int(length) if length else None
        while True:
            with _network(address):
                chunk = answer.read(_CHUNK)
            if not chunk:
                break
            file.write(chunk)
            done += len(chunk)
            progress(f"{address}: {done >> 20} MB", done / total if total else None)
    file.flush()
    if total is not None and done < total:
        raise DownloadError(
            f"{address} ended after {done} of {total} bytes.",
            f"Type the same command again to go on. {_BY_HAND}",
        )
    if (found := _md5(file)) != md5:
        file.truncate(0)
        raise DownloadError(
            f"{address} is not what is published: its MD5 is {found}, not {md5}.", _BY_HAND
        )
