"""Pre-training on public records: the phases of a run in one place, from exact sums.

Nothing protects the records, which must be public. A run names them in its model, its configuration
and ``privacy.json``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from dppm_model.mechanism.quantize import CLIP_NORM, GRID_STEPS, Grid
from dppm_model.mechanism.secure_rng import SecureRNG
from dppm_model.phase import PhasePlan
from dppm_model.records.shards import Records
from dppm_model.requests import PhaseRequest
from dppm_model.score.model import ScoreModel
from dppm_model.score.model_config import PublicData
from dppm_model.score.unit_batches import block_of
from dppm_model.training.learner import build_learner

_EXACT = 1e-9  # the noise level given to learners of exact sums


def pretrain(
    model: ScoreModel,
    phases: Sequence[PhaseRequest | PhasePlan],
    records: Records,
    seed: int,
) -> ScoreModel:
    """Run all phases, in order, on all records; adds a plan's server noise, and no other.

    Parameters
    ----------
    model
        The model before the first phase, on the device to compute on.
    seed
        Seed of first weights and centres, and of the sampling of records.
    """
    rng = np.random.default_rng(seed)
    for phase in phases:
        learner = build_learner(phase.name, model, seed)
        grid = Grid(CLIP_NORM, GRID_STEPS)
        for _ in range(phase.rounds):
            query = learner.query().to(model.device)
            total = np.zeros(query.dimension, dtype=np.int64)
            sampled = np.flatnonzero(rng.random(len(records)) < phase.sampling_rate)
            for block in np.array_split(
                sampled, max(1, len(sampled) // block_of(records.manifest.shape))
            ):
                seeds = torch.from_numpy(rng.integers(0, 2**62, len(block)))
                x = query.view(records.pixels(block), seeds)
                y = torch.from_numpy(records.labels[block]).to(query.device)
                total += query.clipped_sum(x, y, grid, seeds)
            deviation = _EXACT
            if isinstance(phase, PhasePlan) and phase.mechanism.trusts_server:
                total = phase.mechanism.release(total, phase, SecureRNG())
                deviation = phase.noise_std(phase.sites)
            mean = grid.to_float(total) / (phase.sampling_rate * len(records))
            learner.step(mean, deviation)
        model = learner.result()
    return model


def public_start(
    model: ScoreModel,
    phases: Sequence[PhaseRequest],
    records: Records,
    seed: int,
) -> ScoreModel:
    """Return the model pre-trained on public records; its configuration names them."""
    trained = pretrain(model, phases, records, seed)
    manifest = records.manifest
    named = replace(trained.config, public=PublicData(manifest.name, manifest.digest))
    return ScoreModel(named, trained.arrays)
