"""Sums of never-formed gradients: no record's integers are longer than G, and they are right."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dppm_model.mechanism.ghost_clipping import factored_sum
from dppm_model.mechanism.quantize import Grid
from tests.support.mutations import twin

GRID = Grid(1.0, 1 << 24)


def formed(factors: list[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    return torch.cat([torch.bmm(b.transpose(1, 2), a).flatten(1) for a, b in factors], dim=1)


def random_factors(n: int, seed: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.rand(n, 1, 1, generator=generator) * 2 + 0.1
    return [
        (torch.randn(n, 2, i, generator=generator), torch.randn(n, 2, o, generator=generator) * s)
        for i, o, s in ((30, 20, sizes / 50), (1, 20, sizes / 9), (20, 7, sizes * 0 + 1e-4))
    ]


def integer_norm(parts: list[torch.Tensor]) -> float:
    """Exact, in Python integers; in units of G."""
    square = sum(int(v) ** 2 for part in parts for v in part.flatten())
    return (square / GRID.steps**2) ** 0.5


def test_it_is_the_sum_of_the_clipped_gradients() -> None:
    factors = random_factors(40)
    rows = formed(factors).double()
    norm = rows.norm(dim=1, keepdim=True)
    assert 5 < int((norm > 1).sum()) < 35  # some are clipped, some are not
    total = torch.cat([m.flatten() for m in factored_sum(factors, GRID)]) / GRID.steps
    expected = (rows / norm.clamp(min=1)).sum(0)
    assert (total - expected).norm() < 0.008 * expected.norm()
    assert (total - rows.sum(0)).norm() > 0.05 * expected.norm()  # unclipped is told apart
    short = [(a, b / 4) for a, b in factors]
    total = torch.cat([m.flatten() for m in factored_sum(short, GRID)]) / GRID.steps
    torch.testing.assert_close(total, rows.sum(0) / 4, rtol=0, atol=1e-3)  # kept, not shortened


def test_it_is_exact_whatever_the_order_or_the_company() -> None:
    factors = random_factors(30)
    whole = factored_sum(factors, GRID)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    shuffled = factored_sum([(a[order], b[order]) for a, b in factors], GRID)
    singles = [
        factored_sum([(a[i : i + 1], b[i : i + 1]) for a, b in factors], GRID) for i in order
    ]
    for part, other, *one_by_one in zip(whole, shuffled, *singles, strict=True):
        assert torch.equal(part, other) and torch.equal(part, sum(one_by_one))
        assert torch.equal(part, part.round())
    floats = formed(factors)  # a float sum is not
    assert not torch.equal(floats.sum(0), sum(floats[i] for i in order))


HOSTILE = st.one_of(
    st.floats(width=32, allow_nan=True, allow_infinity=True),
    st.floats(-1, 1, width=32),
    st.sampled_from([3e38, -3e38, 1e-45, 0.0, 1.0]),
)


@twin(
    "the norm of a gradient that is never formed is computed three per cent too short",
    "dppm_model.mechanism.ghost_clipping:_norms",
    lambda old: lambda pairs: tuple(0.97 * n for n in old(pairs)),
)
@settings(max_examples=150, deadline=None)
@given(
    hnp.arrays("f4", (1, 2, 6), elements=HOSTILE),
    hnp.arrays("f4", (1, 2, 5), elements=HOSTILE),
    st.sampled_from([1e-3, 1.0, 50.0]),
)
def test_integer_norm_never_passes_g(a: object, b: object, clip_norm: float) -> None:
    factors = [
        (torch.tensor(a)[:, :, :4], torch.tensor(b)),
        (torch.tensor(a)[:, :, 4:], torch.tensor(b)),
    ]
    parts = factored_sum(factors, Grid(clip_norm, GRID.steps))
    assert integer_norm(parts) <= 1


def test_places_that_cancel_stay_within_exact_integers() -> None:
    """Two long places that nearly cancel: short together, but not exact in float64 if kept."""
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(1, 1, 30, generator=generator), torch.randn(1, 1, 20, generator=generator)
    b = b / (a.norm() * b.norm()) * 1e4
    factors = [(torch.cat([a, a], 1), torch.cat([b, -b * (1 - 1e-5)], 1))]
    assert integer_norm(factored_sum(factors, GRID)) <= 1
