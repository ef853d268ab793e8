"""The arrays of a score model: their names, types, shapes and ranges, in one table.

The public configuration decides them all. Whoever takes in a model checks it by this table: a site
before it spends anything, the server, the sampler, and whoever loads a file.

The ranges are public and generous. Learners bring what they release into them (post-processing,
which costs no privacy); what lies outside was not made by one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dppm_model.errors import ModelError
from dppm_model.score.matrices import (
    clip_eigenvalues,
    diagonal_of_triangle,
    relative_variances,
    symmetric,
    upper,
)
from dppm_model.score.model_config import ModelConfig
from dppm_model.score.networks import lay_out_network
from dppm_model.score.pyramid import build_upsampler

Arrays = Mapping[str, NDArray[Any]]

LEAST_VARIANCE = 1e-12  # of any coefficient
LEAST_AXIS = 1e-9  # length of a principal axis
MOST_WEIGHT = 1024.0  # of a network, in either direction
LEAST_RELATIVE, MOST_RELATIVE = (
    0.05,
    8.0,
)  # of a component in any direction, times its class's variance
_HINT = "Load a model that dppm wrote; at a site, ask who runs the server."
_SUM = 1e-3  # by which frequencies may miss the sum of one
_SYMMETRY = 1e-5  # by which a covariance may miss symmetry, over its largest entry


@dataclass(frozen=True)
class Rule:
    """What must hold between the numbers of an array.

    Attributes
    ----------
    problem
        Says what is wrong with an array that is in its range, if anything.
    mend
        Returns an array near a given one for which nothing is. However small a budget is, noise
        must not end a run: a learner may release whatever it has made.
    """

    problem: Callable[[NDArray[Any]], str | None]
    mend: Callable[[NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True)
class ArraySpec:
    """What one array must be.

    Attributes
    ----------
    shape
        Its shape.
    least, most
        The range of every number in it, ends included.
    rule
        What must hold between its numbers.
    dtype
        Of NumPy, little-endian.
    """

    shape: tuple[int, ...]
    least: float
    most: float
    rule: Rule | None = None
    dtype: str = "<f4"

    @property
    def nbytes(self) -> int:
        """Bytes of the array."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def problem(self, array: NDArray[Any]) -> str | None:
        """Say what is wrong with an array, or None."""
        if array.dtype != np.dtype(self.dtype):
            return f"of type {array.dtype}, not {np.dtype(self.dtype)}"
        if array.shape != self.shape:
            return f"of shape {array.shape}, not {self.shape}"
        least, most = np.array([self.least, self.most], self.dtype)
        # NaN is neither above the one nor below the other, and fails here like infinity.
        if array.size and not (least <= array.min() <= array.max() <= most):
            return f"not within {self.least:g} to {self.most:g}, or not finite"
        return self.rule.problem(array) if self.rule else None

    def nearest(self, array: NDArray[Any]) -> NDArray[Any]:
        """Bring finite numbers into the range, to the rule and to the type; what fits stays."""
        clamped: NDArray[Any] = np.clip(array, self.least, self.most).astype(self.dtype)
        if self.rule and self.rule.problem(clamped):
            return self.rule.mend(clamped.astype(np.float64)).astype(self.dtype)
        return clamped


