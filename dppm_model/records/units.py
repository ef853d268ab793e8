"""Units of privacy, sampled, clipped and protected as one: a record, or a whole person.

A person answers through a few of their records. The choice of these, and the seeds of the draws for
each, depend only on that person's own seed and number of records, never on other persons or on the
sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dppm_model.errors import DataError
from dppm_model.records.shards import Records

Unit = Literal["record", "person"]
_SEEDS = 2**63 - 1  # seeds are 63 bits, as those of `SecureRNG`
_NEXT_SEED = 0x1E3779B97F4A7C15  # odd, so a unit's seeds differ in their low bits too


class Choice(NamedTuple):
    """The records that units answer through, unit by unit."""

    records: NDArray[np.int64]  # (r,) their numbers
    seeds: NDArray[np.int64]  # (r,) int64, one for the draws of each record
    counts: NDArray[np.int64]  # (n,) the number of records of each unit, 1 to `Units.most`


@dataclass(frozen=True)
class Units:
    """The records of a site, gathered by unit; no image is read for it."""

    records: Records  # all of them
    most: int  # K, the most records of a unit in a round
    # (records,) record numbers, unit by unit, each unit's in the order of the shard
    order: NDArray[np.int64]
    # (units + 1,) where each unit's records begin in ``order``, and where the last one's end
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, records: Records, unit: Unit, most: int) -> Units:
        """Gather records by unit.

        Raises DataError if persons are the unit and the records name none.
        """
        owners = np.arange(len(records)) if unit == "record" else records.persons
        if owners is None:
            raise DataError(
                f"{records.manifest.name} names no persons, but the unit is the person.",
                "Import it from a CSV with a column `person`, or plan with privacy.unit=record.",
            )
        counts = np.unique(owners, return_counts=True)[1]
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return cls(records, most, np.argsort(owners, kind="stable"), starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def choose(self, units: NDArray[np.int64], seeds: NDArray[np.int64]) -> Choice:
        """Choose at most K records of each unit, at random without replacement.

        ``units`` (n,) are unit numbers, and ``seeds`` (n,) int64 the 63-bit secret seed of each.
        """
        parts = [self._own(unit, seed) for unit, seed in zip(units, seeds.tolist(), strict=True)]
        counts = np.array([len(part) for part in parts], dtype=np.int64)
        first = np.repeat(np.cumsum(counts) - counts, counts)
        place = (np.arange(counts.sum()) - first).astype(np.uint64)  # among those of the same unit
        own = np.repeat(seeds, counts).astype(np.uint64) + place * np.uint64(_NEXT_SEED)
        chosen = np.concatenate([np.zeros(0, dtype=np.int64), *parts])
        return Choice(chosen, (own & np.uint64(_SEEDS)).astype(np.int64), counts)

    def _own(self, unit: int, seed: int) -> NDArray[np.int64]:
        """Return the chosen records of one unit, in the order of the shard."""
        own = self.order[self.starts[unit] : self.starts[unit + 1]]
        if len(own) <= self.most:
            return own
        chosen = np.random.default_rng(seed).choice(len(own), self.most, replace=False)
        return own[np.sort(chosen)]
