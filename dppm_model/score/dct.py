"""The orthonormal cosine basis (DCT-II) in which the closed-form score is written.

Natural images and drawings have nearly uncorrelated cosine coefficients with variances that fall
like 1/frequency² (Field 1987, "Relations between the statistics of natural images") or a little
faster (`tests/benchmarks/spectra.py`). That public fact replaces any look at private data: it
orders the coefficients, whitens the first questions, and fills what the noise has covered. Over
three channels the basis is an opponent colour space: mean brightness, red against blue, and green
against both (Ruderman, Cronin and Chiao 1998).
"""

from __future__ import annotations

import math

import torch
from torch import nn

from dppm_model.mechanism.products import sides

# Colour differences have at most this part of the variance of brightness at the same frequency (in
# photographs a fifth and a fifteenth, in stained tissue more): their band is narrower by its root.
_COLOUR = 2.8
_SIDES = ("channels", "rows", "columns")


def dct_matrix(n: int) -> torch.Tensor:
    """Return the orthonormal DCT-II matrix, (n, n) float64; row k is frequency k."""
    frequency = torch.arange(n, dtype=torch.float64)[:, None]
    place = torch.arange(n, dtype=torch.float64)[None, :] + 0.5
    matrix = torch.cos(math.pi / n * frequency * place) * math.sqrt(2 / n)
    matrix[0] /= math.sqrt(2)
    return matrix


class Basis(nn.Module):
    """Cosine basis over channels, rows and columns of a (C, H, W) image, low frequencies first.

    The basis is orthonormal, so white noise in pixels is white noise in coefficients.
    """

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.shape = shape
        for name, n in zip(_SIDES, shape, strict=True):
            self.register_buffer(name, dct_matrix(n), persistent=False)
        c, i, j = torch.meshgrid(
            *(torch.arange(n, dtype=torch.float64) for n in shape), indexing="ij"
        )
        # (1 + f)² with f² = i² + j², times a public factor for colour differences, in pixel order.
        frequency = ((1 + torch.hypot(i, j)) ** 2 * torch.where(c > 0, _COLOUR, 1.0)).flatten()
        order = torch.argsort(frequency, stable=True)
        spectrum = 1 / frequency[order]
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("prior_variance", spectrum / spectrum.mean(), persistent=False)

    order: torch.Tensor  # (P,) where each coefficient stands in pixel order
    prior_variance: torch.Tensor  # (P,) float64: the public spectrum, mean 1

    @property
    def channel(self) -> torch.Tensor:
        """(P,) int64: the opponent colour that each coefficient is of; 0 is brightness."""
        return self.order // (self.shape[1] * self.shape[2])

    @property
    def size(self) -> int:
        """P = C·H·W, the number of coefficients."""
        return math.prod(self.shape)

    def matrices(self, dtype: torch.dtype) -> list[torch.Tensor]:
        """Return the orthonormal matrices of channels (C, C), rows (H, H) and columns (W, W)."""
        return [self.get_buffer(name).to(dtype) for name in _SIDES]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the coefficients of images: (n, C, H, W) -> (n, P)."""
        c, h, w = self.matrices(x.dtype)
        return mixed(c, sides(h, x, w)).flatten(1)[:, self.order]

    def inverse(self, u: torch.Tensor) -> torch.Tensor:
        """Return the images of coefficients: (n, P) -> (n, C, H, W)."""
        c, h, w = self.matrices(u.dtype)
        x = torch.empty_like(u)
        x[:, self.order] = u
        return mixed(c.T, sides(h.T, x.reshape(-1, *self.shape), w.T))


def mixed(matrix: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Mix the channels of images (n, C, H, W) by a matrix (C, C), always in the same order."""
    if len(matrix) == 1:
        return x * matrix[0, 0]
    rows = [sum(a * x[:, i] for i, a in enumerate(row)) for row in matrix]
    return torch.stack(rows, dim=1)
