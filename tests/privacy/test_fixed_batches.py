"""In any company a record adds the same integers: the clipped sum is additive, exactly."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from dppm_model.mechanism.gradients import CHUNK, Method, clipped_sum
from dppm_model.mechanism.quantize import Grid
from dppm_model.score.arrays import draw_arrays
from dppm_model.score.class_sums import MomentQuery
from dppm_model.score.gradient import denoising_losses
from dppm_model.score.model import ScoreModel
from dppm_model.score.moments import ComponentCovarianceQuery, nearest
from dppm_model.score.networks import KINDS
from dppm_model.score.phases import PHASES, build_query
from dppm_model.score.pretrained_query import FineTuningQuery
from dppm_model.score.pyramid_query import DetailQuery
from dppm_model.score.residual_query import ResidualQuery
from dppm_model.training.gradient import DetailLearner, FineTuningLearner, ResidualLearner
from dppm_model.training.learner import build_learner
from tests.support.mutations import Make, twin

GRID = Grid(1.0, 1 << 24)
N = CHUNK + 7
MOMENTS = [n for n, kind in PHASES.items() if issubclass(kind.question, MomentQuery)]
Sum = Callable[[slice], np.ndarray]


def model(**residual: object) -> ScoreModel:
    network = {"kind": "conv", "channels": 16, "blocks": 2}
    settings = {"band": 16, "network": network} | residual
    mixture = {"band": 200, "axes": 40, "components": 2, "principal_axes": 16}
    config = {"mixture": mixture, "residual": settings}
    return ScoreModel.initial((1, 16, 16), 3, config)


def records() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand((N, 1, 16, 16), generator=generator) * 2 - 1
    return x, torch.randint(3, (N,), generator=generator)


def moments(phase: str) -> Sum:
    config = model().config  # axes and all else are drawn
    arrays = draw_arrays(config, PHASES[phase].question.needed, np.random.default_rng(0), 0.01)
    query = build_query(phase, ScoreModel(config, arrays))
    x, y = records()
    seeds = torch.arange(N)
    return lambda rows: query.clipped_sum(x[rows], y[rows], GRID, seeds[rows])


def steps(network: str, method: Method | None) -> Sum:
    query = ResidualLearner(
        ResidualQuery, model(network={"kind": network, "channels": 16}), 0
    ).query()
    generator = torch.Generator().manual_seed(1)
    for p in query.network.parameters():  # the last layer begins at zero
        p.data += 0.1 * torch.randn(p.shape, generator=generator)

    x, y = records()
    seeds = torch.arange(N)
    if method is None:  # from the image on, with all that is drawn for it
        return lambda rows: query.clipped_sum(x[rows], y[rows], GRID, seeds[rows])
    inputs = query.questions(x, y, seeds)

    def total(rows: slice) -> np.ndarray:
        part = [t[rows] for t in inputs]
        return clipped_sum(query.network, denoising_losses, part, GRID, 1.0, method)

    return total


def details() -> Sum:
    settings = {"mixture": {"band": 16}, "pyramid": {"stages": 1}}
    start = ScoreModel.initial((1, 64, 64), 3, settings)
    query = DetailLearner(DetailQuery, start, 0).query()
    pixels = np.random.default_rng(0).integers(0, 256, (N, 1, 64, 64), dtype=np.uint8)
    seeds, y = torch.arange(N), torch.arange(N) % 3
    return lambda rows: query.clipped_sum(
        query.view(pixels[rows], seeds[rows]), y[rows], GRID, seeds[rows]
    )


def fine_tuning() -> Sum:
    settings = {"mixture": {"band": 16}, "pretrained": {}}
    start = ScoreModel.initial((1, 16, 16), 3, settings)
    query = FineTuningLearner(FineTuningQuery, start, 0).query()
    x, y = records()
    seeds = torch.arange(N)
    return lambda rows: query.clipped_sum(x[rows], y[rows], GRID, seeds[rows])


CASES: dict[str, Callable[[], Sum]] = {
    **{name: (lambda name=name: moments(name)) for name in MOMENTS},
    **{f"{kind}, factors": (lambda kind=kind: steps(kind, "factors")) for kind in KINDS},
    "score": lambda: steps("conv", None),
    "conv, vmap": lambda: steps("conv", "vmap"),
    "detail, from the pixels on": details,
    "fine_tuning": fine_tuning,
}


def additive(total: Sum) -> bool:
    whole = total(slice(0, N))
    assert whole.any()
    return all(
        np.array_equal(whole, total(slice(0, k)) + total(slice(k, N))) for k in (1, 2, 40, CHUNK)
    )


def _chunks_as_they_come(_: Any) -> Any:
    return lambda records, size: zip(*(torch.split(t, size) for t in records), strict=True)


def _wrong_divisor(old: Any) -> Any:
    return lambda self, x, *rest: old(self, x, *rest) // max(1, len(x))


@twin(
    "batches have any size: a record's vector depends on the others",
    "dppm_model.mechanism.fixed_batches:fixed_batches",
    _chunks_as_they_come,
    only="[conv, factors]",
)
@twin(
    "the sum is divided by the number of sampled records",
    "dppm_model.score.class_sums:ClassSumQuery.clipped_sum",
    _wrong_divisor,
    only="[means]",
)
@twin(
    "a record's crop depends on its place in the sample",
    "dppm_model.score.pyramid_query:crop_records",
    lambda old: lambda pixels, seeds, config: old(pixels, torch.arange(len(seeds)), config),
    only="[detail, from the pixels on]",
)
@pytest.mark.parametrize("case", CASES)
def test_a_record_adds_the_same_integers_in_any_company(case: str) -> None:
    assert additive(CASES[case]())


def same_in_any_class_sizes(rows_of: Callable[[torch.Tensor], torch.Tensor]) -> bool:
    """Whether the first records' rows are the same bits, whatever the class of the others."""
    together = rows_of(torch.zeros(CHUNK, dtype=torch.int64))
    few = range(1, 6)
    return all(
        torch.equal(rows_of((torch.arange(CHUNK) >= k).long())[:k], together[:k]) for k in few
    )


