"""The residual network and its learner: zero at first, bounded vectors, exact resume, a gain."""

import numpy as np
import torch

from dppm_model.mechanism.grid import Grid
from dppm_model.records.pixels import to_tensor
from dppm_model.score.gradient import GradientLearner, GradientQuery
from dppm_model.score.model import ScoreModel
from tests.conftest import tiny_images

SETTINGS = {
    "mixture": {"band": 16, "components": 1, "texture": 9},
    "residual": {"channels": 6, "blocks": 1, "rounds": 40, "warmup": 2, "learning_rate": 0.02},
}
GRID = Grid(1.0, 1 << 24)


def start() -> ScoreModel:
    return ScoreModel.initial((1, 8, 8), 2, SETTINGS)


def records(n: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = tiny_images(n, 3)
    return to_tensor(images), torch.from_numpy(labels)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def loss(model: ScoreModel) -> float:
    query = GradientQuery(model)
    target, x, base, sigma, y = query.draw(*records(256), generator(9))
    onehot = y[:, None].expand(-1, x.shape[1], -1).flatten(0, 1)
    residual = model.residual
    out = 0.0
    if residual is not None:
        out = residual(x.flatten(0, 1), base.flatten(0, 1), sigma.flatten(), onehot.argmax(1))
    return float(((out - target.flatten(0, 1)) ** 2).mean())


def test_the_residual_starts_at_zero() -> None:
    x, y = records(8)
    sigma = torch.full((8,), 0.7)
    model = GradientLearner(start(), 0).result()
    torch.testing.assert_close(model.denoise(x, sigma, y), start().denoise(x, sigma, y))


def test_no_record_exceeds_the_clip_norm_and_nobody_is_nobody() -> None:
    query = GradientLearner(start(), 0).query()
    x, y = records()
    x[0] = 1e6
    x[1] = float("nan")
    for i in range(6):
        total = query.clipped_sum(x[i, None], y[i, None], GRID, generator(i))
        assert sum(int(v) ** 2 for v in total) <= GRID.steps**2
    nobody = query.clipped_sum(x[:0], y[:0], GRID, generator())
    assert nobody.shape == (query.dimension,)
    assert not nobody.any()


def test_the_scale_puts_the_clip_near_the_median_norm() -> None:
    query = GradientLearner(start(), 0).query()
    x, y = records()
    rows = torch.cat(
        list(query.gradients.per_record(query.weights, *query.draw(x, y, generator())))
    )
    norms = rows.norm(dim=1) * query.scale
    assert 0.05 < float((norms > 1).float().mean()) < 0.98


def train(learner: GradientLearner, rounds: range) -> None:
    x, y = records(256)
    for r in rounds:
        total = learner.query().clipped_sum(x, y, GRID, generator(100 + r))
        learner.step(GRID.to_float(total) / len(x), 0.0)


def test_learning_lowers_the_held_out_loss_and_resumes_bit_for_bit() -> None:
    whole, first = GradientLearner(start(), 0), GradientLearner(start(), 0)
    train(whole, range(40))
    train(first, range(17))
    second = GradientLearner(start(), 0)
    second.load_state_dict({k: v.copy() for k, v in first.state_dict().items()})
    train(second, range(17, 40))
    for name, array in whole.result().arrays.items():
        np.testing.assert_array_equal(array, second.result().arrays[name])
    assert loss(whole.result()) < 0.9 * loss(start())
    # A model survives its file.
    again = ScoreModel.from_bytes(whole.result().to_bytes())
    assert loss(again) == loss(whole.result())
