"""The ``score`` phase: it learns, it resumes bit for bit, and its public parts are public."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from dppm_model.mechanism.gradients import per_record
from dppm_model.mechanism.quantize import Grid
from dppm_model.score.closed_form import closed_form
from dppm_model.score.gradient import denoising_losses
from dppm_model.score.model import ScoreModel
from dppm_model.score.networks import KINDS
from dppm_model.score.phases import dimension_of, read_question, write_question
from dppm_model.score.residual_query import ResidualQuery
from dppm_model.training.gradient import _LEAST_RATE, GradientLearner, ResidualLearner

GRID = Grid(1.0, 1 << 20)
N = 64
SEEDS = torch.arange(1000)


def seeds(t: int) -> torch.Tensor:
    return SEEDS + 1000 * t


def start(**settings: object) -> ScoreModel:
    network = {"kind": "conv", "channels": 8, "blocks": 1}
    residual = {"band": 8, "network": network, "rounds": 40, "warmup": 4} | settings
    config = {"mixture": {"band": 16, "background": 0.0}, "residual": residual}
    return ScoreModel.initial((1, 8, 8), 2, config)


def shard(n: int = N, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Bright or dark bars at one of eight places: far from Gaussian."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(2, (n,), generator=generator)
    x = torch.full((n, 1, 8, 8), -0.5)
    x[torch.arange(n), 0, torch.randint(8, (n,), generator=generator)] = 1.0
    return x * (1 - 2 * y)[:, None, None, None], y


def held_out(model: ScoreModel) -> float:
    x, y = shard(128, seed=1)
    sigma = torch.full((len(x),), 0.5)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    return float((model.denoise(x + 0.5 * noise, sigma, y) - x).square().mean())


def rounds(learner: GradientLearner, first: int, last: int, sign: float = 1.0) -> None:
    x, y = shard()
    for t in range(first, last):
        total = learner.query().clipped_sum(x, y, GRID, seeds(t))
        learner.step(sign * GRID.to_float(total) / N, 0.0)


@pytest.mark.parametrize("kind", KINDS)
def test_rounds_improve_the_denoiser_on_other_records(kind: str) -> None:
    model = start(network={"kind": kind, "channels": 8})
    before = held_out(model)
    learner, twin = (
        ResidualLearner(ResidualQuery, model, 0),
        ResidualLearner(ResidualQuery, model, 0),
    )
    assert held_out(learner.result()) == pytest.approx(before, rel=1e-6)  # it starts at zero
    rounds(learner, 0, 40)
    assert held_out(learner.result()) < 0.9 * before
    rounds(twin, 0, 10, sign=-1.0)  # the broken twin climbs
    assert held_out(twin.result()) > before


def test_resuming_gives_the_same_bits() -> None:
    whole, first, second = (ResidualLearner(ResidualQuery, start(), 0) for _ in range(3))
    rounds(whole, 0, 14)
    rounds(first, 0, 7)
    second.load_state_dict(first.state_dict())
    rounds(second, 7, 14)  # over the rescaling of round 10
    for name, value in whole.result().arrays.items():
        np.testing.assert_array_equal(second.result().arrays[name], value, err_msg=name)
    twin = ResidualLearner(ResidualQuery, start(), 0)  # forgetting Adam's moments is noticed
    twin.load_state_dict({**first.state_dict(), "first_moment": np.zeros(twin.query().dimension)})
    rounds(twin, 7, 14)
    weights = "residual.weights"
    assert (twin.result().arrays[weights] != second.result().arrays[weights]).any()


def test_the_scale_brings_public_gradients_to_the_clip_norm() -> None:
    learner = ResidualLearner(ResidualQuery, start(clip_share=0.5), 0)
    query = learner.query()
    x = closed_form(learner.result()).sample(
        torch.arange(400) % 2, torch.Generator().manual_seed(9)
    )
    inputs = query.questions(x.clamp(-1, 1), torch.arange(400) % 2, SEEDS[:400])
    norms = per_record(query.network, denoising_losses, inputs).norm(dim=1) * query.scale
    assert 1.6 < norms.median() < 2.5  # 1/clip_share, from other images


def test_a_site_asks_what_the_server_meant() -> None:
    """The arrays travel as bytes; the site's question is the same to the last bit."""
    learner = ResidualLearner(ResidualQuery, start(), 0)
    rounds(learner, 0, 3)
    x, y = shard()
    sent = write_question("score", learner.result())
    assert "residual.ema" in learner.result().arrays
    assert b"residual.ema" not in sent
    there = read_question("score", start().config, sent)
    totals = [query.clipped_sum(x, y, GRID, seeds(1)) for query in (learner.query(), there)]
    np.testing.assert_array_equal(*totals)
    assert totals[0].any()


def test_an_empty_sample_gives_zeros_and_the_dimension_is_known_beforehand() -> None:
    model = start()
    d = dimension_of("score", model.config)
    query = ResidualLearner(ResidualQuery, model, 0).query()
    assert query.dimension == d
    x, y = shard()
    total = query.clipped_sum(x[:0], y[:0], GRID, SEEDS)
    assert total.shape == (d,) and total.dtype == np.int64 and not total.any()


def test_one_record_moves_the_sum_by_at_most_g() -> None:
    query = ResidualLearner(ResidualQuery, start(), 0).query()
    x, y = shard(5)
    x[4] = 1e30  # whatever a record holds
    sums = []
    for n in (4, 5):  # the noise of the first four records must be the same in both
        parts = [query.clipped_sum(x[i : i + 1], y[i : i + 1], GRID, seeds(i)) for i in range(n)]
        sums.append(sum(parts))
    assert np.linalg.norm((sums[1] - sums[0]).astype(np.float64)) <= GRID.steps


def test_the_closed_form_is_built_once_for_all_rounds() -> None:
    learner = ResidualLearner(ResidualQuery, start(), 0)
    a = closed_form(ScoreModel.from_bytes(learner.result().to_bytes()))
    rounds(learner, 0, 1)
    assert closed_form(ScoreModel.from_bytes(learner.result().to_bytes())) is a
    mean = learner.result().arrays["mixture.mean"] + 1
    assert closed_form(learner.result().replace({"mixture.mean": mean})) is not a


def test_learning_rate_rises_then_falls_to_a_tenth() -> None:
    learner = ResidualLearner(ResidualQuery, start(learning_rate=1.0, warmup=4, rounds=40), 0)
    rates = [learner.learning_rate(t) for t in range(1, 42)]
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert all(a > b for a, b in pairwise(rates[3:40]))
    assert rates[39] == rates[40] == pytest.approx(_LEAST_RATE)
