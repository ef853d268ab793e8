"""Langevin steps: MALA leaves p(x; sigma) as it is, unadjusted Langevin visibly does not."""

import pytest
import torch

from sampler import langevin as module
from sampler.integrators import simpson
from sampler.kernels import SamplingAlgorithm
from sampler.langevin import LangevinState, langevin
from tests.unit.sampler.test_hmc import MODES, ROUND, check_stationary


def as_kernel(score, size, _steps, *, momentum_persistence, metropolis) -> SamplingAlgorithm:
    del momentum_persistence
    return langevin(score, size, metropolis=metropolis)


ROUND_STEP, MODES_STEP = (ROUND[0], 1.2, 1, 8), (MODES[0], 0.8, 1, 15)


@pytest.mark.parametrize("target", [ROUND_STEP, MODES_STEP], ids=["round", "modes"])
def test_the_target_is_left_as_it_is(target) -> None:
    """The momentum is fresh each time, so it is tested by x alone."""
    assert 0.5 < check_stationary(as_kernel, target, moments=("x", "x²", "xx")) < 0.98


@pytest.mark.parametrize("target", [ROUND_STEP, MODES_STEP], ids=["round", "modes"])
def test_without_the_test_the_step_size_shows(target) -> None:
    with pytest.raises(AssertionError):
        check_stationary(as_kernel, target, moments=("x", "x²", "xx"), metropolis=False)


@pytest.mark.parametrize("fault", ["wrong sign", "no kinetic energy", "no middle"])
def test_twins_are_caught(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if fault == "no kinetic energy":  # Metropolis instead of Metropolis-Hastings
        monkeypatch.setattr(module, "delta_kinetic", lambda p, q: torch.zeros(len(p)).double())
    elif fault == "wrong sign":
        monkeypatch.setattr(module, "simpson", lambda *points: -simpson(*points))
    else:  # the score at the start stands for that in the middle
        monkeypatch.setattr(module, "simpson", lambda a, b, c: simpson(a, (b[0], a[1]), c))
    with pytest.raises(AssertionError):
        check_stationary(as_kernel, MODES_STEP, moments=("x", "x²", "xx"))


def test_a_step_costs_one_evaluation_and_with_the_test_two() -> None:
    calls = []

    def score(x: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return -x

    class Noise:
        def normal(self, shape):
            return torch.ones(3, *shape)

        def uniform(self):
            return torch.full((3,), 0.5).double()

    x = torch.zeros(3, 1, 2, 2)
    for metropolis, cost in ((False, 1), (True, 2)):
        calls.clear()
        langevin(score, 0.1, metropolis=metropolis).step(Noise(), LangevinState(x, -x))
        assert len(calls) == cost
