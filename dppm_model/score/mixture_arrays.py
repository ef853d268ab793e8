"""The closed form's arrays: their names, what must hold between their numbers, random ones.

In cosine coefficients of the base image: P of them, d in the band; r axes; J components of a class.

    mixture.class_weights (classes,)          mixture.component_weights (classes, J)
    mixture.mean (classes, P)                 of each coefficient, within the classes:
    mixture.variance (P,)                     in the band, the axes say more
    mixture.axes (d, d)                       orthonormal columns
    mixture.axis_variance (d,)                of all classes together
    mixture.components (classes, J, r)        in the first r axes, less the class mean
    mixture.covariance (classes, r, r)        there, within the components of a class

and once they are released, and not before (they are large):

    mixture.principal_axes (classes, r, m)    with mixture.component_covariance (classes, J,
                                              m(m+1)/2): see `dppm_model.score.matrices`
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from dppm_model.score.arrays import ArraySpec, Rule, signed
from dppm_model.score.matrices import (
    clip_eigenvalues,
    relative_variances,
    symmetric,
    upper,
    upper_triangles,
)

if TYPE_CHECKING:
    from dppm_model.score.mixture_config import Scales

LEAST_FREQUENCY = 1e-6  # of a class
LEAST_VARIANCE = 1e-12  # of a class, in any axis
LEAST_COEFFICIENT = 1e-6  # variance of a coefficient or axis; rounding a pixel to 8 bits makes 5e-6
LEAST_AXIS = 1e-9  # length of a principal axis
# Variance of a component in any direction, over its class's.
LEAST_RELATIVE, MOST_RELATIVE = 0.05, 8.0
_SUM = 1e-3  # by which frequencies may miss the sum of one
_SYMMETRY = 1e-5  # by which a covariance may miss symmetry, over its largest entry
_ORTHONORMAL = 1e-3  # by which products of axes may miss zero and one


def mixture_specs(scales: Scales, classes: int, components: int) -> dict[str, ArraySpec]:
    """Return the closed form's rows of the table of arrays."""
    k, j, p = classes, components, scales.basis.size
    d, r, m = scales.band, scales.axes, scales.principal_axes
    coefficient = 4 * p**0.5  # an image in [-1, 1] has none above sqrt(P)
    variance = 16.0 * p
    frequencies = Rule(_sum_to_one, _normalised, _frequencies)
    positive = replace(frequencies, mend=partial(_normalised, least=LEAST_FREQUENCY))
    covariances = Rule(
        _covariance,
        _symmetric,
        lambda spec, rng, reach: _covariances(rng, spec.shape, spec.most * reach),
    )
    specs = {
        "mixture.class_weights": ArraySpec((k,), LEAST_FREQUENCY, 1.0, positive),
        "mixture.mean": ArraySpec((k, p), -coefficient, coefficient),
        "mixture.variance": ArraySpec((p,), LEAST_COEFFICIENT, variance),
        "mixture.axes": ArraySpec((d, d), -1.001, 1.001, Rule(_bent, _straightened, _rotation)),
        "mixture.axis_variance": ArraySpec((d,), LEAST_COEFFICIENT, variance),
        "mixture.component_weights": ArraySpec((k, j), 0.0, 1.0, frequencies),
        "mixture.components": ArraySpec((k, j, r), -2 * coefficient, 2 * coefficient),
        "mixture.covariance": ArraySpec((k, r, r), -variance, variance, covariances),
    }
    if m:
        most, size = 2 * MOST_RELATIVE, m * (m + 1) // 2
        specs["mixture.principal_axes"] = ArraySpec(
            (k, r, m), -variance, variance, Rule(_axes, _lengthened, _drawn_axes)
        )
        specs["mixture.component_covariance"] = ArraySpec(
            (k, j, size), -most, most, _relative(m), beside="mixture.principal_axes"
        )
    return specs


def _sum_to_one(array: NDArray[Any]) -> str | None:
    sums = array.astype(np.float64).sum(axis=-1)
    return "no frequencies: they do not add up to one" if np.any(abs(sums - 1) > _SUM) else None


def _normalised(array: NDArray[np.float64], least: float = 0.0) -> NDArray[np.float64]:
    """Frequencies of at least ``least`` from what may all be nothing: then they are equal."""
    weights = array + LEAST_VARIANCE
    spare = 1 - least * array.shape[-1]
    shares: NDArray[np.float64] = least + spare * weights / weights.sum(axis=-1, keepdims=True)
    return shares


def _covariance(array: NDArray[Any]) -> str | None:
    if np.any(np.diagonal(array, axis1=-2, axis2=-1) < LEAST_VARIANCE):
        return f"no covariance: a variance is below {LEAST_VARIANCE:g}"
    skew = np.abs(array - array.swapaxes(-1, -2)).max(initial=0.0)
    if skew > _SYMMETRY * np.abs(array).max(initial=0.0):
        return "no covariance: it is not symmetric"
    return None


