"""HMC leaves p(x; sigma) as it is: chains that start in the target must stay in it.

The chains are independent, so plain z-scores hold: at |z| < 6 a false alarm has probability 2e-9
for each of at most 30 figures (normal approximation, 1e5 chains). Seeds are fixed.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch

from sampler import hmc
from sampler.hmc import Info, State, hmc_step
from tests.unit.sampler.mixture import BatchNoise, ExactMixture, gaussian, two_modes, worst_z
from tests.unit.sampler.test_dynamics import missing_half_kick, trapezoid, wrong_sign

CHAINS = 100_000
Step = Callable[..., tuple[State, Info]]
# target, step size over sigma, steps, trajectories
ROUND = (gaussian([[0.0, 0.0], [0.0, 0.0]], [0.0, 0.0]), 1.5, 2, 8)
LONG = (gaussian([[9.0, 4.0], [4.0, 3.0]], [1.0, -2.0]), 1.4, 4, 6)
MODES = (two_modes(3.0), 0.8, 2, 12)


def forgotten_flip(state: State, *args, **kwargs) -> tuple[State, Info]:
    new, info = hmc_step(state, *args, **kwargs)
    stayed = (new.x == state.x).all(dim=3, keepdim=True)
    return new._replace(momentum=torch.where(stayed, -new.momentum, new.momentum)), info


def batch_summed(state: State, force_at, noise, *, metropolis: bool, **kwargs):
    """Accept or reject the whole batch by its summed energy error."""
    new, info = hmc_step(state, force_at, noise, metropolis=False, **kwargs)
    if float(noise.uniform()[0]) <= float(torch.exp(-info.energy_error.sum())):
        return new, info
    return State(state.x, -state.momentum, state.force), info


def run(step: Step, model: ExactMixture, size: float, steps: int, count: int, **kwargs):
    x = model.draw(CHAINS, 1.0, np.random.default_rng(3))
    noise, force_at = BatchNoise(4, CHAINS), model.force(1.0)
    state, accepted = State(x, noise.normal((1, 1, 2)), force_at(x)), []
    for _ in range(count):
        options = {"step": size, "steps": steps, "keep": 0.7, "metropolis": True} | kwargs
        state, info = step(state, force_at, noise, **options)
        accepted.append(float(info.acceptance.mean()))
    return state, sum(accepted) / count


def check_stationary(step: Step, target, moments: tuple[str, ...] = (), **kwargs) -> float:
    """First and second moments of (x, p), all or those named; return the mean acceptance."""
    model, *how = target
    state, acceptance = run(step, model, *how, **kwargs)
    x, p = state.x.flatten(1), state.momentum.flatten(1)
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
    assert 0.5 < check_stationary(hmc_step, target) < 0.98  # the test has something to reject


@pytest.mark.parametrize("target", [ROUND, MODES], ids=["round", "modes"])
def test_without_the_metropolis_test_the_step_size_shows(target) -> None:
    with pytest.raises(AssertionError):
        check_stationary(hmc_step, target, metropolis=False)


@pytest.mark.parametrize(
    ("target", "broken"),
    [(ROUND, wrong_sign), (ROUND, missing_half_kick), (MODES, trapezoid)],
    ids=["wrong sign", "missing half kick", "trapezoid"],
)
def test_broken_trajectories_are_caught(target, broken, monkeypatch) -> None:
    monkeypatch.setattr(hmc, "leapfrog", broken)
    with pytest.raises(AssertionError):
        check_stationary(hmc_step, target)


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


def check_each_image_decides_for_itself(step: Step) -> None:
    """Two of six images start where they must fail: alone or in a batch, all fare the same."""
    model, _, steps, _ = ROUND
    force_at = model.force(1.0)
    x = model.draw(6, 1.0, np.random.default_rng(5))
    x[:2] *= 1e3

    def move(rows: slice) -> State:
        state = State(x[rows], torch.zeros_like(x[rows]), force_at(x[rows]))
        how = {"step": 1.9, "steps": steps, "keep": 0.0, "metropolis": True}
        return step(state, force_at, Fixed(rows), **how)[0]

    together = move(slice(None))
    moved = (together.x != x).flatten(1).any(dim=1)
    assert 0 < int(moved.sum()) < 6
    for i in range(6):
        torch.testing.assert_close(move(slice(i, i + 1)).x, together.x[i : i + 1])


def test_acceptance_is_per_image() -> None:
    check_each_image_decides_for_itself(hmc_step)
    with pytest.raises(AssertionError):
        check_each_image_decides_for_itself(batch_summed)


def test_rejection_keeps_the_place_and_turns_the_momentum() -> None:
    x = torch.ones(3, 1, 1, 2, dtype=torch.float64)
    cliff = partial(torch.full_like, fill_value=torch.nan)
    state = State(x, torch.zeros_like(x), -x)
    for metropolis in (True, False):
        noise = BatchNoise(0, 3)
        how = {"step": 0.1, "steps": 2, "keep": 0.0, "metropolis": metropolis}
        new, info = hmc_step(state, cliff, noise, **how)
        torch.testing.assert_close(new.x, x)
        torch.testing.assert_close(new.force, -x)
        torch.testing.assert_close(new.momentum, -BatchNoise(0, 3).normal((1, 1, 2)))
        assert info.divergent.all()
        assert (info.acceptance == 0).all()


def test_an_energy_out_of_all_proportion_is_counted_not_hidden() -> None:
    x = torch.ones(2, 1, 1, 2, dtype=torch.float64)
    stiff = lambda at: -1e4 * at  # noqa: E731
    how = {"step": 1.0, "steps": 2, "keep": 0.0, "metropolis": True}
    _, info = hmc_step(State(x, 0 * x, stiff(x)), stiff, BatchNoise(1, 2), **how)
    assert info.divergent.all()
