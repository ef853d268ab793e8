"""Chunks of a constant number of records, so that a record's numbers do not depend on its batch.

The size of a matrix product decides its order of summation: the same record in batches of 7 and 8
gives floats that differ in the last bits, and integers that differ by one. One more record would
then change the vectors of others, and the sum by more than C. In chunks of one size it does not
(tests/privacy/test_fixed_batches.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch


def fixed_batches(records: Sequence[torch.Tensor], size: int) -> Iterator[tuple[torch.Tensor, ...]]:
    """Yield chunks of exactly ``size`` records; the last is padded with records that count zero.

    ``records`` are tensors with the records in their first axis, at least one of them floating.
    Yields slices of all tensors. The padding is NaN (0 in integer tensors), since the grid turns
    every
        vector that is not finite into zero.
    """
    n = len(records[0])
    for start in range(0, n, size):
        yield tuple(_filled(t[start : start + size], size) for t in records)


def _filled(rows: torch.Tensor, size: int) -> torch.Tensor:
    missing = size - len(rows)
    if not missing:
        return rows
    blank = torch.nan if rows.is_floating_point() else 0
    return torch.cat([rows, rows.new_full((missing, *rows.shape[1:]), blank)])
