"""One round by hand: three sites, a server that sees only a sum, and what the round costs.

    python examples/one_round.py

What `dppm_model/round.py` does, without images: each record is a vector; the server wants their
mean. Reports are summed in the clear here; `dppm_model/securesum/` does it under masks.
"""

import numpy as np
import torch

from dppm_model.mechanism.binomial import BinomialResponse
from dppm_model.mechanism.quantize import Grid
from dppm_model.mechanism.rotation import Rotation
from dppm_model.mechanism.secure_rng import SecureRNG
from dppm_model.privacy.accountant import RoundCost, epsilon
from dppm_model.privacy.gdp import mu_secure_sum, mu_site, probability_sensitivity

SITES, RECORDS, DIMENSION = 3, 500, 1000
# Clip norm, clamping range, bias of an answer, answers a coordinate.
C, R, THETA, M = 1.0, 40.0, 0.1, 100_000
rng = np.random.default_rng(0)
truth = rng.normal(size=DIMENSION) / DIMENSION**0.5  # what the records have in common
grid, rotation = Grid(C, steps=1 << 24), Rotation.of(DIMENSION)
response = BinomialResponse(range_=R, truth_strength=THETA, responses=M)
signs = b"a public seed of this round"

# At each site: clip every record's vector, sum integers, rotate, answer by biased coins.
reports, exact = [], np.zeros(DIMENSION)
for _ in range(SITES):
    records = truth + rng.normal(size=(RECORDS, DIMENSION)) / DIMENSION**0.5
    total = grid.sum([torch.from_numpy(records).float()])
    exact += total * (C / grid.steps)
    z = rotation.rotate(total, signs)
    unit = C / grid.steps / rotation.block**0.5  # the value of one integer step of z
    reports.append(response.encode(z, unit, SecureRNG()))  # all that leaves the site: 0..M each

# At the server: only the sum is needed.
tally = np.sum(reports, axis=0)
estimate = rotation.unrotate(response.decode(tally, SITES), signs) / (SITES * RECORDS)
error = float(np.linalg.norm(estimate - exact / (SITES * RECORDS)))
length = float(np.linalg.norm(exact)) / (SITES * RECORDS)
print(f"estimate of a mean of length {length:.3f}: off by {error:.3f}")

# What it costs: exactly mu-Gaussian-DP, for whoever sees the sum, and for whoever sees a report.
moved = probability_sensitivity(
    clip_norm=C, range_=R, truth_strength=THETA, dimension=rotation.padded
)
mu = {
    "the sum": mu_secure_sum(
        responses=M, truth_strength=THETA, sensitivity=moved, honest_sites=SITES, tau=1e-15
    ),
    "one site's report": mu_site(responses=M, truth_strength=THETA, sensitivity=moved),
}
eps = {who: epsilon([RoundCost(value, 1.0, 1)], delta=1e-5) for who, value in mu.items()}
for who, value in eps.items():
    print(f"whoever sees {who}: mu = {mu[who]:.3f}, epsilon = {value:.3f} at delta = 1e-5")
