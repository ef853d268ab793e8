"""Clipped integer sums of gradients that are never formed: the Gram trick, exactly.

The gradient of a layer for one record is ``sum_t b_t a_tᵀ`` (`dppm_model.mechanism.gradients`). Its
norm needs inner products of the factors only, ``sum_tu (b_t·b_u)(a_t·a_u)`` (Goodfellow 2015), and
a sum over records is one matrix product. Rounding the *factors* to integers keeps both exact: a
record's gradient is then an integer matrix, its squared norm an integer, and all of it is computed
in float64 on integers below 2^53, where every order of summation gives the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dppm_model.mechanism.products import gram
from dppm_model.mechanism.quantize import Grid

# Rounding the factors changes a norm of G = 2^24 by about 0.1 %; a record that is longer than G
# even so becomes zero.
_MARGIN = 1 - 2.0**-7
# The places of a record may cancel. Their lengths add up to at most this multiple of the clip norm,
# so that sums of squares stay below (5 · 2^24)² < 2^53.
_SLACK = 4.0

Factors = Sequence[tuple[torch.Tensor, torch.Tensor]]


def factored_sum(factors: Factors, grid: Grid) -> list[torch.Tensor]:
    """Sum the clipped, rounded gradients of n records (Lemma 14).

    ``factors`` are, for each layer, a (n, T, in) and b (n, T, out), float32. The clip norm of
    ``grid`` is that of all layers together: short gradients are kept, long ones shortened to 99.2 %
    of it; not finite ones become zero. Returns for each layer (out, in), float64 holding integers.
    A record adds integers of norm at most `grid.steps` over all layers, exactly.
    """
    pairs = [(a.double(), b.double()) for a, b in factors]
    norm, reach = _norms(pairs)
    clip = _MARGIN * torch.minimum(grid.clip_norm / norm, _SLACK * grid.clip_norm / reach)
    factor = torch.where(torch.isfinite(reach), clip.clamp(max=1.0), 0.0)
    rounded = [_rounded(a, b, factor, grid) for a, b in pairs]
    norm, reach = _norms(rounded)
    fits = ((norm <= grid.steps) & (reach <= (_SLACK + 1) * grid.steps))[:, None, None]
    # Both factors become zero where one does not fit: 0 · NaN would be NaN.
    return [_product(*(torch.where(fits, t, 0.0) for t in pair)) for pair in rounded]


def _norms(pairs: Factors) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each record's gradient norm and the sum of its places' norms, both (n,)."""
    square = reach = pairs[0][0].new_zeros(())
    for a, b in pairs:
        inner = gram(a) * gram(b)
        square = square + inner.sum(dim=(1, 2))
        reach = reach + inner.diagonal(dim1=1, dim2=2).sqrt().sum(dim=1)
    return square.clamp(min=0).sqrt(), reach


def _rounded(
    a: torch.Tensor, b: torch.Tensor, factor: torch.Tensor, grid: Grid
) -> tuple[torch.Tensor, torch.Tensor]:
    """Round a/alpha and factor·b/beta, with alpha·beta one grid step and both about equally long.

    Any alpha is right, even one for each record; this one minimises the effect of rounding.
    """
    unit = grid.clip_norm / grid.steps
    b = torch.where(factor[:, None, None] > 0, b * factor[:, None, None], 0.0)
    a = torch.where(factor[:, None, None] > 0, a, 0.0)
    length_a, length_b = (torch.linalg.vector_norm(t, dim=(1, 2), keepdim=True) for t in (a, b))
    alpha = torch.sqrt(unit * length_a.clamp(min=1e-30) / length_b.clamp(min=1e-30))
    return (a / alpha).round_(), (b * (alpha / unit)).round_()


def _product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return b.flatten(0, 1).T @ a.flatten(0, 1)
