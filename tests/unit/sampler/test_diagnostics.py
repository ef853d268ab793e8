"""Chains that mix and chains that do not, and pictures that are there."""

from pathlib import Path

import numpy as np
from PIL import Image

from sampler.diagnostics import diagnose, mixing, watch
from sampler.settings import SamplerSettings
from tests.unit.sampler.mixture import gaussian, pictures, two_modes


def test_hmc_mixes_on_a_gaussian_and_not_between_modes_far_apart() -> None:
    settings = SamplerSettings(
        num_levels=5, transitions_per_level=1, step_size=0.9, sigma_max=5.0, sigma_min=0.1
    )
    easy = mixing(gaussian([[0.25, 0.0], [0.0, 0.25]], [0.0, 0.0]), settings, level=0)
    hard = mixing(two_modes(3.0), settings, level=4)
    assert easy["r_hat"] < 1.05 < 1.5 < hard["r_hat"]
    assert easy["effective_draws"] > 20 * hard["effective_draws"]


def test_every_level_is_watched() -> None:
    levels, frames, labels = watch(pictures(), SamplerSettings(num_levels=6), per_class=4)
    assert [round(level.sigma, 3) for level in levels][::5] == [20.0, 0.02]
    assert frames.shape == (6, 12, 1, 6, 6) and labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert all(0 < level.acceptance <= 1 and level.divergences == 0 for level in levels)
    assert all(low <= middle <= high for low, middle, high in (x.energy_errors for x in levels))


def test_both_pictures_are_made(tmp_path: Path) -> None:
    found = diagnose(pictures(), SamplerSettings(num_levels=4), tmp_path)
    assert len(found["mixing"]) == 4
    for name, least in (("plot", 500), ("film", 100)):
        with Image.open(found[name]) as image:
            assert min(image.size) > least
            assert np.asarray(image).std() > 5  # not blank
