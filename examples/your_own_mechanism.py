"""A mechanism of your own: randomized response on the sign of each coordinate of a site's sum.

    python examples/your_own_mechanism.py

A unit may flip all D signs, so its price grows with D, and only the direction of a mean is learned:
sound, simple, dear. CONTRIBUTING.md says how a mechanism becomes a choice of plans.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from dppm_model.mechanism.base import Mechanism, RoundSpec, Vectors, View
from dppm_model.mechanism.known_vectors import KnownVectors
from dppm_model.mechanism.quantize import GRID_STEPS
from dppm_model.mechanism.secure_rng import SecureRNG
from dppm_model.privacy.accountant import RoundCost, epsilon


@dataclass(frozen=True)
class SignMechanism(Mechanism):
    """Report the sign of each coordinate, true with probability 1/2 + ``bias``."""

    bias: float
    name, title = "sign", "randomized response on signs"

    def report_length(self, spec: RoundSpec) -> int:
        return spec.dimension

    def max_count(self, spec: RoundSpec) -> int:
        return 1

    def encode(self, vectors: Vectors, spec: RoundSpec, seed: bytes, coins: SecureRNG):
        positive = vectors.total() > 0
        honest = coins.bernoulli(int((0.5 + self.bias) * 2**32), spec.dimension)
        return (positive == honest).astype(np.int64)

    def decode(self, total: np.ndarray, sites: int, spec: RoundSpec, seed: bytes):
        return (2 * total / sites - 1) / (2 * self.bias)  # the mean sign

    def variance(self, sites: int, spec: RoundSpec) -> float:
        return 1 / (4 * self.bias**2 * sites)

    def cost(self, view: View, spec: RoundSpec) -> RoundCost:
        mu = 2 * math.sqrt(spec.dimension) * norm.ppf(0.5 + self.bias)  # of D flipped answers
        return RoundCost(float(mu), spec.sampling_rate, 1)


SITES, mechanism, rng = 2000, SignMechanism(bias=0.05), np.random.default_rng(0)
spec = RoundSpec(clip_norm=1.0, sampling_rate=1.0, dimension=16, sites=SITES, honest_sites=SITES,
                 records=SITES * 50, tail=1e-12)  # fmt: skip
truth = rng.normal(size=16)
tally = np.zeros(16, dtype=np.int64)
for _ in range(SITES):
    records = truth + rng.normal(size=(50, 16))
    records *= GRID_STEPS / np.maximum(np.linalg.norm(records, axis=1, keepdims=True), 1)
    report = mechanism.encode(KnownVectors(records.astype(np.int64)), spec, b"", SecureRNG())
    tally += report  # all that leaves a site
found = mechanism.decode(tally, SITES, spec, b"")
agreement = float(np.mean(np.sign(found) == np.sign(truth)))
price = epsilon([mechanism.cost("site", spec)], delta=1e-5)
print(f"{agreement:.0%} of the signs are right, at epsilon = {price:.2f} for a site's own report")
