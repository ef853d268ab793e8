"""From noise to a finished image: the base first, then each octave upon what is below it.

Every stage is drawn by the same sampler. All but the last stop at the noise level at which the next
octave takes over, and keep that noise (`dppm_model.score.pyramid`).
"""

from __future__ import annotations

from dataclasses import replace

import torch

from dppm_model.errors import ConfigError
from dppm_model.score.denoiser import ImageModel
from sampler.anneal import annealed_hmc, annealed_langevin
from sampler.noise import NoiseSource
from sampler.settings import SamplerSettings
from sampler.solvers import SampleInfo, Sampler, churned, heun

SAMPLERS: dict[str, Sampler] = {
    "hmc": annealed_hmc,
    "langevin": annealed_langevin,
    "heun": heun,
    "churn": churned,
}


def draw_images(
    model: ImageModel, y: torch.Tensor, noise: NoiseSource, settings: SamplerSettings
) -> tuple[torch.Tensor, SampleInfo]:
    """Draw images of the classes ``y`` (n,): (n, C, H, W), and what the stages said together.

    Raises
    ------
    ConfigError
        If the noise that octaves begin with is below that at which they take over.
    """
    sample = SAMPLERS[settings.method]
    if model.octaves is None:
        return sample(model, y, noise, settings)
    levels = model.octaves.config.levels
    if settings.octave_sigma_max <= max(levels):
        raise ConfigError(
            f"sampler.octave_sigma_max is {settings.octave_sigma_max}, an octave takes over at "
            f"{max(levels)}.",
            "Give a larger number.",
        )
    x, info = sample(model, y, noise, base_settings(model, settings))
    for index, last in enumerate([*levels[1:], None]):
        octave = model.octaves.octave(index, x)
        residual, more = sample(octave, y, noise, octave_settings(settings, last))
        x = octave.finish(residual)
        info = SampleInfo(
            info.evaluations + more.evaluations,
            info.acceptance + (more.acceptance if settings.octave_metropolis else ()),
            info.divergences + more.divergences,
        )
    return x, info


def base_settings(model: ImageModel, settings: SamplerSettings) -> SamplerSettings:
    """Return the settings of the base: down to where the first octave takes over."""
    if model.octaves is None:
        return settings
    return replace(settings, sigma_min=model.octaves.config.handover, keep_noise=True)


def octave_settings(settings: SamplerSettings, last: float | None) -> SamplerSettings:
    """Return the settings of an octave that ends at the level ``last``, or at the image."""
    return replace(
        settings,
        levels=settings.octave_levels,
        sigma_max=settings.octave_sigma_max,
        sigma_min=settings.sigma_min if last is None else last,
        step=settings.octave_step,
        metropolis=settings.octave_metropolis,
        guidance=1.0,  # the details know no class
        keep_noise=last is not None,
    )
