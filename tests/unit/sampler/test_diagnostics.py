"""R-hat and effective sample size of chains that are known, and pictures that are there."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sampler import chains as module
from sampler.chains import effective_draws, split_r_hat
from sampler.diagnostics import diagnose, mixing, watch
from sampler.settings import SamplerSettings
from tests.unit.sampler.mixture import gaussian, pictures, two_modes


def autoregressive(rho: float, m: int = 8, n: int = 4000, seed: int = 0) -> np.ndarray:
    """Stationary chains x' = rho x + sqrt(1 - rho²) xi: worth m n (1 - rho)/(1 + rho) draws."""
    rng = np.random.default_rng(seed)
    x, out = rng.normal(size=m), []
    for _ in range(n):
        x = rho * x + np.sqrt(1 - rho**2) * rng.normal(size=m)
        out.append(x)
    return np.array(out).T


@pytest.mark.parametrize("rho", [-0.5, 0.0, 0.5, 0.9])
def test_effective_draws_of_an_autoregression(rho: float) -> None:
    """Within 15 %: over 20 seeds the largest error was 9 %."""
    exact = 8 * 4000 * (1 - rho) / (1 + rho)
    assert effective_draws(autoregressive(rho)) == pytest.approx(exact, rel=0.15)


def test_chains_that_agree_and_chains_that_do_not() -> None:
    agree = autoregressive(0.5)
    assert split_r_hat(agree) < 1.01
    assert split_r_hat(agree + np.arange(8)[:, None]) > 1.5  # each around its own place
    drift = autoregressive(0.5) + np.linspace(-3, 3, 4000)  # all alike, but still on their way
    assert split_r_hat(drift) > 1.5
    assert effective_draws(drift) < 100


def test_the_twin_that_does_not_split_misses_a_drift(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_halves", lambda draws: draws)
    assert split_r_hat(autoregressive(0.5) + np.linspace(-3, 3, 4000)) < 1.01


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
