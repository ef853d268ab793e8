"""The moment phases: bounded answers, exact recovery without noise, sane results with much."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from dppm_model.errors import ConfigError, ModelError
from dppm_model.mechanism.quantize import Grid
from dppm_model.score.class_sums import MomentQuery, Sums
from dppm_model.score.closed_form import class_weights, covariances
from dppm_model.score.mixture_config import half_whitening
from dppm_model.score.model import ScoreModel
from dppm_model.score.model_config import ModelConfig
from dppm_model.score.moments import ComponentCovarianceQuery, MeansQuery, VariancesQuery
from dppm_model.score.phases import (
    PHASES,
    build_query,
    dimension_of,
    read_question,
    write_question,
)
from dppm_model.score.query import Query
from dppm_model.training.learner import Learner, build_learner
from dppm_model.training.moments import (
    Arrays,
    ComponentCovarianceLearner,
    MeansLearner,
    VariancesLearner,
)
from tests.support.mutations import twin

MOMENTS = [n for n, kind in PHASES.items() if issubclass(kind.question, MomentQuery)]
SHAPE, CLASSES, BAND = (1, 6, 6), 3, 12
SEEDS = torch.arange(100_000)
GRID = Grid(1.0, 1 << 24)


def initial(components: int = 2, radius: float = 30.0, axes: int = BAND) -> ScoreModel:
    """Radii are wide unless a test is about clipping: sums are then plain moments."""
    mixture = {
        "band": BAND,
        "axes": axes,
        "components": components,
        "principal_axes": 5,
        "background": 0.0,
        "means_clip_norm": radius,
        "variances_clip_norm": radius,
        "covariance_clip_norm": radius,
        "components_clip_norm": radius,
        "component_covariance_clip_norm": radius,
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
    model = initial(components)
    for phase in ("means", "variances", "pooled_covariance", "covariance"):
        model = ask(learner(phase, model), x, y)
    return model


def in_band(model: ScoreModel) -> torch.Tensor:
    """The classes' covariances within their components, in the coefficients of the band."""
    axes = model.tensor("mixture.axes").double()
    r = model.scales.axes
    whole = torch.diag(model.tensor("mixture.axis_variance").double()).repeat(CLASSES, 1, 1)
    whole[:, :r, :r] = model.tensor("mixture.covariance").double()
    return axes @ whole @ axes.T


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
    "matrices of the band are rounded to integers, and not clipped",
    "dppm_model.score.moments:PooledCovarianceQuery.clipped_sum",
    _rounded_only,
    only="[pooled_covariance]",
)
@pytest.mark.parametrize("kind", MOMENTS)
def test_no_record_exceeds_the_clip_norm(kind: str) -> None:
    query = learner(kind, initial(radius=0.5)).query()
    assert 0.5 * GRID.steps**2 < longest(query, GRID) <= GRID.steps**2
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
    config = initial(axes=10).config
    assert dimension_of("means", config) == 3 + 3 * 36
    assert dimension_of("variances", config) == 36
    assert dimension_of("pooled_covariance", config) == 12 * 12
    assert dimension_of("covariance", config) == 3 * 55
    assert dimension_of("components", config) == 6 + 6 * 10
    assert dimension_of("component_covariance", config) == 6 * 15


def test_half_whitening_lets_the_least_noise_come_back() -> None:
    std = 1 / torch.arange(1, 20, dtype=torch.float64)

    def noise(weights: torch.Tensor) -> float:
        weights = weights / (weights * std).norm()  # an expected squared norm of one
        return float((weights**-2).sum())

    weights = half_whitening(std)
    assert float((weights * std).norm()) == pytest.approx(1)
    assert float((weights**-2).sum()) == pytest.approx(noise(std**-0.5))
    assert noise(std**-0.5) < min(noise(std**-p) for p in (0.0, 0.4, 0.6, 1.0))


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
    u = model.scales.basis.forward(x)[:, :BAND]
    means = torch.stack([u[y == k].mean(0) for k in range(CLASSES)])
    return float((model.tensor("mixture.mean")[:, :BAND] - means).abs().max())


def test_means_without_noise_are_the_sample_means() -> None:
    x, y = records()
    model = ask(MeansLearner(MeansQuery, initial()), x, y, rounds=3)
    assert mean_error_of(model) < 1e-3
    assert np.allclose(class_weights(model.arrays), np.bincount(y) / len(y), atol=1e-4)
    assert mean_error_of(ask(ForgetsTheCentre(MeansQuery, initial()), x, y, rounds=3)) > 0.1


