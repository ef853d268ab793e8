"""EDM's schedule and the moves between levels."""

import math

import pytest
import torch

from sampler.solvers import flow_step, noise_levels
from tests.unit.sampler.test_integrators import point


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
