"""One round, top to bottom: the project on one page.

    image -> vector of each record -> mean over a unit's records -> clipped integer vectors
          -> mechanism: sum, rotation, randomized response
          -> secure sum over the sites -> release -> decode -> estimate of the mean vector

The first two rows (`report`) happen at a site, and only their result ever leaves it. The last row
(`estimate`) happens at the server, on the sum of the reports alone. For the mechanisms see
`dppm_model.mechanism`. A unit is the thing protected: one record, or a person with all their
records.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dppm_model.mechanism.secure_rng import SecureRNG
from dppm_model.phase import PhasePlan
from dppm_model.records.units import Units
from dppm_model.score.query import Query
from dppm_model.score.unit_batches import UnitBatches


def report(
    units: Units, query: Query, phase: PhasePlan, signs_seed: bytes, coins: SecureRNG
) -> NDArray[np.int64]:
    """Answer one round at a site: whole numbers, whose shape does not depend on the sample.

    Lemma 10 (PRIVACY.md) is about this function.

    Returns (report_length,) numbers in 0..max_count of the phase.
    """
    # Poisson sampling: which units were sampled, and how many, must stay secret.
    sampled = np.flatnonzero(coins.bernoulli(phase.sampling_numerator, len(units)))
    # All draws for a unit (records of a person, noise levels, noise) come from that unit's own
    # seed, so that the other sampled units do not change its vector.
    seeds = coins.seeds(len(units))[sampled]
    asked = UnitBatches(units, query, phase.grid, sampled, seeds)
    return phase.mechanism.encode(asked, phase, signs_seed, coins)


def estimate(
    total: NDArray[np.int64], sites: int, phase: PhasePlan, signs_seed: bytes
) -> NDArray[np.float64]:
    """Estimate the mean vector of all units (dimension,) from the released sum of some reports.

    The divisor is public: dividing by the number that was really sampled would reveal it.

    ``total`` is the sum, after `Mechanism.release`, of the reports of ``sites`` sites.
    """
    vector = phase.mechanism.decode(total, sites, phase, signs_seed)
    return vector / (phase.divisor * sites / phase.sites)