def test_beyond_the_band_all_classes_have_the_common_mean() -> None:
    x, y = records()
    model = ask(learner("means", initial()), x, y)
    high = model.tensor("mixture.mean")[:, BAND:]
    assert torch.allclose(high, model.scales.basis.forward(x)[:, BAND:].mean(0), atol=1e-3)
    start = initial().replace({"mixture.mean": trained().arrays["mixture.mean"] + 0.5})
    noisy = ask(learner("means", start), x, y, std=1e-3)
    steps = noisy.tensor("mixture.mean") - start.tensor("mixture.mean")
    assert torch.allclose(steps[:, BAND:], steps[:1, BAND:], atol=1e-5)
    assert (steps[:, :BAND] - steps[:1, :BAND]).abs().max() > 0.01


class ForgetsTheUnits(VariancesLearner):
    """Broken twin: asks in units of what it has just learned, and averages the ratios."""

    def query(self) -> VariancesQuery:
        return VariancesQuery(self.result())


@pytest.mark.parametrize("rounds", [1, 2])
def test_variances_without_noise_are_the_sample_variances(rounds: int) -> None:
    x, y = records()
    model = ask(learner("means", initial()), x, y)
    sample = ((model.scales.basis.forward(x) - model.tensor("mixture.mean")[y]) ** 2).mean(0)

    def error(made: Learner) -> float:
        return float((ask(made, x, y, rounds).tensor("mixture.variance") / sample - 1).abs().max())

    assert error(learner("variances", model)) < 0.01
    if rounds > 1:
        assert error(ForgetsTheUnits(VariancesQuery, model)) > 0.1


def test_under_noise_variances_are_those_of_their_octave() -> None:
    """Images that vary as the public prior says, but twice as far: a ratio of 4 everywhere."""
    model, g = initial(), torch.Generator().manual_seed(3)
    u = 2 * torch.randn((2000, 36), generator=g, dtype=torch.float64) * model.scales.std
    x, y = model.scales.basis.inverse(u).float(), torch.arange(2000) % CLASSES
    std = 1 / (30 * math.sqrt(2 * 36))  # of a ratio: 1
    noisy = ask(learner("variances", model), x, y, std=std)
    ratio = noisy.tensor("mixture.variance") / model.tensor("mixture.variance")
    assert float((ratio - 4).square().mean().sqrt()) < 0.6
    assert float(ratio.min()) > 0.4


def test_the_axes_scale_along_with_the_variances() -> None:
    """Where all coefficients vary k times as much, so do axes and class covariances."""
    x, y = records()
    model = trained()
    y_mean = model.scales.basis.inverse(model.tensor("mixture.mean")[y])
    wider = ask(learner("variances", model), y_mean + 2 * (x - y_mean), y)
    for name in ("variance", "axis_variance", "covariance"):
        before, after = (m.tensor(f"mixture.{name}") for m in (model, wider))
        assert torch.allclose(after, 4 * before, rtol=0.01, atol=1e-4 * float(after.abs().max()))
    assert torch.equal(wider.tensor("mixture.axes"), model.tensor("mixture.axes"))


@pytest.mark.parametrize("components", [1, 2])
def test_covariance_without_noise_is_the_sample_covariance(components: int) -> None:
    x, y = records()
    model = trained(components)
    u = model.scales.basis.forward(x)[:, :BAND] - model.tensor("mixture.mean")[y, :BAND]
    for k, released in enumerate(in_band(model)):
        own = u[y == k].double()
        sample = own.T @ own / len(own)
        assert (released - sample).abs().max() < 5e-3 * sample.abs().max()


