"""Settings of a sampler, checked once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, get_args

from dppm_model.bounds import Between, Real, Row, bounds_of
from dppm_model.errors import ConfigError
from dppm_model.settings import Natural, Settings, Whole

Method = Literal["hmc", "langevin", "heun", "churn"]
METHODS = get_args(Method)
MOST_LEVELS = 10_000
# Every setting's own bounds: within them no schedule overflows float64 and no image float32, and
# nothing that is as long as a number is large is long. `sampling.proto` has the same fields.
_LEVELS, _COUNT = Between(2, MOST_LEVELS), Between(1, 10_000)
_SIGMA = Between(0.001, 1000.0)  # images lie in [-1, 1], in steps of 0.008
_STEP = Between(0.001, 4.0)
_SIZE = 3072  # numbers of an image, 32 × 32 RGB: up to here the default step passes half the tests
_APART = 1.01  # least ratio of sigma_max to sigma_min: equal levels have no slope between them
# Step over sigma at which leapfrog on the narrowest Gaussian, the noise itself, runs away; guidance
# makes it narrower by up to its own factor.
_STABLE = 2.0


class FolderConfig(Settings):
    """The other keys of the group ``sampler``: which images, not how."""

    per_class: Whole
    """Images of every class."""
    seed: Natural
    """Of the images' noise: the same seed gives the same images."""
    png: bool
    """Whether to write PNG files, too, into a folder per class."""


