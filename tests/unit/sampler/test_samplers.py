"""All samplers: one signature, honest counts, and the right distribution at the end."""

import inspect
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from dppm_model.errors import ConfigError
from dppm_model.score.mixture import Mixture
from dppm_model.score.model import ScoreModel
from sampler.anneal import annealed, kernel
from sampler.hmc import hmc
from sampler.kernels import MetropolisInfo, SamplingAlgorithm
from sampler.langevin import langevin
from sampler.noise import ImageNoise, philox
from sampler.settings import METHODS, SamplerSettings
from sampler.solvers import EDMInfo, edm
from sampler.stages import SAMPLERS
from sampler.target import SampleInfo, Target
from tests.unit.sampler.mixture import BatchNoise, ExactMixture, gaussian, pictures, two_modes


@pytest.mark.parametrize("method", METHODS)
def test_signature(method: str) -> None:
    sample = SAMPLERS[method]
    shared = [*inspect.signature(sample).parameters][:5]
    assert shared == ["model", "y", "noise", "settings", "denoise"]
    model = pictures()
    calls = []

    class Counting:
        shape, classes = model.shape, model.classes

        def denoise(self, x, sigma, y):
            assert sigma.shape == y.shape == (len(x),)
            calls.append(float(sigma[0]))
            return model.denoise(x, sigma, y)

        def class_shift(self, x, sigma, y):
            return model.class_shift(x, sigma, y)

    settings = SamplerSettings(method=method, num_levels=6, transitions_per_level=2)
    y = torch.tensor([0, 2, 1, 2])
    x, info = sample(Counting(), y, ImageNoise(0, [(int(k), 5) for k in y]), settings)
    assert x.shape == (4, 1, 6, 6)
    assert x.dtype == torch.float32
    assert isinstance(info, SampleInfo)
    assert info.evaluations == len(calls)
    assert (calls[0], calls[-1]) == (pytest.approx(20.0), pytest.approx(0.02))
    assert all(0 <= a <= 1 for a in info.acceptance)
    assert info.divergences == 0


@pytest.mark.parametrize(
    ("algorithm", "info"),
    [
        (lambda model: hmc(model.score(1.0), 0.4, 2), MetropolisInfo),
        (lambda model: langevin(model.score(1.0), 0.4), MetropolisInfo),
        (lambda model: edm(Target(model, torch.zeros(5).long()).denoise, [1.0, 0.5, 0.0]), EDMInfo),
    ],
    ids=["hmc", "langevin", "edm"],
)
def test_kernels_have_one_shape(algorithm, info) -> None:
    """``init(position, noise)`` and ``step(noise, state)``, on NamedTuples, no side effects."""
    made, noise = algorithm(pictures()), ImageNoise(0, [(0, i) for i in range(5)])
    assert isinstance(made, SamplingAlgorithm)
    assert list(inspect.signature(made.init).parameters) == ["position", "noise"]
    assert list(inspect.signature(made.step).parameters) == ["noise", "state"]
    x = noise.normal((1, 6, 6))
    state = made.init(x, noise)
    before = [t.clone() for t in state if isinstance(t, torch.Tensor)]
    new, said = made.step(noise, state)
    assert type(new) is type(state) and new._fields[0] == "position"
    assert isinstance(said, info)
    assert new.position.shape == x.shape and not torch.equal(new.position, x)
    for old, now in zip(before, (t for t in state if isinstance(t, torch.Tensor)), strict=True):
        assert torch.equal(old, now)


@pytest.mark.parametrize("method", METHODS)
def test_modes_get_their_weights(method: str) -> None:
    """|z| < 6 of a binomial share: false alarm 2e-9; the samplers' own bias is well inside."""
    n = 20_000
    model = two_modes(1.4, weight=0.3, variance=0.01)
    how = SamplerSettings(method=method)
    x, _ = SAMPLERS[method](model, torch.zeros(n, dtype=torch.int64), BatchNoise(6, n), how)
    share = float((x[:, 0, 0, 0] < 0).double().mean())
    assert abs(share - 0.3) < 6 * (0.3 * 0.7 / n) ** 0.5


