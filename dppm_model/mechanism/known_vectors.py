"""Vectors that are at hand, for auditors, tests and examples; a site has `UnitBatches`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

T = TypeVar("T")


class KnownVectors:
    """`dppm_model.mechanism.base.Vectors` that are at hand, (n, dimension) integers."""

    def __init__(self, vectors: NDArray[np.int64]) -> None:
        self._vectors = vectors

    def total(self) -> NDArray[np.int64]:
        """Return their sum."""
        total: NDArray[np.int64] = self._vectors.sum(axis=0)
        return total

    def vectors(self, part: slice) -> Iterator[torch.Tensor]:
        """Yield some of them."""
        for row in self._vectors[part].astype(np.float64):
            yield torch.from_numpy(row[None])

    def map(self, ask: Callable[[slice], T]) -> list[T]:
        """Ask all at once."""
        return [ask(slice(0, len(self._vectors)))]
