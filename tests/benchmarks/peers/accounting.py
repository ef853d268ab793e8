"""Epsilon and noise of (sampled) Gaussian mechanisms by dp_accounting's privacy loss distributions.

A vector of sensitivity 1 is released with Gaussian noise of standard deviation ``noise`` in each
coordinate, ``rounds`` times, each time from a Poisson sample of the records. Ours is accounted by
`dppm_model.privacy.accountant`; the peers are not, so that neither flatters itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import dp_accounting
from dp_accounting.pld import PLDAccountant
from dp_accounting.privacy_accountant import PrivacyAccountant
from dp_accounting.rdp import RdpAccountant

_TOLERANCE = 2e-3  # of a noise multiplier; an error is always towards more noise


def _accountant() -> PLDAccountant:
    return PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE)


def _renyi() -> RdpAccountant:
    return RdpAccountant(range(2, 257))  # fractional orders do not converge at low noise


def _event(noise: float, rounds: int, rate: float) -> dp_accounting.DpEvent:
    # Rounds that see all records are one round: their 1/noise² add up, exactly.
    if rate == 1:
        return dp_accounting.GaussianDpEvent(noise / math.sqrt(rounds))
    once = dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(noise))
    return dp_accounting.SelfComposedDpEvent(once, rounds)


def epsilon_of(noise: float, delta: float, *, rounds: int = 1, rate: float = 1.0) -> float:
    """Return an upper bound on epsilon, under add or remove one record."""
    return float(_accountant().compose(_event(noise, rounds, rate)).get_epsilon(delta))


def noise_for(epsilon: float, delta: float, *, rounds: int = 1, rate: float = 1.0) -> float:
    """Return the least noise multiplier, to 0.2 %, whose epsilon is not above ``epsilon``.

    Renyi DP, which is quick and asks for too much noise, says where to look.
    """

    def search(accountant: Callable[[], PrivacyAccountant], low: float, high: float) -> float:
        found = dp_accounting.calibrate_dp_mechanism(
            accountant,
            lambda noise: _event(noise, rounds, rate),
            epsilon,
            delta,
            dp_accounting.ExplicitBracketInterval(low, high),
            tol=_TOLERANCE * low,
        )
        return float(found)

    scale = 1.0 if rate < 1 else math.sqrt(rounds)
    enough = search(_renyi, 0.2 * scale, 1000 * scale)
    return search(_accountant, 0.6 * enough, enough)