@lru_cache(maxsize=16)
def array_specs(config: ModelConfig) -> Mapping[str, ArraySpec]:
    """Return the table: every array that a model of this configuration may have."""
    scales = config.scales
    k, j, p = config.classes, config.mixture.components, scales.basis.size
    d, m, h = scales.band, scales.principal_axes, scales.fine_band
    coefficient = 4 * p**0.5  # an image in [-1, 1] has none above sqrt(P)
    variance = 16.0 * p
    frequencies, covariances = Rule(_sum_to_one, _normalised), Rule(_covariance, _symmetric)
    specs = {
        # The closed form, in cosine coefficients of pixels.
        "mixture.class_weights": ArraySpec((k,), 1e-6, 1.0, frequencies),
        "mixture.mean": ArraySpec((k, p), -coefficient, coefficient),
        "mixture.component_weights": ArraySpec((k, j), 0.0, 1.0, frequencies),
        "mixture.components": ArraySpec((k, j, d), -coefficient, coefficient),
        "mixture.covariance": ArraySpec((k, d, d), -variance, variance, covariances),
        "mixture.texture": ArraySpec(config.base_shape, 1e-3, 1e6),
    }
    if m:
        triangle = (k, j, m * (m + 1) // 2)
        specs["mixture.principal_axes"] = ArraySpec(
            (k, d, m), -variance, variance, Rule(_axes, _lengthened)
        )
        specs["mixture.component_covariance"] = ArraySpec(
            triangle, -2 * MOST_RELATIVE, 2 * MOST_RELATIVE, _relative(m)
        )
    if h:
        size = h * (h + 1) // 2
        specs["mixture.fine_covariance"] = ArraySpec((size,), -2 * variance, 2 * variance, _fine(h))
    if config.residual:  # the network on top of it
        _, network = lay_out_network(config.residual, config.base_shape, config.classes)
        specs |= _trained("residual", list(network.parameters()))
    if config.pyramid.stages:  # the network that doubles images; private rounds train some of it
        parameters = list(build_upsampler(config.shape[0], {}).parameters())
        specs["detail.start"] = _weights(parameters)
        specs |= _trained("detail", [p for p in parameters if p.requires_grad])
    return specs


def _weights(parameters: list[nn.Parameter]) -> ArraySpec:
    return ArraySpec((sum(p.numel() for p in parameters),), -MOST_WEIGHT, MOST_WEIGHT)


def _trained(part: str, parameters: list[nn.Parameter]) -> dict[str, ArraySpec]:
    """Weights, their moving average, and what a gradient is multiplied by before it is clipped."""
    scale = ArraySpec((1,), 2.0**-40, 2.0**40, dtype="<f8")
    weights = _weights(parameters)
    return {f"{part}.weights": weights, f"{part}.ema": weights, f"{part}.scale": scale}


def check_arrays(config: ModelConfig, arrays: Arrays, known: Arrays | None = None) -> None:
    """Refuse arrays that are not what the configuration says.

    Parameters
    ----------
    known
        Arrays that were checked before: the very same ones are not looked at again.

    Raises
    ------
    ModelError
        Naming the array, and what is wrong with it.
    """
    specs = array_specs(config)
    for name, array in arrays.items():
        if known is not None and known.get(name) is array:
            continue
        wrong = specs[name].problem(array) if name in specs else "not one of such a model"
        if wrong:
            raise ModelError(f"The model's array {name!r:.80} is {wrong}.", _HINT)
    if "mixture.component_covariance" in arrays and "mixture.principal_axes" not in arrays:
        raise ModelError(
            "The model's array 'mixture.component_covariance' has no 'mixture.principal_axes'.",
            _HINT,
        )


def _sum_to_one(array: NDArray[Any]) -> str | None:
    sums = array.astype(np.float64).sum(axis=-1)
    return "no frequencies: they do not add up to one" if np.any(abs(sums - 1) > _SUM) else None


def _normalised(array: NDArray[np.float64]) -> NDArray[np.float64]:
    """Frequencies from what may all be nothing: then they are equal."""
    weights = array + LEAST_VARIANCE
    shares: NDArray[np.float64] = weights / weights.sum(axis=-1, keepdims=True)
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

    return Rule(problem, mend)


def _fine(side: int) -> Rule:
    diagonal = diagonal_of_triangle(side)

    def problem(array: NDArray[Any]) -> str | None:
        if np.any(array[diagonal] < LEAST_VARIANCE):
            return f"no covariance: a variance is below {LEAST_VARIANCE:g}"
        return None

    def mend(array: NDArray[np.float64]) -> NDArray[np.float64]:
        out = array.copy()
        out[diagonal] = np.maximum(out[diagonal], LEAST_VARIANCE)
        return out

    return Rule(problem, mend)
