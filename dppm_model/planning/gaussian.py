"""Planning for `dppm_model.mechanism.gaussian`: the noise multiplier is one over mu."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from dppm_model.errors import ConfigError
from dppm_model.mechanism.base import Mechanism, RoundSpec, View
from dppm_model.mechanism.gaussian import GaussianMechanism
from dppm_model.planning.base import Audit, Planner


class GaussianPlanner(Planner):
    """The least noise that keeps who sees the release at mu."""

    name: Literal["gaussian"] = "gaussian"
    """The server adds noise to exact sums: no protection against the server."""

    mechanism: ClassVar[type[Mechanism]] = GaussianMechanism
    audit: ClassVar[Audit[Any]] = Audit()

    def check(self, view: View, calibrate: str) -> None:
        """Refuse views in which nothing is protected."""
        del calibrate
        if view != "release":
            raise ConfigError(
                f"mechanism=gaussian protects nothing in privacy.view={view}: the server sees "
                "exact sums.",
                "Use privacy.view=release if the server may be trusted, or mechanism=binomial.",
            )

    def answers(self, dimension: int) -> float:
        """Return 0: there are no tails."""
        del dimension
        return 0.0

    def choose(self, spec: RoundSpec, alignment: float, view: View, mu: float) -> Mechanism:
        """Return z = 1/mu."""
        del spec, alignment, view
        return GaussianMechanism((1 + 1e-9) / mu)