def _symmetric(array: NDArray[np.float64]) -> NDArray[np.float64]:
    out = (array + array.swapaxes(-1, -2)) / 2
    i = np.arange(array.shape[-1])
    out[..., i, i] = np.maximum(out[..., i, i], LEAST_VARIANCE)
    return out


def _bent(array: NDArray[Any]) -> str | None:
    wide = array.astype(np.float64)
    miss = np.abs(wide.T @ wide - np.eye(len(wide))).max(initial=0.0)
    return "no axes: their columns are not orthonormal" if miss > _ORTHONORMAL else None


def _straightened(array: NDArray[np.float64]) -> NDArray[np.float64]:
    """Axes near these that are orthonormal; unit vectors where there is nothing to go by."""
    axes, triangle = np.linalg.qr(array + 1e-12 * np.eye(len(array)))
    straight: NDArray[np.float64] = axes * np.where(np.diagonal(triangle) < 0, -1.0, 1.0)
    return straight


def _rotation(spec: ArraySpec, rng: np.random.Generator, reach: float) -> NDArray[np.float64]:
    del reach
    return _straightened(rng.standard_normal(spec.shape))


def _axes(array: NDArray[Any]) -> str | None:
    short = np.any(_lengths(array) < LEAST_AXIS)
    return f"no axes: one is shorter than {LEAST_AXIS:g}" if short else None


def _lengthened(array: NDArray[np.float64]) -> NDArray[np.float64]:
    out = array.copy()
    out[..., 0, :] = np.where(_lengths(array) < LEAST_AXIS, 2 * LEAST_AXIS, array[..., 0, :])
    return out


def _lengths(array: NDArray[Any]) -> NDArray[np.float64]:
    lengths: NDArray[np.float64] = np.linalg.norm(array.astype(np.float64), axis=-2)
    return lengths


def _relative(axes: int) -> Rule:
    def problem(array: NDArray[Any]) -> str | None:
        values = relative_variances(array, axes)
        if values.min(initial=1.0) < LEAST_RELATIVE or values.max(initial=1.0) > MOST_RELATIVE:
            return (
                f"no covariance: a relative variance is not within {LEAST_RELATIVE} to "
                f"{MOST_RELATIVE}"
            )
        return None

    def mend(array: NDArray[np.float64]) -> NDArray[np.float64]:
        # A little inside the range, or rounding would carry it out again.
        least, most = LEAST_RELATIVE * (1 + _SUM), MOST_RELATIVE * (1 - _SUM)
        matrices = symmetric(torch.from_numpy(array).flatten(0, -2), axes)
        clipped = clip_eigenvalues(matrices, least - 1, most - 1)
        return upper(clipped).reshape(array.shape).numpy()

    def draw(spec: ArraySpec, rng: np.random.Generator, reach: float) -> NDArray[np.float64]:
        del reach
        return _relative_covariances(rng, spec.shape, axes)

    return Rule(problem, mend, draw)


def _frequencies(spec: ArraySpec, rng: np.random.Generator, reach: float) -> NDArray[np.float64]:
    del reach
    weights = rng.exponential(size=spec.shape) ** 3 + 1e-9
    weights = np.maximum(weights / weights.sum(axis=-1, keepdims=True), spec.least)
    frequencies: NDArray[np.float64] = weights / weights.sum(axis=-1, keepdims=True)
    return frequencies


def _drawn_axes(spec: ArraySpec, rng: np.random.Generator, reach: float) -> NDArray[np.float64]:
    drawn = signed(rng, spec.shape, spec.most * reach)
    drawn[:, 0] += np.where(drawn[:, 0] < 0, -1e-6, 1e-6)  # none has no length
    return drawn


def _covariances(
    rng: np.random.Generator, shape: tuple[int, ...], most: float
) -> NDArray[np.float64]:
    """Positive semi-definite (n, d, d), entries up to ``most``, of quite different variances."""
    std = np.sqrt(most) * 10 ** (-3 * rng.random(shape[:-1]))
    root = rng.standard_normal(shape) / np.sqrt(shape[-1]) / 4 * std[..., None]
    diagonal = np.eye(shape[-1]) * (std[..., None] ** 2 / 2 + LEAST_VARIANCE)
    drawn: NDArray[np.float64] = root @ root.swapaxes(-1, -2) + diagonal
    return drawn


def _relative_covariances(
    rng: np.random.Generator, shape: tuple[int, ...], axes: int
) -> NDArray[np.float64]:
    """Triangles of M - I, M's eigenvalues anywhere in their range."""
    vectors = np.linalg.qr(rng.standard_normal((*shape[:-1], axes, axes)))[0]
    low, high = LEAST_RELATIVE * 1.01, MOST_RELATIVE * 0.99
    values = np.exp(rng.uniform(np.log(low), np.log(high), (*shape[:-1], axes)))
    relative = (vectors * values[..., None, :]) @ vectors.swapaxes(-1, -2) - np.eye(axes)
    return upper_triangles(relative)
