"""Settings of a sampler, checked once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from dppm_model.errors import ConfigError

METHODS = ("hmc", "heun")


@dataclass(frozen=True)
class SamplerSettings:
    """How images are drawn.

    Attributes
    ----------
    method
        ``hmc`` (annealed Hamiltonian Monte Carlo) or ``heun`` (EDM's deterministic solver).
    levels, sigma_max, sigma_min, rho
        The noise levels, EDM's schedule. Images lie in [-1, 1].
    iterations, steps, step, keep
        HMC only: trajectories a level, leapfrog steps a trajectory (an even number), step size over
        sigma, and share of the momentum that a refreshment keeps.
    metropolis
        HMC only: whether a trajectory must pass the Metropolis test.

    Raises
    ------
    ConfigError
        If a value is of the wrong type or outside its range.
    """

    method: str = "hmc"
    levels: int = 18
    sigma_max: float = 20.0
    sigma_min: float = 0.02
    rho: float = 7.0
    iterations: int = 1
    steps: int = 2
    step: float = 0.4
    keep: float = 0.5
    metropolis: bool = True

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ConfigError(f"sampler.method is {self.method!r}.", f"Use {' or '.join(METHODS)}.")
        for name, least in (("levels", 2), ("iterations", 1), ("steps", 2)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ConfigError(
                    f"sampler.{name} is {value!r}.", f"Give a whole number, {least} or more."
                )
        if self.steps % 2:
            raise ConfigError(
                f"sampler.steps is {self.steps}.",
                "Give an even number: energies are integrated over pairs of leapfrog steps.",
            )
        for name in ("sigma_max", "sigma_min", "rho", "step"):
            value = getattr(self, name)
            if type(value) not in (int, float) or not (math.isfinite(value) and value > 0):
                raise ConfigError(f"sampler.{name} is {value!r}.", "Give a number above zero.")
        if self.sigma_min >= self.sigma_max:
            raise ConfigError(
                f"sampler.sigma_min is {self.sigma_min}, sigma_max {self.sigma_max}.",
                "Levels go down from sigma_max to sigma_min.",
            )
        if type(self.keep) not in (int, float) or not 0 <= self.keep < 1:
            raise ConfigError(f"sampler.keep is {self.keep!r}.", "Give a number in [0, 1).")
        if type(self.metropolis) is not bool:
            raise ConfigError(f"sampler.metropolis is {self.metropolis!r}.", "Give true or false.")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SamplerSettings:
        """Pick the fields of this class out of a configuration group; the rest have defaults."""
        return cls(**{f.name: values[f.name] for f in fields(cls) if f.name in values})

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dictionary that `from_dict` reads back."""
        return asdict(self)
