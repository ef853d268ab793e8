"""Whole rounds, record to report, by exact enumeration through the production code.

For tiny federations every sample set and every report is enumerated: the law of a report comes from
the production grid, rotation and probabilities (the tallies are exactly binomial, which
`tests/unit/mechanism/test_binomial.py` shows). The hockey-stick curve between neighbouring data
sets must lie below the claimed one, in both directions, in both views. No sampling, no tolerance
beyond float error.
"""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from scipy.stats import binom

from dppm_model.phase import PhasePlan
from tests.support.plan_factory import TOY, claimed, convolve, hockey_stick, with_mechanism


def report_law(vectors: np.ndarray, phase: PhasePlan, q: float) -> np.ndarray:
    """Law of one site's report, as an array over (t_1, ..., t_D), sample set averaged out."""
    m, d = phase.mechanism.responses, phase.rotation.padded
    law = np.zeros((m + 1,) * d)
    for mask in product([0, 1], repeat=len(vectors)):
        weight = q ** sum(mask) * (1 - q) ** (len(mask) - sum(mask))
        if weight == 0:
            continue
        chosen = torch.from_numpy(vectors[np.array(mask, dtype=bool)].astype(np.float32))
        total = phase.grid.sum([chosen.reshape(-1, phase.dimension)])
        z = phase.rotation.rotate(total, b"signs")
        p = phase.mechanism.numerators(z, phase.step) / 2.0**32
        joint = np.array(1.0)
        for j in range(d):
            joint = np.multiply.outer(joint, binom.pmf(np.arange(m + 1), m, p[j]))
        law += joint * weight
    return law


def worst_excess(phase: PhasePlan, executed: PhasePlan, view: str, seed: int) -> float:
    """Largest amount by which the executed mechanism passes the curve claimed for ``phase``."""
    rng = np.random.default_rng(seed)
    scale = rng.choice([0.3, 1.0, 5.0])  # some vectors are clipped, some are not
    own, others = rng.normal(size=(2, 2)) * scale, rng.normal(size=(1, 2)) * scale
    if rng.random() < 0.5:
        own[-1] = [1.0, 1.0]  # after rotation on one coordinate: the extreme direction
    q = phase.sampling_rate
    with_record, without = report_law(own, executed, q), report_law(own[:-1], executed, q)
    mu = phase.cost("site", 1).mu
    if view == "secure_sum":
        other = report_law(others, executed, q)
        with_record, without = convolve(with_record, other), convolve(without, other)
        mu = phase.cost("secure_sum", 1).mu
    curve = claimed(mu, q)
    return float(
        max(
            (hockey_stick(with_record, without) - curve).max(),
            (hockey_stick(without, with_record) - curve).max(),
        )
    )


@pytest.mark.parametrize("view", ["site", "secure_sum"])
@pytest.mark.parametrize("q", [0.3, 1.0])
def test_no_tiny_federation_passes_the_claim(view: str, q: float) -> None:
    phase = replace(TOY, sampling_rate=q)
    assert max(worst_excess(phase, phase, view, seed) for seed in range(25)) < 1e-12


def edge_excess(phase: PhasePlan, executed: PhasePlan) -> float:
    """Excess where the claim is tightest: one coordinate, the record moves p up to 1/2 + theta."""
    own = np.full(
        (3 if executed.mechanism.range_ < 1 else 4, 1), 0.25
    )  # up to the edge of the range
    with_record, without = report_law(own, executed, 1.0), report_law(own[:-1], executed, 1.0)
    curve = claimed(phase.cost("site", 1).mu, 1.0)
    return float((hockey_stick(with_record, without) - curve).max())


@pytest.mark.parametrize(
    "fault",
    [
        {},
        {"truth_strength": 0.2 * 1.1},
        {"range_": 0.75},
        {"responses": 3},
        {"clip_norm": 0.3},
    ],
    ids=["none", "truth told more often", "range too small", "one answer more", "clipped too late"],
)
def test_broken_twins_pass_the_claim(fault: dict) -> None:
    phase = replace(TOY, clip_norm=0.25, dimension=1, sampling_rate=1.0)
    phase = with_mechanism(phase, range_=1.0)
    executed = replace(phase, **fault) if "clip_norm" in fault else with_mechanism(phase, **fault)
    if "clip_norm" in fault:  # a record longer than C, clipped at the wrong place
        own = np.array([[0.25], [0.25], [0.2], [0.9]])
        with_record, without = report_law(own, executed, 1.0), report_law(own[:-1], executed, 1.0)
        assert (
            hockey_stick(with_record, without) - claimed(phase.cost("site", 1).mu, 1.0)
        ).max() > 1e-4
    elif fault:
        assert edge_excess(phase, executed) > 1e-4
    else:
        assert -1e-2 < edge_excess(phase, executed) < 1e-12
