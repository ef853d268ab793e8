"""The question of a round, checked before anything is spent on it."""

from __future__ import annotations

from functools import lru_cache

import torch

from dppm_model.phase import PhasePlan
from dppm_model.score import phases
from dppm_model.score.model_config import ModelConfig
from dppm_model.score.query import Query
from dppm_model.score.unit_batches import try_question


@lru_cache(maxsize=1)  # shared by all virtual sites of one process
def read_question(
    phase: PhasePlan, config: ModelConfig, content: bytes, device: torch.device
) -> Query:
    """Build a question from the plan and the arrays that were sent, and try it out on a device.

    Raises
    ------
    ModelError
        See `dppm_model.score.phases.read_question` and `try_question`.
    """
    query = phases.read_question(phase.name, config, content).to(device)
    try_question(query, phase.grid, config.shape)
    return query
