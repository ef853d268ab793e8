"""The same recipe in one place: exact sums, with the noise of an ideal Gaussian, or with none.

What a federation and randomized response cost is the distance of a run to its twin that had all
records and added real Gaussian noise of the same mu to exact sums; what privacy costs, the distance
to its twin without noise. Never show the latter to anybody but the data's owner.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from dppm_model.config import Config, initial_model
from dppm_model.plan import Plan
from dppm_model.records import sources
from dppm_model.score.model import ScoreModel
from dppm_model.score.phases import build_learner

_BLOCK = 1024


def train_centrally(
    config: Config,
    plan: Plan,
    *,
    noise: float = 1.0,
    seed: int = 0,
    say: Callable[[str], None] = lambda text: print(text, flush=True),
) -> ScoreModel:
    """Train by a plan from all records at once.

    Parameters
    ----------
    noise
        Times the deviation C/mu that an ideal Gaussian mechanism needs on a sum for each round's mu
        in the secure-sum view; 0 adds none.
    seed
        Of the samples and of the noise: this is a measurement, and protects nobody.
    """
    records = sources.load(config.data, "train")
    model, rng = initial_model(config), np.random.default_rng(seed)
    for phase in plan.phases:
        learner = build_learner(phase.name, model, config.seed)
        begun = time.perf_counter()
        deviation = noise * phase.clip_norm / phase.cost("secure_sum", 1).mu / phase.divisor
        for _ in range(phase.rounds):
            query = learner.query()
            total = np.zeros(query.dimension, dtype=np.int64)
            sampled = np.flatnonzero(rng.random(len(records)) < phase.sampling_rate)
            for block in np.array_split(sampled, max(1, len(sampled) // _BLOCK)):
                seeds = torch.from_numpy(rng.integers(0, 2**62, len(block)))
                x = query.view(records.pixels(block), seeds)
                y = torch.from_numpy(records.labels[block])
                total += query.clipped_sum(x, y, phase.grid, seeds)
            mean = phase.grid.to_float(total) / phase.divisor
            mean += deviation * rng.standard_normal(len(mean))
            learner.step(mean, max(deviation, 1e-9))
        model = learner.result()
        say(f"{phase.name}: {time.perf_counter() - begun:.0f} s")
    return model
