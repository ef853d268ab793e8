"""A shard folder: images and labels that open memory-mapped, and a manifest that describes them.

manifest.json  images.npy (uint8 n,C,H,W)  labels.npy (int64)  persons.npy (int64, optional)
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dppm_model.errors import DataError
from dppm_model.files import write_json

_CHUNK = 4096


@dataclass(frozen=True)
class Manifest:
    """What a shard folder holds.

    Attributes
    ----------
    shape
        (C, H, W) of an image.
    classes
        Names of the classes, in the order of the labels.
    persons
        Whether every record names a person.
    digest
        SHA-256 of shape and decoded content: the same whatever file format it came from.
    """

    name: str
    split: str
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    count: int
    persons: bool
    digest: str


@dataclass(frozen=True)
class Records:
    """Images with labels, on disk; ``index`` selects some of them without reading any."""

    manifest: Manifest
    images: NDArray[np.uint8]
    all_labels: NDArray[np.int64]
    all_persons: NDArray[np.int64] | None
    index: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.all_labels) if self.index is None else len(self.index)

    @property
    def labels(self) -> NDArray[np.int64]:
        """(n,) labels of the selected records."""
        return self.all_labels if self.index is None else self.all_labels[self.index]

    @property
    def persons(self) -> NDArray[np.int64] | None:
        """(n,) person numbers of the selected records, if there are persons."""
        if self.all_persons is None or self.index is None:
            return self.all_persons
        return self.all_persons[self.index]

    def select(self, index: NDArray[np.integer[Any]]) -> Records:
        """Return a view of some of these records; indices count within this view."""
        chosen = np.asarray(index, dtype=np.int64)
        if chosen.size and not (chosen.min() >= 0 and chosen.max() < len(self)):
            raise DataError(
                f"An index of {self.manifest.name} lies outside its {len(self)} records.",
                "Make the split anew; the data set has changed.",
            )
        own = chosen if self.index is None else self.index[chosen]
        return Records(self.manifest, self.images, self.all_labels, self.all_persons, own)

    def pixels(self, index: NDArray[np.integer[Any]] | None = None) -> NDArray[np.uint8]:
        """Read images (k, C, H, W) into memory: those at ``index``, or all."""
        if index is None:
            return np.asarray(self.images if self.index is None else self.images[self.index])
        return np.asarray(self.images[index if self.index is None else self.index[index]])


def digest(
    shape: tuple[int, ...],
    images: Iterable[NDArray[np.uint8]],
    labels: NDArray[np.int64],
    persons: NDArray[np.int64] | None,
) -> str:
    """Return the content's SHA-256; ``images`` may come in any chunks."""
    state = hashlib.sha256(json.dumps([*shape, len(labels), persons is not None]).encode())
    for chunk in images:
        state.update(np.ascontiguousarray(chunk).tobytes())
    state.update(labels.astype("<i8").tobytes())
    if persons is not None:
        state.update(persons.astype("<i8").tobytes())
    return state.hexdigest()


def _chunks(images: NDArray[np.uint8]) -> Iterable[NDArray[np.uint8]]:
    return (images[i : i + _CHUNK] for i in range(0, len(images), _CHUNK))


