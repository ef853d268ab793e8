"""The moment phases: bounded answers, exact recovery without noise, sane results with much."""

from typing import Any

import numpy as np
import pytest
import torch

from dppm_model.errors import ConfigError, ModelError
from dppm_model.mechanism.quantize import Grid
from dppm_model.score.class_sums import MomentQuery, Sums
from dppm_model.score.closed_form import class_weights, covariances
from dppm_model.score.model import ScoreModel
from dppm_model.score.model_config import ModelConfig
from dppm_model.score.moments import ComponentCovarianceQuery, MeansQuery
from dppm_model.score.phases import (
    PHASES,
    build_query,
    dimension_of,
    read_question,
    write_question,
)
from dppm_model.score.query import Query
from dppm_model.training.learner import Learner, build_learner
from dppm_model.training.moments import Arrays, ComponentCovarianceLearner, MeansLearner
from tests.support.mutations import twin

MOMENTS = [n for n, kind in PHASES.items() if issubclass(kind.question, MomentQuery)]
SHAPE, CLASSES, BAND = (1, 6, 6), 3, 12
SEEDS = torch.arange(100_000)
GRID = Grid(1.0, 1 << 24)


def initial(components: int = 2, radius: float = 30.0, band: int = BAND) -> ScoreModel:
    """Radii are wide unless a test is about clipping: sums are then plain moments."""
    mixture = {
        "band": band,
        "components": components,
        "principal_axes": 5,
        "fine_band": 20,
        "texture": 8,
        "background": 0.0,
        "means_clip_norm": radius,
        "covariance_clip_norm": radius,
        "components_clip_norm": radius,
        "component_covariance_clip_norm": radius,
        "fine_covariance_clip_norm": radius,
    }
    return ScoreModel.initial(SHAPE, CLASSES, {"mixture": mixture})


