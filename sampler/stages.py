"""From noise to a finished image: the base first, then each stage of the pyramid upon the last.

Every stage is drawn by the same sampler. All but the last stop at the noise level at which the next
one takes over, with that noise (`dppm_model.score.pyramid`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from dppm_model.errors import ConfigError
from dppm_model.score.denoiser import ImageModel
from sampler.anneal import annealed, solved
from sampler.noise import NoiseSource
from sampler.settings import SamplerSettings
from sampler.target import SampleInfo, Sampler

SAMPLERS: dict[str, Sampler] = {
    "hmc": annealed,
    "langevin": annealed,
    "heun": solved,
    "churn": solved,
}


def draw_images(
    model: ImageModel, y: torch.Tensor, noise: NoiseSource, settings: SamplerSettings
) -> tuple[torch.Tensor, SampleInfo]:
    """Draw images of the classes ``y`` (n,): (n, C, H, W), and what the stages said together.

    Raises
    ------
    ConfigError
        See `stage_settings`.
    """
    sample, base = SAMPLERS[settings.method], model.coordinates
    if model.pyramid is None:
        x, info = sample(base, y, noise, settings)
        return model.decode(base.image(x)), info
    of_base, *above = stage_settings(model.pyramid.levels, settings)
    x, info = sample(base, y, noise, of_base, denoise=False)
    x = base.image(x)
    for index, of_stage in enumerate(above):
        stage = model.pyramid.stage(index, x)
        residual, more = sample(stage, y, noise, of_stage, denoise=index == len(above) - 1)
        x = stage.finish(residual)
        info = SampleInfo(
            info.evaluations + more.evaluations,
            info.acceptance + (more.acceptance if settings.stage_metropolis else ()),
            info.divergences + more.divergences,
        )
    return model.decode(x), info


def draw_base(
    model: ImageModel, y: torch.Tensor, noise: NoiseSource, settings: SamplerSettings
) -> torch.Tensor:
    """Draw denoised base images (n, C, h, w) alone: of a pyramid, what takes little time."""
    base = model.coordinates
    x, _ = SAMPLERS[settings.method](base, y, noise, base_settings(model, settings))
    return model.decode(base.image(x))


def stage_settings(levels: Sequence[float], settings: SamplerSettings) -> list[SamplerSettings]:
    """Return the settings of the base and of each stage above it, lowest first.

    Raises ConfigError if the noise that a stage begins with is not above that at which it ends or
    takes over.

    Parameters
    ----------
    levels
        See `dppm_model.score.denoiser.Upsampling`.
    """
    if settings.stage_sigma_max <= max(levels):
        raise ConfigError(
            f"sampler.stage_sigma_max is {settings.stage_sigma_max}, a stage takes over at "
            f"{max(levels)}.",
            "Give a larger number.",
        )
    base = replace(settings, sigma_min=levels[0])
    return [base, *(upsampling_settings(settings, last) for last in (*levels[1:], None))]


def base_settings(model: ImageModel, settings: SamplerSettings) -> SamplerSettings:
    """Return the settings of the base: down to where the first stage takes over."""
    if model.pyramid is None:
        return settings
    return stage_settings(model.pyramid.levels, settings)[0]


def upsampling_settings(settings: SamplerSettings, last: float | None) -> SamplerSettings:
    """Return the settings of a stage that ends at the level ``last``, or at the image."""
    return replace(
        settings,
        num_levels=settings.stage_num_levels,
        sigma_max=settings.stage_sigma_max,
        sigma_min=settings.sigma_min if last is None else last,
        step_size=settings.stage_step_size,
        metropolis=settings.stage_metropolis,
        guidance=1.0,  # the details know no class
    )
