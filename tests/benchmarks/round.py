"""Where a round's time goes at a site: vectors (reading included), rotation, answers; and in all.

    python -m tests.benchmarks.round RUN

Plays site 0 of a simulated run once for every phase, with the run's own plan and model, on one
thread. Beside it stands what the whole round took in the run (all sites, Flower included).
"""

from __future__ import annotations

import sys
import time
from itertools import pairwise
from pathlib import Path

import torch

from client.site import Site
from dppm_model.mechanism.base import KnownVectors
from dppm_model.mechanism.secure_rng import SecureRNG
from dppm_model.records.units import Units
from dppm_model.run import Run
from dppm_model.score.model import ScoreModel
from dppm_model.score.phases import build_query
from dppm_model.score.unit_batches import UnitBatches
from tests.benchmarks.record import record


def main() -> None:
    """Time the stages of `dppm_model.round.report` one by one."""
    torch.set_num_threads(1)
    run = Run(Path(sys.argv[1]))
    plan, model = run.plan(), ScoreModel.load(run.model)
    coins = SecureRNG()
    records = Site(run.sites / "0000", coins).records()
    units = Units.of(records, plan.unit, plan.records_per_person)
    figures = {}
    for phase in plan.phases:
        marks = [time.perf_counter()]
        sampled = coins.bernoulli(phase.sampling_numerator, len(units)).nonzero()[0]
        query, seeds = build_query(phase.name, model), coins.seeds(len(sampled))
        total = UnitBatches(units, query, phase.grid, sampled, seeds).total()
        marks.append(time.perf_counter())
        phase.mechanism.encode(KnownVectors(total[None]), phase, b"benchmark", coins)
        marks.append(time.perf_counter())
        whole = [line["seconds"] for line in run.rounds() if line["phase"] == phase.name]
        stages = [b - a for a, b in pairwise(marks)]
        figures[phase.name] = {
            **dict(zip(("vectors", "answer"), stages, strict=True)),
            "whole_round": min(whole),
        }
        print(phase.name, {k: round(v, 3) for k, v in figures[phase.name].items()})
    record("round", {"sites": plan.sites, "phases": figures})


if __name__ == "__main__":
    main()
