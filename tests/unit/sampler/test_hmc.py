"""HMC leaves p(x; sigma) as it is: chains that start in the target must stay in it.

The chains are independent, so plain z-scores hold: at |z| < 6 a false alarm has probability 2e-9
for each of at most 30 figures (normal approximation, 1e5 chains). Seeds are fixed.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch

from sampler import hmc as module
from sampler.hmc import HMCState, hmc, refresh
from sampler.kernels import SamplingAlgorithm
from tests.unit.sampler.mixture import BatchNoise, ExactMixture, gaussian, two_modes, worst_z
from tests.unit.sampler.test_integrators import missing_half_kick, trapezoid, wrong_sign

CHAINS = 100_000
Kernel = Callable[..., SamplingAlgorithm]
# target, step size over sigma, steps, trajectories
ROUND = (gaussian([[0.0, 0.0], [0.0, 0.0]], [0.0, 0.0]), 1.5, 2, 8)
LONG = (gaussian([[9.0, 4.0], [4.0, 3.0]], [1.0, -2.0]), 1.4, 4, 6)
MODES = (two_modes(3.0), 0.8, 2, 12)


def forgotten_flip(*args, **kwargs) -> SamplingAlgorithm:
    right = hmc(*args, **kwargs)

    def step(noise, state):
        new, info = right.step(noise, state)
        flip = ~info.is_accepted[:, None, None, None]
        return new._replace(momentum=torch.where(flip, -new.momentum, new.momentum)), info

    return right._replace(step=step)


def batch_summed(*args, metropolis: bool, **kwargs) -> SamplingAlgorithm:
    """Accept or reject the whole batch by its summed energy error."""
    right = hmc(*args, metropolis=False, **kwargs)

    def step(noise, state):
        new, info = right.step(noise, state)
        if float(noise.uniform()[0]) <= float(torch.exp(-info.delta_energy.sum())):
            return new, info
        return state._replace(momentum=-state.momentum), info

    return right._replace(step=step)


def run(kernel: Kernel, model: ExactMixture, size: float, steps: int, count: int, **kwargs):
    noise, accepted = BatchNoise(4, CHAINS), []
    options = {"momentum_persistence": 0.7, "metropolis": True} | kwargs
    algorithm = kernel(model.score(1.0), size, steps, **options)
    state = algorithm.init(model.draw(CHAINS, 1.0, np.random.default_rng(3)), noise)
    for _ in range(count):
        state, info = algorithm.step(noise, state)
        accepted.append(float(info.acceptance_rate.mean()))
    return state, sum(accepted) / count


def check_stationary(kernel: Kernel, target, moments: tuple[str, ...] = (), **kwargs) -> float:
    """First and second moments of (x, p), all or those named; return the mean acceptance."""
    model, *how = target
    state, acceptance = run(kernel, model, *how, **kwargs)
    x = state.position.flatten(1)
    p = getattr(state, "momentum", torch.zeros_like(state.position)).flatten(1)
    mean, second = model.moments(1.0)
    none = torch.zeros(2, dtype=torch.float64)
    pairs = {
        "x": (x, mean),
        "x²": (x**2, second.diagonal()),
        "xx": (x[:, :1] * x[:, 1:], second[:1, 1]),
        "p": (p, none),
        "p²": (p**2, none + 1),
        "px": (p * (x - mean), none),
    }
    worst = {name: worst_z(*pairs[name]) for name in moments or pairs}
    assert {name: z for name, z in worst.items() if z >= 6} == {}
    return acceptance


@pytest.mark.parametrize("target", [ROUND, LONG, MODES], ids=["round", "long", "modes"])
def test_the_target_is_left_as_it_is(target) -> None:
    assert 0.5 < check_stationary(hmc, target) < 0.98  # the test has something to reject


@pytest.mark.parametrize("target", [ROUND, MODES], ids=["round", "modes"])
def test_without_the_metropolis_test_the_step_size_shows(target) -> None:
    with pytest.raises(AssertionError):
        check_stationary(hmc, target, metropolis=False)


@pytest.mark.parametrize(
    ("target", "broken"),
    [(ROUND, wrong_sign), (ROUND, missing_half_kick), (MODES, trapezoid)],
    ids=["wrong sign", "missing half kick", "trapezoid"],
)
def test_broken_trajectories_are_caught(target, broken, monkeypatch) -> None:
    monkeypatch.setattr(module, "leapfrog", broken)
    with pytest.raises(AssertionError):
        check_stationary(hmc, target)


def test_a_forgotten_flip_is_caught() -> None:
    with pytest.raises(AssertionError):
        check_stationary(forgotten_flip, ROUND)


class Fixed:
    """The same draws for each image, whatever the batch."""

    def __init__(self, rows: slice) -> None:
        rng = np.random.default_rng(8)
        self._normal = torch.from_numpy(rng.standard_normal((6, 1, 1, 2)))[rows]
        self._uniform = torch.from_numpy(1 - rng.random(6))[rows]

    def normal(self, shape: tuple[int, ...]) -> torch.Tensor:
        return self._normal

    def uniform(self) -> torch.Tensor:
        return self._uniform


def check_each_image_decides_for_itself(kernel: Kernel) -> None:
    """Two of six images start where they must fail: alone or in a batch, all fare the same."""
    model, _, steps, _ = ROUND
    algorithm = kernel(model.score(1.0), 1.9, steps, metropolis=True)
    x = model.draw(6, 1.0, np.random.default_rng(5))
    x[:2] *= 1e3

    def move(rows: slice) -> HMCState:
        state = algorithm.init(x[rows], Fixed(rows))
        return algorithm.step(Fixed(rows), state)[0]

    together = move(slice(None))
    moved = (together.position != x).flatten(1).any(dim=1)
    assert 0 < int(moved.sum()) < 6
    for i in range(6):
        torch.testing.assert_close(move(slice(i, i + 1)).position, together.position[i : i + 1])


def test_acceptance_is_per_image() -> None:
    check_each_image_decides_for_itself(hmc)
    with pytest.raises(AssertionError):
        check_each_image_decides_for_itself(batch_summed)


def test_rejection_keeps_the_place_and_turns_the_momentum() -> None:
    x = torch.ones(3, 1, 1, 2, dtype=torch.float64)
    cliff = partial(torch.full_like, fill_value=torch.nan)
    for metropolis in (True, False):
        algorithm = hmc(cliff, 0.1, metropolis=metropolis)
        new, info = algorithm.step(BatchNoise(0, 3), HMCState(x, torch.zeros_like(x), -x))
        torch.testing.assert_close(new.position, x)
        torch.testing.assert_close(new.logdensity_grad, -x)
        torch.testing.assert_close(new.momentum, -BatchNoise(0, 3).normal((1, 1, 2)))
        assert info.is_divergent.all() and not info.is_accepted.any()
        assert (info.acceptance_rate == 0).all()


def test_an_energy_out_of_all_proportion_is_counted_not_hidden() -> None:
    x = torch.ones(2, 1, 1, 2, dtype=torch.float64)
    algorithm, noise = hmc(lambda at: -1e4 * at, 1.0), BatchNoise(1, 2)
    _, info = algorithm.step(noise, algorithm.init(x, noise))
    assert info.is_divergent.all()


def check_refresh(refreshed) -> None:
    """Unit variance stays, and its persistence is the correlation. |z| < 6: false alarm 4e-9."""
    n = 100_000
    old, fresh = (BatchNoise(seed, n).normal((1, 1, 1)) for seed in (1, 2))
    new = refreshed(old, fresh, 0.7).flatten()
    values = torch.stack([new**2, new * old.flatten()], 1)
    assert worst_z(values, torch.tensor([1.0, 0.7])) < 6


def test_refreshment_keeps_the_normal_law() -> None:
    check_refresh(refresh)
    with pytest.raises(AssertionError):
        check_refresh(lambda old, fresh, keep: keep * old + (1 - keep) * fresh)
