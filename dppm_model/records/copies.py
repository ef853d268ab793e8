"""Copies among pictures: exact ones by their pixels, near ones by a perceptual fingerprint.

Near-copies matter where ε protects records: a picture with three augmented copies is protected by
4ε, if at all.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_SIDE = 16
WORDS = 4  # of 64 bits hold the 240 of a fingerprint
_PAIRS = 2**19  # compared at once
_NEAR = 12  # bits of 240


def fingerprint(image: Image.Image) -> NDArray[np.uint64]:
    """Return uint64 (4,): whether each of 16×16 grey blocks is brighter than its left neighbour.

    The picture is first brought to one of its eight reflections and quarter turns, in which the
    left and upper halves are brighter and the sides differ most: augmented copies meet there.
    """
    small = image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX)
    grid = np.asarray(small, dtype=np.int16)
    half = _SIDE // 2
    across = int(grid[:, :half].sum()) - int(grid[:, half:].sum())
    down = int(grid[:half].sum()) - int(grid[half:].sum())
    grid = grid[:, ::-1] if across < 0 else grid
    grid = grid[::-1] if down < 0 else grid
    grid = grid.T if abs(down) > abs(across) else grid
    bits = np.packbits(grid[:, 1:] > grid[:, :-1])
    return np.frombuffer(bits.tobytes().ljust(8 * WORDS, b"\0"), np.uint64)


def exact_copies(digests: Sequence[bytes]) -> list[tuple[int, int]]:
    """Return (copy, original) for each picture whose pixels an earlier one has."""
    first: dict[bytes, int] = {}
    seen = ((number, first.setdefault(one, number)) for number, one in enumerate(digests))
    return [(number, original) for number, original in seen if number != original]


def near_copies(prints: NDArray[np.uint64]) -> list[tuple[int, int]]:
    """Return (copy, original) for each picture that looks like an earlier one.

    ``prints`` (n, 4) are fingerprints. Takes time of order n², a minute for 100,000.
    """
    found = []
    step = max(1, _PAIRS // max(1, len(prints)))
    for start in range(0, len(prints), step):
        rows = prints[start : start + step]
        apart = np.zeros((len(rows), start + len(rows)), dtype=np.uint8)
        for word in range(WORDS):
            others = prints[: start + len(rows), word]
            apart += np.bitwise_count(rows[:, None, word] ^ others)
        apart[np.triu_indices(len(rows), start, apart.shape[1])] = 255  # a later one, or itself
        close = apart.argmin(axis=1)
        hits = np.flatnonzero(apart[np.arange(len(rows)), close] <= _NEAR)
        found += [(start + int(row), int(close[row])) for row in hits]
    return found
