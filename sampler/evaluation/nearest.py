"""Nearest real training record of each image: a sanity figure and never a proof of privacy.

Copies would show here; that none shows proves nothing. The proof is in the mechanism.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sampler.evaluation.classifier import Images, shrink

SIDE = 32
MOST_IMAGES = 1000


def nearest(queries: Images, records: Images) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Distance to, and index of, the nearest of ``records`` for each query.

    Parameters
    ----------
    queries, records
        (n, C, H, W) and (m, C, H, W) uint8; compared at 32 pixels a side at most.

    Returns
    -------
    distance
        (n,): root mean square pixel difference, from 0 (a copy) to 1 (black against white).
    index
        (n,): which record.
    """
    q = shrink(queries, SIDE).flatten(1).float() / 255
    best, index = torch.full((len(q),), torch.inf), torch.zeros(len(q), dtype=torch.int64)
    for begin in range(0, len(records), 5000):
        r = shrink(records[begin : begin + 5000], SIDE).flatten(1).float() / 255
        # |q - r|² less |q|², which is the same for every record.
        value, where = torch.addmm((r**2).sum(1), q, r.T, alpha=-2).min(1)
        closer = value < best
        best = torch.where(closer, value, best)
        index = torch.where(closer, where + begin, index)
    # Once more by subtraction: the expanded square is off by rounding just where copies matter.
    found = shrink(records[index.numpy()], SIDE).flatten(1).float() / 255
    distance = ((q - found) ** 2).mean(1).sqrt()
    return distance.double().numpy(), index.numpy()


def nearest_figures(synthetic: Images, train: Images, test: Images) -> dict[str, Any]:
    """Set the distances of synthetic images beside those of real test images.

    At most 1,000 images of each, evenly spaced. ``closer_than_test`` is the share of synthetic
    images that are nearer to a training record than all but 1 % of the real test images are.
    """
    n = min(MOST_IMAGES, len(synthetic), len(test))
    drawn, _ = nearest(spaced(synthetic, n), train)
    unseen, _ = nearest(spaced(test, n), train)
    return {
        "unit": f"root mean square pixel difference (0 to 1) at {SIDE} px at most",
        "images": n,
        "synthetic": _spread(drawn),
        "real_test": _spread(unseen),
        "closer_than_test": float(np.mean(drawn < np.quantile(unseen, 0.01))),
        "exact_copies": int(np.sum(drawn == 0)),
    }


def spaced(images: NDArray[Any], n: int) -> NDArray[Any]:
    """Return ``n`` images, or indices, evenly spaced: every class, in whatever order they are."""
    return images[np.linspace(0, len(images) - 1, n).round().astype(np.int64)]


def _spread(distances: NDArray[np.float64]) -> dict[str, float]:
    smallest, percentile, median = np.quantile(distances, [0, 0.01, 0.5])
    return {"smallest": float(smallest), "percentile_1": float(percentile), "median": float(median)}
