"""The same recipe in one place: exact sums, with the noise of an ideal Gaussian, or with none.

What a federation and randomized response cost is the distance of a run to its twin that had all
records and added real Gaussian noise of the same mu to exact sums; what privacy costs, the distance
to its twin without noise. Never show the latter to anybody but the data's owner.
"""

from __future__ import annotations

from dataclasses import replace

from dppm_model.config import Config, initial_model
from dppm_model.mechanism.gaussian import GaussianMechanism
from dppm_model.plan import Plan
from dppm_model.records import sources
from dppm_model.score.model import ScoreModel
from dppm_model.training.pretraining import pretrain


def train_centrally(config: Config, plan: Plan, *, noise: float = 1.0) -> ScoreModel:
    """Train by a plan from all records at once.

    Parameters
    ----------
    noise
        Times the noise that an ideal Gaussian mechanism needs for each round's mu in the secure-sum
        view; 0 adds none.
    """
    phases = plan.phases
    if noise:
        phases = tuple(
            replace(p, mechanism=GaussianMechanism(noise / p.cost("secure_sum", 1).mu))
            for p in phases
        )
    records = sources.load(config.data, "train")
    return pretrain(initial_model(config), phases, records, config.seed)