def check_guidance(method: str, guidance: float) -> None:
    """The mean at one level under p(x | y) p(y | x)^2 of two overlapping classes, by quadrature.

    The standard error is 0.003, so a false alarm is more than 5 z away.
    """
    n, apart, spread, sigma = 20_000, 0.6, 0.3, 0.3
    one = torch.ones(2, 1, dtype=torch.float64)
    means = torch.tensor([[[-apart / 2]], [[apart / 2]]], dtype=torch.float64)
    model = ExactMixture((1, 1, 1), one, means, spread**2 * one[..., None, None])
    y, noise = torch.ones(n, dtype=torch.int64), BatchNoise(8, n)

    score = partial(Target(model, y, guidance).score, sigma)
    algorithm = kernel(SamplerSettings(method))(score, 0.3)
    state = algorithm.init(noise.normal(model.shape), noise)
    for _ in range(40):
        state, _ = algorithm.step(noise, state)
    grid, variance = np.linspace(-4, 4, 20_001), spread**2 + sigma**2
    log = -((grid - apart / 2) ** 2) / (2 * variance)
    log -= 2 * np.log1p(np.exp(-apart * grid / variance))
    density = np.exp(log - log.max())
    mean = (grid * density).sum() / density.sum()
    assert float(state.position.mean()) == pytest.approx(mean, abs=0.015)


@pytest.mark.parametrize("method", ["hmc", "langevin"])
def test_guidance_draws_what_is_typical_of_the_class(method: str) -> None:
    check_guidance(method, 3.0)
    for wrong in (1.0, 2.0):  # the twins: no guidance, or w where w - 1 belongs
        with pytest.raises(AssertionError):
            check_guidance(method, wrong)


def check_spread(method: str, **settings: Any) -> None:
    """Standard deviations of a Gaussian, wide and narrow, come out within 5 %.

    HMC is 1 and 2.5 % too narrow with 18 levels. Chance moves a standard deviation of 50,000 images
    by 0.32 %: a false alarm is 7 z away, probability 1e-11.
    """
    n = 50_000
    model = gaussian([[0.25, 0.0], [0.0, 0.01]], [0.3, -0.5])
    how = SamplerSettings(method=method, **settings)
    x, _ = SAMPLERS[method](model, torch.zeros(n, dtype=torch.int64), BatchNoise(7, n), how)
    # The samplers end with the posterior mean at sigma_min, which costs sigma_min² of variance.
    wanted = np.sqrt([0.25**2 / (0.25 + 0.02**2), 0.01**2 / (0.01 + 0.02**2)])
    np.testing.assert_allclose(x.flatten(1).std(0), wanted, rtol=0.05)


def test_spread() -> None:
    check_spread("hmc")
    check_spread("heun", num_levels=30)


def check_spread_in_the_axes(asked: float = 1.0) -> None:
    """Every direction of a closed form in axes, within 5 %; chance moves one by 0.5 %: 10 z."""
    n, shape, d, r = 20_000, (1, 4, 4), 6, 3
    rng = np.random.default_rng(5)
    covariance = np.diag([0.5, 0.1, 0.02])
    variance = np.geomspace(0.3, 0.002, 16 - r)
    model = Mixture(
        shape,
        rng.normal(size=(1, 16)),
        np.linalg.qr(rng.normal(size=(d, d)))[0],
        np.zeros((1, 1, r)),
        np.ones((1, 1)),
        covariance[None, None],
        variance,
    )
    y = torch.zeros(n, dtype=torch.int64)
    noise = ImageNoise(3, [(0, i) for i in range(n)])
    with torch.inference_mode():
        axes = model.coordinates
        x, _ = SAMPLERS["hmc"](axes, y, noise, SamplerSettings())
        u = model.to_axes(axes.image(x))
    wanted = asked * np.concatenate([covariance.diagonal(), variance])
    # In the eigenbasis of the covariance, which is that of its axes here.
    np.testing.assert_allclose(u.std(0), np.sqrt(wanted**2 / (wanted + 0.02**2)), rtol=0.05)


def test_spread_in_the_axes_of_a_closed_form() -> None:
    check_spread_in_the_axes()
    with pytest.raises(AssertionError):  # the twin: a quarter more variance
        check_spread_in_the_axes(1.25)


def test_no_churn_is_heun_and_churn_keeps_the_spread() -> None:
    y, noise = torch.tensor([0, 1, 2]), [(0, 0), (1, 0), (2, 0)]
    none = SamplerSettings(method="churn", S_churn=0.0)
    plain = SAMPLERS["heun"](pictures(), y, ImageNoise(1, noise), none)[0]
    assert torch.equal(SAMPLERS["churn"](pictures(), y, ImageNoise(1, noise), none)[0], plain)
    check_spread("churn", num_levels=40, S_churn=20.0)
    with pytest.raises(AssertionError):  # the twin: more noise than the level is raised by
        check_spread("churn", num_levels=40, S_churn=20.0, S_noise=1.2)


@pytest.mark.parametrize(
    "wrong",
    [
        {"method": "leapfrog"},
        {"num_levels": 18.0},
        {"transitions_per_level": True},
        {"num_integration_steps": 3},
        {"step_size": float("nan")},
        {"sigma_min": 30.0},
        {"sigma_min": None},
        {"momentum_persistence": "0.5"},
        {"metropolis": 1},
    ],
    ids=str,
)
def test_settings_refuse(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="sampler." + next(iter(wrong))):
        SamplerSettings(**wrong)