def large_mixture(own: bool = False) -> tuple[ScoreModel, torch.Tensor]:
    """A mixture of MNIST's size, where products of few rows take other kernels.

    With ``own`` each component has a covariance of its own.
    """
    settings = {"band": 144, "axes": 144} | (
        {"components": 20, "principal_axes": 64} if own else {"components": 50}
    )
    start = ScoreModel.initial((1, 28, 28), 2, {"mixture": settings})
    rng = np.random.default_rng(0)
    root = 0.2 * rng.standard_normal((2, 144, 144)).astype(np.float32)
    components = start.arrays["mixture.components"]
    components = components + rng.standard_normal(components.shape).astype(np.float32)
    covariance = root @ root.transpose(0, 2, 1)
    axes = np.linalg.qr(rng.standard_normal((144, 144)))[0].astype(np.float32)
    model = start.replace(
        {
            "mixture.axes": axes,
            "mixture.components": components,
            "mixture.covariance": covariance,
        }
    )
    if own:
        model = build_learner("component_covariance", model, 0).result()
        spread = 0.02 * rng.standard_normal(model.arrays["mixture.component_covariance"].shape)
        model = model.replace({"mixture.component_covariance": spread.astype(np.float32)})
    x = torch.randn(CHUNK, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    return model, x


def rows_of_products(
    monkeypatch: pytest.MonkeyPatch, ask: Callable[[torch.Tensor], object]
) -> set[int]:
    """Ask with classes of 1, 2 and all but one records: how many rows its products have."""
    products = set()
    matmul = torch.Tensor.__matmul__

    def seen(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        products.add(a.shape[0])
        return matmul(a, b)

    monkeypatch.setattr(torch.Tensor, "__matmul__", seen)
    for k in (1, 2, CHUNK - 1):
        ask((torch.arange(CHUNK) >= k).long())
    return products


def _class_by_class(at: int) -> Make:
    """Call a function for the records of each class alone; argument ``at`` holds their classes."""

    def make(old: Any) -> Any:
        def alone(*args: Any) -> Any:
            out = None
            for k in torch.unique(args[at]):
                rows = args[at] == k
                of_class = (a[rows] if isinstance(a, torch.Tensor) else a for a in args[: at + 1])
                part = old(*of_class, *args[at + 1 :])
                out = part.new_zeros(len(rows), *part.shape[1:]) if out is None else out
                out[rows] = part
            return out

        return alone

    return make


@twin(
    "a record is denoised in a batch of its own class",
    "dppm_model.score.mixture:Mixture.denoise",
    _class_by_class(3),
    only="[False]",
)
@pytest.mark.parametrize("own", [False, True])
def test_how_many_are_of_a_records_class_decides_nothing_of_its_denoised_image(
    own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = large_mixture(own)
    sigma = torch.linspace(0.1, 1.0, CHUNK)

    def ask(y: torch.Tensor) -> torch.Tensor:
        return model.denoiser.denoise(x, sigma, y)

    assert same_in_any_class_sizes(ask)
    assert rows_of_products(monkeypatch, ask) == {CHUNK}


@twin("distances are computed by class", "dppm_model.score.moments:nearest", _class_by_class(1))
def test_the_size_of_a_class_decides_nothing_of_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    """The nearest component is chosen by distances, whose last bits would decide a tie."""
    model, x = large_mixture()
    u = model.scales.basis.forward(x)[:, :144]
    components = torch.from_numpy(model.arrays["mixture.components"])
    weights = torch.ones(2, 50)
    rows = rows_of_products(monkeypatch, lambda y: nearest(u, y, components, weights))
    assert rows == {CHUNK}


@twin(
    "residuals are turned into principal axes class by class",
    "dppm_model.score.moments:ComponentCovarianceQuery.in_principal_axes",
    _class_by_class(2),
)
def test_component_covariance_ignores_the_size_of_a_class(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, x = large_mixture(own=True)
    query = ComponentCovarianceQuery(model)
    r = x.flatten(1)[:, :144]
    assert rows_of_products(monkeypatch, lambda y: query.in_principal_axes(r, y)) == {CHUNK}
    assert same_in_any_class_sizes(lambda y: query.in_principal_axes(r, y))
