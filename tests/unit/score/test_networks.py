"""The residual networks: shapes, a start at zero, records kept apart, and the fast gradients."""

import math

import numpy as np
import pytest
import torch

from dppm_model.errors import ConfigError, ModelError
from dppm_model.mechanism.gradients import method_for, per_record
from dppm_model.score.denoising import draw_noise
from dppm_model.score.gradient import denoising_losses
from dppm_model.score.networks import KINDS, first_weights
from dppm_model.score.residual import Band, ResidualConfig
from dppm_model.score.weights import set_weights, zeroed
from dppm_model.training.gradient import require_separate_records

CASES = [
    *((kind, (1, 28, 28), {}) for kind in KINDS),
    ("conv", (3, 32, 24), {"band": 8, "fold": 4, "blocks": 1, "channels": 6}),
    ("conv", (1, 8, 8), {"band": 64, "fold": 2, "channels": 7}),
    ("dct_mlp", (1, 28, 28), {"band": 6, "channels": 20}),
    ("unet", (3, 16, 24), {"band": 16, "fold": 1, "channels": 5, "depth": 2}),
]


def example(
    kind: str, shape: tuple[int, int, int], settings: dict, seed: int = 0
) -> tuple[Band, torch.nn.Module, list[torch.Tensor]]:
    """A network with all weights alive, and inputs of 3 records of 2 draws."""
    own = {"kind": kind} | {key: value for key, value in settings.items() if key != "band"}
    config = ResidualConfig.from_dict({"network": own, "band": settings.get("band", 28)})
    band, network = config.build(shape, 5)
    generator = torch.Generator().manual_seed(seed)
    weights = first_weights(network, seed)
    weights += torch.randn(weights.shape, generator=generator) / 10
    set_weights(network.parameters(), weights.numpy())
    z, base, target = (torch.randn(3, 2, *band.small, generator=generator) for _ in range(3))
    sigma = torch.rand(3, 2, generator=generator) + 0.2
    return band, network, [z, base, sigma, torch.tensor([[0, 0], [4, 4], [1, 1]]), target]


@pytest.mark.parametrize(("kind", "shape", "settings"), CASES)
def test_networks_keep_shapes_and_records_apart(
    kind: str, shape: tuple[int, int, int], settings: dict
) -> None:
    band, network, inputs = example(kind, shape, settings)
    z, base, sigma, y, _ = (x.flatten(0, 1) for x in inputs)
    out = network(z, base, sigma, y)
    assert out.shape == (6, *band.small)
    assert method_for(network) == "factors"
    require_separate_records(network, denoising_losses, inputs)
    fast, slow = (per_record(network, denoising_losses, inputs, m) for m in ("factors", "vmap"))
    torch.testing.assert_close(fast, slow, rtol=1e-3, atol=1e-5)
    # Every input matters: the class, the noise level, and both images.
    for i, other in enumerate((z.flip(-1), base.flip(-1), sigma * 2, (y + 1) % 5)):
        changed = [z, base, sigma, y]
        changed[i] = other
        assert (network(*changed) - out).abs().max() > 1e-4


@pytest.mark.parametrize(("kind", "shape", "settings"), CASES)
def test_first_weights_give_zero_and_come_from_the_seed(
    kind: str, shape: tuple[int, int, int], settings: dict
) -> None:
    _, network, inputs = example(kind, shape, settings)
    weights = first_weights(network, 3)
    assert torch.equal(weights, first_weights(network, 3))
    assert not torch.equal(weights, first_weights(network, 4))
    set_weights(network.parameters(), weights.numpy())
    z, base, sigma, y, _ = (x.flatten(0, 1) for x in inputs)
    assert not network(z, base, sigma, y).any()
    # ... but it can leave zero: the last layer's gradient does not vanish.
    assert per_record(network, denoising_losses, inputs).abs().sum() > 0


def test_a_network_with_a_buffer_is_refused() -> None:
    with torch.device("meta"):
        network = torch.nn.BatchNorm2d(3)
    with pytest.raises(ModelError, match="buffer, 'running_mean'"):
        zeroed(network)


def test_the_recipe_has_few_parameters() -> None:
    for kind in ("conv", "unet"):
        _, network, _ = example(kind, (1, 28, 28), {})
        assert 20_000 < sum(p.numel() for p in network.parameters()) < 35_000


def test_building_draws_nothing_from_the_global_generator() -> None:
    before = torch.get_rng_state()
    ResidualConfig().build((1, 28, 28), 10)
    assert torch.equal(before, torch.get_rng_state())


def test_band_is_orthonormal_and_whole_when_wide_enough() -> None:
    x = torch.randn(4, 2, 12, 10, generator=torch.Generator().manual_seed(0))
    whole = Band((2, 12, 10), 64)
    torch.testing.assert_close(whole.up(whole.down(x)), x, rtol=1e-4, atol=1e-5)
    band = Band((2, 12, 10), 5)
    z = band.down(x)
    assert z.shape == (4, *band.small) == (4, 2, 5, 5)
    torch.testing.assert_close(band.down(band.up(z)), z, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(band.up(z).norm(), z.norm(), rtol=1e-5)


def test_noise_levels_stay_in_range_and_follow_the_tilt() -> None:
    for tilt in (0.0, 1.0, 3.0):
        config = ResidualConfig(sigma_low=0.1, sigma_high=10.0, tilt=tilt, draws=4)
        sigma, _ = draw_noise(torch.arange(5000), (1,), config)
        assert sigma.shape == (5000, 4) and sigma.min() >= 0.1 and sigma.max() <= 10.001
        u = (sigma.double().log() - math.log(0.1)) / math.log(100)
        # E u = (1 + tilt)/(2 + tilt); 20,000 stratified draws: five errors are below 0.01.
        assert abs(float(u.mean()) - (1 + tilt) / (2 + tilt)) < 0.01
        assert bool((sigma.diff(dim=1) > -1e-6).all())  # one in each stratum, in order


@pytest.mark.parametrize(
    "settings",
    [
        {"network": {"kind": "dense"}},
        {"network": {"channels": 3}},
        {"network": {"kind": "conv", "channels": True}},
        {"network": {"kind": "dct_mlp", "fold": 4}},
        {"network": "conv"},
        {"band": 0},
        {"draws": 1.5},
        {"ema": 1.0},
        {"sigma_low": 4.0},
        {"learning_rate": math.nan},
        {"rate": 1},
    ],
)
def test_bad_settings_are_refused(settings: dict) -> None:
    with pytest.raises(ConfigError, match=rf"residual\.{next(iter(settings))}"):
        ResidualConfig.from_dict(settings)


def test_a_band_that_does_not_fold_is_refused() -> None:
    for kind in ("conv", "unet"):
        config = ResidualConfig.from_dict({"network": {"kind": kind, "fold": 4}, "band": 14})
        with pytest.raises(ConfigError, match=r"network\.fold"):
            config.lay_out((1, 28, 28), 10)
