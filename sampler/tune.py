"""Step sizes by a pilot run: one for each noise level, so that the Metropolis test accepts enough.

The result is a list of numbers that is stored with the run and then part of the settings, so the
real run stays a pure function of them.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from dppm_model.errors import RunFolderError
from dppm_model.files import write_json
from dppm_model.folders import there
from dppm_model.reading import read_json, reading
from dppm_model.score.denoiser import ImageModel
from sampler.anneal import annealed, kernel
from sampler.integrators import ScoreFn
from sampler.kernels import MetropolisInfo, SamplingAlgorithm
from sampler.noise import ImageNoise, NoiseSource
from sampler.settings import SamplerSettings
from sampler.stages import base_settings

TARGET = 0.7  # acceptance
_IMAGES = 64
_TRANSITIONS = 40  # at each level
_LEAST, _MOST = 0.01, 4.0  # step over sigma
# Hoffman and Gelman 2014, section 3.2.1, in their letters.
_GAMMA, _T0, _KAPPA = 0.05, 10.0, 0.75


class DualAveraging:
    """Find the step whose mean acceptance is a target (Nesterov 2009; Hoffman and Gelman 2014)."""

    def __init__(self, step: float, target: float) -> None:
        self._target, self._mu = target, math.log(2 * step)
        self._t, self._h, self._average, self.step = 0, 0.0, math.log(step), step

    def update(self, acceptance: float) -> None:
        """Take in the acceptance at ``step``, and choose the next step."""
        self._t += 1
        share = 1 / (self._t + _T0)
        self._h = (1 - share) * self._h + share * (self._target - acceptance)
        log = self._mu - math.sqrt(self._t) / _GAMMA * self._h
        log = min(max(log, math.log(_LEAST)), math.log(_MOST))
        weight = self._t**-_KAPPA
        self._average = weight * log + (1 - weight) * self._average
        self.step = math.exp(log)

    @property
    def result(self) -> float:
        """The averaged step."""
        return math.exp(self._average)


def tune(
    model: ImageModel,
    settings: SamplerSettings,
    *,
    target: float = TARGET,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> tuple[float, ...]:
    """Return step over sigma for each level of HMC or Langevin, rounded to three digits.

    A small batch of base images over all classes is annealed, with `_TRANSITIONS` transitions at
    each level during which the step is adapted, on the ``device`` that the model is on.
    """
    settings = base_settings(model, settings)
    names = [(i % model.classes, i) for i in range(_IMAGES)]
    y = torch.tensor([label for label, _ in names], device=device)
    noise = ImageNoise(seed, names, device)
    kernel_of = kernel(replace(settings, metropolis=True))
    averaging, found = DualAveraging(settings.step_sizes(math.prod(model.shape))[0], target), []

    def adapting(score: ScoreFn, sigma: float) -> SamplingAlgorithm:
        def step(noise: NoiseSource, state: Any) -> tuple[Any, MetropolisInfo]:
            state, info = kernel_of(score, averaging.step * sigma).step(noise, state)
            averaging.update(float(info.acceptance_rate.mean()))
            return state, info

        return kernel_of(score, sigma)._replace(step=step)

    def next_level(_sigma: float, _denoised: torch.Tensor, _infos: list[MetropolisInfo]) -> None:
        nonlocal averaging
        found.append(float(f"{averaging.result:.3g}"))
        averaging = DualAveraging(averaging.result, target)

    # With one as the step over sigma, what the kernel is given as its step is sigma itself.
    ones = (1.0,) * settings.num_levels
    pilot = replace(settings, step_size=ones, transitions_per_level=_TRANSITIONS, metropolis=True)
    with torch.inference_mode():
        annealed(model.coordinates, y, noise, pilot, kernel_of=adapting, watch=next_level)
    return tuple(found)


def tuned(
    path: Path,
    content: bytes,
    model: ImageModel,
    settings: dict[str, Any],
    device: torch.device | str = "cpu",
) -> dict[str, Any]:
    """Replace ``step_size: auto`` by tuned steps: those stored in ``path``, or of a pilot run now.

    Raises RunFolderError if ``path`` is damaged.

    Parameters
    ----------
    path
        JSON file of earlier results, by digest of the model and of all other settings; they hold
        on whichever device they were found.
    content
        The model's file.
    device
        That the model is on.
    """
    start = SamplerSettings.from_dict({**settings, "step_size": 0.4})
    same = json.dumps({**start.to_dict(), "step_size": None}, sort_keys=True)
    key = hashlib.sha256(content + same.encode()).hexdigest()
    known: dict[str, list[float]] = {}
    if there(path):
        with reading(path, RunFolderError, "Remove it: steps are then tuned again."):
            known = {**read_json(path)}
    if key not in known:
        known[key] = list(tune(model, start, device=device))
        write_json(path, known)
    return {**settings, "step_size": known[key]}
