"""The same score network without any privacy: what its size and its training alone can do.

Plain denoising score matching on all records in one place (Karras et al. 2022), no clipping, no
noise. Nothing protects the records that it learned from.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch

from tests.benchmarks.peers.peer import Task, Trained
from tests.benchmarks.peers.score_network import (
    Average,
    ScoreNetwork,
    learning_rate,
    losses,
    new_network,
)


@dataclass(frozen=True)
class Recipe:
    """Adam; the batches are drawn with replacement."""

    steps: int = 4000
    batch: int = 128
    learning_rate: float = 0.02
    warmup: int = 100
    ema: float = 0.995


def train(task: Task) -> Trained:
    """Train it; ``task.rounds`` are steps here."""
    recipe = Recipe(steps=task.rounds or Recipe.steps)
    generator = torch.Generator().manual_seed(task.seed)
    network = new_network(task.shape, task.classes, task.seed)
    optimizer, average = torch.optim.Adam(network.parameters()), Average(network, recipe.ema)
    for step in range(recipe.steps):
        rows = torch.randint(len(task.x), (recipe.batch,), generator=generator)
        rate = learning_rate(step, recipe.steps, recipe.learning_rate, recipe.warmup)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        losses(network, task.x[rows], task.y[rows], generator).mean().backward()
        optimizer.step()
        average.update(network)
    model = ScoreNetwork(task.shape, task.classes, average.weights)
    return Trained(model.draw, "one holder of all records", "none", None, asdict(recipe))
