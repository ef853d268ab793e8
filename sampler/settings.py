"""Settings of a sampler, checked once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from dppm_model.errors import ConfigError

METHODS = ("hmc", "langevin", "heun", "churn")


@dataclass(frozen=True)
class SamplerSettings:
    """How images are drawn.

    Attributes
    ----------
    method
        ``hmc`` (annealed Hamiltonian Monte Carlo), ``langevin`` (annealed Langevin dynamics),
        ``heun`` (EDM's deterministic solver) or ``churn`` (EDM's stochastic one).
    levels, sigma_max, sigma_min, rho
        The noise levels, EDM's schedule. Images lie in [-1, 1].
    iterations, step
        HMC and Langevin: transitions a level, and step size over sigma: one number, or one a level
        (`sampler.tune`).
    steps, keep
        HMC: leapfrog steps a trajectory (an even number), and share of the momentum that a
        refreshment keeps.
    metropolis
        HMC and Langevin: whether a transition must pass the Metropolis test.
    guidance
        1 draws from p(x | y); w from p(x | y) p(y | x)^(w - 1) at each level, with the closed form
        as the classifier (Dhariwal and Nichol 2021; Ho and Salimans 2022 with weight w - 1): more
        typical of the class, and less varied. Takes an evaluation of every class each time.
    octave_levels, octave_sigma_max, octave_step, octave_metropolis
        The same of each octave of a pyramid, where the noise is upon the residual. A test of the
        whole image accepts next to nothing there: the energy error grows with the pixels.
    keep_noise
        Whether the end is an image of the last level with its noise, not the denoised one: what
        another stage goes on from. Set by `sampler.stages`.
    churn, churn_low, churn_high, churn_noise
        Churn: EDM's S_churn, the noise levels between which it is added (S_tmin, S_tmax), and the
        factor of the new noise (S_noise).

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
    step: float | tuple[float, ...] = 0.4
    keep: float = 0.5
    metropolis: bool = True
    guidance: float = 1.0
    octave_levels: int = 8
    octave_sigma_max: float = 1.5
    octave_step: float = 0.4
    octave_metropolis: bool = False
    keep_noise: bool = False
    churn: float = 10.0
    churn_low: float = 0.05
    churn_high: float = 10.0
    churn_noise: float = 1.0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ConfigError(f"sampler.method is {self.method!r}.", f"Use {' or '.join(METHODS)}.")
        for name, least in (("levels", 2), ("octave_levels", 2), ("iterations", 1), ("steps", 2)):
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
        for name in ("sigma_max", "sigma_min", "rho", "octave_sigma_max", "octave_step"):
            _positive(name, getattr(self, name))
        for name in ("churn_low", "churn_high", "churn_noise"):
            _positive(name, getattr(self, name))
        for name in ("churn", "guidance"):
            value = getattr(self, name)
            if type(value) not in (int, float) or not 0 <= value < math.inf:
                raise ConfigError(f"sampler.{name} is {value!r}.", "Give a number, 0 or more.")
        if isinstance(self.step, tuple) and len(self.step) != self.levels:
            raise ConfigError(
                f"sampler.step has {len(self.step)} numbers for {self.levels} levels.",
                "Give one number, or one a level.",
            )
        for value in self.step_factors:
            _positive("step", value)
        if self.sigma_min >= self.sigma_max:
            raise ConfigError(
                f"sampler.sigma_min is {self.sigma_min}, sigma_max {self.sigma_max}.",
                "Levels go down from sigma_max to sigma_min.",
            )
        if type(self.keep) not in (int, float) or not 0 <= self.keep < 1:
            raise ConfigError(f"sampler.keep is {self.keep!r}.", "Give a number in [0, 1).")
        for name in ("metropolis", "octave_metropolis", "keep_noise"):
            if type(getattr(self, name)) is not bool:
                raise ConfigError(
                    f"sampler.{name} is {getattr(self, name)!r}.", "Give true or false."
                )

    @property
    def step_factors(self) -> tuple[float, ...]:
        """Step size over sigma at each level, highest first."""
        return self.step if isinstance(self.step, tuple) else (self.step,) * self.levels

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SamplerSettings:
        """Pick the fields of this class out of a configuration group; the rest have defaults."""
        own = {f.name: values[f.name] for f in fields(cls) if f.name in values}
        if isinstance(own.get("step"), list):
            own["step"] = tuple(own["step"])
        return cls(**own)

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dictionary that `from_dict` reads back."""
        return asdict(self)


def _positive(name: str, value: Any) -> None:
    if type(value) not in (int, float) or not (math.isfinite(value) and value > 0):
        raise ConfigError(f"sampler.{name} is {value!r}.", "Give a number above zero.")


def check_whole(**values: tuple[object, int]) -> None:
    """Refuse what is not a whole number in [least, 2^63)."""
    for name, (value, least) in values.items():
        if type(value) is not int or not least <= value < 2**63:
            raise ConfigError(
                f"sampler.{name} is {value!r}.", f"Give a whole number, {least} or more."
            )
