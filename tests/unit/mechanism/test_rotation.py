"""The rotation is orthonormal, exact in integers, and a function of a public seed."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import hadamard as matrix

from dppm_model.errors import PlanError
from dppm_model.mechanism.rotation import Rotation, hadamard
from tests.support.mutations import twin


@pytest.mark.parametrize("size", [1, 2, 8, 64])
def test_hadamard_is_the_matrix(size: int) -> None:
    x = np.random.default_rng(size).integers(-1000, 1000, (3, size))
    np.testing.assert_array_equal(hadamard(x), x @ matrix(size))


def _first_twice(old: Any) -> Any:
    return lambda x: old(x) * np.where(np.arange(x.shape[-1]) == 0, 2, 1)


@twin("the rotation is not orthonormal", "dppm_model.mechanism.rotation:hadamard", _first_twice)
@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5000), st.integers(0, 2**32))
def test_norm_is_kept_exactly(dimension: int, seed: int) -> None:
    rotation = Rotation.of(dimension)
    x = np.random.default_rng(seed).integers(-(2**20), 2**20, dimension)
    z = rotation.rotate(x, str(seed).encode())
    assert int((z.astype(object) ** 2).sum()) == rotation.block * int((x.astype(object) ** 2).sum())
    back = rotation.unrotate(z / np.sqrt(rotation.block), str(seed).encode())
    np.testing.assert_allclose(back, x, atol=1e-6)


@given(st.integers(1, 1 << 22))
def test_padding_is_small(dimension: int) -> None:
    rotation = Rotation.of(dimension)
    assert dimension <= rotation.padded <= max(dimension * 17 / 16 + 1, 2 * dimension, 1024)
    if dimension > 1 << 14:
        assert rotation.padded <= dimension * 17 / 16 + 1


def test_one_coordinate_is_spread_over_its_block() -> None:
    rotation = Rotation.of(4096)
    x = np.zeros(4096, dtype=np.int64)
    x[17] = 1000
    assert set(np.abs(rotation.rotate(x, b"a"))) == {1000}


def _numbers_for_signs(_: Any) -> Any:
    return lambda self, seed: np.resize(np.frombuffer(seed, np.int8), self.padded).astype(np.int64)


@twin("bytes are used as signs", "dppm_model.mechanism.rotation:Rotation.signs", _numbers_for_signs)
def test_signs_depend_on_the_seed_and_are_signs() -> None:
    rotation = Rotation.of(3000)
    a, b = rotation.signs(b"run/0/1"), rotation.signs(b"run/0/2")
    assert set(a.tolist()) == {-1, 1}
    assert 0.4 < np.mean(a != b) < 0.6
    np.testing.assert_array_equal(a, rotation.signs(b"run/0/1"))


def test_an_empty_phase_is_refused() -> None:
    with pytest.raises(PlanError, match="dimension"):
        Rotation.of(0)