def records(n: int = 600, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Correlated images with a mean per class; class frequencies differ."""
    g = torch.Generator().manual_seed(seed)
    y = torch.multinomial(torch.tensor([0.5, 0.3, 0.2]), n, True, generator=g)
    mean = 0.5 * torch.randn((CLASSES, *SHAPE), generator=g)
    root = 0.1 * torch.randn((36, 36), generator=g)
    noise = torch.randn((n, 36), generator=g) @ root
    return mean[y] + noise.reshape(n, *SHAPE), y


def ask(
    learner: Learner, x: torch.Tensor, y: torch.Tensor, rounds: int = 1, std: float = 0.0
) -> ScoreModel:
    """Run rounds of a phase with ideal Gaussian noise of this standard deviation."""
    for r in range(rounds):
        query = learner.query()
        total = query.clipped_sum(x, y, GRID, SEEDS)
        noise = std * np.random.default_rng([0, r]).standard_normal(query.dimension)
        learner.step(GRID.to_float(total) / len(y) + noise, std)
    return learner.result()


def learner(kind: str, model: ScoreModel) -> Learner:
    return build_learner(kind, model, seed=3)


def trained(components: int = 2) -> ScoreModel:
    x, y = records()
    model = ask(learner("means", initial(components)), x, y)
    return ask(learner("covariance", model), x, y)


def ready(kind: str) -> ScoreModel:
    """The model that a phase asks by first."""
    return learner(kind, trained()).result()


def extremes() -> tuple[torch.Tensor, torch.Tensor]:
    """Images at the corners of what can occur, and far beyond it."""
    g = torch.Generator().manual_seed(1)
    x = torch.rand((40, *SHAPE), generator=g).round() * 2 - 1
    x[:5] *= 1e6
    x[5], x[6] = 1, -1
    return x, torch.arange(40) % CLASSES


# --- the site's answers -------------------------------------------------------------------------


class RoundsOnly(Grid):
    """Broken twin: rounds without clipping."""

    def quantize(self, vectors: torch.Tensor) -> torch.Tensor:
        return (vectors.double() * self.steps / self.clip_norm).round()

    def whole(self, total: torch.Tensor, records: int) -> np.ndarray:
        del records
        return total.to(torch.int64).numpy()


def longest(query: Query, grid: Grid) -> int:
    """Largest squared integer norm of what a single extreme record can send."""
    x, y = extremes()
    squares = []
    for i in range(len(y)):
        total = query.clipped_sum(x[i, None], y[i, None], grid, SEEDS)
        squares.append(int((total.astype(object) ** 2).sum()))
    return max(squares)


def _rounded_only(_: Any) -> Any:
    def clipped_sum(self: Any, x: torch.Tensor, y: torch.Tensor, grid: Any, seeds: Any) -> Any:
        del seeds
        r = (self._residuals(x, y).double() * 4096 / grid.clip_norm**0.5).round()
        return (r.T @ r).flatten().to(torch.int64).numpy()

    return clipped_sum


@twin(
    "matrices of fine coefficients are rounded to integers, and not clipped",
    "dppm_model.score.moments:FineCovarianceQuery.clipped_sum",
    _rounded_only,
    only="[fine_covariance]",
)
@pytest.mark.parametrize("kind", MOMENTS)
def test_no_record_exceeds_the_clip_norm(kind: str) -> None:
    query = learner(kind, initial(radius=0.5)).query()
    assert 0.5 * GRID.steps**2 < longest(query, GRID) <= GRID.steps**2
    if kind in ("means", "components"):
        query.body_weight = 2.0  # a question that is too long by itself
    assert longest(query, GRID) <= GRID.steps**2
    assert longest(query, RoundsOnly(1.0, GRID.steps)) > GRID.steps**2


@pytest.mark.parametrize("kind", MOMENTS)
def test_sums_are_exact_whatever_the_order_and_the_chunks(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = records(50)
    query = build_query(kind, ready(kind))
    whole = query.clipped_sum(x, y, GRID, SEEDS)
    assert whole.dtype == np.int64
    assert whole.shape == (query.dimension,)
    monkeypatch.setattr(query, "chunk", 1, raising=False)
    flipped = query.clipped_sum(x.flip(0), y.flip(0), GRID, SEEDS)
    # The vectors are floats before rounding, so a chunk of one may round a coordinate otherwise.
    assert np.abs(whole - flipped).max() <= 50 * 64
    parts = [query.clipped_sum(x[i::2], y[i::2], GRID, SEEDS) for i in (0, 1)]
    assert np.array_equal(sum(parts), query.clipped_sum(x, y, GRID, SEEDS))


@pytest.mark.parametrize("kind", MOMENTS)
def test_no_records_give_zeros(kind: str) -> None:
    x, y = records(5)
    total = build_query(kind, ready(kind)).clipped_sum(x[:0], y[:0], GRID, SEEDS)
    assert total.shape == (dimension_of(kind, initial().config),)
    assert not total.any()


def test_dimensions() -> None:
    config = initial().config
    assert dimension_of("means", config) == 3 + 3 * 36
    assert dimension_of("covariance", config) == 8 + 3 * 78
    assert dimension_of("components", config) == 6 + 6 * 12
    assert dimension_of("component_covariance", config) == 6 * 15
    assert dimension_of("fine_covariance", config) == 20 * 20


def test_a_kind_can_be_asked_again_under_another_name() -> None:
    assert type(build_query("means-first", initial())) is MeansQuery
    x, y = records()
    rough = ask(learner("means-first", initial()), x, y, std=1e-3)
    fine = ask(learner("means", rough), x, y)
    assert mean_error_of(fine) < 1e-3 < mean_error_of(rough)


def test_unknown_phases_are_refused() -> None:
    with pytest.raises(ConfigError, match="median"):
        build_query("median", initial())
    with pytest.raises(ConfigError, match="median"):
        build_learner("median", initial(), 0)


# --- the server's estimates ---------------------------------------------------------------------


class ForgetsTheCentre(MeansLearner):
    """Broken twin: takes residuals around the present means for residuals around the prior."""

    def fit(self, query: MeansQuery, centre: Sums, moved: Sums, std: float) -> Arrays:
        return super().fit(query, centre._replace(body=0 * centre.body), moved, std)


def mean_error_of(model: ScoreModel) -> float:
    x, y = records()
    u = model.scales.basis.forward(x)
    means = torch.stack([u[y == k].mean(0) for k in range(CLASSES)])
    return float((torch.from_numpy(model.arrays["mixture.mean"]) - means).abs().max())


def test_means_without_noise_are_the_sample_means() -> None:
    x, y = records()
    model = ask(MeansLearner(MeansQuery, initial()), x, y, rounds=3)
    assert mean_error_of(model) < 1e-3
    assert np.allclose(class_weights(model.arrays), np.bincount(y) / len(y), atol=1e-4)
    assert mean_error_of(ask(ForgetsTheCentre(MeansQuery, initial()), x, y, rounds=3)) > 0.1


@pytest.mark.parametrize("components", [1, 2])
def test_covariance_without_noise_is_the_sample_covariance(components: int) -> None:
    x, y = records()
    model = trained(components)
    u = model.scales.basis.forward(x)[:, :BAND]
    for k in range(CLASSES):
        centred = u[y == k] - torch.from_numpy(model.arrays["mixture.mean"])[k, :BAND]
        sample = (centred.T @ centred / len(centred)).numpy()
        released = model.arrays["mixture.covariance"][k]
        assert np.abs(released - sample).max() < 2e-3 * np.abs(sample).max()


def test_texture_finds_where_images_vary() -> None:
    x, y = records()
    x[:, :, :, 3:] *= 0.1  # the right half hardly varies
    model = ask(learner("means", initial()), x, y)
    model = ask(learner("covariance", model), x, y)
    texture = model.arrays["mixture.texture"]
    assert texture[:, :, 0].mean() > 5 * texture[:, :, 5].mean()
    assert texture.min() > 0


def test_components_without_noise_find_the_clusters() -> None:
    g = torch.Generator().manual_seed(0)
    centres = torch.tensor([-0.7, 0.7])
    y = torch.arange(400) % CLASSES
    side = torch.arange(400) % 2
    x = 0.05 * torch.randn((400, *SHAPE), generator=g) + centres[side][:, None, None, None]
    model = ask(learner("means", initial()), x, y)
    model = ask(learner("covariance", model), x, y)
    before = model.arrays["mixture.covariance"]
    model = ask(learner("components", model), x, y, rounds=4)
    brightness = np.sort(model.arrays["mixture.components"][:, :, 0] / 6, axis=1)
    assert np.allclose(brightness, [[-0.7, 0.7]] * CLASSES, atol=0.05)
    assert np.allclose(model.arrays["mixture.component_weights"], 0.5, atol=0.05)
    # What the centres explain has left the covariance: 0.7² · 36 pixels on the first coefficient.
    assert before[:, 0, 0].min() > 15
    assert model.arrays["mixture.covariance"][:, 0, 0].max() < 5


def test_components_keep_the_class_mean_and_covariance() -> None:
    x, y = records()
    model = trained()
    split = ask(learner("components", model), x, y, rounds=3)
    weights = split.arrays["mixture.component_weights"][:, :, None]
    components = split.arrays["mixture.components"]
    mean = (weights * components).sum(1)
    assert np.allclose(mean, model.arrays["mixture.mean"][:, :BAND], atol=1e-5)
    offset = components - mean[:, None]
    between = np.einsum("kja,kjb->kab", weights * offset, offset)
    total = split.arrays["mixture.covariance"] + between
    assert np.allclose(total, model.arrays["mixture.covariance"], atol=2e-3)


class KeepsTheCentre(ComponentCovarianceLearner):
    """Broken twin: takes differences to the model for the components' covariances themselves."""

    def fit(self, query: ComponentCovarianceQuery, centre: Sums, moved: Sums, std: float) -> Arrays:
        return super().fit(query, centre._replace(body=0 * centre.body), moved, std)


def covariance_error_of(kind: type[ComponentCovarianceLearner], std: float = 0.0) -> float:
    """How far the components' covariances are from those of their records, in the class's axes.

    Class 0 has two clusters: one varies along one direction, one along another.
    """
    g = torch.Generator().manual_seed(0)
    y = torch.arange(3000) % CLASSES
    side = torch.randint(2, (3000,), generator=g)
    model = initial()
    u = 0.02 * torch.randn((3000, 36), generator=g)
    u[:, 0] += 2 * side - 1.0
    u[torch.arange(3000), 1 + side] += 0.5 * torch.randn(3000, generator=g)
    x = model.scales.basis.inverse(u.double()).float()
    for phase, rounds in (("means", 1), ("covariance", 1), ("components", 4)):
        model = ask(learner(phase, model), x, y, rounds=rounds)
    model = ask(kind(ComponentCovarianceQuery, model), x, y, rounds=2, std=std)
    found = covariances(model.arrays)
    gap = 0.0
    for j in range(2):
        which = int(model.arrays["mixture.components"][0, j, 0] > 0)
        rows = u[(y == 0) & (side == which)].double()[:, :BAND]
        sample = torch.from_numpy(np.cov(rows.numpy(), rowvar=False))
        gap = max(gap, float((found[0, j] - sample).abs().max() / sample.abs().max()))
    return gap


def test_without_noise_each_component_gets_its_own_covariance() -> None:
    learner = ComponentCovarianceLearner
    assert covariance_error_of(learner) < 0.15  # a tenth of the class's variance always stays
    assert covariance_error_of(KeepsTheCentre) > 0.5
    assert covariance_error_of(learner, std=10.0) > 0.5  # in noise it stays the class's


def test_under_noise_component_covariances_stay_near_the_class() -> None:
    x, y = records()
    model = ask(learner("components", trained()), x, y, rounds=2)
    blurred = ask(learner("component_covariance", model), x, y, std=100.0)
    for k, known in enumerate(covariances(model.arrays)[:, 0].numpy()):
        ratios = [
            np.linalg.eigvals(np.linalg.solve(known, own)).real
            for own in covariances(blurred.arrays)[k]
        ]
        assert 0.09 < np.min(ratios) <= np.max(ratios) < 4.1


def test_new_components_forget_the_covariances_of_the_old() -> None:
    x, y = records()
    model = ask(learner("components", trained()), x, y)
    model = ask(learner("component_covariance", model), x, y)
    assert "mixture.component_covariance" in model.arrays
    again = ask(learner("components", model), x, y)
    assert "mixture.component_covariance" not in again.arrays


def test_component_covariance_refuses_a_model_without_axes() -> None:
    with pytest.raises(ModelError, match="axes"):
        build_query("component_covariance", trained())


@pytest.mark.parametrize(
    ("phase", "field"),
    [("component_covariance", "principal_axes"), ("fine_covariance", "fine_band")],
)
def test_a_phase_that_was_given_no_room_is_refused(phase: str, field: str) -> None:
    bare = ModelConfig.of(SHAPE, CLASSES, {"mixture": {"band": BAND, "components": 2}})
    with pytest.raises(ConfigError, match=f"mixture.{field} is 0"):
        dimension_of(phase, bare)


def test_fine_covariance_without_noise_is_the_pooled_sample() -> None:
    x, y = records()
    model = ask(learner("fine_covariance", trained()), x, y, rounds=2)
    u = model.scales.basis.forward(x) - torch.from_numpy(model.arrays["mixture.mean"])[y]
    fine = u[:, BAND : BAND + 20].double()
    sample = fine.T @ fine / len(fine)
    high = model.denoiser
    released = (high.high_vectors * high.high_values) @ high.high_vectors.T
    assert float((released[:20, :20] - sample).abs().max()) < 5e-3 * float(sample.abs().max())
    assert float(released[:20, 20:].abs().max()) < 1e-6  # above them the prior, by itself
    assert float(released[20:, 20:].diagonal().min()) > 0


def test_fine_covariance_counts_both_triangles() -> None:
    """Noise is on the whole matrix: the released one is symmetric, and shrunk for half of it."""
    x, y = records()
    first = learner("fine_covariance", trained())
    query = first.query()
    total = GRID.to_float(query.clipped_sum(x, y, GRID, SEEDS)) / len(y)
    noise = np.zeros((20, 20))
    noise[0, 1] = 1e-3
    first.step(total + noise.flatten(), 1e-9)
    second = learner("fine_covariance", trained())
    second.step(total + noise.T.flatten(), 1e-9)
    assert np.allclose(
        first.result().arrays["mixture.fine_covariance"],
        second.result().arrays["mixture.fine_covariance"],
    )


@pytest.mark.parametrize("std", [1e-4, 1e-2, 1.0, 100.0])
def test_heavy_noise_leaves_a_valid_model(std: float) -> None:
    x, y = records(200)
    model = initial(components=4, radius=1.5)
    for kind in MOMENTS:
        model = ask(learner(kind, model), x, y, rounds=2, std=std)
        weights = class_weights(model.arrays)
        assert weights.min() > 0
        assert weights.sum() == pytest.approx(1)
        assert np.linalg.eigvalsh(model.arrays["mixture.covariance"].astype(float)).min() > 0
        assert model.arrays["mixture.component_weights"].min() >= 0
        assert np.allclose(model.arrays["mixture.component_weights"].sum(1), 1, atol=1e-5)
        assert all(np.isfinite(array).all() for array in model.arrays.values())
        sigma = torch.logspace(-2, 2, 10)
        assert torch.isfinite(model.denoise(x[:10], sigma, y[:10])).all()


@pytest.mark.parametrize("kind", MOMENTS)
def test_a_resumed_learner_goes_on_bit_for_bit(kind: str) -> None:
    x, y = records(100)
    start = initial() if kind == "means" else trained()
    straight = ask(learner(kind, start), x, y, rounds=4, std=1e-3)
    first = learner(kind, start)
    for r in range(4):
        query = first.query()
        noise = 1e-3 * np.random.default_rng([0, r]).standard_normal(query.dimension)
        total = query.clipped_sum(x, y, GRID, SEEDS)
        first.step(GRID.to_float(total) / len(y) + noise, 1e-3)
        again = learner(kind, start)  # the twin: without its state it is not the same
        assert again.result().to_bytes() != first.result().to_bytes()
        again.load_state_dict({name: a.copy() for name, a in first.state_dict().items()})
        assert again.result().to_bytes() == first.result().to_bytes()
        first = again
    assert first.result().to_bytes() == straight.to_bytes()


def test_a_saved_state_does_not_change_with_the_learner() -> None:
    x, y = records(100)
    going = learner("means", initial())
    ask(going, x, y)
    state = going.state_dict()
    copy = {name: array.copy() for name, array in state.items()}
    ask(going, x, y)
    assert all(np.array_equal(state[name], copy[name]) for name in copy)


def test_a_query_is_built_from_the_model_that_travels() -> None:
    x, y = records(20)
    for kind in MOMENTS:
        model = ready(kind)
        there = read_question(kind, model.config, write_question(kind, model))
        sums = [q.clipped_sum(x, y, GRID, SEEDS) for q in (build_query(kind, model), there)]
        assert np.array_equal(*sums)


def test_means_query_centres_at_the_model() -> None:
    """Coherent sums are what costs bits: around the released means a site's sum nearly cancels."""
    x, y = records()
    before = MeansQuery(initial()).clipped_sum(x, y, GRID, SEEDS)
    after = MeansQuery(trained()).clipped_sum(x, y, GRID, SEEDS)
    assert np.linalg.norm(after) < 0.05 * np.linalg.norm(before)
