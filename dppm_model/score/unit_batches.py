"""Units in batches: from a site's images to the clipped integer vectors of the sampled units.

Images are read block by block, and only those of the records that a unit answers through.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from dppm_model.errors import ModelError
from dppm_model.mechanism.quantize import Grid
from dppm_model.mechanism.units import clipped_units
from dppm_model.records.units import Choice, Units
from dppm_model.score.query import Query

Answer = TypeVar("Answer")
BLOCK = 1024  # records whose images are in memory at a time, at most
_BLOCK_BYTES = 1 << 27  # of them, as floats
_WHOLE = 64  # records that chunks are made of


class UnitBatches:
    """A question to some of a site's units, asked in batches.

    Parameters
    ----------
    units, query, grid
        All units of the site, the question, and the grid to clip and round vectors by.
    sampled, seeds
        (n,) int64, the sampled units, and a secret seed for each.
    """

    def __init__(
        self,
        units: Units,
        query: Query,
        grid: Grid,
        sampled: NDArray[np.int64],
        seeds: NDArray[np.int64],
    ) -> None:
        self._units, self._query, self._grid = units, query, grid
        self._sampled, self._seeds = sampled, seeds
        self._block = block_of(units.records.manifest.shape)

    def total(self) -> NDArray[np.int64]:
        """Return the sum of the units' clipped integer vectors, (d,)."""
        return sum(self.map(self._sum), np.zeros(self._query.dimension, dtype=np.int64))

    def vectors(self, part: slice) -> Iterator[torch.Tensor]:
        """Yield the clipped vectors of some of the units, one by one: (1, d) integers, float64."""
        chosen = self._units.choose(self._sampled[part], self._seeds[part])
        return clipped_units(self._rows(chosen), chosen.counts.tolist(), self._grid)

    def map(self, ask: Callable[[slice], Answer]) -> list[Answer]:
        """Ask all units in blocks, none of which divides a person; see `map_blocks`."""
        return map_blocks(ask, len(self._sampled), max(1, self._block // self._units.most))

    def _sum(self, part: slice) -> NDArray[np.int64]:
        if self._units.most == 1:  # the vector of one record can be clipped without forming it
            chosen = self._units.choose(self._sampled[part], self._seeds[part])
            x, y, seeds = self._seen(chosen, slice(None))
            return self._query.clipped_sum(x, y, self._grid, seeds)
        query = self._query
        total = torch.zeros((1, query.dimension), dtype=torch.float64, device=query.device)
        for vector in self.vectors(part):
            total += vector  # exact: integers below 2^53
        return self._grid.whole(total[0], len(self._sampled[part]))

    def _rows(self, chosen: Choice) -> Iterator[torch.Tensor]:
        """Yield the vectors of chosen records; in pieces, since a person may own any number."""
        for start in range(0, len(chosen.records), self._block):
            yield from self._query.rows(*self._seen(chosen, slice(start, start + self._block)))

    def _seen(
        self, chosen: Choice, piece: slice
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the views, labels and seeds of records."""
        index, seeds = chosen.records[piece], torch.from_numpy(chosen.seeds[piece])
        records = self._units.records
        y = torch.from_numpy(records.labels[index].astype(np.int64))
        return self._query.view(records.pixels(index), seeds), y.to(self._query.device), seeds


def block_of(shape: tuple[int, int, int]) -> int:
    """Return how many images of a shape (C, H, W) are in memory at a time.

    It depends on their size only: memory that grew with the number of sampled units would reveal
    that number when a machine ran out of it.
    """
    fit = max(1, min(BLOCK, _BLOCK_BYTES // (4 * math.prod(shape))))
    return fit // _WHOLE * _WHOLE or fit


def try_question(query: Query, grid: Grid, shape: tuple[int, int, int]) -> None:
    """Try a question on one grey image before anything is spent.

    Otherwise a question that always fails would cost a round, and the time it takes to fail, unit
    by unit, would reveal how many were sampled.

    Raises
    ------
    ModelError
        If the question fails.
    """
    seeds, grey = torch.zeros(1, dtype=torch.int64), np.full((1, *shape), 128, dtype=np.uint8)
    try:
        y = torch.zeros_like(seeds, device=query.device)
        query.clipped_sum(query.view(grey, seeds), y, grid, seeds)
    except Exception as error:
        raise ModelError(
            f"The server's question cannot be answered: {error!r:.200}.",
            "Ask the server's operator.",
        ) from error


def map_blocks(ask: Callable[[slice], Answer], units: int, block: int) -> list[Answer]:
    """Ask units block by block; if a block fails, ask each alone and leave out those that fail.

    A server that chooses the model could make a question fail on certain records, and learn from
    the failure whether one was sampled. A unit's vector does not depend on its batch
    (`dppm_model.mechanism.fixed_batches`), so leaving one out changes no other.
    """
    found = []
    for start in range(0, units, block):
        stop = min(start + block, units)
        try:
            found.append(ask(slice(start, stop)))
        except Exception:
            for i in range(start, stop):
                with contextlib.suppress(Exception):
                    found.append(ask(slice(i, i + 1)))
    return found
