"""``ScoreModel``: everything released so far, and the score it gives.

The model is two things: its public configuration, which the plan fixes, and ``arrays`` (named NumPy
arrays), which rounds teach. The server sends a question's arrays to the sites each round; it saves
both, and the sampler loads them. Names that start ``mixture.`` belong to the closed form,
``residual.`` to the network on top of it, ``detail.`` to the one that doubles images
(`dppm_model.score.pyramid`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save as save_tensors

from dppm_model import files
from dppm_model.errors import ConfigError, ModelError
from dppm_model.reading import parse_json, read_bytes, reading
from dppm_model.score.arrays import Arrays, array_specs, check_arrays
from dppm_model.score.matrices import component_covariances, symmetric
from dppm_model.score.mixture import Mixture
from dppm_model.score.model_config import ModelConfig
from dppm_model.score.networks import load_residual
from dppm_model.score.pyramid import Pyramid, load_pyramid, start_weights
from dppm_model.score.tensors import read_tensors, reading_model

# F(x, D_base, sigma, y) -> (n, C, H, W), in units of the base's posterior standard deviation.
Residual = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]

# What the closed form takes, and what it also takes once it is there.
CLOSED_FORM = frozenset(
    f"mixture.{name}"
    for name in ("mean", "component_weights", "components", "covariance", "texture")
)
LATER = frozenset(
    {"mixture.principal_axes", "mixture.component_covariance", "mixture.fine_covariance"}
)
_WHOLE = CLOSED_FORM | {"mixture.class_weights"}


class ScoreModel:
    """What has been released so far; before any phase, one public prior Gaussian per class.

    It is the `Denoiser` of the base image, which is the image itself unless there is a pyramid:
    ``shape`` is the base's, ``image_shape`` the image's.

    Parameters
    ----------
    config
        Its public configuration.
    arrays
        Released and public arrays by name, treated as read-only; `dppm_model.score.arrays` says
        what they may be. A question takes only those that it needs (`dppm_model.score.phases`); a
        whole model has the closed form: ``mixture.class_weights`` (classes,), ``mixture.mean``
        (classes, P), ``mixture.component_weights`` (classes, J), ``mixture.components`` (classes,
        J, d), ``mixture.covariance`` (classes, d, d), within the components, in cosine coefficients
        of pixels, d of them in the band, J components; ``mixture.texture`` (C, H, W), the variance
        of each whitened pixel. Once they are released, and not before (they are large):
        ``mixture.principal_axes`` (classes, d, m) and ``mixture.component_covariance`` (classes, J,
        m(m+1)/2), the components' own covariances, see `dppm_model.score.matrices`; and
        ``mixture.fine_covariance``, the triangle of that of the coefficients above the band.
    known
        Arrays that were checked before; see `check_arrays`.

    Raises
    ------
    ModelError
        If an array is not one of this configuration, or out of its range.
    """

    def __init__(self, config: ModelConfig, arrays: Arrays, known: Arrays | None = None) -> None:
        check_arrays(config, arrays, known)
        self.config = config
        self.arrays = dict(arrays)
        self.image_shape, self.shape = config.shape, config.base_shape
        self.classes, self.scales = config.classes, config.scales

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
            See `ModelConfig.of`.

        Raises
        ------
        ConfigError
            If a setting is unknown or out of range, or the shape does not fit the stages.
        """
        return cls.start(ModelConfig.of(shape, classes, settings))

    @classmethod
    def start(cls, config: ModelConfig) -> ScoreModel:
        """Build the model before any phase, from public constants."""
        scales, classes = config.scales, config.classes
        j, d = config.mixture.components, scales.band
        mean = scales.prior_mean().repeat(classes, 1).float().numpy()
        covariance = torch.diag(scales.std[:d] ** 2).float().numpy()
        arrays = {
            "mixture.class_weights": np.full(classes, 1 / classes, np.float32),
            "mixture.mean": mean,
            "mixture.component_weights": np.full((classes, j), 1 / j, np.float32),
            "mixture.components": np.repeat(mean[:, None, :d], j, axis=1),
            "mixture.covariance": np.repeat(covariance[None], classes, axis=0),
            "mixture.texture": np.ones(config.base_shape, np.float32),
        }
        if config.pyramid.stages:
            arrays["detail.start"] = start_weights(config.shape[0])
        return cls(config, arrays)

    def require(self, names: Collection[str]) -> None:
        """Refuse to go on without some arrays.

        Raises
        ------
        ModelError
            If one of them is not there.
        """
        if missing := sorted(set(names) - self.arrays.keys()):
            raise ModelError(
                f"The model lacks {', '.join(missing)}.",
                "Finish its training first; a question wants the model of its own round.",
            )

    def tensor(self, name: str) -> torch.Tensor:
        """Return an array as a tensor of its own, in memory that PyTorch has aligned."""
        return torch.tensor(self.arrays[name])

    def replace(self, arrays: Arrays) -> ScoreModel:
        """Return a model with some arrays replaced or added.

        Raises
        ------
        ModelError
            If one of them is out of its range.
        """
        return ScoreModel(self.config, {**self.arrays, **arrays}, known=self.arrays)

    def released(self, arrays: Mapping[str, torch.Tensor | NDArray[Any]]) -> ScoreModel:
        """Return a model with what a learner made of the sites' answers.

        Noise may have carried numbers out of their public range, or a covariance away from what one
        is: they are moved to what is nearest (post-processing), so that no draw ends a run.
        """
        specs = array_specs(self.config)
        return self.replace({n: specs[n].nearest(np.asarray(a)) for n, a in arrays.items()})

    def only(self, names: Collection[str]) -> ScoreModel:
        """Return a model of some of its arrays, those that are there."""
        kept = {name: array for name, array in self.arrays.items() if name in names}
        return ScoreModel(self.config, kept, known=self.arrays)

    def without(self, *names: str) -> ScoreModel:
        """Return a model in which these arrays are not released."""
        return self.only(self.arrays.keys() - set(names))

    @cached_property
    def mixture(self) -> Mixture:
        """The closed form (eigen-decompositions are made on first use)."""
        self.require(CLOSED_FORM)
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
        fine = self.scales.fine_prior(self.tensor("mixture.texture"))
        h = self.scales.fine_band
        if "mixture.fine_covariance" in self.arrays:
            fine[:h, :] = fine[:, :h] = 0
            fine[:h, :h] = symmetric(self.tensor("mixture.fine_covariance").double()[None], h)[0]
        return fine

    def covariances(self) -> torch.Tensor:
        """Return the covariances within components, (classes, J, d, d), or 1 for J if they share.

        Float64; the d lowest coefficients.
        """
        covariance = self.tensor("mixture.covariance").double()
        if "mixture.component_covariance" not in self.arrays:
            return covariance[:, None]
        own = (
            self.tensor(f"mixture.{name}").double()
            for name in ("principal_axes", "component_covariance")
        )
        return component_covariances(covariance, *own)

    @cached_property
    def residual(self) -> Residual | None:
        """The network F on top of the closed form, if one was trained."""
        if "residual.ema" not in self.arrays:
            return None
        return load_residual(self.config, self.arrays["residual.ema"])

    @cached_property
    def pyramid(self) -> Pyramid | None:
        """The stages above the base, if there are any."""
        if not self.config.pyramid.stages:
            return None
        self.require(("detail.start", "detail.ema"))
        return load_pyramid(self.config.pyramid, self.shape[0], self.classes, self.arrays)

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

    def arrays_to_bytes(self) -> bytes:
        """Return the arrays alone, as safetensors: what a site is sent."""
        content: bytes = save_tensors(self._contiguous())
        return content

    def to_bytes(self) -> bytes:
        """Return the model as safetensors; its configuration is JSON in the header."""
        meta = json.dumps(self.config.to_dict(), sort_keys=True, allow_nan=False)
        content: bytes = save_tensors(self._contiguous(), {"dppm": meta})
        return content

    def _contiguous(self) -> dict[str, NDArray[Any]]:
        return {name: np.ascontiguousarray(array) for name, array in self.arrays.items()}

    @classmethod
    def from_bytes(cls, content: bytes) -> ScoreModel:
        """Read what `to_bytes` wrote: a whole model.

        Raises
        ------
        ModelError
            If the content is damaged, no model of this project, or not whole.
        """
        meta, arrays = read_tensors(content)
        try:
            with reading_model():
                config = ModelConfig.from_dict(parse_json(meta["dppm"]))
        except ConfigError as error:
            raise ModelError(f"The model's configuration: {error.message}", error.hint) from None
        model = cls(config, arrays)
        model.require(_WHOLE)
        return model

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
        with reading(path, ModelError, "Name the model.safetensors of a run folder."):
            return cls.from_bytes(read_bytes(path))
