"""Packing is exact and tight; masks cancel and are uniform."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dppm_model.securesum.ring import Ring
from tests.support.seeded_rng import chi_square

KEY = bytes(range(32))


@given(st.integers(1, 64), st.integers(1, 300), st.integers(0, 2**32))
def test_packing_is_exact_and_as_short_as_can_be(bits: int, length: int, seed: int) -> None:
    ring = Ring(bits, length)
    rng = np.random.default_rng(seed)
    vector = rng.integers(0, 2**64, length, dtype=np.uint64).astype(ring.dtype)
    packed = ring.pack(vector)
    np.testing.assert_array_equal(ring.unpack(packed), ring.reduce(vector))
    assert len(packed) == ring.packed_bytes
    assert 8 * len(packed) <= bits * length + 7 * 7


def test_a_packed_vector_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="bytes instead of"):
        Ring(9, 16).unpack(bytes(17))


@pytest.mark.parametrize("bits", [3, 8, 17, 32, 40])
def test_masks_cancel_and_differ_by_key(bits: int) -> None:
    ring = Ring(bits, 100_003)  # not a multiple of any chunk
    vector = ring.zeros()
    ring.add_mask(vector, KEY)
    other = ring.zeros()
    ring.add_mask(other, KEY[::-1])
    assert not np.array_equal(vector, other)
    ring.add_mask(vector, KEY, subtract=True)
    assert not vector.any()


@pytest.mark.parametrize("bits", [3, 8, 11])
def test_a_masked_constant_is_uniform(bits: int) -> None:
    """Chi-square over all values, fixed key; a false alarm has probability 1e-6."""
    ring = Ring(bits, 1 << 17)
    vector = np.full(ring.length, 5, ring.dtype)
    ring.add_mask(vector, KEY)
    counts = np.bincount(ring.unpack(ring.pack(vector)), minlength=1 << bits)
    expected = np.full(1 << bits, ring.length / (1 << bits))
    assert chi_square(counts, expected) > 1e-6
    # Twin: a mask of one bit less than the ring is not uniform in it.
    weak = np.full(ring.length, 5, ring.dtype) + (ring.reduce(vector) >> 1)
    counts = np.bincount(ring.reduce(weak.astype(ring.dtype)), minlength=1 << bits)
    assert chi_square(counts, expected) < 1e-6
