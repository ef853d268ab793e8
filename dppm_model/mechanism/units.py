"""A unit's vector: the mean over its records, clipped once.

A person's records are averaged *before* clipping, so that a person, whether they own one record or
half of a shard, adds one vector of norm at most C: the sensitivity of one unit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch

from dppm_model.mechanism.quantize import Grid


def clipped_units(
    rows: Iterable[torch.Tensor], counts: Sequence[int], grid: Grid
) -> Iterator[torch.Tensor]:
    """Yield each unit's clipped integer vector (Lemma 13).

    The order of operations is the same in any batch: a unit's rows are added one after the other,
    and it is clipped and rounded by itself. A reduction over many units at once may sum in an order
    that depends on their number, and so change the integers of others (`mechanism.fixed_batches`).

    ``rows`` (n_i, d) float32 are the vectors of the records before clipping, unit by unit, in any
    pieces; ``counts`` says how many records each unit has, at least one. Yields (1, d) float64
    holding integers, of norm at most ``grid.steps``; zero if any record of the unit is not finite.
    """
    each = (row for piece in rows for row in piece)
    for count in counts:
        total = next(each).to(torch.float64, copy=True)
        for _ in range(count - 1):
            total += next(each)
        yield grid.quantize(total[None] / count)
