"""A shard folder: images and labels that open memory-mapped, and a manifest that describes them.

manifest.json  images.npy (uint8 n,C,H,W)  labels.npy (int64)  persons.npy (int64, optional)

`dppm_model.records.writing` makes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dppm_model.errors import DataError
from dppm_model.reading import check_regular, read_array, read_json, reading


@dataclass(frozen=True)
class Manifest:
    """The description of a shard folder."""

    name: str
    split: str
    shape: tuple[int, int, int]  # (C, H, W) of an image
    classes: tuple[str, ...]  # names of the classes, in the order of the labels
    count: int
    persons: bool  # whether every record names a person
    digest: str  # SHA-256 of shape and decoded content: the same for every file format


@dataclass(frozen=True)
class Records:
    """Images with labels, on disk; ``index`` selects some of them without reading any."""

    manifest: Manifest
    all_images: NDArray[np.uint8]
    all_labels: NDArray[np.int64]
    all_persons: NDArray[np.int64] | None
    index: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.all_labels) if self.index is None else len(self.index)

    @property
    def images(self) -> NDArray[np.uint8]:
        """(n, C, H, W) images: memory-mapped if nothing was selected, else read into memory."""
        return self.all_images if self.index is None else self.pixels(np.arange(len(self)))

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
        """Return a view of some of these records; indices count within this view.

        Raises DataError if an index is not a whole number, lies outside, or occurs twice.
        """
        chosen = np.asarray(index)
        if chosen.ndim != 1 or not np.issubdtype(chosen.dtype, np.integer):
            raise DataError(
                f"The index into {self.manifest.name} is {chosen.dtype} of shape {chosen.shape}.",
                "Give record numbers, (k,) integers; np.flatnonzero makes them from a mask.",
            )
        if chosen.size and not (chosen.min() >= 0 and chosen.max() < len(self)):
            raise DataError(
                f"An index of {self.manifest.name} lies outside its {len(self)} records.",
                "Make the split again: the data set has changed.",
            )
        # A record that came twice would move the sum by 2C, and the sensitivity would be wrong.
        if len(np.unique(chosen)) != len(chosen):
            raise DataError(
                f"The index into {self.manifest.name} names a record twice.",
                "Make the split again, with each record once.",
            )
        own = chosen.astype(np.int64) if self.index is None else self.index[chosen]
        return Records(self.manifest, self.all_images, self.all_labels, self.all_persons, own)

    def pixels(self, index: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
        """Read the images at ``index`` into memory: uint8 (k, C, H, W)."""
        return np.asarray(self.all_images[index if self.index is None else self.index[index]])


def open_records(path: Path) -> Records:
    """Open a shard folder in milliseconds, without reading its images.

    Raises DataError if files are missing, damaged, or do not fit the manifest.
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
                f"{path / name} holds {array.dtype} {array.shape}, but the manifest says {shape}.",
                hint,
            )
    if labels.min() < 0 or labels.max() >= len(manifest.classes):
        raise DataError(f"{path / 'labels.npy'} has labels without a class.", hint)
    return Records(manifest, images, labels, persons)
