"""The integer grid: every record's vector is clipped and becomes a vector of integers.

A float sum of clipped records can move by more than C when one record is added (Casacuberta et al.
2022), an integer sum cannot. The claim that the privacy proof uses is made here and checked here: a
record adds integers whose L2 norm is at most G = `steps`, always.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

_HAIR = 1 - 2.0**-20  # float arithmetic may get norms and products wrong in the last bits
_CACHED_ELEMENTS = 1 << 17  # of a block of rows: five passes over it stay in the cache


@dataclass(frozen=True)
class Grid:
    """Clip to L2 norm C and round to multiples of C/G.

    Attributes
    ----------
    clip_norm
        C, in units of the record's vector.
    steps
        G, at most 2^24 (then every integer is exact in float32, every square in float64). The
        rotation multiplies norms by sqrt(block) and a site sums n records, so coordinates stay
        below n·G·sqrt(block), far inside int64 for n < 2^24 records and blocks < 2^30.
    """

    clip_norm: float
    steps: int

    def quantise(self, vectors: torch.Tensor) -> torch.Tensor:
        """Clip and round each row.

        Rounding is towards zero, which can only shorten a vector. A row that is not finite becomes
        zero, and so does, should float arithmetic ever fail us, a row that is still too long.

        Parameters
        ----------
        vectors
            (n, d) float32 (in float64 no square of theirs overflows).

        Returns
        -------
        (n, d) float64 holding integers; each row's norm is at most `steps`, exactly. Sums of fewer
        than 2^29 of them are exact, in any order.
        """
        rows = vectors.to(torch.float64, copy=True)
        norm = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
        rows.mul_(self.steps * _HAIR / norm.clamp(min=self.clip_norm)).trunc_()
        # Up to 2^53 the sum of squares is exact, and a sum above G² has a root above G.
        fits = torch.linalg.vector_norm(rows, dim=1, keepdim=True) <= self.steps
        return rows.masked_fill_(~fits, 0.0)

    def sum(self, chunks: Iterable[torch.Tensor]) -> NDArray[np.int64]:
        """Sum the quantised rows of all chunks, (n_i, d) each, at least one: (d,) int64."""
        total = torch.zeros((), dtype=torch.float64)
        for chunk in chunks:
            for rows in torch.split(chunk, max(1, _CACHED_ELEMENTS // chunk.shape[1])):
                total = total + self.quantise(rows).sum(dim=0)
        return total.to(torch.int64).numpy()

    def to_float(self, total: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return an integer sum in units of the record's vector."""
        return total.astype(np.float64) * (self.clip_norm / self.steps)
