"""Planning for `dppm_model.mechanism.binomial`: which R, m and theta spend a budget best."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from dppm_model.errors import PlanError
from dppm_model.mechanism.base import Mechanism, RoundSpec, View
from dppm_model.mechanism.binomial import BinomialMechanism
from dppm_model.mechanism.quantize import GRID_STEPS
from dppm_model.mechanism.rotation import Rotation
from dppm_model.mechanism.secure_rng import SecureRNG
from dppm_model.planning.base import Audit, Planner, noise_ratio

MOST_LOSS = 1.03  # of mu, over an ideal Gaussian with the same noise
# Coordinates of the rotated sum are close to normal; R at 4.5 deviations clamps one in 150,000.
_RANGE_DEVIATIONS = 4.5
_MOST_ANSWERS = 1 << 19  # n m beyond this makes the accountant slow
_FINER = 0.9  # of mu, from one attempt to the next
_MOVED = 8  # coordinates that the one unit of `BinomialAudit.one_round` moves, all alike


class BinomialAudit(Audit[BinomialMechanism]):
    """Games in the rotated space."""

    def one_round(
        self,
        mechanism: BinomialMechanism,
        trials: int,
        spec: RoundSpec,
        view: View,
        coins: SecureRNG,
        *,
        randomized: bool,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Play with a unit that moves eight rotated coordinates by the same amount."""
        shift = round(GRID_STEPS / math.sqrt(_MOVED) * math.sqrt(spec.rotation.block))

        def scores(z: int) -> NDArray[np.float64]:
            moved = np.full(trials * _MOVED, z, dtype=np.int64)
            if not randomized:
                found = mechanism.numerators(moved, spec.step).astype(np.float64)
            else:
                found = mechanism.tallies(moved, spec.step, coins).astype(np.float64)
                for _ in range(spec.reports_in(view) - 1):
                    found += mechanism.tallies(np.zeros_like(moved), spec.step, coins)
            score: NDArray[np.float64] = found.reshape(trials, _MOVED).sum(axis=1)
            return score

        return scores(0), scores(shift)


def clamp_deviation(spec: RoundSpec, alignment: float) -> float:
    """Expected standard deviation of a rotated coordinate of one site's sum, in units of a vector.

    A sum of B vectors of norm C has norm up to alignment·B·C, plus sqrt(B)·C for what cancels; the
    rotation spreads it over D coordinates.
    """
    batch = spec.divisor / spec.sites
    norm = spec.clip_norm * math.hypot(alignment * batch, math.sqrt(batch))
    return norm / math.sqrt(spec.rotation.padded)


def expected_loss(answers: float, theta: float, tau: float) -> float:
    """Rule of thumb for mu over the ideal Gaussian's; never used to account."""
    sigma = math.sqrt(answers * (0.25 - theta**2))
    return math.exp(5 * theta * -float(ndtri(tau)) / (3 * sigma)) / math.sqrt(1 - 4 * theta**2)


class BinomialPlanner(Planner):
    """Which R, m and theta spend a budget best: the fewest bits that lose little."""

    name: Literal["binomial"] = "binomial"
    """Yes/no questions about each number of a site's sum."""

    mechanism: ClassVar[type[Mechanism]] = BinomialMechanism
    audit: ClassVar[Audit[BinomialMechanism]] = BinomialAudit()

    def answers(self, dimension: int) -> float:
        """Return D: 2 tau a coordinate."""
        return Rotation.of(dimension).padded

    def choose(self, spec: RoundSpec, alignment: float, view: View, mu: float) -> BinomialMechanism:
        """Choose R, then the fewest bits b, with m = floor((2^b - 1)/N), that keep the loss low.

        Where the noise of ``mu`` is too fine for `_MOST_ANSWERS` (many records of few pixels), the
        round has more of it, and costs less than ``mu``.

        An ideal Gaussian with the noise of the answers of n sites has mu = 2 sqrt(m/n) theta C/R;
        ours is `noise_ratio` times that. Larger m means smaller theta, and both make it smaller.

        Raises
        ------
        PlanError
            If there are more sites than `_MOST_ANSWERS`.
        """
        while spec.sites <= _MOST_ANSWERS and mu > 0:
            if found := self._within(spec, alignment, view, mu):
                return found
            mu *= _FINER
        raise PlanError(
            f"{spec.sites} sites cannot each give one of {_MOST_ANSWERS} answers.",
            "Plan for fewer sites.",
        )

    def _within(
        self, spec: RoundSpec, alignment: float, view: View, mu: float
    ) -> BinomialMechanism | None:
        """Return the mechanism of this mu with the fewest bits, if `_MOST_ANSWERS` allow one."""
        range_ = _RANGE_DEVIATIONS * clamp_deviation(spec, alignment)
        n = spec.reports_in(view)
        for bits in range(1, _MOST_ANSWERS.bit_length() + 1):
            m = ((1 << bits) - 1) // spec.sites
            if not 1 <= m <= _MOST_ANSWERS // n:
                continue
            theta, loss = 0.0, 1.0
            for _ in range(6):  # the rule of thumb depends on theta
                theta = mu * range_ / (2 * spec.clip_norm * loss) * math.sqrt(n / m)
                if theta > 0.25:
                    break
                loss = expected_loss(n * m, theta, spec.tail)
            if theta > 0.25 or loss > MOST_LOSS + 0.01:
                continue
            found = _certified(BinomialMechanism(range_, theta, m), spec, view, mu)
            if noise_ratio(found, spec, view) <= MOST_LOSS:
                return found
        return None


def _certified(
    mechanism: BinomialMechanism, spec: RoundSpec, view: View, mu: float
) -> BinomialMechanism:
    """Adjust theta until the certified mu meets the target from below."""
    for _ in range(20):
        now = mechanism.cost(view, spec).mu
        if mu * 0.9995 <= now <= mu:
            break
        theta = mechanism.truth_strength * (mu / now) * (1 - 1e-4)
        mechanism = replace(mechanism, truth_strength=theta)
    return mechanism
