"""A shard folder: images and labels that open memory-mapped, and a manifest that describes them.

manifest.json  images.npy (uint8 n,C,H,W)  labels.npy (int64)  persons.npy (int64, optional)

`dppm_model.records.writing` makes it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dppm_model.errors import DataError
from dppm_model.reading import check_regular, read_array, read_json, reading
from dppm_model.records.view import Manifest, Records

__all__ = ["Manifest", "Records", "digest", "open_records", "verify"]

_CHUNK_BYTES = 2**24


def digest(
    shape: tuple[int, ...],
    images: Iterable[NDArray[np.uint8]],
    labels: NDArray[np.int64],
    persons: NDArray[np.int64] | None,
) -> str:
    """Return the content's SHA-256; ``images`` may come in any chunks."""
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


def open_records(path: Path) -> Records:
    """Open a shard folder in milliseconds, without reading its images.

    Raises
    ------
    DataError
        If files are missing, damaged, or do not fit the manifest.
    """
    hint = "Fetch or import the data set again."
    with reading(f"the shard folder {path}", DataError, hint):
        raw = read_json(path / "manifest.json")
        manifest = Manifest(
            **{**raw, "shape": tuple(raw["shape"]), "classes": tuple(raw["classes"])}
        )
        check_regular(path / "images.npy")
        images = np.lib.format.open_memmap(path / "images.npy", mode="r")
        labels = read_array(path / "labels.npy")
        persons = read_array(path / "persons.npy") if manifest.persons else None
    count = (manifest.count,)
    for name, array, shape, dtype in (
        ("images.npy", images, (*count, *manifest.shape), np.uint8),
        ("labels.npy", labels, count, np.int64),
        ("persons.npy", persons, count, np.int64),
    ):
        if array is not None and (array.shape != shape or array.dtype != dtype):
            raise DataError(
                f"{path / name} holds {array.dtype} {array.shape}, the manifest says {shape}.", hint
            )
    if labels.min() < 0 or labels.max() >= len(manifest.classes):
        raise DataError(f"{path / 'labels.npy'} has labels that name no class.", hint)
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
        records.manifest.shape,
        in_chunks(records.all_images),
        records.all_labels,
        records.all_persons,
    )
    if found != records.manifest.digest:
        raise DataError(
            f"{path}: the content has changed since it was written.",
            "Fetch or import the data set again.",
        )
