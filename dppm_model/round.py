"""One round, top to bottom: the project on one page.

    image -> vector of each record -> mean over a unit's records -> clipped integer sum -> rotation
          -> randomized response
          -> secure sum over the sites -> decode -> rotation back -> estimate of the mean vector

The first two rows (`report`) happen at a site, and what they end in is all that ever leaves it. The
last row (`estimate`) happens at the server, on the sum of the reports alone. With
`mechanism=directions` the units answer one by one: each names a direction instead of adding to a
sum. A unit is what is protected: one record, or a person with all their records.
"""

from __future__ import annotations

from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray

from dppm_model.mechanism.directions import DirectionsResponse
from dppm_model.mechanism.secure_rng import SecureRNG
from dppm_model.phase import PhasePlan
from dppm_model.records.units import Units
from dppm_model.score.query import Query
from dppm_model.score.unit_batches import UnitBatches

_CACHED_ELEMENTS = 1 << 18  # of rows that are rotated together: all passes stay in the cache


def report(
    units: Units, query: Query, phase: PhasePlan, signs_seed: bytes, coins: SecureRNG
) -> NDArray[np.int64]:
    """Answer one round at a site: small integers of constant shape, whatever was sampled.

    Lemma 10 (PRIVACY.md) is about this function.

    Returns
    -------
    Tallies (D,) in 0..m, or how often each direction was named, (K,).
    """
    # Poisson sampling. Who was sampled, and how many, is the one thing that must stay secret.
    sampled = np.flatnonzero(coins.bernoulli(phase.sampling_numerator, len(units)))
    # Whatever is drawn for a unit (which records of a person, noise levels, noise) is drawn from
    # that unit's own seed: who else was sampled must not change its vector.
    seeds = coins.seeds(len(units))[sampled]
    asked = UnitBatches(units, query, phase.grid, sampled, seeds)
    if isinstance(phase.response, DirectionsResponse):
        return phase.response.encode(*_named(asked, phase, signs_seed), coins)
    # Each unit's vector, clipped to C and rounded; summed in integers, where no unit can move the
    # sum by more than C (a float sum can; Casacuberta et al. 2022).
    total = asked.total()
    # Spread every unit's vector over all coordinates, then answer for each by biased coins.
    z = phase.rotation.rotate(total, signs_seed)
    return phase.response.encode(z, phase.step, coins)


def estimate(
    total: NDArray[np.int64], sites: int, phase: PhasePlan, signs_seed: bytes
) -> NDArray[np.float64]:
    """Estimate the mean vector of all units (dimension,) from the sum of ``sites`` reports.

    The divisor is public: dividing by the number that was really sampled would reveal it.
    """
    if isinstance(phase.response, DirectionsResponse):
        z = phase.response.decode(total, phase.clip_norm, phase.rotation, signs_seed)
    else:
        z = phase.response.decode(total, sites)
    return phase.rotation.unrotate(z, signs_seed) / (phase.divisor * sites / phase.sites)


def _named(
    asked: UnitBatches, phase: PhasePlan, signs_seed: bytes
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return each unit's nearest direction and the length of its clipped vector over C, (n,)."""
    assert isinstance(phase.response, DirectionsResponse)
    response, rows = phase.response, phase.response.rows(phase.rotation, signs_seed)
    step = max(1, _CACHED_ELEMENTS // phase.rotation.padded)

    def name(part: slice) -> list[tuple[NDArray[np.int64], NDArray[np.float64]]]:
        found, vectors = [], asked.vectors(part)
        while few := list(islice(vectors, step)):
            together = torch.cat(few).numpy()
            lengths = np.linalg.norm(together, axis=1) / phase.grid.steps
            z = phase.rotation.rotate(together.astype(np.float32), signs_seed)
            found.append((response.names(z, rows), lengths))
        return found

    pairs = [pair for part in asked.map(name) for pair in part]
    names = [np.zeros(0, dtype=np.int64), *(names for names, _ in pairs)]
    return np.concatenate(names), np.concatenate([np.zeros(0), *(length for _, length in pairs)])
