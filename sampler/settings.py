"""Settings of a sampler, checked once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from dppm_model.errors import ConfigError
from sampler.bounds import Choice, Flag, Real, Row, Whole

METHODS = ("hmc", "langevin", "heun", "churn")
MOST_LEVELS = 10_000
_SIGMA = Real(0.001, 1000.0)  # images lie in [-1, 1], in steps of 0.008
_STEP = Real(0.001, 4.0)
# Every setting's own bounds: within them no schedule overflows float64 and no image float32, and
# nothing that is as long as a number is large is long. `sampling.proto` has the same fields.
BOUNDS: Mapping[str, Row] = {
    "method": Choice(METHODS, " or ".join(METHODS)),
    "levels": Whole(2, MOST_LEVELS),
    "sigma_max": _SIGMA,
    "sigma_min": _SIGMA,
    "rho": Real(1.0, 100.0),
    "iterations": Whole(1, 10_000),
    "steps": Whole(2, 10_000),
    "step": _STEP,  # each of them
    "keep": Real(0.0, 0.999),
    "metropolis": Flag(),
    "guidance": Real(0.0, 10.0),
    "octave_levels": Whole(2, MOST_LEVELS),
    "octave_sigma_max": _SIGMA,
    "octave_step": _STEP,
    "octave_metropolis": Flag(),
    "keep_noise": Flag(),
    "churn": Real(0.0, 10_000.0),
    "churn_low": Real(0.0, 1000.0),
    "churn_high": Real(0.0, 1000.0),
    "churn_noise": Real(0.5, 2.0),
}
_APART = 1.01  # least ratio of sigma_max to sigma_min: equal levels have no slope between them
# Step over sigma at which leapfrog on the narrowest Gaussian, the noise itself, runs away; guidance
# makes it narrower by up to its own factor.
_STABLE = 2.0


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
        If a value is of the wrong type or outside its row of `BOUNDS`; if the levels do not go
        down, or a step without a Metropolis test is too large to be stable.
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
        for name, row in BOUNDS.items():
            if name != "step":
                row.check(f"sampler.{name}", getattr(self, name))
        if self.steps % 2:
            raise ConfigError(
                f"sampler.steps is {self.steps}.",
                "Give an even number: energies are integrated over pairs of leapfrog steps.",
            )
        if isinstance(self.step, tuple) and len(self.step) != self.levels:
            raise ConfigError(
                f"sampler.step has {len(self.step)} numbers for {self.levels} levels.",
                "Give one number, or one a level.",
            )
        for value in self._given_steps:
            BOUNDS["step"].check("sampler.step", value)
        if self.sigma_max < _APART * self.sigma_min:
            raise ConfigError(
                f"sampler.sigma_min is {self.sigma_min}, sigma_max {self.sigma_max}.",
                f"Levels go down from sigma_max to sigma_min: keep them {_APART} times apart.",
            )
        if self.method in ("hmc", "langevin"):
            self._check_stable()

    def _check_stable(self) -> None:
        """Refuse steps with which a chain without a Metropolis test runs away."""
        octave = 0.0 if self.octave_metropolis else self.octave_step
        step = 0.0 if self.metropolis else max(self._given_steps)
        stiff = math.sqrt(max(1.0, self.guidance))
        for name, size, most in (
            ("step", step, _STABLE / stiff),
            ("octave_step", octave, _STABLE),
        ):
            if size >= most:
                raise ConfigError(
                    f"sampler.{name} is {size}, and no Metropolis test holds the images back.",
                    f"Give less than {most:.3g}, or switch the test on.",
                )

    @property
    def _given_steps(self) -> tuple[float, ...]:
        return self.step if isinstance(self.step, tuple) else (self.step,)

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
