"""Federated averaging with Flower's own differential privacy, on the score network.

`DifferentialPrivacyServerSideFixedClipping` (McMahan et al. 2018; Geyer et al. 2017) clips what
each of n sites sends, the change of the weights after training on its records, to norm C, averages,
and adds noise of z C/n to each coordinate. The server sees every change as it is: it is trusted.

**What is promised** is about a whole site: all its records may be exchanged for any others. That
moves the sum of the clipped changes by at most 2 C (one of norm C becomes another), so z is twice
the noise multiplier of a Gaussian mechanism of sensitivity one. Add or remove one record of a site
is covered, since the site is still there, with another change; a z for a site that *vanishes* (C,
not 2 C) would not cover it. All sites take part in each of T rounds, and no sampling amplifies.

**What that does**: a clipped change has norm C at most, and the noise of a round z C sqrt(d)/n,
which is `noise_to_update` times as long: 39 times at epsilon = 10, and 291 times at 1, with 10
sites, 5 rounds and d = 30,520 weights. The noise drowns the update. As z grows with sqrt(T), other
T or C do not help; sites would, by the hundred at epsilon = 10 and by the thousand at 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAvg
from torch import nn

from deploy.inprocess import InProcessGrid
from dppm_model.records.partition import partition
from tests.benchmarks.peers.accounting import epsilon_of, noise_for
from tests.benchmarks.peers.peer import Task, Trained
from tests.benchmarks.peers.score_network import ScoreNetwork, losses, new_network

GUARANTEE = "exchange all records of one site (so also: add or remove one record)"


@dataclass(frozen=True)
class Recipe:
    """Sites n, rounds T and clip norm C; each site's Adam begins anew in every round."""

    sites: int = 10
    rounds: int = 5
    clip_norm: float = 1.0
    steps: int = 40
    batch: int = 64
    learning_rate: float = 0.003


def noise_multiplier(epsilon: float, delta: float, rounds: int) -> float:
    """Return Flower's z: the noise over C, for a sum that moves by 2 C."""
    return 2 * noise_for(epsilon, delta, rounds=rounds)


def epsilon_of_run(z: float, delta: float, rounds: int) -> float:
    """Return the epsilon of T rounds with Flower's z, for the exchange of a site."""
    return epsilon_of(z / 2, delta, rounds=rounds)


def site_app(task: Task, parts: list[torch.Tensor], recipe: Recipe) -> ClientApp:
    """Return what a site runs: it trains the weights that come on its own records."""
    app = ClientApp()

    @app.train()
    def train_site(message: Message, context: Context) -> Message:
        site = int(context.node_config["partition-id"])
        x, y = task.x[parts[site]], task.y[parts[site]]
        round_ = int(message.content["config"]["server-round"])
        generator = torch.Generator().manual_seed(task.seed + recipe.sites * round_ + site)
        network = new_network(task.shape, task.classes, task.seed)
        network.load_state_dict(message.content["arrays"].to_torch_state_dict())
        optimizer = torch.optim.Adam(network.parameters(), lr=recipe.learning_rate)
        for _ in range(recipe.steps):
            rows = torch.randint(len(x), (recipe.batch,), generator=generator)
            optimizer.zero_grad()
            losses(network, x[rows], y[rows], generator).mean().backward()
            optimizer.step()
        # Equal weights: with weights by records one site could count for more than C/n.
        content = {
            "arrays": ArrayRecord(network.state_dict()),
            "metrics": MetricRecord({"num-examples": 1}),
        }
        return Message(RecordDict(content), reply_to=message)

    return app


def server_app(
    recipe: Recipe, z: float, network: nn.Module, done: Callable[[ArrayRecord], None]
) -> ServerApp:
    """Return what the server runs: Flower's strategy for T rounds, without evaluation."""
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        del context
        averaging = FedAvg(
            fraction_evaluate=0.0,
            min_train_nodes=recipe.sites,
            min_available_nodes=recipe.sites,
        )
        strategy = DifferentialPrivacyServerSideFixedClipping(
            averaging, z, recipe.clip_norm, recipe.sites
        )
        first = ArrayRecord(network.state_dict())
        done(strategy.start(grid, first, num_rounds=recipe.rounds).arrays)

    return app


def train(task: Task) -> Trained:
    """Train it within the task's epsilon, with Flower's apps in this process."""
    recipe = Recipe(rounds=task.rounds or Recipe.rounds)
    z = noise_multiplier(task.epsilon, task.delta, recipe.rounds)
    dealt = partition(task.y.numpy(), recipe.sites, scheme="even", seed=task.seed)
    parts = [torch.from_numpy(rows) for rows in dealt]
    network = new_network(task.shape, task.classes, task.seed)
    found: list[ArrayRecord] = []
    grid = InProcessGrid(site_app(task, parts, recipe), recipe.sites, {})
    grid.play(server_app(recipe, z, network, found.append))
    network.load_state_dict(found[0].to_torch_state_dict())
    weights = nn.utils.parameters_to_vector(network.parameters())
    noise_to_update = z * math.sqrt(len(weights)) / recipe.sites
    return Trained(
        ScoreNetwork(task.shape, task.classes, weights).draw,
        "a server that sees each site's change",
        GUARANTEE,
        epsilon_of_run(z, task.delta, recipe.rounds),
        asdict(recipe) | {"noise_multiplier": z, "noise_to_update": noise_to_update},
    )
