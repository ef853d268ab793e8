"""One round, top to bottom: the project on one page.

    image -> per-record vector -> clipped integer sum -> rotation -> randomized response
          -> secure sum over the sites -> decode -> rotation back -> estimate of the mean vector

The first row (`report`) happens at a site and is all that ever leaves it. The second row
(`estimate`) happens at the server, on the sum of the reports alone. With `mechanism=directions` the
records answer one by one: each names a direction instead of adding to a sum.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from dppm_model.mechanism.coins import Coins
from dppm_model.mechanism.directions import DirectionsResponse
from dppm_model.phase import PhasePlan
from dppm_model.records.shards import Records
from dppm_model.score.query import Query

Answer = TypeVar("Answer")
Seen = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # what is seen of records, labels, seeds
_BLOCK = 1024  # records whose images are in memory at a time
_CACHED_ELEMENTS = 1 << 18  # of rows that are rotated together: all passes stay in the cache


def report(
    records: Records, query: Query, phase: PhasePlan, signs_seed: bytes, coins: Coins
) -> NDArray[np.int64]:
    """Answer one round at a site: small integers of constant shape, whatever was sampled.

    Returns
    -------
    Tallies (D,) in 0..m, or how often each direction was named, (K,).
    """
    # Poisson sampling. Who was sampled, and how many, is the one thing that must stay secret.
    sampled = np.flatnonzero(coins.bernoulli(phase.sampling_numerator, len(records)))
    y = torch.from_numpy(records.labels[sampled].astype(np.int64))
    # Whatever a question draws (noise levels, noise) it draws for each record from that record's
    # own seed: who else was sampled must not change a record's vector.
    seeds = torch.from_numpy(coins.seeds(len(records))[sampled])

    def seen(part: slice) -> Seen:
        return query.view(records.pixels(sampled[part]), seeds[part]), y[part], seeds[part]

    if isinstance(phase.response, DirectionsResponse):
        named = _named(query, seen, len(sampled), phase, signs_seed)
        return phase.response.encode(*named, coins)

    def clipped_sum(part: slice) -> NDArray[np.int64]:
        x, labels, own = seen(part)
        return query.clipped_sum(x, labels, phase.grid, own)

    # Each record's vector, clipped to C and rounded; summed in integers, where no record can move
    # the sum by more than C (a float sum can; Casacuberta et al. 2022).
    total = sum(answers(clipped_sum, len(sampled)), np.zeros(query.dimension, dtype=np.int64))
    # Spread every record's vector over all coordinates, then answer for each by biased coins.
    z = phase.rotation.rotate(total, signs_seed)
    return phase.response.encode(z, phase.unit, coins)


def estimate(
    total: NDArray[np.int64], sites: int, phase: PhasePlan, signs_seed: bytes
) -> NDArray[np.float64]:
    """Estimate the mean vector of all records (dimension,) from the sum of ``sites`` reports.

    The divisor is public: dividing by the number that was really sampled would reveal it.
    """
    if isinstance(phase.response, DirectionsResponse):
        z = phase.response.decode(total, phase.clip_norm, phase.rotation, signs_seed)
    else:
        z = phase.response.decode(total, sites)
    return phase.rotation.unrotate(z, signs_seed) / (phase.divisor * sites / phase.sites)


def _named(
    query: Query,
    seen: Callable[[slice], Seen],
    records: int,
    phase: PhasePlan,
    signs_seed: bytes,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return each record's nearest direction and the length of its clipped vector over C, (n,)."""
    assert isinstance(phase.response, DirectionsResponse)
    response, rows = phase.response, phase.response.rows(phase.rotation, signs_seed)
    step = max(1, _CACHED_ELEMENTS // phase.rotation.padded)

    def name(part: slice) -> list[tuple[NDArray[np.int64], NDArray[np.float64]]]:
        found = []
        x, y, seeds = seen(part)
        for vectors in query.clipped_rows(x, y, phase.grid, seeds):
            lengths = np.linalg.norm(vectors.astype(np.float64), axis=1) / phase.grid.steps
            for start in range(0, len(vectors), step):
                few = slice(start, start + step)
                z = phase.rotation.rotate(vectors[few].astype(np.float32), signs_seed)
                found.append((response.names(z, rows), lengths[few]))
        return found

    pairs = [pair for part in answers(name, records) for pair in part]
    names = [np.zeros(0, dtype=np.int64), *(names for names, _ in pairs)]
    return np.concatenate(names), np.concatenate([np.zeros(0), *(length for _, length in pairs)])


def answers(ask: Callable[[slice], Answer], records: int) -> list[Answer]:
    """Ask records block by block, or, should that fail, each by itself and leave out who fails.

    A server that chooses the model could make a question fail on certain records, and learn from
    the failure whether one was sampled. In any company a record's vector is the same
    (`dppm_model.mechanism.chunks`), so leaving one out moves nobody else's.
    """
    found = []
    for start in range(0, records, _BLOCK):
        stop = min(start + _BLOCK, records)
        try:
            found.append(ask(slice(start, stop)))
        except Exception:
            for i in range(start, stop):
                with contextlib.suppress(Exception):
                    found.append(ask(slice(i, i + 1)))
    return found
