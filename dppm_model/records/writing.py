"""Writing a shard folder: checked, written beside its place, then renamed (`replacing`)."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dppm_model.errors import DataError
from dppm_model.files import sync, write_json
from dppm_model.folders import remove
from dppm_model.locks import lock
from dppm_model.records.shards import Manifest, open_records

Images = NDArray[np.uint8] | Iterable[NDArray[np.uint8]]
_CHUNK_BYTES = 2**23
_FILES = {"manifest.json", "images.npy", "labels.npy", "persons.npy"}


def digest(
    shape: tuple[int, ...],
    images: Iterable[NDArray[np.uint8]],
    labels: NDArray[np.int64],
    persons: NDArray[np.int64] | None,
) -> str:
    """Return the SHA-256 of the content; ``images`` may come in any chunks."""
    state = hashlib.sha256(json.dumps([*shape, len(labels), persons is not None]).encode())
    for chunk in images:
        state.update(np.ascontiguousarray(chunk).data)
    state.update(labels.astype("<i8").tobytes())
    if persons is not None:
        state.update(persons.astype("<i8").tobytes())
    return state.hexdigest()


def in_chunks(images: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    """Yield images (n, C, H, W) some at a time."""
    step = max(1, _CHUNK_BYTES // max(1, math.prod(images.shape[1:])))
    return (images[i : i + step] for i in range(0, len(images), step))


def write_records(
    path: Path,
    images: Images,
    labels: NDArray[Any],
    *,
    name: str,
    split: str,
    classes: Iterable[str],
    persons: NDArray[Any] | None = None,
) -> Manifest:
    """Write a shard folder atomically, replacing a shard folder that is there.

    Raises DataError if images, labels and persons do not fit together, anything is empty or out of
    range, or ``path`` is something other than a shard folder.

    Parameters
    ----------
    images
        uint8 (n, C, H, W), or an iterable of such chunks for sets that do not fit into memory.
    labels
        (n,) whole numbers, 0 to classes - 1.
    persons
        (n,) whole numbers from 0, the person of each record.
    """
    names = tuple(classes)
    own_labels = _whole_numbers(name, "labels", labels)
    if own_labels.max() >= len(names):
        raise DataError(
            f"{name}: label {own_labels.max()} is beyond the last of {len(names)} classes.",
            "Number the classes from 0 and name each.",
        )
    owners = None if persons is None else _whole_numbers(name, "persons", persons)
    if owners is not None and len(owners) != len(own_labels):
        raise DataError(
            f"{name}: {len(owners)} persons for {len(own_labels)} labels.",
            "Name one person per image.",
        )
    if path.is_file() or (path.is_dir() and {p.name for p in path.iterdir()} - _FILES):
        raise DataError(f"{path} exists and is not a shard folder.", "Name another folder.")
    try:
        with replacing(path) as made:
            made.mkdir()
            shape = _write_images(made / "images.npy", name, images, len(own_labels))
            np.save(made / "labels.npy", own_labels)
            if owners is not None:
                np.save(made / "persons.npy", owners)
            # The digest is of the content on disk, read back.
            found = digest(shape, _stored(made / "images.npy", shape), own_labels, owners)
            persons_named = owners is not None
            manifest = Manifest(name, split, shape, names, len(own_labels), persons_named, found)
            write_json(made / "manifest.json", asdict(manifest))
            for file in made.iterdir():
                sync(file)
    except OSError as error:
        raise DataError(
            f"{path} could not be written ({error.strerror}).",
            "Free disk space, or set DPPM_DATA to another folder.",
        ) from None
    return manifest


def verify(path: Path) -> None:
    """Recompute the digest of a shard folder.

    Raises DataError if the content is not what the manifest says.
    """
    records = open_records(path)
    found = digest(
        records.manifest.shape,
        _stored(path / "images.npy", records.manifest.shape),
        records.all_labels,
        records.all_persons,
    )
    if found != records.manifest.digest:
        raise DataError(
            f"{path}: the content has changed since it was written.",
            "Fetch or import the data set again.",
        )


def _stored(path: Path, shape: tuple[int, ...]) -> Iterator[NDArray[np.uint8]]:
    """Read images of a shape back, some at a time: a map of them would fill the memory."""
    size = math.prod(shape)
    with path.open("rb") as file:
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        while content := file.read(max(1, _CHUNK_BYTES // size) * size):
            yield np.frombuffer(content, np.uint8)


def _whole_numbers(name: str, what: str, values: NDArray[Any]) -> NDArray[np.int64]:
    values = np.asarray(values)
    if values.ndim != 1 or values.size == 0:
        raise DataError(f"{name}: {what} have shape {values.shape}.", "Give one number per image.")
    if not np.issubdtype(values.dtype, np.integer) or values.min() < 0:
        raise DataError(f"{name}: {what} are not whole numbers from 0.", "Number them from 0.")
    return values.astype(np.int64)


def _write_images(path: Path, name: str, images: Images, count: int) -> tuple[int, int, int]:
    """Write chunk after chunk, without a map: writing to one on a full disk kills the process."""
    shape: tuple[int, ...] = ()
    done = 0
    with path.open("wb") as file:
        for piece in in_chunks(images) if isinstance(images, np.ndarray) else images:
            chunk = np.asarray(piece)
            _check_chunk(name, chunk)
            if not shape:
                shape = chunk.shape[1:]
                header = {"descr": "|u1", "fortran_order": False, "shape": (count, *shape)}
                np.lib.format.write_array_header_1_0(file, header)
            if chunk.shape[1:] != shape:
                raise DataError(
                    f"{name}: images of shapes {chunk.shape[1:]} and {shape}.",
                    "Give all images one size and number of channels.",
                )
            file.write(np.ascontiguousarray(chunk).data)
            done += len(chunk)
    if done != count:
        raise DataError(f"{name}: {done} images for {count} labels.", "Give one label per image.")
    c, h, w = shape
    return c, h, w


def _check_chunk(name: str, chunk: NDArray[Any]) -> None:
    if np.issubdtype(chunk.dtype, np.floating) and not np.isfinite(chunk).all():
        raise DataError(
            f"{name}: images hold pixels that are not finite.", "Repair the images first."
        )
    if chunk.ndim != 4 or chunk.dtype != np.uint8 or 0 in chunk.shape[1:]:
        raise DataError(
            f"{name}: images are {chunk.dtype} of shape {chunk.shape}, not uint8 (n,C,H,W).",
            "Convert them to 8-bit grey (C=1) or RGB (C=3).",
        )


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a place for a new folder, which replaces ``path`` when the block ends.

    If the block fails, ``path`` stays as it is. Other processes that want to replace it wait.

    The folder is made in ``.NAME.new``, which every process uses and the next one empties: it may
    hold people's records, which a killed process cannot remove.

    Yields a path that does not exist, in a folder that is the block's own.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    work = path.parent / f".{path.name}.new"
    old, made = work / "old", work / "made"
    with _own(work):
        if old.exists() and not path.exists():  # killed between the two renames
            old.rename(path)
        try:
            for left in work.iterdir():
                remove(left)
            yield made
            if path.exists():
                path.rename(old)
            made.rename(path)
            sync(path.parent)
        finally:
            if path.exists() or not old.exists():  # or all that is left is in there
                shutil.rmtree(work, ignore_errors=True)


@contextmanager
def _own(folder: Path) -> Iterator[None]:
    """Make a folder, or take over that of a dead process, and hold its lock."""
    while True:
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        try:
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # its previous owner has removed it
        try:
            if lock(handle, folder):
                yield
                return
        finally:
            os.close(handle)
