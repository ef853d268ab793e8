"""The orthonormal cosine basis (DCT-II) in which the closed-form score is written.

Natural images and drawings have nearly uncorrelated cosine coefficients with variances that fall
like 1/frequency². That public fact replaces any look at private data: it orders the coefficients,
whitens them, and fills what the noise has covered.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch

from dppm_model.mechanism.products import sides

# Colour differences carry about a tenth of the energy of brightness in photographs.
_COLOUR = 8.0


def dct_matrix(n: int) -> torch.Tensor:
    """Return the orthonormal DCT-II matrix, (n, n) float64; row k is frequency k."""
    frequency = torch.arange(n, dtype=torch.float64)[:, None]
    place = torch.arange(n, dtype=torch.float64)[None, :] + 0.5
    matrix = torch.cos(math.pi / n * frequency * place) * math.sqrt(2 / n)
    matrix[0] /= math.sqrt(2)
    return matrix


@dataclass(frozen=True)
class Basis:
    """Cosine basis over channels, rows and columns of a (C, H, W) image, low frequencies first.

    The basis is orthonormal, so white noise in pixels is white noise in coefficients.
    """

    shape: tuple[int, int, int]

    @property
    def size(self) -> int:
        """P = C·H·W, the number of coefficients."""
        return math.prod(self.shape)

    @cached_property
    def _matrices(self) -> list[torch.Tensor]:
        return [dct_matrix(n) for n in self.shape]

    @cached_property
    def _frequency(self) -> torch.Tensor:
        """(1 + i² + j²), times a public factor for colour differences, flat in pixel order."""
        c, i, j = torch.meshgrid(
            *(torch.arange(n, dtype=torch.float64) for n in self.shape), indexing="ij"
        )
        return ((1 + i**2 + j**2) * (1 + _COLOUR * c)).flatten()

    @cached_property
    def _order(self) -> torch.Tensor:
        return torch.argsort(self._frequency, stable=True)

    @cached_property
    def prior_variance(self) -> torch.Tensor:
        """(P,) float64: public shape 1/(1 + i² + j²) of the spectrum, scaled to mean 1."""
        spectrum = 1 / self._frequency[self._order]
        return spectrum / spectrum.mean()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the coefficients of images: (n, C, H, W) -> (n, P)."""
        c, h, w = (matrix.to(x.dtype) for matrix in self._matrices)
        return _mixed(c, sides(h, x, w)).flatten(1)[:, self._order]

    def inverse(self, u: torch.Tensor) -> torch.Tensor:
        """Return the images of coefficients: (n, P) -> (n, C, H, W)."""
        c, h, w = (matrix.to(u.dtype) for matrix in self._matrices)
        x = torch.empty_like(u)
        x[:, self._order] = u
        return _mixed(c.T, sides(h.T, x.reshape(-1, *self.shape), w.T))


def _mixed(matrix: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Mix the channels of images (n, C, H, W) by a matrix (C, C), always in the same order."""
    if len(matrix) == 1:
        return x * matrix[0, 0]
    rows = [sum(a * x[:, i] for i, a in enumerate(row)) for row in matrix]
    return torch.stack(rows, dim=1)
