"""Figures of synthetic images beside real ones: distances, coverage, spectrum, nearest records.

Fréchet (FID) and polynomial kernel (KID) distances compare two sets of features; they are named
after the features they are measured in.

Density and coverage (Naeem, Oh, Uh, Choi and Yoo, "Reliable fidelity and diversity metrics for
generative models", ICML 2020) ask for each class whether images are like real ones, and whether all
kinds are there. Around each real image lies a ball as wide as its distance to the k-th nearest
other real image. Density counts in how many balls a synthetic image lies (fidelity); coverage is
the share of balls with a synthetic image inside (diversity): a class that lost one of its kinds
loses the balls there.

The nearest real training record of an image is a sanity figure and never a proof of privacy. Copies
would show here; their absence proves nothing. The proof is in the mechanism.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sampler.evaluation.classifier import Classifier, Images, Records, features, shrink

Features = NDArray[np.float64]

NEIGHBOURS = 5  # k, as in the paper
MOST_PER_CLASS = 500  # a standard error below 0.01, in seconds
SIDE = 32  # pixels at most at which images are compared with records
MOST_IMAGES = 1000
BLOCK = 500  # images of each side in a block of `kernel_distance_of_blocks`
MOST_FOR_SPECTRUM = 2000


def gaussian_frechet(mean1: Features, cov1: Features, mean2: Features, cov2: Features) -> float:
    """Squared Fréchet distance of two Gaussians (Dowson and Landau 1982; Heusel et al. 2017).

    ``|m1 - m2|² + tr(C1 + C2 - 2 (C1^½ C2 C1^½)^½)``; means (f,), covariances (f, f). The root is
    taken of the symmetric product, which has real eigenvalues also when a covariance is singular.
    """
    first, second = torch.from_numpy(cov1), torch.from_numpy(cov2)  # run_jobs decides on threads
    values, vectors = torch.linalg.eigh(first)
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ second @ root).clamp_min(0).sqrt().sum()
    mean_term = float(((mean1 - mean2) ** 2).sum())
    # Zero up to rounding for equal Gaussians; the true value is never negative.
    return max(0.0, mean_term + float((first.trace() + second.trace() - 2 * cross).item()))


def frechet_distance(x: Features, y: Features) -> float:
    """Squared Fréchet distance of the Gaussians fitted to ``x`` (n, f) and ``y`` (m, f).

    It is biased upwards by small samples: compare it only at equal n and m.
    """
    first, second = (torch.cov(torch.from_numpy(z.T)).numpy() for z in (x, y))
    return gaussian_frechet(x.mean(0), first, y.mean(0), second)


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


def kernel_distance_of_blocks(x: Features, y: Features) -> float:
    """Mean of `kernel_distance` over blocks of about `BLOCK` images, dealt at random (KID)."""
    blocks = max(1, min(len(x), len(y)) // BLOCK)
    rng = np.random.default_rng(0)
    parts = [np.array_split(z[rng.permutation(len(z))], blocks) for z in (x, y)]
    return float(np.mean([kernel_distance(a, b) for a, b in zip(*parts, strict=True)]))


def with_standard_error(
    name: str,
    distance: Callable[[Features, Features], float],
    x: Features,
    y: Features,
    seeds: Sequence[int],
) -> dict[str, float | None]:
    """Return ``name`` of all rows of both sets, and its standard error as ``name_std``.

    Each seed draws a random half of both sets and measures their distance. A half scatters about
    the whole as the whole scatters about what endless images would give, so the standard deviation
    of the halves is the standard error of the whole. It is None for a single seed.
    """
    halves = []
    for seed in seeds if len(seeds) > 1 else ():
        rng = np.random.default_rng(seed)
        a, b = (z[rng.permutation(len(z))[: len(z) // 2]] for z in (x, y))
        halves.append(distance(a, b))
    spread = float(np.std(halves, ddof=1)) if halves else None
    return {name: distance(x, y), f"{name}_std": spread}


def radial_power(images: Images) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Power spectrum of each image (n, C, H, W), averaged over channels and directions.

    Returns frequencies in cycles a pixel (f,), without 0, and powers (n, f).
    """
    n, _, height, width = images.shape
    window = np.hanning(height)[:, None] * np.hanning(width)  # no cross from the borders
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    bins = (radius * min(height, width)).round().astype(np.int64).ravel()
    last = min(height, width) // 2
    powers = np.empty((n, last))
    for i, image in enumerate(images):
        x = image / 255.0
        x = (x - x.mean((1, 2), keepdims=True)) * window
        power = (np.abs(np.fft.rfft2(x)) ** 2).mean(0)
        powers[i] = np.bincount(bins, power.ravel())[1 : last + 1]
    return np.arange(1, last + 1) / min(height, width), powers / np.bincount(bins)[1 : last + 1]


def spectrum_distance(x: Features, y: Features) -> float:
    """Root mean square over frequencies, in dB, of the ratio of mean powers (n, f) and (m, f)."""
    flat = 1e-10  # far below the rounding of pixels: the power of an image of one colour is 0
    decibel = 10 * np.log10((x.mean(0) + flat) / (y.mean(0) + flat))
    return float(np.sqrt((decibel**2).mean()))


def spectrum_figures(
    synthetic: Images, train: Images, test: Images, seeds: Sequence[int]
) -> dict[str, Any]:
    """`spectrum_distance` to real test images; ``_real``: of as many real training images."""
    n = min(MOST_FOR_SPECTRUM, len(synthetic), len(train), len(test))
    drawn, real, reference = (radial_power(spaced(z, n))[1] for z in (synthetic, train, test))
    return {
        "images": n,
        **with_standard_error("distance_db", spectrum_distance, drawn, reference, seeds),
        **with_standard_error("distance_db_real", spectrum_distance, real, reference, seeds),
    }


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

    Returns ``density``, ``coverage`` and the same ``_real``: means over the classes;
    ``_per_class``: one entry a class, None where there are too few images (k or fewer) of that
    class.
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


def nearest(queries: Images, records: Images) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Distance to, and index of, the nearest of ``records`` for each query.

    ``queries`` and ``records`` are (n, C, H, W) and (m, C, H, W) uint8, compared at 32 pixels a
    side at most.

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
        "synthetic": _quantiles(drawn),
        "real_test": _quantiles(unseen),
        "closer_than_test": float(np.mean(drawn < np.quantile(unseen, 0.01))),
        "exact_copies": int(np.sum(drawn == 0)),
    }


def spaced(images: NDArray[Any], n: int) -> NDArray[Any]:
    """Return ``n`` images, or indices, evenly spaced over classes in any order."""
    return images[np.linspace(0, len(images) - 1, n).round().astype(np.int64)]


def _quantiles(distances: NDArray[np.float64]) -> dict[str, float]:
    smallest, percentile, median = np.quantile(distances, [0, 0.01, 0.5])
    return {"smallest": float(smallest), "percentile_1": float(percentile), "median": float(median)}