def planted(n: int = 4000) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Records that vary along three directions (12, 3) of the band, and hardly elsewhere."""
    g = torch.Generator().manual_seed(5)
    directions = torch.linalg.qr(torch.randn((BAND, 3), generator=g))[0]
    u = 0.02 * torch.randn((n, 36), generator=g)
    u[:, :BAND] += torch.randn((n, 3), generator=g) @ (torch.tensor([1.5, 1, 0.7]) * directions).T
    return initial().scales.basis.inverse(u.double()).float(), torch.arange(n) % CLASSES, directions


@pytest.mark.parametrize("std", [0.0, 2e-6])
def test_the_pooled_covariance_gives_the_axes(std: float) -> None:
    x, y, directions = planted()
    model = ask(learner("pooled_covariance", initial(axes=3)), x, y, std=std)
    axes, variance = model.tensor("mixture.axes"), model.tensor("mixture.axis_variance")
    assert torch.allclose(axes.T @ axes, torch.eye(BAND), atol=1e-5)
    assert torch.linalg.svdvals(axes[:, :3].T @ directions).min() > 0.99
    assert variance[:3].sqrt().tolist() == pytest.approx([1.5, 1, 0.7], rel=0.05)
    assert variance[3:].max() < 0.05
    assert torch.allclose(model.tensor("mixture.covariance"), torch.diag(variance[:3]), atol=1e-4)


def test_the_pooled_covariance_counts_both_triangles() -> None:
    """Noise is on the whole matrix: the released one is symmetric, and shrunk for half of it."""
    x, y = records()
    found = []
    for entry in ((0, 1), (1, 0)):
        made = learner("pooled_covariance", trained())
        noise = np.zeros((BAND, BAND))
        noise[entry] = 1e-3
        total = GRID.to_float(made.query().clipped_sum(x, y, GRID, SEEDS)) / len(y)
        made.step(total + noise.flatten(), 1e-9)
        found.append(in_band(made.result()))
    assert torch.allclose(*found, atol=1e-5)


def test_new_axes_keep_what_tells_the_classes_apart() -> None:
    x, y = records()
    x[y == 1] *= 1.5
    model = initial()
    for phase in ("means", "variances", "pooled_covariance", "covariance", "components"):
        model = ask(learner(phase, model), x, y)
    again = ask(learner("pooled_covariance", model), x + records(seed=9)[0], y)
    axes = [m.tensor("mixture.axes") for m in (model, again)]
    assert not torch.allclose(*axes, atol=0.1)
    before, after = (in_band(m) for m in (model, again))
    for k in (1, 2):
        kept, held = after[k] - after[0], before[k] - before[0]
        assert (kept - held).abs().max() < 2e-3 * held.abs().max()
    centres = [m.tensor("mixture.components") @ m.tensor("mixture.axes").T for m in (model, again)]
    assert torch.allclose(*centres, atol=1e-4)


def few_of_the_last(n: int = 6000) -> tuple[torch.Tensor, torch.Tensor]:
    """Two large classes that vary differently, and a small one (2 %) that varies like the first."""
    g = torch.Generator().manual_seed(6)
    y = torch.arange(n) % 2
    y[::50] = 2
    factor = torch.tensor([2.0, 0.5]).repeat_interleave(BAND // 2)
    u = 0.05 * torch.randn((n, 36), generator=g)
    u[:, :BAND] *= 10 * torch.where((y == 1)[:, None], factor.flip(0), factor)
    return initial().scales.basis.inverse(u.double()).float(), y


def test_a_class_of_few_records_keeps_the_pooled_covariance() -> None:
    x, y = few_of_the_last()
    model = initial()
    for phase in ("means", "variances", "pooled_covariance"):
        model = ask(learner(phase, model), x, y)

    def shapes(m: ScoreModel) -> torch.Tensor:
        w = half_whitening(m.tensor("mixture.axis_variance").double().sqrt())
        own = m.tensor("mixture.covariance").double() * w * w[:, None]
        return own / own.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]

    pooled = shapes(model)[0]
    for std, moved in ((0.0, [True, True, True]), (2e-6, [True, True, False])):
        found = shapes(ask(learner("covariance", model), x, y, std=std))
        gaps = torch.linalg.matrix_norm(found - pooled) / torch.linalg.matrix_norm(pooled)
        assert [float(gap) > 0.1 for gap in gaps] == moved
        assert float(gaps[2]) < 1e-3 or moved[2]


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
    level = model.tensor("mixture.components")[:, :, 0] + model.tensor("mixture.mean")[:, :1]
    brightness = np.sort(level / 6, axis=1)
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
    assert np.allclose((weights * components).sum(1), 0, atol=1e-5)
    assert np.array_equal(split.arrays["mixture.mean"], model.arrays["mixture.mean"])
    between = np.einsum("kja,kjb->kab", weights * components, components)
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


def test_a_phase_that_was_given_no_room_is_refused() -> None:
    bare = ModelConfig.of(SHAPE, CLASSES, {"mixture": {"band": BAND, "components": 2}})
    with pytest.raises(ConfigError, match=r"mixture\.principal_axes is 0"):
        dimension_of("component_covariance", bare)


@pytest.mark.parametrize("std", [1e-4, 1e-2, 1.0, 100.0])
def test_heavy_noise_leaves_a_valid_model(std: float) -> None:
    x, y = records(200)
    model = initial(components=4, radius=1.5)
    for kind in MOMENTS:
        model = ask(learner(kind, model), x, y, rounds=2, std=std)
        weights = class_weights(model.arrays)
        assert weights.min() > 0
        assert weights.sum() == pytest.approx(1)
        if std < 1:  # beyond, single numbers are brought into their range
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
        asking = learner(kind, trained())
        for _ in range(2):
            query = asking.query()
            there = read_question(kind, query.model.config, write_question(kind, query.model))
            sums = [q.clipped_sum(x, y, GRID, SEEDS) for q in (query, there)]
            assert np.array_equal(*sums)
            ask(asking, x, y)


def test_means_query_centres_at_the_model() -> None:
    """Coherent sums are what costs bits: around the released means a site's sum nearly cancels."""
    x, y = records()
    asked = [learner("means", initial()) for _ in range(2)]
    ask(asked[1], x, y)
    before, after = (
        q.split(torch.from_numpy(q.clipped_sum(x, y, GRID, SEEDS)).double()).body[:, :BAND].norm()
        for q in (a.query() for a in asked)
    )
    assert after < 0.01 * before
