"""One round by hand: three sites, a server that sees only a sum, and what the round costs.

    python examples/one_round.py

What `dppm_model/round.py` does, without images: each record is a vector; the server wants their
mean. Reports are summed in the clear here; `dppm_model/securesum/` does it under masks.
"""

import numpy as np

from dppm_model.mechanism.base import RoundSpec
from dppm_model.mechanism.binomial import BinomialMechanism
from dppm_model.mechanism.known_vectors import KnownVectors
from dppm_model.mechanism.secure_rng import SecureRNG
from dppm_model.privacy.accountant import epsilon

SITES, RECORDS, DIMENSION = 3, 500, 1000
spec = RoundSpec(  # what is public of the round: every record is asked, no site colludes
    clip_norm=1.0,
    sampling_rate=1.0,
    dimension=DIMENSION,
    sites=SITES,
    honest_sites=SITES,
    records=SITES * RECORDS,
    tail=1e-15,
)
# Clamping range, bias of an answer, answers a coordinate.
mechanism = BinomialMechanism(range_=40.0, truth_strength=0.1, responses=100_000)
seed = b"a public seed of this round"
rng = np.random.default_rng(0)
truth = rng.normal(size=DIMENSION) / DIMENSION**0.5  # what the records have in common

# At each site: clip every record's vector to integers, sum, rotate, answer by biased coins.
reports, exact = [], np.zeros(DIMENSION)
for _ in range(SITES):
    records = truth + rng.normal(size=(RECORDS, DIMENSION)) / DIMENSION**0.5
    records /= np.maximum(np.linalg.norm(records, axis=1, keepdims=True), spec.clip_norm)
    vectors = np.trunc(records * spec.grid.steps).astype(np.int64)
    exact += spec.grid.to_float(vectors.sum(axis=0))
    reports.append(mechanism.encode(KnownVectors(vectors), spec, seed, SecureRNG()))

# At the server: only the sum is needed.
estimate = mechanism.decode(np.sum(reports, axis=0), SITES, spec, seed) / spec.records
error = float(np.linalg.norm(estimate - exact / spec.records))
length = float(np.linalg.norm(exact)) / spec.records
print(f"estimate of a mean of length {length:.3f}: off by {error:.3f}")

# Its cost, in mu of Gaussian DP: against anyone who sees the sum, and anyone who sees a report.
costs = {
    "the sum": mechanism.cost("secure_sum", spec),
    "one site's report": mechanism.cost("site", spec),
}
eps = {who: epsilon([cost], delta=1e-5) for who, cost in costs.items()}
for who, value in eps.items():
    print(f"anyone who sees {who}: mu = {costs[who].mu:.3f}, epsilon = {value:.3f} at delta = 1e-5")
