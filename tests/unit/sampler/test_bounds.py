"""Whatever settings are taken draw finite images: any value within the table, edges included."""

import math
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, assume, example, given
from hypothesis import settings as how_long
from hypothesis import strategies as st

from dppm_model.bounds import Choice, Flag, Real, Row, Whole
from dppm_model.errors import ConfigError
from sampler.noise import ImageNoise
from sampler.settings import BOUNDS, METHODS, SamplerSettings
from sampler.stages import draw_images, stage_settings
from tests.support.mutations import nothing, twin
from tests.unit.sampler.mixture import pictures
from tests.unit.sampler.test_stages import pyramid

FEW = {
    "num_levels": 40,
    "transitions_per_level": 4,
    "num_integration_steps": 6,
    "stage_num_levels": 4,
}  # so that it takes no time
PICTURES, PYRAMID = pictures(), pyramid()


def values(name: str, row: Row) -> st.SearchStrategy[Any]:
    if isinstance(row, Whole):
        return st.integers(row.least, FEW[name]).filter(
            lambda n: name != "num_integration_steps" or n % 2 == 0
        )
    if isinstance(row, Choice):
        return st.sampled_from(row.options)
    if isinstance(row, Flag):
        return st.booleans()
    assert isinstance(row, Real)
    return st.one_of(st.sampled_from([row.least, row.most]), st.floats(row.least, row.most))


def taken(draw: st.DrawFn) -> SamplerSettings:
    """Settings that are not refused; about half of what is drawn."""
    chosen = draw(st.fixed_dictionaries({}, optional={n: values(n, r) for n, r in BOUNDS.items()}))
    try:
        return SamplerSettings(**({"num_levels": 5, "stage_num_levels": 2} | chosen))
    except ConfigError:
        assume(False)
        raise


TAKEN = st.composite(taken)()
MANY = how_long(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)


def check_finite(model: Any, settings: SamplerSettings) -> None:
    noise = ImageNoise(1, [(0, 0), (1, 7)])
    with torch.inference_mode():
        x, _ = draw_images(model, torch.tensor([0, 1]), noise, settings)
    assert torch.isfinite(x).all(), settings


@MANY
@given(TAKEN)
@example(
    SamplerSettings(
        method="langevin",
        step_size=1.99,
        metropolis=False,
        guidance=1.0,
        transitions_per_level=4,
        num_levels=40,
    )
)
@example(
    SamplerSettings(
        step_size=0.63, metropolis=False, guidance=10.0, num_integration_steps=6, num_levels=40
    )
)
@example(SamplerSettings(sigma_max=1000.0, sigma_min=0.001, rho=100.0, num_levels=2))
@example(SamplerSettings(sigma_max=0.00101, sigma_min=0.001, num_levels=40))
def test_any_settings_draw_finite_images(settings: SamplerSettings) -> None:
    check_finite(PICTURES, settings)


@how_long(MANY, max_examples=25)
@given(TAKEN)
def test_settings_of_a_pyramid_draw_finite_images_or_are_refused(
    settings: SamplerSettings,
) -> None:
    assert PYRAMID.pyramid is not None
    try:
        stage_settings(PYRAMID.pyramid.levels, settings)  # as a request's are, when it comes
    except ConfigError:
        return
    check_finite(PYRAMID, settings)


@twin(
    "a chain without a Metropolis test takes any step",
    "sampler.settings:SamplerSettings._check_stable",
    nothing,
    only="[langevin]",
)
@pytest.mark.parametrize("method", ["hmc", "langevin"])
def test_a_step_that_runs_away_is_refused_unless_a_test_holds_it(method: str) -> None:
    assert SamplerSettings(method, step_size=4.0).metropolis
    for wrong in (
        {"step_size": 2.0},
        {"step_size": 1.0, "guidance": 4.0},
        {"step_size": (0.1, 3.0), "num_levels": 2},
    ):
        with pytest.raises(ConfigError, match=r"sampler\.step_size is .* a Metropolis test"):
            SamplerSettings(method, metropolis=False, **wrong)
    with pytest.raises(ConfigError, match=r"sampler\.stage_step_size is 2"):
        SamplerSettings(method, stage_step_size=2.0)
    SamplerSettings("heun", metropolis=False, step_size=3.0)  # takes no such steps


def test_levels_that_are_next_to_each_other_are_refused() -> None:
    """Between equal levels there is no slope: 0/0."""
    low = 1.0
    for high in (low, math.nextafter(low, 2), 1.0099):
        with pytest.raises(ConfigError, match=r"sampler\.sigma_min is"):
            SamplerSettings(sigma_max=high, sigma_min=low)
    assert set(METHODS) == set(BOUNDS["method"].options)  # type: ignore[attr-defined]
