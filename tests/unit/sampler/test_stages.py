"""Base and upsampling stages: what is handed over, and images that keep their name."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from dppm_model.errors import ConfigError
from dppm_model.score.model import ScoreModel
from dppm_model.training.gradient import DetailLearner
from sampler.draw import Worker
from sampler.images import Shard, decode_shard, shard_size
from sampler.noise import ImageNoise
from sampler.settings import SamplerSettings
from sampler.stages import SAMPLERS, base_settings, draw_images, upsampling_settings
from tests.unit.sampler.mixture import ExactMixture

FAST = SamplerSettings(num_levels=4, stage_num_levels=3)


def pyramid(colours: int = 1) -> ScoreModel:
    settings = {"mixture": {"band": 16}, "pyramid": {"stages": 2}}
    model = ScoreModel.initial((colours, 64, 64), 2, settings)
    weights = DetailLearner.first(model, 0)
    return model.replace({"detail.weights": weights, "detail.ema": weights})


def names(n: int) -> list[tuple[int, int]]:
    return [(0, i) for i in range(n)]


@pytest.mark.parametrize("method", SAMPLERS)
def test_what_keeps_its_noise_has_the_variance_of_its_level(method: str) -> None:
    """N(0, 0.25) at the level 0.5 has variance 0.5; the denoised image has less than 0.25."""
    d = 4
    model = ExactMixture(
        (1, 2, 2),
        torch.ones(1, 1, dtype=torch.float64),
        torch.zeros(1, 1, d, dtype=torch.float64),
        0.25 * torch.eye(d, dtype=torch.float64)[None, None],
    )
    n, y = 4000, torch.zeros(4000, dtype=torch.int64)
    how = SamplerSettings(method, num_levels=24, sigma_max=20.0, sigma_min=0.5)
    x = SAMPLERS[method](model, y, ImageNoise(0, names(n)), how, denoise=False)[0]
    error = 0.5 * np.sqrt(2 / (n * d))
    bias = 0.02 if method in ("heun", "churn") else 0.0  # of the solver's steps
    assert abs(float(x.var()) - 0.5) < 4 * error + bias
    denoised = SAMPLERS[method](model, y, ImageNoise(0, names(n)), how)
    assert float(denoised[0].var()) < 0.3


def test_stages_hand_over_at_their_levels() -> None:
    model = pyramid()
    base = base_settings(model, FAST)
    assert (base.sigma_min, base.num_levels) == (0.3, 4)
    middle, last = upsampling_settings(FAST, 0.1), upsampling_settings(FAST, None)
    assert (middle.sigma_min, middle.sigma_max) == (0.1, 1.5)
    assert (last.sigma_min, last.num_levels) == (FAST.sigma_min, 3)


@pytest.mark.parametrize("method", SAMPLERS)
def test_images_have_their_full_size_and_their_own_noise(method: str) -> None:
    model, settings = pyramid(), replace(FAST, method=method)
    y = torch.zeros(3, dtype=torch.int64)
    with torch.inference_mode():
        x, info = draw_images(model, y, ImageNoise(1, names(3)), settings)
        alone, _ = draw_images(model, y[:1], ImageNoise(1, names(3)[2:]), settings)
    assert x.shape == (3, 1, 64, 64)
    assert torch.isfinite(x).all()
    assert torch.allclose(alone[0], x[2], atol=1e-2)  # its noise is its own
    assert not torch.allclose(x[0], x[2], atol=0.1)
    if method == "hmc":
        assert info.evaluations == (4 + 2 * 3) * 3
        assert len(info.acceptance) == 4  # of the base: upsampling has no test unless asked for
        with torch.inference_mode():
            tested = replace(settings, stage_metropolis=True)
            _, info = draw_images(model, y, ImageNoise(1, names(3)), tested)
        assert len(info.acceptance) == 4 + 2 * 3
    low = replace(settings, stage_sigma_max=0.2)
    with pytest.raises(ConfigError, match=r"stage_sigma_max is 0\.2, a stage takes over at 0\.3"):
        draw_images(model, y, ImageNoise(1, names(3)), low)


def test_an_image_is_near_its_base() -> None:
    """Averaged down again, what a stage gives is the image that it was given."""
    model = pyramid()
    stages = model.pyramid
    assert stages is not None
    below = torch.full((4, 1, 16, 16), -1.0)
    below[:, :, 4:12, 4:12] = 1.0
    noisy = below + 0.1 * torch.randn(below.shape, generator=torch.Generator().manual_seed(0))
    stage = stages.stage(1, noisy)
    y = torch.zeros(4, dtype=torch.int64)
    with torch.inference_mode():
        residual, _ = SAMPLERS["heun"](
            stage,
            y,
            ImageNoise(0, names(4)),
            upsampling_settings(SamplerSettings(stage_num_levels=8), None),
        )
    back = torch.nn.functional.avg_pool2d(stage.finish(residual), 2)
    assert (back - below).square().mean().sqrt() < 0.25


def test_a_shard_of_large_images_is_small() -> None:
    assert shard_size((1, 28, 28)) == shard_size((3, 32, 32)) == 100
    assert shard_size((1, 256, 256)) == 16
    assert shard_size((3, 4096, 4096)) == 1


def test_a_shard_of_a_pyramid_is_a_pure_function() -> None:
    shard = Shard(1, 0, 2)
    first, second = (Worker(lambda _: pyramid()).draw(b"", shard, 0, FAST) for _ in range(2))
    assert first == second
    assert decode_shard(first)[0].shape == (2, 1, 64, 64)
