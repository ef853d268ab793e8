"""Nothing a server may send makes one record move the sum by more than C.

Arrays are drawn from the whole range that a site accepts, edges included, for every question of
every model; records are of every kind, extreme ones among them. Two things must hold, exactly: the
sum with a record less the sum without it is a vector of integers no longer than G; and it is the
vector that this record adds by itself, so that nobody else's has changed.
"""

from collections import Counter
from dataclasses import fields
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dppm_model.errors import PlanError
from dppm_model.mechanism import ghost_clipping
from dppm_model.mechanism.quantize import Grid
from dppm_model.score.arrays import array_specs, check_arrays, draw_arrays
from dppm_model.score.closed_form import LATER
from dppm_model.score.mixture_arrays import LEAST_AXIS
from dppm_model.score.mixture_config import MixtureConfig
from dppm_model.score.model import ScoreModel
from dppm_model.score.model_config import ModelConfig
from dppm_model.score.phases import PHASES, build_query, kind_of
from dppm_model.score.pretrained import PretrainedConfig
from dppm_model.score.pyramid import PyramidConfig
from dppm_model.score.residual import ResidualConfig
from tests.support.mutations import nothing, twin

GRID = Grid(1.0, 1 << 24)
N = 70  # more than a chunk of a gradient phase
MIXTURE = {"band": 16, "axes": 9, "components": 3, "principal_axes": 5}
CLIPS = [f.name for f in fields(MixtureConfig) if f.name.endswith("_clip_norm")]
CONFIGS = {
    # Sizes that no kernel likes, and layers of one, five and seven units.
    "grey, mlp": ModelConfig.of(
        (1, 9, 7),
        3,
        {
            "mixture": MIXTURE,
            "residual": {
                "network": {"kind": "dct_mlp", "channels": 7, "blocks": 2},
                "band": 5,
                "draws": 3,
            },
        },
    ),
    "grey, conv": ModelConfig.of(
        (1, 12, 12),
        2,
        {
            "mixture": MIXTURE | {"components": 1, "principal_axes": 0},
            "residual": {
                "network": {"kind": "conv", "channels": 5, "blocks": 1},
                "band": 12,
                "draws": 2,
            },
        },
    ),
    # Clip norms at their least: squares of short axes pass what float32 can hold.
    "grey, tight": ModelConfig.of((1, 6, 5), 2, {"mixture": MIXTURE | dict.fromkeys(CLIPS, 1e-6)}),
    "colour": ModelConfig.of(
        (3, 8, 8), 2, {"mixture": MIXTURE | {"components": 2}, "residual": {"band": 8}}
    ),
    "pyramid": ModelConfig.of((1, 64, 64), 2, {"mixture": {"band": 16}, "pyramid": {"stages": 2}}),
    "pretrained": ModelConfig.of((3, 7, 9), 2, {"mixture": MIXTURE, "pretrained": {"draws": 2}}),
}
NETWORKS = {"detail": PyramidConfig, "score": ResidualConfig, "fine_tuning": PretrainedConfig}
CASES = [
    (name, kind)
    for name, config in CONFIGS.items()
    for kind in PHASES
    if (kind == "detail") == bool(config.find(PyramidConfig))
    and (kind not in NETWORKS or config.find(NETWORKS[kind]))
    and not (kind == "component_covariance" and not config.scales.principal_axes)
]
TRIED: Counter[str] = Counter()


