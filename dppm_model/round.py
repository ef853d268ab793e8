"""One round, top to bottom: the project on one page.

    image -> per-record vector -> clipped integer sum -> rotation -> randomized response
          -> secure sum over the sites -> decode -> rotation back -> estimate of the mean vector

The first row (`report`) happens at a site and is all that ever leaves it. The second row
(`estimate`) happens at the server, on the sum of the reports alone.
"""

from __future__ import annotations

import contextlib

import numpy as np
import torch
from numpy.typing import NDArray

from dppm_model.mechanism.coins import Coins
from dppm_model.mechanism.grid import Grid
from dppm_model.phase import PhasePlan
from dppm_model.records.pixels import to_tensor
from dppm_model.records.shards import Records
from dppm_model.score.query import Query


def report(
    records: Records, query: Query, phase: PhasePlan, signs_seed: bytes, coins: Coins
) -> NDArray[np.int64]:
    """Answer one round at a site: tallies (D,) in 0..m, of constant shape whatever was sampled."""
    # Poisson sampling. Who was sampled, and how many, is the one thing that must stay secret.
    sampled = np.flatnonzero(coins.bernoulli(phase.sampling_numerator, len(records)))
    x = to_tensor(records.pixels(sampled))
    y = torch.from_numpy(records.labels[sampled].astype(np.int64))
    # Each record's vector, clipped to C and rounded; summed in integers, where no record can move
    # the sum by more than C (a float sum can; Casacuberta et al. 2022).
    # Whatever a question draws (noise levels, noise) it draws for each record from that record's
    # own seed: who else was sampled must not change a record's vector.
    seeds = torch.from_numpy(coins.seeds(len(records))[sampled])
    total = _clipped_sum(query, x, y, phase.grid, seeds)
    # Spread every record's vector over all coordinates, then answer for each by biased coins.
    z = phase.rotation.rotate(total, signs_seed)
    return phase.response.encode(z, phase.unit, coins)


def estimate(
    total: NDArray[np.int64], sites: int, phase: PhasePlan, signs_seed: bytes
) -> NDArray[np.float64]:
    """Estimate the mean vector of all records (dimension,) from the sum of ``sites`` reports.

    The divisor is public: dividing by the number that was really sampled would reveal it.
    """
    z = phase.response.decode(total, sites)
    return phase.rotation.unrotate(z, signs_seed) / (phase.divisor * sites / phase.sites)


def _clipped_sum(
    query: Query, x: torch.Tensor, y: torch.Tensor, grid: Grid, seeds: torch.Tensor
) -> NDArray[np.int64]:
    """Sum the records' vectors; one that cannot be computed counts as zero.

    A server that chooses the model could else make the question fail on certain records, and learn
    from the failure whether one was sampled. In any company a record's vector is the same
    (`dppm_model.mechanism.chunks`), so leaving one out moves the sum by no more than C.
    """
    try:
        return query.clipped_sum(x, y, grid, seeds)
    except Exception:
        total = np.zeros(query.dimension, dtype=np.int64)
        for i in range(len(x)):
            one = slice(i, i + 1)
            with contextlib.suppress(Exception):
                total += query.clipped_sum(x[one], y[one], grid, seeds[one])
        return total