def test_settings_round_trip() -> None:
    settings = SamplerSettings(method="heun", num_levels=9)
    assert SamplerSettings.from_dict({**settings.to_dict(), "per_class": 10}) == settings
    with pytest.raises(ConfigError, match=r"sampler\.keep is not a sampler setting"):
        SamplerSettings.from_dict({"keep": 0.5})


NAMES = [(0, 0), (1, 0), (0, 1), (9, 123_456)]


def check_noise_belongs_to_the_image(source) -> None:
    """An image's draws are the same in any batch and order, and differ between names and seeds."""

    def draws(seed: int, names: list[tuple[int, int]]) -> list[torch.Tensor]:
        noise = source(seed, names)
        parts = [noise.normal((1, 2, 2)), noise.uniform(), noise.normal((3,))]
        return [torch.cat([p[i].flatten() for p in parts]) for i in range(len(names))]

    batch = draws(7, NAMES)
    for name, alone in zip(NAMES, batch, strict=True):
        assert torch.equal(draws(7, [name])[0], alone)
    assert torch.equal(torch.stack(draws(7, NAMES[::-1])), torch.stack(batch[::-1]))
    assert not torch.equal(batch[0][:3], batch[0][-3:])  # nor are two draws of an image the same
    everything = torch.stack([*batch, *draws(8, NAMES), *draws(2**40 + 7, NAMES)])
    assert len(everything.unique(dim=0)) == 12
    # A long seed must not run into the name: seed 2^32 + 5 and class 3 are not seed 5 and class 4.
    assert not torch.equal(draws(2**32 + 5, [(3, 0)])[0], draws(5, [(4, 0)])[0])


def test_noise_belongs_to_the_image() -> None:
    check_noise_belongs_to_the_image(ImageNoise)


class FlatSeed(ImageNoise):
    def __init__(self, seed: int, names: list[tuple[int, int]]) -> None:
        super().__init__(seed % 2**32, [((seed >> 32) + label, index) for label, index in names])


class NoCounter(ImageNoise):
    def _words(self, count: int):
        self._draws = 0
        return super()._words(count)


@pytest.mark.parametrize("broken", [FlatSeed, NoCounter])
def test_broken_noise_is_caught(broken) -> None:
    with pytest.raises(AssertionError):
        check_noise_belongs_to_the_image(broken)


def test_noise_is_normal_and_uniform() -> None:
    """First moments over many images' first draws; |z| < 6, false alarm 2e-9 each."""
    n = 20_000
    noise = ImageNoise(3, [(1, i) for i in range(n)])
    normal, uniform = noise.normal((1,)).double()[:, 0], noise.uniform()
    for value, mean, spread in [(normal, 0, 1), (normal**2, 1, 2**0.5), (uniform, 0.5, 12**-0.5)]:
        assert abs(float(value.mean()) - mean) < 6 * spread / n**0.5
    assert ((uniform > 0) & (uniform <= 1)).all()


def test_philox_gives_the_words_of_its_authors() -> None:
    """Random123's known answers: all ones, and the digits of pi."""
    for counter, key, answer in (
        ([0xFFFFFFFF] * 4, (0xFFFFFFFF,) * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            (0xA4093822, 0x299F31D0),
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ):
        assert [int(word) for word in philox(tuple(map(torch.tensor, counter)), key)] == answer


def test_larger_images_take_shorter_steps_and_pass_as_often() -> None:
    settings = SamplerSettings(num_levels=8)
    assert settings.step_sizes(100) == settings.step_sizes(3072) == (0.4,) * 8
    assert settings.step_sizes(16 * 3072) == pytest.approx((0.2,) * 8)
    langevin = SamplerSettings(method="langevin", num_levels=8)
    assert langevin.step_sizes(64 * 3072) == pytest.approx((0.2,) * 8)
    free = SamplerSettings(method="langevin", num_levels=8, metropolis=False)
    assert free.step_sizes(10**6) == (0.4,) * 8

    def acceptance(own: SamplerSettings) -> float:
        model = ScoreModel.initial((3, 64, 64), 1, {"mixture": {"band": 16}})
        noise = ImageNoise(0, [(0, i) for i in range(8)])
        y = torch.zeros(8, dtype=torch.int64)
        return float(np.mean(annealed(model.coordinates, y, noise, own)[1].acceptance))

    assert acceptance(settings) > 0.45
    assert acceptance(replace(settings, step_size=(0.4,) * 8)) < 0.3
