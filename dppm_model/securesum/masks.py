"""The masks of one sum, and the check numbers that travel under them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dppm_model.errors import WrongSum
from dppm_model.securesum.group import Group
from dppm_model.securesum.keys import derive
from dppm_model.securesum.ring import Ring, Vector

CHECKS = 4


@dataclass(frozen=True)
class Sum:
    """One sum of vectors of whole numbers.

    Attributes
    ----------
    number
        Of the round, counted over the whole run.
    bits
        The sum is below 2^bits.
    dimension
        Numbers in a vector.
    """

    number: int
    bits: int
    dimension: int

    @cached_property
    def ring(self) -> Ring:
        """The ring of the masked vectors, check numbers included."""
        return Ring(self.bits, self.dimension + CHECKS)

    def label(self, group: Group, purpose: str, *numbers: int) -> bytes:
        """Label a key of this sum."""
        return group.label(purpose, self.number, self.bits, self.dimension, *numbers)

    def _checks(self, group: Group, vector: Vector) -> Vector:
        """Public random linear combinations of a vector.

        They are linear, so that the checks of the sum are the sum of the checks; they tell nothing
        that the sum does not tell. Random errors of the sum pass with probability 2^(-4 bits).
        """
        ring = Ring(self.bits, self.dimension)
        found = np.zeros(CHECKS, ring.dtype)
        for i in range(CHECKS):
            coefficients = ring.zeros()
            ring.add_mask(coefficients, derive(b"public", self.label(group, "check", i)))
            found[i] = np.multiply(coefficients, vector, out=coefficients).sum(dtype=ring.dtype)
        return found

    def with_checks(self, group: Group, tallies: NDArray[np.integer[Any]]) -> Vector:
        """Append the check numbers to a vector."""
        vector = tallies.astype(self.ring.dtype)
        return np.concatenate([vector, self._checks(group, vector)])

    def without_checks(self, group: Group, vector: Vector) -> Vector:
        """Verify and remove the check numbers of an opened sum.

        Raises
        ------
        WrongSum
            If they do not fit: some site's masks are not the ones that were removed.
        """
        total = self.ring.reduce(vector)
        plain = total[: self.dimension]
        if not np.array_equal(
            self.ring.reduce(self._checks(group, plain)), total[self.dimension :]
        ):
            raise WrongSum(
                f"The sum of round {self.number} does not fit its check numbers.",
                "A site masked wrongly; compare the sites' versions.",
            )
        return plain


def add_self_mask(
    group: Group, sum_: Sum, vector: Vector, index: int, secret: bytes, *, subtract: bool = False
) -> None:
    """Add a site's self-mask to ``vector``, in place, or take it off."""
    key = derive(secret, sum_.label(group, "self-mask", index))
    sum_.ring.add_mask(vector, key, subtract=subtract)


def add_pair_mask(
    group: Group,
    sum_: Sum,
    vector: Vector,
    pair: tuple[int, int],
    shared: bytes,
    *,
    subtract: bool = False,
) -> None:
    """Add the mask that the first site of ``pair`` shares with the second; in a sum they cancel."""
    key = derive(shared, sum_.label(group, "pair mask", min(pair), max(pair)))
    sum_.ring.add_mask(vector, key, subtract=subtract != (pair[0] > pair[1]))
