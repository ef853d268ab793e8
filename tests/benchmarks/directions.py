"""Two randomized responses at equal epsilon: yes/no on coordinates, or one of K directions.

    python -m tests.benchmarks.directions

A federation of 10 sites and 60,000 records estimates the mean of known vectors (norm 1, a common
part of length 0.03 and noise) in D dimensions. The figure is the relative error of the estimate,
|estimate - mean|/|mean|, of each mechanism at the same epsilon, with an ideal Gaussian beside them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from dppm_model import planner
from dppm_model.errors import PlanError
from dppm_model.mechanism.known_vectors import KnownVectors
from dppm_model.mechanism.secure_rng import SecureRNG
from dppm_model.phase import PhasePlan
from dppm_model.planner import make_plan
from dppm_model.planning.directions import DirectionsPlanner
from dppm_model.requests import PhaseRequest, PrivacyRequest
from dppm_model.round import estimate
from tests.benchmarks.runner import benchmark
from tests.support.plan_factory import MODEL

SITES, RECORDS, COMMON = 10, 20_000, 0.03


def vectors(dimension: int, seed: int) -> np.ndarray:
    """Records' vectors, (RECORDS, dimension), norm 1."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=dimension)
    rows = rng.normal(size=(RECORDS, dimension)) / math.sqrt(dimension)
    rows = COMMON * common / np.linalg.norm(common) + math.sqrt(1 - COMMON**2) * rows
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def answer(phase: PhasePlan, rows: np.ndarray, seed: bytes, coins: SecureRNG) -> np.ndarray:
    """One round of all sites through the production mechanism."""
    total = np.zeros(phase.report_length, dtype=np.int64)
    integers = np.trunc(rows * phase.grid.steps * (1 - 1e-6)).astype(np.int64)
    for part in np.array_split(integers, SITES):
        sampled = part[coins.bernoulli(phase.sampling_numerator, len(part))]
        total += phase.mechanism.encode(KnownVectors(sampled), phase, seed, coins)
    return estimate(total, SITES, phase, seed)


def compare(dimension: int, epsilon: float, rounds: int, counts: list[int]) -> dict[str, float]:
    """Relative error of every mechanism, and of an ideal Gaussian of the same cost."""
    privacy = PrivacyRequest(epsilon, 1e-5, "secure_sum", "record", 1, SITES, RECORDS, SITES, 0)
    request = PhaseRequest("means", dimension, 1.0, rounds, 1.0, COMMON)
    rows, coins = vectors(dimension, 0), SecureRNG()
    mean = rows.mean(0)

    def error(phase: PhasePlan) -> float:
        seeds = [f"{dimension}/{r}".encode() for r in range(rounds)]
        found = np.mean([answer(phase, rows, seed, coins) for seed in seeds], axis=0)
        return float(np.linalg.norm(found - mean) / np.linalg.norm(mean))

    plan = make_plan(privacy, [request], MODEL, run="benchmark")
    mu = plan.phases[0].cost("secure_sum", 1).mu
    noise = math.sqrt(dimension / rounds) / mu / RECORDS / float(np.linalg.norm(mean))
    figures = {"ideal Gaussian": noise, "binomial": error(plan.phases[0])}
    sizes = [k for k in counts if k <= 2 * plan.phases[0].rotation.padded]
    for k in (*sizes, None):
        mechanism = DirectionsPlanner(directions=k)
        plan = make_plan(replace(privacy, mechanism=mechanism), [request], MODEL, run="benchmark")
        assert planner.epsilons(plan)["secure_sum"] <= epsilon
        chosen = " (chosen)" if k is None else ""
        name = f"directions, K = {plan.phases[0].report_length}{chosen}"
        figures[name] = error(plan.phases[0])
    return figures


def measure(
    dimensions: Sequence[int] = (1024, 4096),
    epsilons: Sequence[float] = (1.0, 10.0),
) -> dict[str, Any]:
    """Compare over dimensions and epsilons."""
    results = {}
    for dimension in dimensions:
        for epsilon in epsilons:
            for rounds in (1, 16):
                name = f"D = {dimension}, epsilon = {epsilon:g}, {rounds} rounds"
                print(name, flush=True)
                try:
                    figures = compare(dimension, epsilon, rounds, [2, 16, 256])
                except PlanError as error:
                    print(f"  {error}")
                    continue
                results[name] = figures
                for mechanism, error in figures.items():
                    ratio = error / figures["binomial"]
                    print(f"  {mechanism:32s} {error:9.4f}   {ratio:8.2f} x binomial")
    return {"relative_error": results, "sites": SITES, "records": RECORDS}


if __name__ == "__main__":
    benchmark(measure)
