"""The server's side of a phase: a learner improves the model from noisy estimates."""

from __future__ import annotations

import pkgutil
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from dppm_model.score.model import ScoreModel
from dppm_model.score.phases import kind_of
from dppm_model.score.query import Query


class Learner(Protocol):
    """The server's side of one phase. It sees public divisors and estimates, never data."""

    def __init__(self, question: type[Query], model: ScoreModel, seed: int) -> None:
        """Start from the earlier releases; see `build_learner`."""
        ...

    def query(self) -> Query:
        """Build the question of the next round from the present model."""
        ...

    def step(self, estimate: NDArray[np.float64], std: float) -> None:
        """Update the model from the estimate of one round.

        Parameters
        ----------
        estimate
            (d,) unbiased estimate of the mean of the clipped vectors of *all* units (records or
            persons).
        std
            Public standard deviation of the privacy noise in each coordinate of ``estimate``.
        """
        ...

    def result(self) -> ScoreModel:
        """Return the model after the rounds so far."""
        ...

    def state_dict(self) -> dict[str, NDArray[np.generic]]:
        """Return the state from which ``load_state_dict`` continues, bit for bit."""
        ...

    def load_state_dict(self, state: dict[str, NDArray[np.generic]]) -> None:
        """Continue from a saved state of the same phase."""
        ...


def build_learner(name: str, model: ScoreModel, seed: int) -> Learner:
    """Build the server's learner of a phase that starts from ``model``.

    Parameters
    ----------
    name
        The phase's name; see `dppm_model.score.phases`.
    model
        The earlier releases.
    seed
        Seed of the learner's public randomness (first component centres, first weights).

    Raises
    ------
    ConfigError
        If there is no such phase.
    """
    kind = kind_of(name)
    learner = cast(type[Learner], pkgutil.resolve_name(kind.learner))
    return learner(kind.question, model, seed)
