"""The masks of one sum, and the check numbers that travel under them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dppm_model.errors import PlanError, WrongSum
from dppm_model.plan import Plan
from dppm_model.securesum.group import Group
from dppm_model.securesum.keys import derive
from dppm_model.securesum.ring import Ring, Vector

CHECKS = 4
TRIES = 4096  # of one round; more than can occur, see `server.securesum.blame`


def round_of(number: int) -> int:
    """Return the round, over the whole run, that a try belongs to."""
    return number // TRIES


@dataclass(frozen=True)
class Sum:
    """One sum of vectors of whole numbers."""

    # The try: its round, counted over the whole run, times `TRIES`, plus the number of the try. It
    # is part of all labels of keys, so keys and masks of different tries are independent.
    number: int
    bits: int  # the sum is below 2^bits
    dimension: int  # numbers in a vector

    @classmethod
    def of(cls, plan: Plan, phase: int, round_: int, attempt: int = 0) -> Sum:
        """Return the sum of one try of a round.

        Raises PlanError if it is not a round of the plan, or the attempt is out of range.
        """
        number = plan.number(phase, round_)
        if not 0 <= attempt < TRIES:
            raise PlanError(
                f"attempt {attempt} of a round does not exist.", f"Use 0 to {TRIES - 1}."
            )
        p = plan.phases[phase]
        return cls(number * TRIES + attempt, p.bits, p.report_length)

    @cached_property
    def ring(self) -> Ring:
        """The ring of the masked vectors, check numbers included."""
        return Ring(self.bits, self.dimension + CHECKS)

    def label(self, group: Group, purpose: str, *numbers: int) -> bytes:
        """Label a key of this sum."""
        return group.label(purpose, self.number, self.bits, self.dimension, *numbers)

    def _checks(self, group: Group, *vectors: Vector) -> list[Vector]:
        """Return public random linear combinations of vectors (D,), four numbers for each.

        By linearity the checks of the sum are the sum of the checks, and reveal nothing beyond
        the sum. A random error of the sum passes with probability 2^(-4 bits).
        """
        ring = Ring(self.bits, self.dimension)
        found, product = [np.zeros(CHECKS, ring.dtype) for _ in vectors], ring.zeros()
        for i in range(CHECKS):
            coefficients = ring.zeros()
            ring.add_mask(coefficients, derive(b"public", self.label(group, "check", i)))
            for vector, checks in zip(vectors, found, strict=True):
                checks[i] = np.multiply(coefficients, vector, out=product).sum(dtype=ring.dtype)
        return found

    def masked(
        self, group: Group, tallies: NDArray[np.integer[Any]], mask: Vector
    ) -> tuple[Vector, bytes]:
        """Append the check numbers to tallies (D,), and add a first mask.

        Returns the masked vector, and the `residue` of the mask.
        """
        plain = tallies.astype(self.ring.dtype)
        own, of_mask = self._checks(group, plain, mask[: self.dimension])
        of_mask -= mask[self.dimension :]
        return np.concatenate([plain, own]) + mask, self._packed(of_mask)

    def residue(self, group: Group, vector: Vector) -> bytes:
        """Return the error of a vector's check numbers: four numbers of eight bytes.

        It is linear in the vector and zero for a vector without masks. So the residue of a masked
        report is the sum of the residues of its masks, for any report, and reveals nothing of the
        report (Lemma 18); the residues of two opposite masks cancel.
        """
        (found,) = self._checks(group, vector[: self.dimension])
        found -= vector[self.dimension :]
        return self._packed(found)

    def total(self, residues: Iterable[bytes]) -> bytes:
        """Add up residues."""
        total = np.zeros(CHECKS, self.ring.dtype)
        for residue in residues:
            total += np.frombuffer(residue, "<u8").astype(self.ring.dtype)
        return self._packed(total)

    def _packed(self, numbers: Vector) -> bytes:
        return self.ring.reduce(numbers).astype("<u8").tobytes()

    def without_checks(self, group: Group, vector: Vector) -> Vector:
        """Verify and remove the check numbers of an opened sum.

        Raises WrongSum if they do not fit: other masks were removed than some site added.
        """
        if any(self.residue(group, vector)):
            raise WrongSum(
                f"The sum of try {self.number} does not match its check numbers.",
                "A site masked wrongly; compare the sites' versions.",
            )
        return self.ring.reduce(vector)[: self.dimension]


def add_self_mask(
    group: Group, sum_: Sum, vector: Vector, index: int, secret: bytes, *, subtract: bool = False
) -> None:
    """Add a site's self-mask to ``vector``, in place, or take it off."""
    key = derive(secret, sum_.label(group, "self-mask", index))
    sum_.ring.add_mask(vector, key, subtract=subtract)


def pair_key(group: Group, sum_: Sum, pair: tuple[int, int], shared: bytes) -> bytes:
    """Return the key of the mask that two sites share."""
    return derive(shared, sum_.label(group, "pair mask", min(pair), max(pair)))


def add_pair_mask(
    sum_: Sum, vector: Vector, pair: tuple[int, int], key: bytes, *, subtract: bool = False
) -> None:
    """Add the mask that the first site of ``pair`` shares with the second; in a sum they cancel."""
    sum_.ring.add_mask(vector, key, subtract=subtract != (pair[0] > pair[1]))
