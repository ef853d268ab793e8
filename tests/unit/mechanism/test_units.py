"""A unit's vector: the mean of its rows, clipped once, zero if a row is not finite."""

import numpy as np
import torch

from dppm_model.mechanism.quantize import Grid
from dppm_model.mechanism.units import clipped_units

GRID = Grid(2.0, 1 << 24)
COUNTS = [1, 3, 2]


def rows(scale: float = 0.1) -> torch.Tensor:
    return scale * torch.randn(6, 5, generator=torch.Generator().manual_seed(0))


def test_the_mean_is_clipped_and_not_its_parts() -> None:
    """Long rows that cancel: clipped one by one they would have become short."""
    long = torch.tensor([[100.0, 1.0], [-99.0, 0.0]])
    (vector,) = clipped_units([long], [2], GRID)
    np.testing.assert_allclose(GRID.to_float(vector.numpy()), [[0.5, 0.5]], atol=1e-5)
    (vector,) = clipped_units([long], [2], Grid(0.1, 1 << 24))
    norm = np.linalg.norm(vector.numpy())
    assert 0.999 * GRID.steps < norm <= GRID.steps


def test_rows_may_come_in_any_pieces() -> None:
    whole = torch.cat(list(clipped_units([rows()], COUNTS, GRID)))
    expected = torch.stack([part.double().mean(0) for part in rows().split(COUNTS)])
    np.testing.assert_allclose(GRID.to_float(whole.numpy()), expected, atol=2 * 2 / GRID.steps)
    for pieces in (rows().split(1), rows().split(4)):
        assert torch.equal(torch.cat(list(clipped_units(pieces, COUNTS, GRID))), whole)


def test_a_row_that_is_not_finite_makes_its_unit_zero_and_no_other() -> None:
    right = torch.cat(list(clipped_units([rows()], COUNTS, GRID)))
    for wrong in (torch.nan, torch.inf, -torch.inf):
        spoilt = rows()
        spoilt[2, 1] = wrong
        found = torch.cat(list(clipped_units([spoilt], COUNTS, GRID)))
        assert not found[1].any()
        assert torch.equal(found[[0, 2]], right[[0, 2]])


def test_what_was_given_is_left_as_it_was() -> None:
    given = rows()
    list(clipped_units([given], COUNTS, GRID))
    assert torch.equal(given, rows())
