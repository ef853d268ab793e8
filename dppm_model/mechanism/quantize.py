"""The integer grid: every record's vector is clipped and becomes a vector of integers.

A float sum of clipped records can change by more than C when one record is added (Casacuberta et
al. 2022); an integer sum cannot. This module makes and checks the claim of the privacy proof
(PRIVACY.md, Lemma 14): a record always adds integers whose L2 norm is at most G = `steps`.

**Why no server can make one record move the sum by more than C.** A server's message affects a
record's *float* vector and nothing after it. C and G come from the plan, finite and above zero, or
there is no `Grid`. If a record's vector is infinite or not a number, every comparison that could
accept it is false, and it adds zeros. Otherwise it is scaled and becomes integers, and the exact
norm of these integers decides whether they or zeros are added: no earlier fault lets too long a
vector pass. From there on only integers exist, below 2^53 in float64, where sums are exact in any
order; and before they become int64 the sum is checked against n·G once more (`Grid.whole`), so that
no cast can wrap. The same holds where a gradient stays in two factors (`mechanism.ghost_clipping`)
and where it is r rᵀ (`score.moments`): the norm compared with G is that of the integers
that are added. `tests/privacy/test_sensitivity.py` tries it on every question, with arrays from the
whole range that a site accepts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dppm_model.bounds import require_within
from dppm_model.errors import PlanError

_HAIR = 1 - 2.0**-20  # float arithmetic may get norms and products wrong in the last bits
MOST_STEPS = 1 << 24
# C: every question scales its vectors (by its own radii, or `clip_share` of a median gradient norm)
# so that they are clipped here.
CLIP_NORM = 1.0
GRID_STEPS = MOST_STEPS  # G of every plan
_CACHED_ELEMENTS = 1 << 17  # of a block of rows: five passes over it stay in the cache


@dataclass(frozen=True)
class Grid:
    """Clip to L2 norm C and round to multiples of C/G.

    Raises PlanError if one of them is out of its range.
    """

    clip_norm: float  # C, in units of the record's vector, 1e-60 to 1e60
    # G, at most 2^24 (then every integer is exact in float32, every square in float64). The
    # rotation multiplies norms by sqrt(block) and a site sums n records, so coordinates stay below
    # n·G·sqrt(block), far inside int64 for n < 2^24 records and blocks < 2^30.
    steps: int

    def __post_init__(self) -> None:
        # A plan's length (`require_length`), or one over a scale, which is within 2^±40.
        require_within("clip_norm", self.clip_norm, 1e-60, 1e60)
        if type(self.steps) is not int or not 1 <= self.steps <= MOST_STEPS:
            raise PlanError(f"The grid has {self.steps} steps.", f"Give 1 to {MOST_STEPS}.")

    def quantize(self, vectors: torch.Tensor) -> torch.Tensor:
        """Clip and round each row, the last step that computes with floats (Lemma 14).

        Rounding is towards zero, which can only shorten a vector. A row that is not finite becomes
        zero, and so does a row that float errors leave too long.

        ``vectors`` are (n, d) float32, so that no square overflows in float64. Returns (n, d)
        float64 holding integers; each row's norm is at most `steps`, exactly. Sums of fewer than
        2^29 of them are exact, in any order.
        """
        rows = vectors.to(torch.float64, copy=True)
        norm = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
        rows.mul_(self.steps * _HAIR / norm.clamp(min=self.clip_norm)).trunc_()
        # Up to 2^53 the sum of squares is exact, and a sum above G² has a root above G.
        fits = torch.linalg.vector_norm(rows, dim=1, keepdim=True) <= self.steps
        return rows.masked_fill_(~fits, 0.0)

    def sum(self, chunks: Iterable[torch.Tensor]) -> NDArray[np.int64]:
        """Sum the quantized rows of all chunks, (n_i, d) each, at least one: (d,) int64."""
        total, n = torch.zeros((), dtype=torch.float64), 0
        for chunk in chunks:
            n += len(chunk)
            for rows in torch.split(chunk, max(1, _CACHED_ELEMENTS // chunk.shape[1])):
                total = total + self.quantize(rows).sum(dim=0)
        return self.whole(total, n)

    def whole(self, total: torch.Tensor, records: int) -> NDArray[np.int64]:
        """Turn a float64 sum of ``records`` integer vectors into int64, in its shape.

        Raises ArithmeticError if it is longer than ``records`` vectors of norm G can be, or NaN:
        some vector was not checked, and the cast could wrap.
        """
        if not float(torch.linalg.vector_norm(total)) <= records * self.steps:
            raise ArithmeticError(
                f"a sum of {records} vectors is longer than their clipping allows"
            )
        return total.to(torch.int64).cpu().numpy()

    def to_float(self, total: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return an integer sum in units of the record's vector."""
        return total.astype(np.float64) * (self.clip_norm / self.steps)
