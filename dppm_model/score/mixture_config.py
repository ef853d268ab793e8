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
MOST_BAND = 1 << 12  # its pooled covariance has as many rows
_CLIP_NORM = Between(1e-6, 1e6)


@dataclass(frozen=True)
class MixtureConfig(Part):
    """Constants of the closed form; all public, none taken from private data.

    Attributes
    ----------
    band
        d, the number of low cosine coefficients that get class means and a pooled covariance. All
        others share their means and variances between the classes.
    axes
        r, the number of principal axes of the pooled covariance in which each class has a
        covariance of its own, and its components have their centres.
    components
        J, Gaussians per class; 1 is the class Gaussian.
    principal_axes
        m, the number of principal axes of a class in which each component gets a covariance of its
        own; 0 leaves the components of a class with one covariance.
    pixel_variance
        Guess of a pixel's variance within a class; sets the scale of the prior.
    background
        Guess of the mean pixel value, in [-1, 1].
    means_clip_norm
        Clip norm of the half-whitened residual, in units of its root mean square expected under
        the variances that were released before.
    variances_clip_norm
        Clip norm of the squares of all whitened coefficients, less one, in units of its root mean
        square expected of a Gaussian.
    covariance_clip_norm, components_clip_norm
        Clip norm of a residual, half-whitened in the band or whitened in the axes, in units of its
        root mean square expected under what was released before.
    component_covariance_clip_norm
        The same in the principal axes of a class.
    count_weight
        Share (as a norm) of a record's vector that its class or component indicator gets.
    """

    band: Annotated[int, Between(1, MOST_BAND)] = 400
    axes: Annotated[int, Between(1, MOST_BAND)] = 96
    components: Annotated[int, Between(1, 1024)] = 1
    principal_axes: Annotated[int, Between(0, MOST_BAND)] = 0
    pixel_variance: Annotated[float, Between(1e-4, 4.0)] = 0.25
    background: Annotated[float, Between(-1.0, 1.0)] = 0.0
    means_clip_norm: Annotated[float, _CLIP_NORM] = 1.4
    variances_clip_norm: Annotated[float, _CLIP_NORM] = 2.0
    covariance_clip_norm: Annotated[float, _CLIP_NORM] = 1.3
    components_clip_norm: Annotated[float, _CLIP_NORM] = 1.2
    component_covariance_clip_norm: Annotated[float, _CLIP_NORM] = 1.3
    count_weight: Annotated[float, Between(1e-3, 0.999)] = 0.1

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
    """Public sizes and scales of an image shape under a configuration."""

    config: MixtureConfig
    basis: Basis

    @property
    def band(self) -> int:
        """d, at most the number of coefficients."""
        return min(self.config.band, self.basis.size)

    @property
    def axes(self) -> int:
        """r, at most the band."""
        return min(self.config.axes, self.band)

    @property
    def principal_axes(self) -> int:
        """m, at most the axes."""
        return min(self.config.principal_axes, self.axes)

    @cached_property
    def std(self) -> torch.Tensor:
        """(P,) float64 standard deviation of each coefficient under the public prior."""
        return torch.sqrt(self.basis.prior_variance * self.config.pixel_variance)

    def prior_mean(self) -> torch.Tensor:
        """(P,) float64 coefficients of the constant background image."""
        c, h, w = self.basis.shape
        image = torch.full((1, c, h, w), self.config.background, dtype=torch.float64)
        return self.basis.forward(image)[0]


def half_whitening(std: torch.Tensor) -> torch.Tensor:
    """Return weights w (n,) ~ std^-1/2 with an expectation of |w·u|² of 1.

    For a fixed squared norm sum w² std², sum 1/w² (the noise that comes back on the coefficients)
    is least at w ~ std^-1/2: half way between pixels and whitened pixels.
    """
    return 1 / torch.sqrt(std * std.sum())
