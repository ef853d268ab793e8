"""Records as code sees them: images and labels that are looked at, not copied."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dppm_model.errors import DataError


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

        Raises
        ------
        DataError
            If an index is no whole number, lies outside, or comes twice.
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
                "Make the split anew; the data set has changed.",
            )
        # A record that came twice would move the sum by 2C: the sensitivity would be wrong.
        if len(np.unique(chosen)) != len(chosen):
            raise DataError(
                f"The index into {self.manifest.name} names a record twice.",
                "Make the split anew, each record once.",
            )
        own = chosen.astype(np.int64) if self.index is None else self.index[chosen]
        return Records(self.manifest, self.all_images, self.all_labels, self.all_persons, own)

    def pixels(self, index: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
        """Read the images at ``index`` into memory: uint8 (k, C, H, W)."""
        return np.asarray(self.all_images[index if self.index is None else self.index[index]])
