"""``ScoreModel``: everything released so far, and the score it gives.

The model is two things that travel: ``meta`` (JSON: shape, classes, configurations) and ``arrays``
(named NumPy arrays). The server sends both to the sites each round, saves them, and the sampler
loads them. Keys that start ``mixture.`` belong to the closed form, ``residual.`` to the network on
top of it, ``detail.`` to the one that doubles images (`dppm_model.score.pyramid`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from dppm_model import files
from dppm_model.errors import ModelError
from dppm_model.score.dct import Basis
from dppm_model.score.matrices import component_covariances, symmetric
from dppm_model.score.mixture import Mixture
from dppm_model.score.mixture_config import MixtureConfig, Scales
from dppm_model.score.pyramid import Pyramid, load_pyramid, start_weights
from dppm_model.score.pyramid_config import PyramidConfig

Arrays = Mapping[str, NDArray[Any]]
# F(x, D_base, sigma, y) -> (n, C, H, W), in units of the base's posterior standard deviation.
Residual = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


class ScoreModel:
    """What has been released so far; before any phase, one public prior Gaussian per class.

    It is the `Denoiser` of the base image, which is the image itself unless there is a pyramid:
    ``shape`` is the base's, ``image_shape`` the image's.

    Parameters
    ----------
    meta
        JSON-able: ``shape`` [C, H, W] of an image, ``classes``, ``mixture`` (a `MixtureConfig` as
        a dictionary), ``pyramid`` (a `PyramidConfig`) and ``residual``, where there are such parts;
        ``public`` (data, digest), if public records taught it first.
    arrays
        Released and public arrays by name, treated as read-only. With d the band, J components:
        ``mixture.class_weights`` (classes,), ``mixture.mean`` (classes, P),
        ``mixture.component_weights`` (classes, J), ``mixture.components`` (classes, J, d),
        ``mixture.covariance`` (classes, d, d), within the components, in cosine coefficients of
        pixels; ``mixture.texture`` (C, H, W), the variance of each whitened pixel. Once they are
        released, and not before (they are large, and would travel as zeros): ``mixture.axes``
        (classes, d, m) and ``mixture.spread`` (classes, J, m(m+1)/2), the components' own
        covariances, see `dppm_model.score.matrices`; and ``mixture.pooled``, the triangle of that
        of the coefficients above the band.

    Raises
    ------
    ModelError
        If an entry is missing or has a wrong shape.
    """

    def __init__(self, meta: Mapping[str, Any], arrays: Arrays) -> None:
        try:
            c, h, w = (int(n) for n in meta["shape"])
            self.classes = int(meta["classes"])
            self.config = MixtureConfig.from_dict(meta["mixture"])
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"The model's metadata is incomplete ({error!r}).", "Load a model that dppm wrote."
            ) from None
        self.meta = dict(meta)
        self.arrays = dict(arrays)
        self.image_shape = (c, h, w)
        self.pyramid = PyramidConfig.from_dict(meta.get("pyramid", {}), self.image_shape)
        self.shape = self.pyramid.base_shape(self.image_shape)
        self.scales = Scales(self.config, Basis(self.shape))
        later = self._later_shapes()
        for name, shape in {**self._shapes(), **later}.items():
            if name not in arrays and name in later:
                continue
            if name not in arrays or arrays[name].shape != shape:
                found = arrays[name].shape if name in arrays else "missing"
                raise ModelError(
                    f"The model's array {name} is {found}, not {shape}.",
                    "Load a model that dppm wrote.",
                )

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        k, j, d = self.classes, self.config.components, self.scales.band
        return {
            "mixture.class_weights": (k,),
            "mixture.mean": (k, self.scales.basis.size),
            "mixture.component_weights": (k, j),
            "mixture.components": (k, j, d),
            "mixture.covariance": (k, d, d),
            "mixture.texture": self.shape,
        }

    def _later_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of what may be there: only what the configuration has room for."""
        k, j, d = self.classes, self.config.components, self.scales.band
        m, h = self.scales.axes, self.scales.pooled
        shapes: dict[str, tuple[int, ...]] = {}
        if m:
            shapes |= {"mixture.axes": (k, d, m), "mixture.spread": (k, j, m * (m + 1) // 2)}
        if h:
            shapes["mixture.pooled"] = (h * (h + 1) // 2,)
        return shapes

    def array(self, name: str) -> NDArray[np.float32]:
        """Return an array; one that is not released yet reads as zeros."""
        found: NDArray[np.float32] | None = self.arrays.get(name)
        return np.zeros(self._later_shapes()[name], np.float32) if found is None else found

    @classmethod
    def initial(
        cls, shape: tuple[int, int, int], classes: int, settings: Mapping[str, Any]
    ) -> ScoreModel:
        """Build the model before any phase, from public constants.

        Parameters
        ----------
        shape, classes
            (C, H, W) of an image, and the number of classes.
        settings
            The configuration of each part by its name: ``mixture``, ``residual``, ``pyramid``.

        Raises
        ------
        ConfigError
            If a setting is unknown or out of range, or the shape does not fit the octaves.
        """
        config = MixtureConfig.from_dict(settings.get("mixture", {}))
        pyramid = PyramidConfig.from_dict(settings.get("pyramid", {}), shape)
        base = pyramid.base_shape(shape)
        scales = Scales(config, Basis(base))
        j, d = config.components, scales.band
        mean = scales.prior_mean().repeat(classes, 1).float().numpy()
        parts = {name: dict(settings[name]) for name in ("residual",) if name in settings}
        if pyramid.octaves:
            parts["pyramid"] = pyramid.to_dict()
        meta = {"shape": list(shape), "classes": classes, "mixture": config.to_dict(), **parts}
        covariance = torch.diag(scales.std[:d] ** 2).float().numpy()
        arrays = {
            "mixture.class_weights": np.full(classes, 1 / classes, np.float32),
            "mixture.mean": mean,
            "mixture.component_weights": np.full((classes, j), 1 / j, np.float32),
            "mixture.components": np.repeat(mean[:, None, :d], j, axis=1),
            "mixture.covariance": np.repeat(covariance[None], classes, axis=0),
            "mixture.texture": np.ones(base, np.float32),
        }
        if pyramid.octaves:
            arrays["detail.start"] = start_weights(shape[0])
        return cls(meta, arrays)

    @classmethod
    def from_arrays(cls, meta: Mapping[str, Any], arrays: Arrays) -> ScoreModel:
        """Build a model from its two halves, ``meta`` and ``arrays``."""
        return cls(meta, arrays)

    def replace(self, arrays: Arrays) -> ScoreModel:
        """Return a model with some arrays replaced or added."""
        return ScoreModel(self.meta, {**self.arrays, **arrays})

    def without(self, *names: str) -> ScoreModel:
        """Return a model in which these arrays are not released."""
        return ScoreModel(self.meta, {k: v for k, v in self.arrays.items() if k not in names})

    @cached_property
    def mixture(self) -> Mixture:
        """The closed form (eigen-decompositions are made on first use)."""
        a = self.arrays
        return Mixture(
            self.scales.basis,
            a["mixture.mean"],
            a["mixture.components"],
            a["mixture.component_weights"],
            self.covariances().numpy(),
            self.fine_covariance().numpy(),
        )

    def fine_covariance(self) -> torch.Tensor:
        """Return the covariance of the coefficients above the band, (P - d, P - d)."""
        fine = self.scales.fine_prior(torch.from_numpy(self.arrays["mixture.texture"]))
        h = self.scales.pooled
        if "mixture.pooled" in self.arrays:
            pooled = torch.from_numpy(self.arrays["mixture.pooled"]).double()
            fine[:h, :] = fine[:, :h] = 0
            fine[:h, :h] = symmetric(pooled[None], h)[0]
        return fine

    def covariances(self) -> torch.Tensor:
        """Return the covariances within components, (classes, J, d, d), or 1 for J if they share.

        Float64; the d lowest coefficients.
        """
        names = ("mixture.covariance", "mixture.axes", "mixture.spread")
        if "mixture.spread" not in self.arrays:
            return torch.from_numpy(self.arrays["mixture.covariance"]).double()[:, None]
        return component_covariances(*(torch.from_numpy(self.array(n)).double() for n in names))

    @cached_property
    def residual(self) -> Residual | None:
        """The network F on top of the closed form, if one was trained."""
        if not any(name.startswith("residual.") for name in self.arrays):
            return None
        from dppm_model.score.networks import load_residual

        network: Residual = load_residual(self.meta, self.shape, self.arrays)
        return network

    @cached_property
    def octaves(self) -> Pyramid | None:
        """The octaves above the base, if there are any."""
        if not self.pyramid.octaves:
            return None
        if not {"detail.start", "detail.ema"} <= self.arrays.keys():
            raise ModelError(
                "The model has a pyramid but no details yet.", "Finish its training first."
            )
        return load_pyramid(self.pyramid, self.shape[0], self.classes, self.arrays)

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return D(x; sigma, y) of base images (n, C, h, w); see `Denoiser`.

        With a residual, D = D_base + sqrt(mean posterior variance) · F(x, D_base, sigma, y).
        """
        base = self.mixture.denoise(x, sigma, y)
        if self.residual is None:
            return base
        return base + self.posterior_std(sigma) * self.residual(x, base, sigma, y)

    def class_shift(self, x: torch.Tensor, sigma: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the closed form's D(x; sigma, y) - D(x; sigma); see `Denoiser`."""
        weights = torch.from_numpy(self.class_weights())
        return self.mixture.class_shift(x, sigma, y, weights)

    def posterior_std(self, sigma: torch.Tensor) -> torch.Tensor:
        """Return the typical error of a pixel of the base denoiser, (n, 1, 1, 1)."""
        return self.mixture.posterior_variance(sigma).sqrt()[:, None, None, None]

    def class_weights(self) -> NDArray[np.float64]:
        """Return the released class frequencies (classes,), positive, with sum 1."""
        released = self.arrays["mixture.class_weights"].astype(np.float64)
        weights: NDArray[np.float64] = released / released.sum()
        return weights

    def to_bytes(self) -> bytes:
        """Return the model as safetensors; ``meta`` is JSON in the header."""
        arrays = {name: np.ascontiguousarray(array) for name, array in self.arrays.items()}
        meta = json.dumps(self.meta, sort_keys=True, allow_nan=False)
        content: bytes = save_tensors(arrays, {"dppm": meta})
        return content

    @classmethod
    def from_bytes(cls, content: bytes) -> ScoreModel:
        """Read what ``to_bytes`` wrote.

        Raises
        ------
        ModelError
            If the content is damaged or no model of this project.
        """
        try:
            arrays = load_tensors(content)
            size = int.from_bytes(content[:8], "little")
            header = json.loads(content[8 : 8 + size])
            meta = json.loads(header["__metadata__"]["dppm"])
        except (SafetensorError, ValueError, KeyError) as error:
            raise ModelError(
                f"The model file is damaged or not a dppm model ({error!r}).",
                "Copy it again from the run folder.",
            ) from None
        return cls(meta, arrays)

    def save(self, path: Path) -> None:
        """Write the model to ``path`` (safetensors), atomically."""
        files.write_bytes(path, self.to_bytes())

    @classmethod
    def load(cls, path: Path) -> ScoreModel:
        """Read a model file.

        Raises
        ------
        ModelError
            If it is missing, damaged, or no model of this project.
        """
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ModelError(
                f"{path}: {error.strerror}.", "Name the model.safetensors of a run folder."
            ) from None
        return cls.from_bytes(content)
