"""Whatever the sites' answers and their noise are, a learner releases a model that others take."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from dppm_model.errors import ModelError
from dppm_model.score.arrays import ArraySpec, array_specs
from dppm_model.score.mixture_arrays import LEAST_VARIANCE
from dppm_model.score.model import ScoreModel
from dppm_model.score.model_config import ModelConfig, PublicData
from dppm_model.score.phases import build_query
from dppm_model.training.learner import build_learner

SMALL = ModelConfig.of(
    (1, 8, 8),
    2,
    {
        "mixture": {"band": 16, "axes": 10, "components": 2, "principal_axes": 5},
        "residual": {"network": {"kind": "dct_mlp", "channels": 4, "blocks": 1}, "band": 8},
    },
)
PATHS = [
    ["means", "variances", "pooled_covariance", "covariance", "components", "score"],
    ["component_covariance", "pooled_covariance", "means"],
]

Answer = Callable[[int, np.random.Generator], np.ndarray]
ANSWERS: dict[str, Answer] = {
    "nothing": lambda d, rng: np.zeros(d),
    "noise": lambda d, rng: rng.normal(0, 1, d),
    "much": lambda d, rng: rng.normal(0, 1e6, d),
    "all below": lambda d, rng: np.full(d, -1e3),
    "all above": lambda d, rng: np.full(d, 1e3),
    "far below": lambda d, rng: np.full(d, -1e15),
}


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("std", [1e-9, 1.0, 1e6])
@pytest.mark.parametrize("path", PATHS, ids="-".join)
@pytest.mark.parametrize("answer", ANSWERS)
def test_no_answer_ends_a_run(answer: str, path: list[str], std: float, flat: bool) -> None:
    learn(path, ANSWERS[answer], std, flat)


def learn(path: list[str], answer: Answer, std: float, flat: bool = False) -> ScoreModel:
    rng = np.random.default_rng(0)
    model = ScoreModel.start(SMALL)
    if flat:  # as public images that hardly differ teach it
        config = replace(SMALL, public=PublicData("plain", "0" * 64))
        covariance = model.arrays["mixture.covariance"]
        least = np.broadcast_to(LEAST_VARIANCE * np.eye(10, dtype=np.float32), covariance.shape)
        model = ScoreModel(config, {**model.arrays, "mixture.covariance": least.copy()})
    for phase in path:
        learner = build_learner(phase, model, 0)
        for _ in range(2):
            learner.step(answer(learner.query().dimension, rng), std)
        model = learner.result()
        build_query(phase, model)
    return ScoreModel.from_bytes(model.to_bytes())


def test_the_twin_with_ranges_alone_ends_one(monkeypatch: pytest.MonkeyPatch) -> None:
    clamp = lambda spec, a: np.clip(a, spec.least, spec.most).astype(spec.dtype)  # noqa: E731
    monkeypatch.setattr(ArraySpec, "nearest", clamp)
    with pytest.raises(ModelError):
        for answer, path in ((a, p) for a in ANSWERS.values() for p in PATHS):
            learn(path, answer, 1.0, flat=True)


@pytest.mark.parametrize("name", array_specs(SMALL))
def test_any_numbers_are_brought_to_what_an_array_must_be(name: str) -> None:
    spec = array_specs(SMALL)[name]
    rng = np.random.default_rng(1)
    draw = partial(rng.normal, size=spec.shape)
    for wrong in (draw() * 0, draw(), draw() * 1e-20, draw() * 1e30, -abs(draw()), draw() * 0 - 1):
        near = spec.nearest(wrong)
        assert spec.problem(near) is None
        assert np.array_equal(spec.nearest(near), near)  # what fits stays


@pytest.mark.parametrize("classes", [2, 10, 100_000])
def test_frequencies_stay_in_their_range_where_they_add_up_to_one(classes: int) -> None:
    spec = array_specs(ModelConfig.of((1, 1, 1), classes, {"mixture": {}}))["mixture.class_weights"]
    for full in (1, 2, classes // 2, classes - 1):
        assert spec.problem(spec.nearest(np.arange(classes) < full)) is None


def test_axes_are_orthonormal_or_refused() -> None:
    spec = array_specs(SMALL)["mixture.axes"]
    axes = spec.draw(np.random.default_rng(2), 1.0)
    assert spec.problem(axes) is None
    assert np.array_equal(spec.nearest(axes), axes)
    bent, short = axes.copy(), 0.99 * axes
    bent[0] *= -1
    bent[:, 0] = axes[:, 1]
    for wrong in (bent, short.astype(np.float32), np.zeros_like(axes)):
        assert "not orthonormal" in str(spec.problem(wrong))
        with pytest.raises(ModelError, match="not orthonormal"):
            ScoreModel.start(SMALL).replace({"mixture.axes": wrong})
        assert spec.problem(spec.nearest(wrong)) is None
    assert np.allclose(spec.nearest(0.99 * axes), axes, atol=1e-6)  # the directions stay
