"""The peers keep the promises they are compared by, and their tests catch broken twins of them."""

import copy
import math

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAvg
from flwr.supercore.task_identity import TaskIdentity
from scipy.stats import norm
from torch import nn

from dppm_model.privacy.accountant import RoundCost, epsilon
from tests.benchmarks.peers import dp_merf, dpsgd, federated_dp, no_privacy
from tests.benchmarks.peers.accounting import epsilon_of, noise_for
from tests.benchmarks.peers.peer import Task
from tests.benchmarks.peers.score_network import ScoreNetwork, losses, new_network

DELTA = 1e-5
SHAPE, CLASSES = (1, 8, 8), 3


def toy_task(records: int = 60, rounds: int = 2, target: float = 1.0) -> Task:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(records, *SHAPE, generator=generator) * 2 - 1
    y = torch.randint(CLASSES, (records,), generator=generator)
    return Task(x, y, CLASSES, target, DELTA, rounds=rounds)


def gaussian_delta(mu: float, epsilon: float) -> float:
    """Balle and Wang 2018, Theorem 8: the exact delta of one release, mu = sensitivity/noise."""
    above, below = norm.cdf(mu / 2 - epsilon / mu), norm.logcdf(-mu / 2 - epsilon / mu)
    return float(above - math.exp(epsilon + below))


@pytest.mark.parametrize(("target", "rounds"), [(1.0, 1), (1.0, 10), (10.0, 1)])
def test_noise_of_full_rounds_meets_epsilon_by_the_closed_form(target: float, rounds: int) -> None:
    mu = math.sqrt(rounds) / noise_for(target, DELTA, rounds=rounds)
    assert gaussian_delta(mu, target) <= DELTA
    assert gaussian_delta(mu * 1.01, target) > DELTA  # and wastes nothing


@pytest.mark.slow
@pytest.mark.parametrize("target", [0.5, 1.0])
def test_noise_of_sampled_rounds_meets_epsilon_by_our_accountant(target: float) -> None:
    recipe = dpsgd.Recipe(rounds=200)
    noise = noise_for(target, DELTA, rounds=recipe.rounds, rate=recipe.rate)
    ours = epsilon([RoundCost(1 / noise, recipe.rate, recipe.rounds)], DELTA)
    assert ours == pytest.approx(target, rel=0.01)
    theirs = epsilon_of(noise, DELTA, rounds=recipe.rounds, rate=recipe.rate)
    assert theirs <= target


def test_one_record_moves_what_dp_merf_releases_by_its_sensitivity() -> None:
    task, recipe = toy_task(), dp_merf.Recipe(features=200)
    w = dp_merf.frequencies(task.x[0].numel(), recipe, seed=0)
    scale = recipe.counts_scale
    whole = dp_merf.statistic(task.x, task.y, CLASSES, w, scale)
    moves = []
    for i in range(20):
        others = torch.arange(len(task.x)) != i
        without = dp_merf.statistic(task.x[others], task.y[others], CLASSES, w, scale)
        moves.append(float((whole - without).norm()))
    np.testing.assert_allclose(moves, dp_merf.sensitivity(scale), rtol=1e-5)
    assert min(moves) > 1  # the embedding alone: a sensitivity that forgets the counts is too small


def test_means_of_dp_merf_are_the_records_own_without_noise() -> None:
    task, recipe = toy_task(), dp_merf.Recipe(features=200)
    w = dp_merf.frequencies(task.x[0].numel(), recipe, seed=0)
    released = dp_merf.statistic(task.x, task.y, CLASSES, w, recipe.counts_scale)
    expected = torch.stack([dp_merf.embed(task.x[task.y == c], w).mean(0) for c in range(CLASSES)])
    torch.testing.assert_close(dp_merf.means(released, recipe.counts_scale), expected)


