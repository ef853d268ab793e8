"""Central DP-SGD (Abadi et al. 2016) on the score network, with Opacus.

A trusted curator holds all records. Each round takes every record with probability q, clips the
gradient of each (Algorithm 1 there) and adds Gaussian noise to their sum, as Dockhorn et al. (2023)
do for diffusion models. Add or remove one record moves the clipped sum by at most C, so that T
rounds are T Poisson-sampled Gaussian mechanisms of noise multiplier z.

Opacus's own generator makes the noise; it is not one that withstands attacks on floats.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer
from opacus.utils.uniform_sampler import UniformWithReplacementSampler
from torch import nn

from tests.benchmarks.peers.accounting import epsilon_of, noise_for
from tests.benchmarks.peers.peer import ADJACENCY, Task, Trained
from tests.benchmarks.peers.score_network import (
    Average,
    ScoreNetwork,
    learning_rate,
    losses,
    new_network,
)

_CHUNK = 64  # gradients held at once; a matter of memory and speed alone


@dataclass(frozen=True)
class Recipe:
    """Rounds, Poisson rate and clip norm C; Adam on the noisy mean; one noise level a record."""

    rounds: int = 1000
    rate: float = 0.008
    clip_norm: float = 0.5
    learning_rate: float = 0.01
    warmup: int = 50
    ema: float = 0.99


def per_record(network: nn.Module) -> GradSampleModule:
    """Let Opacus find each record's gradient.

    Opacus 1.6.0 takes a convolution's input to be contiguous and, where it is channels last, as
    inside our network, finds wrong gradients without a word: hence the hook.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(lambda _, inputs: inputs[0].contiguous())
    return GradSampleModule(network, loss_reduction="sum")


def private_optimizer(
    network: GradSampleModule, recipe: Recipe, noise: float, records: int
) -> DPOptimizer:
    """Return Adam on clipped, summed and noised gradients over the *expected* batch size."""
    return DPOptimizer(
        torch.optim.Adam(network.parameters()),
        noise_multiplier=noise,
        max_grad_norm=recipe.clip_norm,
        expected_batch_size=max(1, round(recipe.rate * records)),
        loss_reduction="mean",
    )


def train(task: Task) -> Trained:
    """Train it within the task's epsilon."""
    recipe = Recipe(rounds=task.rounds or Recipe.rounds)
    how = {"rounds": recipe.rounds, "rate": recipe.rate}
    noise = noise_for(task.epsilon, task.delta, **how)
    generator = torch.Generator().manual_seed(task.seed)
    network = per_record(new_network(task.shape, task.classes, task.seed))
    optimizer = private_optimizer(network, recipe, noise, len(task.x))
    average = Average(network, recipe.ema)
    # Opacus's name for Poisson sampling: every record is in a batch, or not, by itself.
    batches = UniformWithReplacementSampler(
        num_samples=len(task.x), sample_rate=recipe.rate, steps=recipe.rounds
    )
    for step, batch in enumerate(batches):
        rate = learning_rate(step, recipe.rounds, recipe.learning_rate, recipe.warmup)
        optimizer.param_groups[0]["lr"] = rate
        chunks = torch.tensor(batch).split(_CHUNK)
        for number, rows in enumerate(chunks, start=1):
            losses(network, task.x[rows], task.y[rows], generator).sum().backward()
            optimizer.signal_skip_step(do_skip=number < len(chunks))
            optimizer.step()  # clips and adds up; only the last one of a round adds noise and moves
            optimizer.zero_grad()
        average.update(network)
    model = ScoreNetwork(task.shape, task.classes, average.weights)
    return Trained(
        model.draw,
        "a curator who holds all records",
        ADJACENCY,
        epsilon_of(noise, task.delta, **how),
        asdict(recipe) | {"noise_multiplier": noise},
    )
