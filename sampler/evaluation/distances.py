"""Distances between two sets of feature vectors: Fréchet (FID) and polynomial kernel (KID).

Both are named after the features they are measured in; there is no Inception network here.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

Features = NDArray[np.float64]


def gaussian_frechet(mean1: Features, cov1: Features, mean2: Features, cov2: Features) -> float:
    """Squared Fréchet distance of two Gaussians (Dowson and Landau 1982; Heusel et al. 2017).

    ``|m1 - m2|² + tr(C1 + C2 - 2 (C1^½ C2 C1^½)^½)``; means (f,), covariances (f, f). The root is
    taken of the symmetric product, which has real eigenvalues also when a covariance is singular.
    """
    values, vectors = np.linalg.eigh(cov1)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ cov2 @ root).clip(0)).sum()
    mean_term = float(((mean1 - mean2) ** 2).sum())
    # Zero up to rounding for equal Gaussians; the true value is never negative.
    return max(0.0, mean_term + float(np.trace(cov1) + np.trace(cov2) - 2 * cross))


def frechet_distance(x: Features, y: Features) -> float:
    """Squared Fréchet distance of the Gaussians fitted to ``x`` (n, f) and ``y`` (m, f).

    It is biased upwards by small samples: compare it only at equal n and m.
    """
    return gaussian_frechet(
        x.mean(0), np.cov(x, rowvar=False, ddof=1), y.mean(0), np.cov(y, rowvar=False, ddof=1)
    )


def kernel_distance(x: Features, y: Features) -> float:
    """Unbiased squared MMD under ``k(a, b) = (a·b/f + 1)³`` (Bińkowski et al. 2018, eq. 4).

    Its mean is 0 for two independent samples of one distribution, so it may come out negative; and
    below 0 by about 1/n for samples in which every class is equally frequent.
    """
    return _mean_kernel(x, x, pairs=True) + _mean_kernel(y, y, pairs=True) - 2 * _mean_kernel(x, y)


def _mean_kernel(x: Features, y: Features, *, pairs: bool = False) -> float:
    """Mean of k over all (i, j), or over i != j when ``pairs`` (x and y being the same sample)."""
    f = x.shape[1]
    a, b = torch.from_numpy(x), torch.from_numpy(y)  # torch: run_jobs decides on its threads
    total = sum(
        float(((rows @ b.T / f + 1) ** 3).sum().item())
        for rows in torch.split(a, 250)  # small enough for the processor's cache
    )
    if not pairs:
        return total / (len(x) * len(y))
    diagonal = float((((a**2).sum(1) / f + 1) ** 3).sum().item())
    return (total - diagonal) / (len(x) * (len(x) - 1))
