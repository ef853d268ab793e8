"""What a coordinate costs: rotated, answered, masked, packed, decoded; and in memory."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np

from deploy.cost.load import Load
from dppm_model.mechanism.binomial import BinomialResponse
from dppm_model.mechanism.rotation import Rotation
from dppm_model.mechanism.secure_rng import SecureRNG
from dppm_model.phase import PhasePlan
from dppm_model.securesum.group import Group
from dppm_model.securesum.masks import Sum
from tests.benchmarks.unit_costs.clock import seconds

D = 1 << 17
_BITS = 14
_LITTLE, _MUCH, _TABLES = 64, 1 << 12, 1 << 16  # answers


def phase_of(answers: int, dimension: int = D, sites: int = 10, rounds: int = 1) -> PhasePlan:
    """Return a phase that is good for timing only."""
    response = BinomialResponse(1.0, 0.05, answers)
    return PhasePlan(
        *("means", "binomial", response, 1.0, 1.0, rounds, dimension, sites, sites),
        records=1000,
        tail=1e-26,
    )


def coordinates() -> dict[str, float]:
    """Unit costs by the names of `deploy.cost.units.Units`; sites see D coordinates at a time."""
    coins, total = SecureRNG(), np.random.default_rng(0).integers(-(1 << 24), 1 << 24, D)
    rotation, phase = Rotation.of(D), phase_of(_LITTLE)
    z = rotation.rotate(total, b"seed")
    answer = {
        m: seconds(lambda m=m: phase_of(m).response.encode(z, phase.step, coins), 3) / D  # type: ignore[misc]
        for m in (_LITTLE, _MUCH, _TABLES)
    }
    word = (answer[_MUCH] - answer[_LITTLE]) / (2 * (_MUCH - _LITTLE) / 64)
    base = answer[_LITTLE] - 2 * word
    full = base + 2 * word * ((1 << 14) - 1) / 64  # what is asked before tables are
    table = max(0.0, answer[_TABLES] - full) / (2 * _TABLES / (1 << 14))
    sum_ = Sum(0, _BITS, D)
    ring, load = sum_.ring, Load(phase, 10, 1, 0, 0, 1)
    vector = np.random.default_rng(1).integers(0, 1 << _BITS, ring.length).astype(ring.dtype)
    packed = ring.pack(vector)
    response, estimate = phase.response, np.zeros(ring.length, dtype=np.int64)
    return {
        "rotate": seconds(lambda: rotation.rotate(total, b"seed")) / D / math.log2(rotation.block),
        "answer": base,
        "answer_word": word,
        "answer_table": table,
        "mask_byte": seconds(lambda: ring.add_mask(vector, bytes(32)), 15) / load.mask_bytes,
        "pack": seconds(lambda: ring.pack(vector)) / D / load.planes,
        "unpack": seconds(lambda: ring.unpack(packed)) / D / load.planes,
        "decode": seconds(lambda: rotation.unrotate(response.decode(estimate[:D], 10), b"s")) / D,
    }


def memory() -> dict[str, float]:
    """Peak bytes per number of a report, at a site and at the server."""
    group = Group("r", "p", (bytes(32),), 1)
    phase = phase_of(_LITTLE)
    sum_, rotation, coins = Sum(0, _BITS, D), phase.rotation, SecureRNG()

    def site() -> bytes:
        total = np.zeros(D, dtype=np.int64)
        z = rotation.rotate(total, b"seed")
        tallies = phase.response.encode(z, phase.step, coins).astype(np.uint8)
        return sum_.ring.pack(sum_.with_checks(group, tallies))

    def server() -> object:
        total = sum_.ring.zeros()
        total += sum_.ring.unpack(bytes(sum_.ring.packed_bytes))
        opened = sum_.without_checks(group, total.copy()).astype(np.int64)
        z = phase.response.decode(opened, 10)
        return total, opened, rotation.unrotate(z, b"seed")

    return {"cell_bytes": _peak(site) / D, "server_cell_bytes": _peak(server) / D}


def _peak(function: object) -> int:
    tracemalloc.start()
    try:
        function()  # type: ignore[operator]
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


if __name__ == "__main__":
    print(coordinates(), memory())
