"""Density and coverage: for each class, are images like real ones, and are all kinds there.

Naeem, Oh, Uh, Choi and Yoo, "Reliable fidelity and diversity metrics for generative models", ICML
2020. Around each real image lies a ball as wide as its distance to the k-th nearest
other real image. Density counts in how many balls a synthetic image lies (fidelity); coverage is
the share of balls with a synthetic image inside (diversity): a class that lost one of its kinds
loses the balls there.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sampler.evaluation.classifier import Classifier, Images, Labels, features
from sampler.evaluation.nearest import spaced

Records = tuple[Images, Labels]

NEIGHBOURS = 5  # k, as in the paper
MOST_PER_CLASS = 500  # a standard error below 0.01, in seconds


class Coverage(NamedTuple):
    """Both figures of one set of images against one set of real ones."""

    density: float
    """About 1 for images like the real ones; more where they crowd in the midst of them."""
    coverage: float
    """0 to 1; ``1 - 2^-k`` is expected of as many other real images."""


def density_and_coverage(
    real: NDArray[np.float64], drawn: NDArray[np.float64], k: int = NEIGHBOURS
) -> Coverage:
    """Compare features ``drawn`` (m, f) with features ``real`` (n, f), n > k and m > 0.

    Balls are open, as in the authors' own code: a point at exactly the k-th distance is outside.
    """
    # Without the shortcut by matrix product, whose rounding would move points across borders.
    exact = "donot_use_mm_for_euclid_dist"
    x, y = torch.from_numpy(real), torch.from_numpy(drawn)
    # The nearest real image of each is itself, at distance 0, hence k + 1.
    radius = torch.cdist(x, x, compute_mode=exact).kthvalue(k + 1, dim=1).values
    inside = torch.cdist(x, y, compute_mode=exact) < radius[:, None]
    return Coverage(
        float(inside.sum().item()) / (k * len(y)), float(inside.any(1).double().mean().item())
    )


def coverage_figures(
    judge: Classifier, synthetic: Records, train: Records, test: Records, classes: int
) -> dict[str, Any]:
    """Compare images of each class with real test images of it, in the judge's features.

    As many images of all three sets are taken, evenly spaced, because both figures depend on the
    numbers; ``_real`` are real *training* images in the place of synthetic ones, which is what a
    perfect generator would get.

    Returns
    -------
    ``density``, ``coverage`` and the same ``_real``: means over the classes; ``_per_class``: one
    entry a class, None where there are too few images (k or fewer) of that class.
    """
    sets = synthetic, train, test
    sizes: list[int] = []
    per_class: dict[str, list[float | None]] = {
        f"{figure}{kind}": [] for kind in ("", "_real") for figure in Coverage._fields
    }
    for label in range(classes):
        own = [np.flatnonzero(labels == label) for _, labels in sets]
        n = min(MOST_PER_CLASS, *map(len, own))
        sizes.append(n)
        if n <= NEIGHBOURS:
            for values in per_class.values():
                values.append(None)
            continue
        drawn, known, unseen = (
            features(judge, images[spaced(where, n)])
            for (images, _), where in zip(sets, own, strict=True)
        )
        for kind, candidates in (("", drawn), ("_real", known)):
            found = density_and_coverage(unseen, candidates)
            for figure, value in found._asdict().items():
                per_class[f"{figure}{kind}"].append(value)
    return {
        "neighbours": NEIGHBOURS,
        "images_per_class": sizes,
        **{name: _mean(values) for name, values in per_class.items()},
        **{f"{name}_per_class": values for name, values in per_class.items()},
    }


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
