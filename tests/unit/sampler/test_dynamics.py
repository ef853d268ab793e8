"""The integrator on systems with known orbits; the schedule; the moves between levels."""

import math
from collections.abc import Callable

import pytest
import torch

from sampler.dynamics import (
    Trajectory,
    dot,
    flow_step,
    kinetic_rise,
    leapfrog,
    noise_levels,
    refresh,
)
from tests.unit.sampler.mixture import BatchNoise, two_modes, worst_z

Integrator = Callable[..., Trajectory]


def missing_half_kick(x, momentum, force, force_at, step, steps) -> Trajectory:
    end = leapfrog(x, momentum, force, force_at, step, steps)
    return end._replace(momentum=end.momentum - step / 2 * end.force)


def euler(x, momentum, force, force_at, step, steps) -> Trajectory:
    rise = torch.zeros(len(x), dtype=torch.float64)
    for _ in range(steps):
        x, momentum = x + step * momentum, momentum + step * force
        rise, force = rise - dot(force, step * momentum), force_at(x)
    return Trajectory(x, momentum, force, rise)


def wrong_sign(x, momentum, force, force_at, step, steps) -> Trajectory:
    end = leapfrog(x, momentum, -force, lambda at: -force_at(at), step, steps)
    return end._replace(force=-end.force)


def trapezoid(x, momentum, force, force_at, step, steps) -> Trajectory:
    end = leapfrog(x, momentum, force, force_at, step, steps)
    error = step**2 / 8 * (dot(end.force, end.force) - dot(force, force))
    return end._replace(rise=error - kinetic_rise(momentum, end.momentum))


def point(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).reshape(1, 1, 1, -1)


def spring(x: torch.Tensor) -> torch.Tensor:
    return -x


def sun(x: torch.Tensor) -> torch.Tensor:
    return -x / (x**2).sum(-1, keepdim=True) ** 1.5


def orbit(integrator: Integrator, x, p, force_at, time: float, steps: int) -> Trajectory:
    return integrator(x, p, force_at(x), force_at, time / steps, steps)


def spring_error(integrator: Integrator, steps: int) -> float:
    """Distance from (cos t, -sin t) at t = 2."""
    end = orbit(integrator, point(1.0), point(0.0), spring, 2.0, steps)
    return math.hypot(float(end.x) - math.cos(2.0), float(end.momentum) + math.sin(2.0))


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
        errors.append(float((end.x - x).norm() + (end.momentum - p).norm()))
        half = orbit(integrator, x, p, sun, period / 2, steps)
        potential = 1 / float(x.norm()) - 1 / float(half.x.norm())
        energies.append(abs(potential + float(kinetic_rise(p, half.momentum))))
    assert errors[1] < 1e-3
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)
    assert energies[0] / energies[1] == pytest.approx(4, rel=0.1)


def check_reversible(integrator: Integrator) -> None:
    there = orbit(integrator, point(1.0, 0.2), point(0.3, 0.8), sun, 3.0, 60)
    back = orbit(integrator, there.x, -there.momentum, sun, 3.0, 60)
    torch.testing.assert_close(back.x, point(1.0, 0.2), atol=1e-10, rtol=0)
    torch.testing.assert_close(back.momentum, -point(0.3, 0.8), atol=1e-10, rtol=0)
    torch.testing.assert_close(back.rise, -there.rise, atol=1e-10, rtol=0)


def check_volume(integrator: Integrator) -> None:
    """The Jacobian of (x, p) -> (x', p') has determinant 1 in a field that is not linear."""
    force_at = two_modes(3.0).force(1.0)

    def flow(z: torch.Tensor) -> torch.Tensor:
        x, p = z[:2].reshape(1, 1, 1, 2), z[2:].reshape(1, 1, 1, 2)
        end = integrator(x, p, force_at(x), force_at, 0.7, 4)
        return torch.cat([end.x.flatten(), end.momentum.flatten()])

    z = torch.tensor([0.4, -0.9, 1.1, 0.3], dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(flow, z)
    assert float(torch.linalg.det(jacobian)) == pytest.approx(1, abs=1e-12)


def check_rise(integrator: Integrator) -> None:
    """The line integral gives the true potential difference, with an error of order 4."""
    model = two_modes(3.0)
    x, p = point(0.4, -0.9), point(1.1, 0.3)
    errors = []
    for steps in (16, 64):
        end = orbit(integrator, x, p, model.force(1.0), 1.6, steps)
        ends = torch.cat([x, end.x])
        u = model.potential(ends, torch.ones(2), torch.zeros(2, dtype=torch.int64))
        errors.append(abs(float(end.rise - (u[1] - u[0]))))
    assert errors[0] < 1e-6
    assert errors[0] / errors[1] > 4**3.5


CHECKS = [check_spring, check_kepler, check_reversible, check_volume, check_rise]


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
        (check_rise, trapezoid),
        (check_rise, wrong_sign),
    ],
)
def test_broken_integrators_are_caught(check, broken) -> None:
    with pytest.raises(AssertionError):
        check(broken)


def test_one_step_costs_one_evaluation_and_the_cached_force_is_right() -> None:
    calls = []

    def counted(x: torch.Tensor) -> torch.Tensor:
        calls.append(x)
        return sun(x)

    end = leapfrog(point(1.0, 0), point(0, 1.0), sun(point(1.0, 0)), counted, 0.1, 6)
    assert len(calls) == 6
    torch.testing.assert_close(end.force, sun(end.x))


def check_refresh(refreshed) -> None:
    """Unit variance stays, and ``keep`` is the correlation. |z| < 6: false alarm 4e-9."""
    n = 100_000
    old, fresh = (BatchNoise(seed, n).normal((1, 1, 1)) for seed in (1, 2))
    new = refreshed(old, fresh, 0.7).flatten()
    values = torch.stack([new**2, new * old.flatten()], 1)
    assert worst_z(values, torch.tensor([1.0, 0.7])) < 6


def test_refreshment_keeps_the_normal_law() -> None:
    check_refresh(refresh)
    with pytest.raises(AssertionError):
        check_refresh(lambda old, fresh, keep: keep * old + (1 - keep) * fresh)


def test_schedule_is_edms() -> None:
    levels = noise_levels(80.0, 0.002, 18, 7.0)
    assert levels[0] == pytest.approx(80.0)
    assert levels[-1] == pytest.approx(0.002)
    assert levels == sorted(levels, reverse=True)
    # Karras et al. 2022, equation 5, by hand for i = 1.
    assert levels[1] == pytest.approx(57.586, abs=1e-3)


def test_flow_step_follows_the_probability_flow_of_a_gaussian() -> None:
    """For N(0, 1): x(sigma) ∝ sqrt(1 + sigma²), D = x/(1 + sigma²), dD/dsigma = -sigma·x/(…)²."""
    x, sigma = point(1.3), 1.5

    def error(lower: float, slope: torch.Tensor) -> float:
        exact = x * math.sqrt((1 + lower**2) / (1 + sigma**2))
        return abs(float(flow_step(x, x / (1 + sigma**2), slope, sigma, lower) - exact))

    slope = -sigma * x / (1 + sigma**2) ** 2
    flat = torch.zeros_like(x)
    assert error(1.4, slope) / error(1.45, slope) == pytest.approx(8, rel=0.1)  # local order 3
    assert error(1.4, flat) / error(1.45, flat) == pytest.approx(4, rel=0.1)  # Euler: 2