@pytest.mark.parametrize("clip_norm", [0.1, 100.0])
def test_dpsgd_sums_clipped_gradients(clip_norm: float) -> None:
    """Without noise, its gradient times the batch is the sum of each record's own, clipped.

    It caught Opacus's wrong gradients of channels-last convolutions, see `dpsgd.per_record`.
    """
    task = toy_task(records=5)
    recipe = dpsgd.Recipe(rate=1.0, clip_norm=clip_norm)
    plain = new_network(SHAPE, CLASSES, seed=1)
    with torch.no_grad():  # it begins at zero, and no layer below it would have a gradient
        plain.last.weight.normal_(0, 0.1, generator=torch.Generator().manual_seed(1))
    network = dpsgd.per_record(copy.deepcopy(plain))
    optimizer = dpsgd.private_optimizer(network, recipe, 0.0, len(task.x))
    generator = torch.Generator().manual_seed(0)
    losses(network, task.x, task.y, generator).sum().backward()
    optimizer.pre_step()
    found = torch.cat([p.grad.flatten() for p in network.parameters()]) * len(task.x)
    each = losses(plain, task.x, task.y, torch.Generator().manual_seed(0))
    weights = list(plain.parameters())
    rows = [
        torch.cat([g.flatten() for g in torch.autograd.grad(one, weights, retain_graph=True)])
        for one in each
    ]
    clipped = sum(row * min(1.0, clip_norm / float(row.norm())) for row in rows)
    torch.testing.assert_close(found, clipped, rtol=1e-4, atol=1e-5)
    # An optimizer that forgets to clip differs, and only where there is something to clip.
    assert torch.allclose(found, sum(rows), rtol=1e-4, atol=1e-5) == (clip_norm == 100)


def test_a_site_that_is_exchanged_moves_flowers_mean_by_twice_the_clip_norm_at_most() -> None:
    """Which is why z is twice that of a Gaussian mechanism of sensitivity one."""
    recipe = federated_dp.Recipe(sites=4, clip_norm=0.5)
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1  # to make messages
    start = ArrayRecord({"w": Array(np.zeros(10, np.float32))})

    def mean(first: np.ndarray) -> np.ndarray:
        strategy = DifferentialPrivacyServerSideFixedClipping(
            FedAvg(fraction_evaluate=0.0), 0.0, recipe.clip_norm, recipe.sites
        )
        strategy.current_arrays = start
        others = [np.full(10, 0.01 * i, np.float32) for i in range(1, recipe.sites)]
        replies = []
        for update in (first, *others):
            content = {
                "arrays": ArrayRecord({"w": Array(update)}),
                "metrics": MetricRecord({"num-examples": 1}),
            }
            asked = Message(RecordDict({"c": ConfigRecord()}), dst_node_id=2, message_type="train")
            replies.append(Message(RecordDict(content), reply_to=asked))
        return strategy.aggregate_train(1, replies)[0]["w"].numpy()

    up, down = np.full(10, 100, np.float32), np.full(10, -100, np.float32)
    moved = float(np.linalg.norm(mean(up) - mean(down))) * recipe.sites / recipe.clip_norm
    assert moved == pytest.approx(
        2, rel=1e-4
    )  # a bound of one, for a site that vanishes, is broken


@pytest.mark.parametrize("rounds", [1, 10])
def test_epsilon_of_federated_rounds_is_that_of_their_composition(rounds: int) -> None:
    z = federated_dp.noise_multiplier(1.0, DELTA, rounds)
    ours = epsilon([RoundCost(2 / z, 1.0, rounds)], DELTA)
    assert federated_dp.epsilon_of_run(z, DELTA, rounds) <= 1.0
    assert ours == pytest.approx(1.0, rel=0.01)
    assert federated_dp.epsilon_of_run(z, DELTA, 4 * rounds) > 2.0


@pytest.mark.slow
@pytest.mark.parametrize("peer", [dp_merf, dpsgd, federated_dp, no_privacy])
def test_every_peer_trains_and_draws(peer: object) -> None:
    trained = peer.train(toy_task())  # type: ignore[attr-defined]
    x = trained.draw(torch.tensor([0, 2]), 0)
    assert x.shape == (2, *SHAPE)
    assert trained.epsilon is None or 0.99 < trained.epsilon <= 1.0


def test_an_untrained_score_network_is_edms_own_gaussian() -> None:
    """The last layer is zero, so D(x) is c_skip x: the posterior mean under N(0, 1/4)."""
    model = ScoreNetwork(
        SHAPE, CLASSES, nn.utils.parameters_to_vector(new_network(SHAPE, CLASSES, 0).parameters())
    )
    x, y = torch.randn(4, *SHAPE), torch.zeros(4, dtype=torch.int64)
    torch.testing.assert_close(model.denoise(x, torch.full((4,), 0.5), y), x / 2)
