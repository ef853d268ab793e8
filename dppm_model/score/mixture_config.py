"""Public constants of the closed form, and the scales that follow from them alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated

import torch

from dppm_model.bounds import Between
from dppm_model.errors import ConfigError
from dppm_model.score import closed_form
from dppm_model.score.arrays import Arrays, ArraySpec
from dppm_model.score.dct import Basis
from dppm_model.score.denoiser import BaseDenoiser
from dppm_model.score.mixture_arrays import mixture_specs
from dppm_model.score.part import Part

if TYPE_CHECKING:
    from dppm_model.score.model_config import ModelConfig

MOST_COEFFICIENTS = 1 << 16
_CLIP_NORM = Between(1e-6, 1e6)


@dataclass(frozen=True)
class MixtureConfig(Part):
    """Constants of the closed form; all public, none taken from private data.

    Attributes
    ----------
    band
        d, the number of low cosine coefficients that get component centres and full covariances.
    components
        J, Gaussians per class; 1 is the class Gaussian.
    principal_axes
        m, the number of principal axes of a class in which each component gets a covariance of its
        own; 0 leaves the components of a class with one covariance.
    fine_band
        Number of coefficients above the band whose covariance is pooled over all classes; 0 leaves
        them their prior, modulated by the texture.
    texture
        Number of cosine coefficients of the smooth map of local contrast.
    pixel_variance
        Guess of a pixel's variance within a class; sets the scale of the prior.
    background
        Guess of the mean pixel value, in [-1, 1].
    means_clip_norm, covariance_clip_norm, components_clip_norm
        Clip norm of the half-whitened residual, in units of its norm expected under the prior.
    component_covariance_clip_norm
        Clip norm of a component's outer products, in units of the trace of the class covariance
        that was released before (half-whitened with it).
    fine_covariance_clip_norm
        Clip norm of the half-whitened fine residual, in units of its norm expected under the
        modulated prior.
    count_weight
        Share (as a norm) of a record's vector that its class or component indicator gets.
    texture_weight
        The same for the texture beside the covariance.
    """

    band: Annotated[int, Between(1, MOST_COEFFICIENTS)] = 144
    components: Annotated[int, Between(1, 1024)] = 1
    principal_axes: Annotated[int, Between(0, MOST_COEFFICIENTS)] = 0
    fine_band: Annotated[int, Between(0, MOST_COEFFICIENTS)] = 0
    texture: Annotated[int, Between(1, MOST_COEFFICIENTS)] = 100
    pixel_variance: Annotated[float, Between(1e-4, 4.0)] = 0.25
    background: Annotated[float, Between(-1.0, 1.0)] = -0.5
    means_clip_norm: Annotated[float, _CLIP_NORM] = 1.3
    covariance_clip_norm: Annotated[float, _CLIP_NORM] = 1.4
    components_clip_norm: Annotated[float, _CLIP_NORM] = 1.3
    component_covariance_clip_norm: Annotated[float, _CLIP_NORM] = 1.3
    fine_covariance_clip_norm: Annotated[float, _CLIP_NORM] = 1.3
    count_weight: Annotated[float, Between(1e-3, 0.999)] = 0.1
    texture_weight: Annotated[float, Between(1e-3, 0.999)] = 0.15

    group = "mixture"
    whole = closed_form.WHOLE

    def check(self, config: ModelConfig) -> None:
        """Refuse base images that are too large."""
        if (size := math.prod(config.base_shape)) > MOST_COEFFICIENTS:
            raise ConfigError(
                f"The base image has {size} numbers.",
                f"Import smaller images, or use model=pyramid: at most {MOST_COEFFICIENTS}.",
            )

    def specs(self, config: ModelConfig) -> dict[str, ArraySpec]:
        """See `mixture_specs`."""
        return mixture_specs(config.scales, config.classes, self.components)

    def start(self, config: ModelConfig) -> Arrays:
        """Return the public prior."""
        return closed_form.start(config.scales, config.classes, self.components)

    def denoiser(
        self, config: ModelConfig, arrays: Arrays, below: BaseDenoiser | None
    ) -> BaseDenoiser:
        """Build the closed form; it stands on nothing."""
        del below
        return closed_form.build_mixture(config.scales, arrays)


@dataclass(frozen=True)
class Scales:
    """Public scales of an image shape under a configuration; all float64 tensors."""

    config: MixtureConfig
    basis: Basis

    @property
    def band(self) -> int:
        """d, at most the number of coefficients."""
        return min(self.config.band, self.basis.size)

    @property
    def principal_axes(self) -> int:
        """m, at most the band."""
        return min(self.config.principal_axes, self.band)

    @property
    def fine_band(self) -> int:
        """Number of fine coefficients, at most those above the band."""
        return min(self.config.fine_band, self.basis.size - self.band)

    @property
    def texture(self) -> int:
        """Number of texture coefficients, at most the number of coefficients."""
        return min(self.config.texture, self.basis.size)

    @cached_property
    def std(self) -> torch.Tensor:
        """(P,) standard deviation of each coefficient under the public prior."""
        return torch.sqrt(self.basis.prior_variance * self.config.pixel_variance)

    def half_whitening(self, size: int) -> torch.Tensor:
        """Return weights w (size,) ~ std^-1/2 with a prior expectation of |w·u|² = 1.

        For a fixed squared norm sum w² std², sum 1/w² (the noise that comes back on the
        coefficients) is least at w ~ std^-1/2: half way between pixels and whitened pixels.
        """
        std = self.std[:size]
        return 1 / torch.sqrt(std * std.sum())

    def fine_whitening(self) -> torch.Tensor:
        """Return such weights (fine_band,) for the fine coefficients."""
        std = self.std[self.band : self.band + self.fine_band]
        return 1 / torch.sqrt(std * std.sum())

    def fine_prior(self, texture: torch.Tensor) -> torch.Tensor:
        """Return the prior covariance of all coefficients above the band, (P - d, P - d)."""
        return self.modulated_prior(texture.double(), slice(self.band, None))

    def prior_mean(self) -> torch.Tensor:
        """(P,) coefficients of the constant background image."""
        c, h, w = self.basis.shape
        image = torch.full((1, c, h, w), self.config.background, dtype=torch.float64)
        return self.basis.forward(image)[0]

    def modulated_prior(self, texture: torch.Tensor, rows: slice) -> torch.Tensor:
        """Return the prior covariance of some coefficients under local contrast.

        Parameters
        ----------
        texture
            (C, H, W) variance of each whitened pixel; all ones give the stationary prior.
        rows
            Which coefficients.

        Returns
        -------
        (r, r) float64: std B diag(texture) Bᵀ std, with B the rows of the basis.
        """
        unit = torch.eye(self.basis.size, dtype=torch.float64)[rows]
        factor = self.std[rows, None] * (self.basis.inverse(unit) * texture.sqrt()).flatten(1)
        return factor @ factor.T
