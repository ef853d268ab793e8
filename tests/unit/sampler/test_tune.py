"""Tuned steps reach the acceptance asked for, are the same every time, and are kept."""

import json
from pathlib import Path

import pytest
import torch

from sampler import tune as module
from sampler.noise import ImageNoise
from sampler.settings import SamplerSettings
from sampler.stages import SAMPLERS
from sampler.tune import DualAveraging, tune, tuned
from tests.unit.sampler.mixture import pictures

LEVELS = 8


def acceptance_of(method: str, step: tuple[float, ...]) -> list[float]:
    settings = SamplerSettings(method, num_levels=LEVELS, transitions_per_level=5, step_size=step)
    names = [(i % 3, i) for i in range(300)]
    y = torch.tensor([label for label, _ in names])
    return list(SAMPLERS[method](pictures(), y, ImageNoise(9, names), settings)[1].acceptance)


@pytest.mark.parametrize("method", ["hmc", "langevin"])
def test_every_level_accepts_about_what_was_asked_for(method: str) -> None:
    """On 1500 fresh transitions a level; a step that is too small or too large is far off."""
    step = tune(pictures(), SamplerSettings(method, num_levels=LEVELS))
    assert all(0.6 < a < 0.84 for a in acceptance_of(method, step)[1:])
    half = acceptance_of(method, tuple(s / 2 for s in step))
    assert not any(0.6 < a < 0.84 for a in half)


def test_dual_averaging_finds_the_step_and_its_twin_runs_away() -> None:
    """Acceptance falls with the step: exp(-step) meets 0.7 at step 0.357."""
    right, twin = DualAveraging(1.0, 0.7), DualAveraging(1.0, 0.7)
    for _ in range(200):
        right.update(2.718281828**-right.step)
        twin.update(1.4 - 2.718281828**-twin.step)  # the wrong sign
    assert right.result == pytest.approx(0.357, rel=0.05)
    assert not 0.3 < twin.result < 0.4


def test_the_pilot_is_run_once_a_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, runs = tmp_path / "steps.json", []
    monkeypatch.setattr(module, "_TRANSITIONS", 3)

    def counted(model: object, settings: SamplerSettings, **where: object) -> tuple[float, ...]:
        runs.append(settings)
        return tune(model, settings, **where)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "tune", counted)
    settings = {"method": "hmc", "num_levels": 4, "step_size": "auto", "per_class": 5}
    first = tuned(path, b"model", pictures(), settings)
    assert tuned(path, b"model", pictures(), settings) == first
    assert len(runs) == 1 and len(first["step_size"]) == 4 and first["per_class"] == 5
    tuned(path, b"another", pictures(), settings)
    tuned(path, b"model", pictures(), {**settings, "num_levels": 5})
    assert len(runs) == 3 == len(json.loads(path.read_text()))
    assert SamplerSettings.from_dict(first).step_sizes(10**6) == tuple(first["step_size"])
