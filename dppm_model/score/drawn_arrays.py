"""Arrays drawn at random from what `dppm_model.score.arrays` admits: for self-checks and for tests.

They stand for whatever a server may send: some are of the sizes that training makes, some lie at
the very edges of their ranges.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dppm_model.score.arrays import LEAST_RELATIVE, LEAST_VARIANCE, MOST_RELATIVE, array_specs
from dppm_model.score.matrices import upper_triangles
from dppm_model.score.model_config import ModelConfig


def draw_arrays(
    config: ModelConfig, names: Collection[str], rng: np.random.Generator, reach: float
) -> dict[str, NDArray[Any]]:
    """Draw arrays of these names, as far as a model of this configuration has them.

    Parameters
    ----------
    reach
        How far numbers go, as a share of their ranges: 1 takes them to the edges.
    """
    specs = array_specs(config)
    made: dict[str, NDArray[Any]] = {}
    for name in sorted(specs.keys() & set(names)):
        spec = specs[name]
        part = name.partition(".")[2]
        if part in ("class_weights", "component_weights"):
            drawn = _frequencies(rng, spec.shape, spec.least)
        elif part == "covariance":
            drawn = _covariances(rng, spec.shape, spec.most * reach)
        elif part == "principal_axes":
            drawn = _signed(rng, spec.shape, spec.most * reach)
            drawn[:, 0] += np.where(drawn[:, 0] < 0, -1e-6, 1e-6)  # none has no length
        elif part == "component_covariance":
            drawn = _relative_covariances(rng, spec.shape, config.scales.principal_axes)
        elif part == "fine_covariance":
            side = config.scales.fine_band
            drawn = upper_triangles(_covariances(rng, (1, side, side), spec.most / 2 * reach))[0]
        elif spec.least > 0:
            low, high = np.log(spec.least) * reach, np.log(spec.most) * reach
            drawn = np.exp(rng.uniform(low, high, spec.shape))
        else:
            drawn = _signed(rng, spec.shape, spec.most * reach)
        made[name] = spec.nearest(drawn)
    return made


def _signed(rng: np.random.Generator, shape: tuple[int, ...], most: float) -> NDArray[np.float64]:
    """Numbers of both signs, from about a millionth of ``most`` up to it."""
    drawn: NDArray[np.float64] = (
        most * 10 ** (-6 * rng.random(shape)) * rng.choice([-1.0, 1.0], shape)
    )
    return drawn


def _frequencies(
    rng: np.random.Generator, shape: tuple[int, ...], least: float
) -> NDArray[np.float64]:
    weights = rng.exponential(size=shape) ** 3 + 1e-9
    weights = np.maximum(weights / weights.sum(axis=-1, keepdims=True), least)
    frequencies: NDArray[np.float64] = weights / weights.sum(axis=-1, keepdims=True)
    return frequencies


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
