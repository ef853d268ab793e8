"""Encoding 2^20 coordinates, beside what others would add: medians and ratios in one run.

    python -m tests.benchmarks.encode

Ours: rotation and exact Binomial(64, p) tallies. Peers: NumPy's binomial (inexact, seeded
generator), plain float Gaussian noise (what most federated DP adds), and OpenDP's discrete Gaussian
(exact, vetted).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dppm_model.mechanism.binomial import BinomialMechanism
from dppm_model.mechanism.rotation import Rotation
from dppm_model.mechanism.secure_rng import SecureRNG
from tests.benchmarks.runner import benchmark, medians

D, M = 1 << 20, 64


def peers() -> dict[str, tuple[Callable[[], object], int]]:
    """Name -> (function, coordinates it does)."""
    rng = np.random.default_rng(0)
    total = rng.integers(-(1 << 24), 1 << 24, D)
    rotation, coins = Rotation.of(D), SecureRNG()
    response = BinomialMechanism(range_=0.25, truth_strength=1 / 16, responses=M)
    unit = 1 / (1 << 24) / np.sqrt(D)
    z = rotation.rotate(total, b"seed")
    p = response.numerators(z, unit) / 2**32
    found: dict[str, tuple[Callable[[], object], int]] = {
        "ours: rotate + encode": (
            lambda: response.tallies(rotation.rotate(total, b"seed"), unit, coins),
            D,
        ),
        "ours: encode alone": (lambda: response.tallies(z, unit, coins), D),
        "numpy binomial": (lambda: rng.binomial(M, p), D),
        "numpy gaussian": (lambda: rng.normal(size=D), D),
    }
    try:
        import opendp.prelude as dp
    except ImportError:
        print("opendp is not installed (pip install opendp): its row is left out")
        return found
    dp.enable_features("contrib")
    space = dp.vector_domain(dp.atom_domain(T=int)), dp.l2_distance(T=float)
    gaussian = dp.m.make_gaussian(*space, scale=100.0)
    few = [0] * (D // 64)
    found["opendp discrete gaussian"] = (lambda: gaussian(few), len(few))
    return found


def measure() -> dict[str, Any]:
    """Time every peer in turn, five times over."""
    todo = peers()
    found = medians({name: function for name, (function, _) in todo.items()}, 5)
    seconds = {name: found[name] * D / size for name, (_, size) in todo.items()}
    ours = seconds["ours: rotate + encode"]
    for name, median in seconds.items():
        print(f"{name:28s} {median:8.3f} s for 2^20   {median / ours:6.2f} x ours")
    return {"seconds": seconds, "coordinates": D, "responses": M}


if __name__ == "__main__":
    benchmark(measure)
