"""Symmetric matrices as vectors, and the covariance of each component from the two parts released.

A component's covariance is given relative to its class's: with principal axes A (d, m) of the class
covariance Sigma, A Aᵀ being what Sigma holds in those directions, component j has

    Sigma_j = Sigma + A (M_j - I) Aᵀ,      M_j (m, m) positive definite, I if nothing is known.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


def upper(matrices: torch.Tensor) -> torch.Tensor:
    """Return upper triangles (n, d(d+1)/2) of (n, d, d), off-diagonals times sqrt(2)."""
    size = matrices.shape[-1]
    rows, columns = torch.triu_indices(size, size)
    scale = torch.where(rows == columns, 1.0, math.sqrt(2)).to(matrices.dtype)
    return matrices[:, rows, columns] * scale


def upper_outer(r: torch.Tensor) -> torch.Tensor:
    """Return ``upper`` of the outer products r rᵀ of the rows of r (n, d), without forming them."""
    size = r.shape[1]
    scaled = r * 2**0.25
    rows = [scaled[:, i, None] * scaled[:, i:] for i in range(size)]
    for row in rows:
        row[:, 0] *= math.sqrt(0.5)  # the diagonal
    return torch.cat(rows, dim=1)


def symmetric(triangles: torch.Tensor, size: int) -> torch.Tensor:
    """Undo ``upper``: (n, d(d+1)/2) -> (n, d, d)."""
    rows, columns = torch.triu_indices(size, size)
    scale = torch.where(rows == columns, 1.0, math.sqrt(0.5)).to(triangles.dtype)
    out = torch.zeros((len(triangles), size, size), dtype=triangles.dtype)
    out[:, rows, columns] = triangles * scale
    out[:, columns, rows] = triangles * scale
    return out


def upper_triangles(matrices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return `upper` of (..., d, d) arrays: (..., d(d+1)/2)."""
    size = matrices.shape[-1]
    flat = upper(torch.from_numpy(np.ascontiguousarray(matrices).reshape(-1, size, size)))
    return flat.numpy().reshape(*matrices.shape[:-2], -1)


def relative_variances(relative: NDArray[np.floating[Any]], axes: int) -> NDArray[np.float64]:
    """Return the eigenvalues of I + M for triangles (..., m(m+1)/2) of M: (n, m)."""
    flat = torch.from_numpy(np.asarray(relative, np.float64)).flatten(0, -2)
    values: NDArray[np.float64] = 1 + torch.linalg.eigvalsh(symmetric(flat, axes)).numpy()
    return values


def clip_eigenvalues(matrices: torch.Tensor, least: float, most: float) -> torch.Tensor:
    """Bring the eigenvalues of symmetric matrices (n, d, d) into a range."""
    values, vectors = torch.linalg.eigh(matrices)
    clipped: torch.Tensor = (vectors * values.clamp(least, most)[:, None]) @ vectors.transpose(1, 2)
    return clipped


def component_covariances(
    covariance: torch.Tensor, axes: torch.Tensor, relative: torch.Tensor
) -> torch.Tensor:
    """Return each component's own covariance, (classes, J, d, d).

    Parameters
    ----------
    covariance
        (classes, d, d) of the class, within its components.
    axes
        (classes, d, m) its `principal_axes`.
    relative
        (classes, J, m(m+1)/2) the upper triangles of M_j - I.
    """
    k, j, _ = relative.shape
    m = axes.shape[2]
    differences = symmetric(relative.flatten(0, 1), m).reshape(k, j, m, m)
    return covariance[:, None] + axes[:, None] @ differences @ axes[:, None].transpose(2, 3)
