"""The closed form of a model: built from the arrays that have been released."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from dppm_model.score.arrays import Arrays, require
from dppm_model.score.matrices import component_covariances
from dppm_model.score.mixture import Mixture

if TYPE_CHECKING:
    from dppm_model.score.mixture_config import Scales
    from dppm_model.score.model import ScoreModel

# What the closed form takes, and what it also takes once it is there.
CLOSED_FORM = frozenset(
    f"mixture.{name}"
    for name in (
        "mean",
        "variance",
        "axes",
        "axis_variance",
        "component_weights",
        "components",
        "covariance",
    )
)
LATER = frozenset({"mixture.principal_axes", "mixture.component_covariance"})
WHOLE = CLOSED_FORM | {"mixture.class_weights"}

_closed_form: dict[tuple[bytes, torch.device], Mixture] = {}  # the last one used


def start(scales: Scales, classes: int, components: int) -> dict[str, NDArray[np.float32]]:
    """Return the arrays before any phase: the public prior Gaussian, for every class."""
    d, r = scales.band, scales.axes
    variance = (scales.std**2).float().numpy()
    return {
        "mixture.class_weights": np.full(classes, 1 / classes, np.float32),
        "mixture.mean": scales.prior_mean().repeat(classes, 1).float().numpy(),
        "mixture.variance": variance,
        "mixture.axes": np.eye(d, dtype=np.float32),
        "mixture.axis_variance": variance[:d],
        "mixture.component_weights": np.full((classes, components), 1 / components, np.float32),
        "mixture.components": np.zeros((classes, components, r), np.float32),
        "mixture.covariance": np.repeat(np.diag(variance[:r])[None], classes, axis=0),
    }


def build_mixture(scales: Scales, arrays: Arrays) -> Mixture:
    """Build the closed form (its eigen-decompositions take a while).

    Raises
    ------
    ModelError
        If an array of `CLOSED_FORM` is missing.
    """
    require(arrays, CLOSED_FORM)
    d, r = scales.band, scales.axes
    shared = (arrays["mixture.axis_variance"][r:], arrays["mixture.variance"][d:])
    return Mixture(
        scales.basis.shape,
        arrays["mixture.mean"],
        arrays["mixture.axes"],
        arrays["mixture.components"],
        arrays["mixture.component_weights"],
        covariances(arrays).numpy(),
        np.concatenate(shared),
        class_weights(arrays) if "mixture.class_weights" in arrays else None,
    )


def class_weights(arrays: Arrays) -> NDArray[np.float64]:
    """Return the released class frequencies (classes,), positive, with sum 1."""
    released = arrays["mixture.class_weights"].astype(np.float64)
    weights: NDArray[np.float64] = released / released.sum()
    return weights


def covariances(arrays: Arrays) -> torch.Tensor:
    """Return the covariances within components, (classes, J, r, r), or 1 for J if they share.

    Float64; in the first r axes.
    """
    covariance = _tensor(arrays, "covariance").double()
    if "mixture.component_covariance" not in arrays:
        return covariance[:, None]
    own = (_tensor(arrays, name).double() for name in ("principal_axes", "component_covariance"))
    return component_covariances(covariance, *own)


def _tensor(arrays: Arrays, name: str) -> torch.Tensor:
    return torch.tensor(arrays[f"mixture.{name}"])  # copied: memory that PyTorch has aligned


def closed_form(model: ScoreModel, device: torch.device | str = "cpu") -> Mixture:
    """Return the model's mixture on a device, built once for all rounds of a phase.

    Every round brings a new model with the same closed form, whose eigen-decompositions take as
    long as the gradients of a hundred records.
    """
    key = _key(model), torch.device(device)
    if key not in _closed_form:
        _closed_form.clear()
        _closed_form[key] = build_mixture(model.config.scales, model.arrays).to(device)
    return _closed_form[key]


def _key(model: ScoreModel) -> bytes:
    """Digest of all that decides a closed form; no two of them write the same bytes.

    Whether the last round's is still there depends on whether a record was sampled in it: a key
    that two different closed forms share would let that decide what records answer now.
    """
    digest = hashlib.sha256(bytes.fromhex(model.config.digest))
    for name in sorted(WHOLE | LATER):
        if name in model.arrays:
            array = model.arrays[name]
            for part in (name.encode(), repr((array.dtype.str, array.shape)).encode()):
                digest.update(len(part).to_bytes(8) + part)
            digest.update(array.nbytes.to_bytes(8) + array.tobytes())
    return digest.digest()
