"""What a planner is: a mechanism's options, the search of its parameters, and the auditor's games.

Nothing here is read by a site (`dppm_model.mechanism` is).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from dppm_model.mechanism.base import Mechanism, RoundSpec, View
from dppm_model.mechanism.known_vectors import KnownVectors
from dppm_model.mechanism.quantize import GRID_STEPS
from dppm_model.mechanism.secure_rng import SecureRNG
from dppm_model.settings import Settings

M = TypeVar("M", bound=Mechanism)


class Planner(Settings, ABC):
    """The search for a mechanism's parameters; its fields are the options in ``conf/mechanism/``.

    Attributes
    ----------
    mechanism
        What is planned for.
    samples
        Whether Poisson sampling amplifies: else it is part of what is randomized, and of mu.
    audit
        The auditor's games with it.
    """

    mechanism: ClassVar[type[Mechanism]]
    samples: ClassVar[bool] = True
    audit: ClassVar[Audit[Any]]

    def check(self, view: View, calibrate: str) -> None:
        """Refuse a request that the mechanism cannot meet; ConfigError if so."""

    @abstractmethod
    def answers(self, dimension: int) -> float:
        """Return A: a round of a phase costs total variation 2 A tau (Theorem 3); 0 for none."""

    @abstractmethod
    def choose(self, spec: RoundSpec, alignment: float, view: View, mu: float) -> Mechanism:
        """Choose parameters with which a round costs at most ``mu``, and hardly less.

        Parameters
        ----------
        alignment
            Public guess of |sum of a site's vectors| / (their number · C).

        Raises
        ------
        PlanError, ConfigError
            If there are none.
        """


class Audit(Generic[M]):
    """The auditor's games with one mechanism (`dppm_model.audit.games` plays them).

    These are for mechanisms whose answers add up: a canary moves a coordinate of the sum.
    """

    def places(self, mechanism: M, spec: RoundSpec) -> int:
        """Return how many canaries can be told apart."""
        del mechanism
        return spec.dimension

    def canaries(
        self,
        mechanism: M,
        places: NDArray[np.int64],
        signs: NDArray[np.int64],
        spec: RoundSpec,
        view: View,
        seed: bytes,
        coins: SecureRNG,
    ) -> NDArray[np.float64]:
        """Play a round of units of norm C, each on one place; return what is seen of each place.

        A unit adds its sign to its place, and noise has about `variance`.
        """
        total = np.zeros(spec.dimension, dtype=np.int64)
        np.add.at(total, places, signs * GRID_STEPS)
        return observe(mechanism, total, spec, view, seed, coins) / spec.clip_norm

    def variance(self, mechanism: M, spec: RoundSpec, view: View) -> float:
        """Return the noise variance of a place in `canaries`."""
        return mechanism.variance(spec.reports_in(view), spec) / spec.clip_norm**2

    def one_round(
        self,
        mechanism: M,
        trials: int,
        spec: RoundSpec,
        view: View,
        coins: SecureRNG,
        *,
        randomized: bool,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Play one round many times, without and with one unit of norm C; return scores of each.

        Unsampled, unless sampling is part of the mechanism's mu. Every coordinate of one round
        stands for a trial of its own: a unit that moves it by C moves no other. Without
        randomization, expected answers take the place of random ones.
        """
        wide = replace(spec, dimension=trials)
        worlds = []
        for moved in (0, GRID_STEPS):
            total = np.full(trials, moved, dtype=np.int64)
            worlds.append(
                observe(mechanism, total, wide, view, b"", coins)
                if randomized
                else total.astype(np.float64)
            )
        return worlds[0], worlds[1]


def observe(
    mechanism: Mechanism,
    total: NDArray[np.int64],
    spec: RoundSpec,
    view: View,
    seed: bytes,
    coins: SecureRNG,
) -> NDArray[np.float64]:
    """Return what an observer makes of a round in which one site's sum is ``total``.

    The other sites' units are known to the auditor, so theirs are zero here.
    """
    sites = spec.reports_in(view)
    reports = mechanism.encode(KnownVectors(total[None]), spec, seed, coins)
    nobody = KnownVectors(np.zeros((0, len(total)), dtype=np.int64))
    for _ in range(sites - 1):
        reports = reports + mechanism.encode(nobody, spec, seed, coins)
    if view == "release":
        reports = mechanism.release(reports, spec, coins)
    return mechanism.decode(reports, sites, spec, seed)


def noise_ratio(mechanism: Mechanism, spec: RoundSpec, view: View) -> float:
    """Return mu over that of an ideal Gaussian with the same noise at the server (1 is perfect)."""
    noise = math.sqrt(mechanism.variance(spec.reports_in(view), spec))
    return mechanism.cost(view, spec).mu * noise / spec.clip_norm
