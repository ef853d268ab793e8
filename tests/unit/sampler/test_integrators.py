"""The integrator on systems with known orbits, and the energy it says it gained."""

import doctest
import math
from collections.abc import Callable

import pytest
import torch

from sampler import integrators, noise
from sampler.integrators import Trajectory, delta_kinetic, dot, leapfrog
from tests.unit.sampler.mixture import two_modes

Integrator = Callable[..., Trajectory]


def missing_half_kick(x, momentum, g, score, step, steps) -> Trajectory:
    end = leapfrog(x, momentum, g, score, step, steps)
    return end._replace(momentum=end.momentum - step / 2 * end.logdensity_grad)


def euler(x, momentum, g, score, step, steps) -> Trajectory:
    rise, start = torch.zeros(len(x), dtype=torch.float64), momentum
    for _ in range(steps):
        x, momentum = x + step * momentum, momentum + step * g
        rise, g = rise - dot(g, step * momentum), score(x)
    return Trajectory(x, momentum, g, rise + delta_kinetic(start, momentum))


def wrong_sign(x, momentum, g, score, step, steps) -> Trajectory:
    end = leapfrog(x, momentum, -g, lambda at: -score(at), step, steps)
    return end._replace(logdensity_grad=-end.logdensity_grad)


def trapezoid(x, momentum, g, score, step, steps) -> Trajectory:
    end = leapfrog(x, momentum, g, score, step, steps)
    error = step**2 / 8 * (dot(end.logdensity_grad, end.logdensity_grad) - dot(g, g))
    return end._replace(delta_energy=error)


def point(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).reshape(1, 1, 1, -1)


def spring(x: torch.Tensor) -> torch.Tensor:
    return -x


def sun(x: torch.Tensor) -> torch.Tensor:
    return -x / (x**2).sum(-1, keepdim=True) ** 1.5


def orbit(integrator: Integrator, x, p, score, time: float, steps: int) -> Trajectory:
    return integrator(x, p, score(x), score, time / steps, steps)


def spring_error(integrator: Integrator, steps: int) -> float:
    """Distance from (cos t, -sin t) at t = 2."""
    end = orbit(integrator, point(1.0), point(0.0), spring, 2.0, steps)
    return math.hypot(float(end.position) - math.cos(2.0), float(end.momentum) + math.sin(2.0))


def check_spring(integrator: Integrator) -> None:
    assert spring_error(integrator, 400) < 1e-5
    assert spring_error(integrator, 50) / spring_error(integrator, 100) == pytest.approx(4, rel=0.1)


def check_kepler(integrator: Integrator) -> None:
    """An ellipse (semi-major axis 0.735, hence its period) closes, and its energy returns."""
    x, p = point(1.0, 0.0), point(0.0, 0.8)
    period = 2 * math.pi * (1 / (2 - 0.8**2)) ** 1.5
    errors, energies = [], []
    for steps in (1000, 2000):
        end = orbit(integrator, x, p, sun, period, steps)
        errors.append(float((end.position - x).norm() + (end.momentum - p).norm()))
        half = orbit(integrator, x, p, sun, period / 2, steps)
        potential = 1 / float(x.norm()) - 1 / float(half.position.norm())
        energies.append(abs(potential + float(delta_kinetic(p, half.momentum))))
    assert errors[1] < 1e-3
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)
    assert energies[0] / energies[1] == pytest.approx(4, rel=0.1)


def check_reversible(integrator: Integrator) -> None:
    there = orbit(integrator, point(1.0, 0.2), point(0.3, 0.8), sun, 3.0, 60)
    back = orbit(integrator, there.position, -there.momentum, sun, 3.0, 60)
    torch.testing.assert_close(back.position, point(1.0, 0.2), atol=1e-10, rtol=0)
    torch.testing.assert_close(back.momentum, -point(0.3, 0.8), atol=1e-10, rtol=0)
    torch.testing.assert_close(back.delta_energy, -there.delta_energy, atol=1e-10, rtol=0)


def check_volume(integrator: Integrator) -> None:
    """The Jacobian of (x, p) -> (x', p') has determinant 1 in a field that is not linear."""
    score = two_modes(3.0).score(1.0)

    def flow(z: torch.Tensor) -> torch.Tensor:
        x, p = z[:2].reshape(1, 1, 1, 2), z[2:].reshape(1, 1, 1, 2)
        end = integrator(x, p, score(x), score, 0.7, 4)
        return torch.cat([end.position.flatten(), end.momentum.flatten()])

    z = torch.tensor([0.4, -0.9, 1.1, 0.3], dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(flow, z)
    assert float(torch.linalg.det(jacobian)) == pytest.approx(1, abs=1e-12)


def check_energy(integrator: Integrator) -> None:
    """The line integral gives the true energy difference, with an error of order 4."""
    model = two_modes(3.0)
    x, p = point(0.4, -0.9), point(1.1, 0.3)
    errors = []
    for steps in (16, 64):
        end = orbit(integrator, x, p, model.score(1.0), 1.6, steps)
        ends = torch.cat([x, end.position])
        u = model.potential(ends, torch.ones(2), torch.zeros(2, dtype=torch.int64))
        gained = u[1] - u[0] + delta_kinetic(p, end.momentum)
        errors.append(abs(float(end.delta_energy - gained)))
    assert errors[0] < 1e-6
    assert errors[0] / errors[1] > 4**3.5


CHECKS = [check_spring, check_kepler, check_reversible, check_volume, check_energy]


@pytest.mark.parametrize("check", CHECKS)
def test_leapfrog(check: Callable[[Integrator], None]) -> None:
    check(leapfrog)


@pytest.mark.parametrize(
    ("check", "broken"),
    [
        (check_spring, missing_half_kick),
        (check_spring, wrong_sign),
        (check_kepler, missing_half_kick),
        (check_kepler, euler),
        (check_reversible, missing_half_kick),
        (check_reversible, euler),
        (check_volume, euler),
        (check_energy, trapezoid),
        (check_energy, wrong_sign),
    ],
)
def test_broken_integrators_are_caught(check, broken) -> None:
    with pytest.raises(AssertionError):
        check(broken)


def test_one_step_costs_one_evaluation_and_the_cached_score_is_right() -> None:
    calls = []

    def counted(x: torch.Tensor) -> torch.Tensor:
        calls.append(x)
        return sun(x)

    end = leapfrog(point(1.0, 0), point(0, 1.0), sun(point(1.0, 0)), counted, 0.1, 6)
    assert len(calls) == 6
    torch.testing.assert_close(end.logdensity_grad, sun(end.position))


@pytest.mark.parametrize("module", [integrators, noise])
def test_examples_of_docstrings(module) -> None:
    failed, tried = doctest.testmod(module)
    assert (failed, tried > 0) == (0, True)