@dataclass(frozen=True)
class SamplerSettings:
    """How images are drawn.

    Raises ConfigError if a value is of the wrong type or outside its row of `BOUNDS`; if the levels
    do not go down, or a step without a Metropolis test is too large to be stable.

    Attributes
    ----------
    method
        ``hmc`` (annealed Hamiltonian Monte Carlo), ``langevin`` (annealed Langevin dynamics),
        ``heun`` (EDM's deterministic solver) or ``churn`` (EDM's stochastic one).
    num_levels, sigma_max, sigma_min, rho
        The noise levels, EDM's schedule. Images lie in [-1, 1].
    transitions_per_level, step_size
        HMC and Langevin: transitions a level, and step size over sigma: one number, or one a level
        (`sampler.tune`). One number is for images of at most 3,072 numbers; see `step_sizes`.
    num_integration_steps, momentum_persistence
        HMC: leapfrog steps a trajectory (an even number), and share of the momentum that a
        refreshment keeps.
    metropolis
        HMC and Langevin: whether a transition must pass the Metropolis test.
    guidance
        1 draws from p(x | y); w from p(x | y) p(y | x)^(w - 1) at each level, with the closed form
        as the classifier (Dhariwal and Nichol 2021; Ho and Salimans 2022 with weight w - 1): more
        typical of the class. What is private makes the classes of a closed form broader than they
        are, and 2 takes that back: a classifier learns more from the images, and they cover more
        of the real ones (docs/results.md). Costs three to five evaluations more.
    stage_num_levels, stage_sigma_max, stage_step_size, stage_metropolis
        The same of each upsampling stage of a pyramid, where the noise is upon the residual. A test
        of the whole image accepts next to nothing there: the energy error grows with the pixels.
    S_churn, S_min, S_max, S_noise
        Churn, as in EDM: how much noise is added in all, the noise levels between which it is added
        (the paper's S_tmin, S_tmax), and the factor of the new noise.
    """

    method: Method = "hmc"
    num_levels: Annotated[int, _LEVELS] = 18
    sigma_max: Annotated[float, _SIGMA] = 20.0
    sigma_min: Annotated[float, _SIGMA] = 0.02
    rho: Annotated[float, Between(1.0, 100.0)] = 7.0
    transitions_per_level: Annotated[int, _COUNT] = 1
    num_integration_steps: Annotated[int, Between(2, 10_000)] = 2
    step_size: Annotated[float, _STEP] | tuple[float, ...] = 0.4
    momentum_persistence: Annotated[float, Between(0.0, 0.999)] = 0.5
    metropolis: bool = True
    guidance: Annotated[float, Between(0.0, 10.0)] = 2.0
    stage_num_levels: Annotated[int, _LEVELS] = 8
    stage_sigma_max: Annotated[float, _SIGMA] = 1.5
    stage_step_size: Annotated[float, _STEP] = 0.4
    stage_metropolis: bool = False
    S_churn: Annotated[float, Between(0.0, 10_000.0)] = 10.0
    S_min: Annotated[float, Between(0.0, 1000.0)] = 0.05
    S_max: Annotated[float, Between(0.0, 1000.0)] = 10.0
    S_noise: Annotated[float, Between(0.5, 2.0)] = 1.0

    def __post_init__(self) -> None:
        for name, row in BOUNDS.items():
            if name != "step_size":
                row.check(f"sampler.{name}", getattr(self, name))
        if self.num_integration_steps % 2:
            raise ConfigError(
                f"sampler.num_integration_steps is {self.num_integration_steps}.",
                "Give an even number: energies are integrated over pairs of leapfrog steps.",
            )
        if isinstance(self.step_size, tuple) and len(self.step_size) != self.num_levels:
            raise ConfigError(
                f"sampler.step_size has {len(self.step_size)} numbers for {self.num_levels} "
                "levels.",
                "Give one number, or one per level.",
            )
        for value in self._given_steps:
            BOUNDS["step_size"].check("sampler.step_size", value)
        if self.sigma_max < _APART * self.sigma_min:
            raise ConfigError(
                f"sampler.sigma_min is {self.sigma_min}, sigma_max {self.sigma_max}.",
                f"Levels go down from sigma_max to sigma_min: keep them {_APART} times apart.",
            )
        if self.method in ("hmc", "langevin"):
            self._check_stable()

    def _check_stable(self) -> None:
        """Refuse steps with which a chain without a Metropolis test runs away."""
        stage = 0.0 if self.stage_metropolis else self.stage_step_size
        step = 0.0 if self.metropolis else max(self._given_steps)
        stiff = math.sqrt(max(1.0, self.guidance))
        for name, size, most in (
            ("step_size", step, _STABLE / stiff),
            ("stage_step_size", stage, _STABLE),
        ):
            if size >= most:
                raise ConfigError(
                    f"sampler.{name} is {size}, without a Metropolis test to reject bad steps.",
                    f"Give less than {most:.3g}, or switch the test on.",
                )

    @property
    def _given_steps(self) -> tuple[float, ...]:
        return self.step_size if isinstance(self.step_size, tuple) else (self.step_size,)

    def step_sizes(self, size: int) -> tuple[float, ...]:
        """Return the step size over sigma at each level, highest first, for images of ``size``.

        The errors of D directions add up in the energy. With a Metropolis test a single
        ``step_size`` shrinks with D, so that as many proposals pass: like D^(-1/4) for HMC (Beskos
        et al. 2013), D^(-1/6) for Langevin (Roberts and Rosenthal 1998).
        """
        if isinstance(self.step_size, tuple):
            return self.step_size
        exponent = {"hmc": 1 / 4, "langevin": 1 / 6}.get(self.method, 0.0)
        larger = max(1.0, size / _SIZE) if self.metropolis else 1.0
        return (self.step_size * larger**-exponent,) * self.num_levels

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SamplerSettings:
        """Take the group `sampler`, without `FolderConfig`'s keys; missing ones have defaults.

        Raises ConfigError naming a key that is no setting of a sampler; as the class.
        """
        own = {n: value for n, value in values.items() if n not in FolderConfig.model_fields}
        if unknown := own.keys() - BOUNDS.keys():
            raise ConfigError(
                f"sampler.{min(unknown)} is not a sampler setting.", f"Use {', '.join(BOUNDS)}."
            )
        if isinstance(own.get("step_size"), list):
            own["step_size"] = tuple(own["step_size"])
        return cls(**own)

    @classmethod
    def check_group(cls, values: Mapping[str, Any]) -> None:
        """Check the whole group `sampler`, in which ``step_size`` may still be ``auto``.

        Raises ConfigError naming the key.
        """
        FolderConfig.of({n: values.get(n) for n in FolderConfig.model_fields}, "sampler")
        auto = {"step_size"} if values.get("step_size") == "auto" else set()
        cls.from_dict({n: value for n, value in values.items() if n not in auto})

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dictionary that `from_dict` reads back."""
        return asdict(self)


BOUNDS: Mapping[str, Row] = {
    **bounds_of(SamplerSettings, exact=False),
    "step_size": Real(_STEP.least, _STEP.most),  # each of them
}