def write_records(
    path: Path,
    images: NDArray[np.uint8] | Iterable[NDArray[np.uint8]],
    labels: NDArray[Any],
    *,
    name: str,
    split: str,
    classes: Iterable[str],
    persons: NDArray[Any] | None = None,
) -> Manifest:
    """Write a shard folder atomically, replacing one that is there.

    Parameters
    ----------
    images
        uint8 (n, C, H, W), or an iterable of such chunks for sets that do not fit into memory.

    Raises
    ------
    DataError
        If images and labels do not fit together, or anything is empty or out of range.
    """
    names = tuple(classes)
    labels = _checked_labels(name, labels, len(names))
    if persons is not None and len(persons) != len(labels):
        raise DataError(f"{name}: {len(persons)} persons for {len(labels)} labels.", "Match them.")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        shape = _write_images(temporary / "images.npy", name, images, len(labels))
        np.save(temporary / "labels.npy", labels)
        owners = None if persons is None else np.asarray(persons, dtype=np.int64)
        if owners is not None:
            np.save(temporary / "persons.npy", owners)
        stored = np.load(temporary / "images.npy", mmap_mode="r")
        found = digest(shape, _chunks(stored), labels, owners)
        manifest = Manifest(name, split, shape, names, len(labels), owners is not None, found)
        write_json(temporary / "manifest.json", asdict(manifest))
        shutil.rmtree(path, ignore_errors=True)
        temporary.replace(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return manifest


def _checked_labels(name: str, labels: NDArray[Any], classes: int) -> NDArray[np.int64]:
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.size == 0:
        raise DataError(f"{name}: labels have shape {labels.shape}.", "Give one label per image.")
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() >= classes:
        raise DataError(
            f"{name}: labels are not whole numbers from 0 to {classes - 1}.",
            "Number the classes from 0 and name each.",
        )
    return labels.astype(np.int64)


def _write_images(
    path: Path, name: str, images: NDArray[np.uint8] | Iterable[NDArray[np.uint8]], count: int
) -> tuple[int, int, int]:
    chunks = _chunks(images) if isinstance(images, np.ndarray) else iter(images)
    target: np.memmap[Any, np.dtype[np.uint8]] | None = None
    done = 0
    for chunk in chunks:
        if chunk.ndim != 4 or chunk.dtype != np.uint8:
            raise DataError(
                f"{name}: images are {chunk.dtype} of shape {chunk.shape}, not uint8 (n,C,H,W).",
                "Convert them to 8-bit grey (C=1) or RGB (C=3).",
            )
        if target is None:
            target = np.lib.format.open_memmap(
                path, mode="w+", dtype=np.uint8, shape=(count, *chunk.shape[1:])
            )
        if chunk.shape[1:] != target.shape[1:] or done + len(chunk) > count:
            raise DataError(
                f"{name}: images of shape {chunk.shape[1:]} beside {target.shape[1:]}, or more "
                f"than {count} of them.",
                "All images need one shape and one label each.",
            )
        target[done : done + len(chunk)] = chunk
        done += len(chunk)
    if target is None or done != count:
        raise DataError(f"{name}: {done} images for {count} labels.", "Give one label per image.")
    c, h, w = target.shape[1:]
    target.flush()
    return int(c), int(h), int(w)


def open_records(path: Path) -> Records:
    """Open a shard folder in milliseconds, without reading its images.

    Raises
    ------
    DataError
        If files are missing, damaged, or do not fit the manifest.
    """
    try:
        raw = json.loads((path / "manifest.json").read_text())
        manifest = Manifest(
            **{**raw, "shape": tuple(raw["shape"]), "classes": tuple(raw["classes"])}
        )
        images = np.load(path / "images.npy", mmap_mode="r")
        labels = np.load(path / "labels.npy")
        persons = np.load(path / "persons.npy") if manifest.persons else None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{path} is no readable shard folder ({error}).", "Fetch or import the data set again."
        ) from None
    if (
        images.shape != (manifest.count, *manifest.shape)
        or images.dtype != np.uint8
        or labels.shape != (manifest.count,)
        or (persons is not None and persons.shape != (manifest.count,))
        or labels.min(initial=0) < 0
        or labels.max(initial=0) >= len(manifest.classes)
    ):
        raise DataError(
            f"{path}: images {images.shape} or labels {labels.shape} do not fit the manifest.",
            "Fetch or import the data set again.",
        )
    return Records(manifest, images, labels, persons)


def verify(path: Path) -> None:
    """Recompute the digest of a shard folder.

    Raises
    ------
    DataError
        If the content is not what the manifest says.
    """
    records = open_records(path)
    found = digest(
        records.manifest.shape, _chunks(records.images), records.all_labels, records.all_persons
    )
    if found != records.manifest.digest:
        raise DataError(
            f"{path}: the content has changed since it was written.",
            "Fetch or import the data set again.",
        )
