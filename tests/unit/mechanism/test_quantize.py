"""No record, however hostile, adds integers longer than G."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dppm_model.mechanism.quantize import Grid
from tests.support.mutations import Make, twin

HOSTILE = st.one_of(
    st.floats(width=32, allow_nan=True, allow_infinity=True),
    st.sampled_from([np.float32(np.finfo("f4").max), 1e-45, 1e38, -1e38, 0.0]),
)


def norms(rows: torch.Tensor) -> list[int]:
    return [sum(int(v) ** 2 for v in row) for row in rows]


def _grid(rule: Callable[[torch.Tensor, Any], torch.Tensor]) -> Make:
    """A grid that rounds by ``rule``; what is not finite still counts as zero."""

    def quantize(self: Any, vectors: torch.Tensor) -> torch.Tensor:
        rows = rule(vectors.double(), self)
        return rows.masked_fill(~rows.isfinite().all(dim=1, keepdim=True), 0.0)

    return lambda _: quantize


def _norm(rows: torch.Tensor, dim: int) -> torch.Tensor:
    return torch.linalg.vector_norm(rows, dim=dim, keepdim=True)


@twin(
    "records are not clipped",
    "dppm_model.mechanism.quantize:Grid.quantize",
    _grid(lambda rows, g: (rows * (g.steps / g.clip_norm)).trunc()),
)
@twin(
    "the norm is taken over records, not over coordinates",
    "dppm_model.mechanism.quantize:Grid.quantize",
    _grid(lambda rows, g: (rows * (g.steps / _norm(rows, 0).clamp(min=g.clip_norm))).trunc()),
)
@twin(
    "clipped vectors are rounded to nearest, and may grow",
    "dppm_model.mechanism.quantize:Grid.quantize",
    _grid(lambda rows, g: (rows * (g.steps / _norm(rows, 1).clamp(min=g.clip_norm))).round()),
)
@settings(max_examples=150, deadline=None)
@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 40)), elements=HOSTILE),
    st.sampled_from([1e-3, 1.0, 50.0]),
    st.sampled_from([7, 1000, 1 << 24]),
)
def test_integer_norm_never_passes_g(x: np.ndarray, clip_norm: float, steps: int) -> None:
    rows = Grid(clip_norm, steps).quantize(torch.from_numpy(x))
    assert torch.equal(rows, rows.round())
    assert max(norms(rows)) <= steps**2


def _nan_passes(old: Any) -> Any:
    def quantize(self: Any, vectors: torch.Tensor) -> torch.Tensor:
        wrong = vectors.isnan().any(dim=1, keepdim=True)
        return torch.where(wrong, vectors.double(), old(self, vectors))

    return quantize


@twin("a vector with NaN is passed on", "dppm_model.mechanism.quantize:Grid.quantize", _nan_passes)
def test_short_vectors_are_kept_and_long_ones_shortened_along_their_direction() -> None:
    x = torch.tensor([[0.3, -0.4], [30.0, -40.0], [float("nan"), 1.0], [3e38, 3e38]])
    rows = Grid(1.0, 1 << 20).quantize(x) / (1 << 20)
    expected = [[0.3, -0.4], [0.6, -0.8], [0.0, 0.0], [2**-0.5, 2**-0.5]]
    np.testing.assert_allclose(rows, expected, atol=2e-6)


def _float_sum(_: Any) -> Any:
    def total(self: Any, chunks: Any) -> Any:
        rows = (c * (self.steps / _norm(c, 1).clamp(min=self.clip_norm)) for c in chunks)
        return sum(r.sum(dim=0) for r in rows).long().numpy()

    return total


@twin("records are summed as float32", "dppm_model.mechanism.quantize:Grid.sum", _float_sum)
def test_sum_is_exact_in_any_order_and_of_no_records_is_zero() -> None:
    x = torch.randn(500, 17, generator=torch.Generator().manual_seed(0))
    grid = Grid(1.0, 1 << 24)
    order = torch.randperm(500, generator=torch.Generator().manual_seed(1))
    np.testing.assert_array_equal(grid.sum([x]), grid.sum(x[order].split(7)))
    assert grid.sum([x[:0]]).tolist() == [0] * 17
