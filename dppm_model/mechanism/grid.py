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

_HAIR = 1 - 2.0**-20  # float32 may get norms and products wrong in the last bits


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
            (n, d) float32.

        Returns
        -------
        (n, d) float64 holding integers; each row's norm is at most `steps`, exactly. Sums of fewer
        than 2^29 of them are exact, in any order.
        """
        longest = vectors.abs().amax(dim=1, keepdim=True)
        finite = torch.isfinite(longest)
        # Divided by the largest entry first: squares of huge entries would overflow.
        longest = longest.clamp(min=1e-30)
        direction = vectors / longest
        norm = torch.linalg.vector_norm(direction, dim=1, keepdim=True)
        shortened = direction * (self.steps * _HAIR / torch.maximum(norm, self.clip_norm / longest))
        rounded = torch.where(finite, shortened, 0.0).trunc().double()
        fits = rounded.square().sum(dim=1, keepdim=True) <= float(self.steps) ** 2
        return torch.where(fits, rounded, 0.0)

    def sum(self, chunks: Iterable[torch.Tensor]) -> NDArray[np.int64]:
        """Sum the quantised rows of all chunks, (n_i, d) each, at least one: (d,) int64."""
        total: torch.Tensor = sum(self.quantise(chunk).sum(dim=0) for chunk in chunks)  # type: ignore[assignment]
        return total.to(torch.int64).numpy()

    def to_float(self, total: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return an integer sum in units of the record's vector."""
        return total.astype(np.float64) * (self.clip_norm / self.steps)