@lru_cache
def records(name: str) -> tuple[np.ndarray, torch.Tensor, torch.Tensor]:
    """Noise, black, white, chess boards and half-and-half, of all classes."""
    config, rng = CONFIGS[name], np.random.default_rng(0)
    pixels = rng.integers(0, 256, (N, *config.shape), dtype=np.uint8)
    pixels[0], pixels[1] = 0, 255
    pixels[2] = 255 * (np.indices(config.shape).sum(0) % 2)
    pixels[3, ..., : config.shape[2] // 2] = 0
    y = torch.arange(N) % config.classes
    return pixels, y, torch.arange(N) * 7919


@st.composite
def models(draw: st.DrawFn, name: str, kind: str) -> ScoreModel:
    """A model that a site would accept, from anywhere in its range."""
    config, asked = CONFIGS[name], kind_of(kind).question
    names = sorted(asked.needed)
    if asked.optional & array_specs(config).keys() >= LATER and draw(st.booleans()):
        names += sorted(LATER - set(names))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    reach = draw(st.sampled_from([1e-6, 1e-3, 0.05, 0.3, 1.0]))
    arrays = draw_arrays(config, names, rng, reach)
    for array_name in names:
        spec = array_specs(config)[array_name]
        how = draw(st.sampled_from(["drawn", "least", "most", "edges", "nothing", "askew"]))
        ends = np.array([spec.least, spec.most], spec.dtype)
        if how == "askew" and array_name == "mixture.axes":  # as far as a site admits them
            arrays[array_name] = arrays[array_name] * np.float32(1 + 4e-4)
        elif how == "edges":
            arrays[array_name] = spec.nearest(rng.choice(ends, spec.shape))
        elif how in ("least", "most", "nothing"):
            value = {"least": spec.least, "most": spec.most, "nothing": 0.0}[how]
            arrays[array_name] = spec.nearest(np.full(spec.shape, value))
    check_arrays(config, arrays)
    return ScoreModel(config, arrays)


def holds(model: ScoreModel, name: str, kind: str, who: int) -> bool:
    """Whether both statements hold for one record; also that it is tried with something in it."""
    query = build_query(kind, model)
    pixels, y, seeds = records(name)

    def total(rows: np.ndarray) -> np.ndarray:
        some = seeds[rows]
        return query.clipped_sum(query.view(pixels[rows], some), y[rows], GRID, some)

    rest = np.delete(np.arange(N), who)
    whole, without, alone = total(np.arange(N)), total(rest), total(np.array([who]))
    moved = (whole - without).astype(object)
    TRIED[kind] += bool(whole.any())
    return int((moved**2).sum()) <= GRID.steps**2 and np.array_equal(whole - without, alone)


MANY = pytest.param(300, marks=[pytest.mark.slow, pytest.mark.timeout(3000)])


@pytest.mark.parametrize("examples", [20, MANY])
@pytest.mark.parametrize(("name", "kind"), CASES)
def test_no_model_lets_a_record_move_a_sum_beyond_c(name: str, kind: str, examples: int) -> None:
    @settings(max_examples=examples, deadline=None)
    @given(models(name, kind), st.integers(0, N - 1))
    def tried(model: ScoreModel, who: int) -> None:
        assert holds(model, name, kind, who)

    before = TRIED[kind]
    tried()
    assert TRIED[kind] > before  # not all of them gave nothing but zeros


def _kept_though_infinite(old: Any) -> Any:
    return lambda self, vectors: old(self, vectors.nan_to_num())


@twin(
    "an infinite coordinate is taken for the largest number",
    "dppm_model.mechanism.quantize:Grid.quantize",
    _kept_though_infinite,
)
def test_what_float32_cannot_hold_becomes_zeros() -> None:
    """The largest image, its farthest centres and shortest axis, and the least clip norm."""
    kind, sizes = "component_covariance", {"band": 400, "axes": 400, "principal_axes": 1}
    config = ModelConfig.of((1, 256, 256), 2, {"mixture": sizes | dict.fromkeys(CLIPS, 1e-6)})
    arrays = draw_arrays(config, kind_of(kind).question.needed, np.random.default_rng(0), 1e-3)
    for name, value in (
        ("mixture.mean", -np.inf),
        ("mixture.components", -np.inf),
        ("mixture.axis_variance", 1.0),
        ("mixture.principal_axes", 1.1 * LEAST_AXIS / 20),
    ):
        spec = array_specs(config)[name]
        arrays[name] = spec.nearest(np.full(spec.shape, value))
    arrays["mixture.axes"] = np.eye(400, dtype=np.float32)
    arrays["mixture.mean"][1], arrays["mixture.components"][1] = 0, 0  # nothing is far in class 1
    check_arrays(config, arrays)
    query = build_query(kind, ScoreModel(config, arrays))
    seeds, y = torch.arange(4), torch.tensor([0, 1, 0, 1])
    x = query.view(np.full((4, 1, 256, 256), 200, np.uint8), seeds)
    finite = torch.cat(list(query.rows(x, y, seeds))).isfinite().all(1)
    assert finite.tolist() == [False, True, False, True]
    whole = query.clipped_sum(x, y, GRID, seeds)
    np.testing.assert_array_equal(whole, query.clipped_sum(x[finite], y[finite], GRID, seeds[:2]))
    assert whole.any()


@pytest.mark.parametrize("scale", [2.0**-40, 1e-3, 1.0, 1e6, 2.0**40])
@pytest.mark.parametrize("name", ["grey, mlp", "grey, conv"])
def test_the_gradient_scale_is_a_public_number_and_no_more(name: str, scale: float) -> None:
    config, asked = CONFIGS[name], kind_of("score").question
    arrays = draw_arrays(config, asked.needed, np.random.default_rng(0), 0.05)
    model = ScoreModel(config, arrays | {"residual.scale": np.array([scale])})
    assert all(holds(model, name, "score", who) for who in range(4))


def factors(value: float) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Of one layer, two records of two places; something is wrong with the first record."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(2, 2, n, generator=generator) for n in (3, 4))
    a[0, 1, 2] = value
    return [(a, b)]


def _one_factor_only(_: Any) -> Any:
    from dppm_model.mechanism.ghost_clipping import _norms, _product, _rounded

    def total(factors: Any, grid: Any) -> Any:
        pairs = [(a.double(), b.double()) for a, b in factors]
        clip = (grid.clip_norm / _norms(pairs)[1]).clamp(max=1)
        rounded = [_rounded(a, b, clip.nan_to_num(nan=1.0), grid) for a, b in pairs]
        fits = (_norms(rounded)[0] <= grid.steps)[:, None, None]
        return [_product(a, torch.where(fits, b, 0.0)) for a, b in rounded]

    return total


@twin(
    "only one factor of a gradient that is too long becomes zero",
    "dppm_model.mechanism.ghost_clipping:factored_sum",
    _one_factor_only,
    only="[nan]",
)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e38, -3e38, 1e-45])
def test_a_record_that_is_not_finite_adds_zeros_also_in_factors(value: float) -> None:
    (whole,) = ghost_clipping.factored_sum(factors(value), GRID)
    (alone,) = ghost_clipping.factored_sum([(a[1:], b[1:]) for a, b in factors(value)], GRID)
    assert torch.isfinite(whole).all()
    moved = whole - alone
    assert float(torch.linalg.vector_norm(moved)) <= GRID.steps
    if not np.isfinite(value):
        assert not moved.any()  # zeros, exactly


@twin(
    "a grid may have a clip norm below zero, or none",
    "dppm_model.mechanism.quantize:Grid.__post_init__",
    nothing,
    only="[-1.0]",
)
@pytest.mark.parametrize("clip_norm", [-1.0, 0.0, np.nan, np.inf, -np.inf])
def test_a_grid_has_a_clip_norm(clip_norm: float) -> None:
    with pytest.raises(PlanError, match="clip_norm is"):
        Grid(clip_norm, 1 << 24)


def _wraps(_: Any) -> Any:
    return lambda self, total, records: total.to(torch.int64).numpy()


@twin("a sum becomes integers unchecked", "dppm_model.mechanism.quantize:Grid.whole", _wraps)
def test_a_sum_is_checked_before_it_could_wrap() -> None:
    for wrong in (np.nan, np.inf, 2.0**63, 3.0 * GRID.steps):
        with pytest.raises(ArithmeticError):
            GRID.whole(torch.tensor([wrong, 0.0], dtype=torch.float64), 2)
    assert GRID.whole(torch.tensor([2.0 * GRID.steps], dtype=torch.float64), 2) == 2 * GRID.steps
