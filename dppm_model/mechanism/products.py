"""Matrix products on records in which a row's result does not depend on its place.

A matrix library chooses a kernel by the sizes of a product and by the alignment of its operands. In
a product of 7 columns, rows 5 and 6 may be summed in different orders: the last bits of a record's
floats then depend on its place in a chunk, and so on the other sampled records. One more record
would change the integers of others, and the sum by more than C.

So all questions to records multiply matrices through this module only:

- `rows_by`: rows of many records by one matrix. All three sizes are padded with zeros to
  multiples of `TILE`, so that every row lies in a whole tile of any kernel.
- `each`: a product for each record. Sizes are padded to multiples of `STEP`, so that every
  record's matrix begins at a multiple of 64 bytes: same sizes, same alignment, same code.
- `Linear`: a layer by `rows_by`, forwards and backwards.

The padding only changes which kernel runs. Sums along a row, elementwise functions and convolutions
treat all records alike anyway. The libraries promise none of this, so a site tests it on its own
machine before it answers (`dppm_model.batch_invariance`).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

TILE = 16
STEP = 4
_LINE = 64  # bytes


def rows_by(x: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """Multiply rows x (..., k), of any number of records, by a matrix (k, c): (..., c).

    Every row by the same operations (Lemma 15).
    """
    rows = x.flatten(0, -2)
    n, columns = len(rows), matrix.shape[1]
    turned = matrix.stride()[-1] != 1  # W of a layer, seen as Wᵀ: no copy is needed
    other = _filled(matrix.T, TILE).T if turned else _filled(matrix, TILE)
    product = _filled(rows, TILE) @ other
    return product[:n, :columns].reshape(*x.shape[:-1], columns)


def each(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Multiply two matrices for each record: (n, p, k) by (n, k, q) is (n, p, q)."""
    product = torch.bmm(_filled(a, STEP), _filled(b, STEP))
    return product[:, : a.shape[1], : b.shape[2]]


def gram(a: torch.Tensor) -> torch.Tensor:
    """Return the inner products of each record's rows: (n, t, k) to (n, t, t)."""
    if a.shape[1] <= STEP:  # too few to be worth padding
        return (a[:, :, None] * a[:, None]).sum(dim=3)
    return each(a, a.transpose(1, 2))


def sides(left: torch.Tensor, x: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Return left · image · rightᵀ for each channel of images (n, C, H, W): (n, C, h, w).

    ``left`` is (h, H), ``right`` (w, W).
    """
    n, c = x.shape[:2]
    channels = x.flatten(0, 1)
    half = each(left.expand(n * c, -1, -1), channels)
    whole = each(half, right.T.expand(n * c, -1, -1))
    return whole.reshape(n, c, *whole.shape[1:])


class Linear(nn.Linear):
    """`torch.nn.Linear` for records; see the module."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x Wᵀ + b for rows x (..., in): (..., out)."""
        out = rows_by(x, self.weight.T)
        return out if self.bias is None else out + self.bias


def _filled(x: torch.Tensor, size: int) -> torch.Tensor:
    """Pad the last two sizes to multiples of ``size``; each matrix begins a cache line.

    PyTorch's own memory begins one. (NumPy's need not, but arrays from it were copied before.)
    """
    rows, columns = x.shape[-2:]
    missing = (0, -columns % size, 0, -rows % size)
    if any(missing):
        return functional.pad(x, missing)
    begins = (x.storage_offset(), *x.stride()[:-2])
    if x.stride()[-2:] == (columns, 1) and all(b * x.itemsize % _LINE == 0 for b in begins):
        return x
    return x.clone(memory_format=torch.contiguous_format)
