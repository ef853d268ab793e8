"""The current round's secure sum on disk: an atomic file of its state, and the masked reports.

The file is written when the participants of a try are fixed, before any is asked, and when its
survivors are fixed, before any is asked to help. Sites refuse a second list of either, so a
restarted server must continue with these. It is also written, with the accusations, when a try is
abandoned, since the next has another number.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from dppm_model.plan import Plan
from dppm_model.reading import parse_json
from dppm_model.run import Run
from dppm_model.securesum.masks import round_of
from dppm_model.securesum.ring import Vector
from dppm_model.securesum.round_keys import Checks, RoundKeys
from server.securesum.blame import Blame
from server.state import Arrays, StateFile


@dataclass(frozen=True)
class RoundCheckpoint(StateFile):
    """The state of one try.

    Attributes
    ----------
    number
        Number of the try, see `dppm_model.securesum.masks.Sum`.
    blame
        Accusations since the start of the run.
    round_keys
        Keys and shares of the participants; empty until they are fixed.
    survivors, masks, total
        The sites in the masked sum, in order of arrival, with their signatures and the check
        numbers of their masks, and the sum; None while reports are still accepted.
    pairs
        The survivors' check numbers of their masks with drop-outs.
    """

    plan: str
    number: int
    blame: Blame = field(default_factory=Blame)
    round_keys: dict[int, RoundKeys] = field(default_factory=dict)
    survivors: dict[int, bytes] | None = None
    masks: dict[int, Checks] | None = None
    pairs: dict[int, Checks] | None = None
    total: Vector | None = None

    def encode(self) -> tuple[dict[str, str], Arrays]:
        """See `StateFile`."""
        round_keys = {
            i: [
                *(part.hex() for part in (m.mask_key, m.commitment, m.signature)),
                *(_hex(part) for part in (m.digests, m.shares)),
            ]
            for i, m in self.round_keys.items()
        }
        blame = [[*pair, why] for pair, why in self.blame.pairs.items()]
        texts = {
            "number": str(self.number),
            "blame": json.dumps([self.blame.certain, blame, sorted(self.blame.muted)]),
            "materials": json.dumps(round_keys),
            "survivors": json.dumps(self.survivors and _hex(self.survivors)),
            "masks": json.dumps(_written(self.masks)),
            "pairs": json.dumps(_written(self.pairs)),
        }
        total = np.zeros(0, np.uint8) if self.total is None else self.total
        return texts, {"total": total}

    @classmethod
    def decode(cls, texts: dict[str, str], arrays: Arrays) -> Self:
        """See `StateFile`."""
        certain, pairs, muted = parse_json(texts["blame"])
        round_keys = {
            int(i): RoundKeys(*map(_field, row))
            for i, row in parse_json(texts["materials"]).items()
        }
        survivors = parse_json(texts["survivors"])
        return cls(
            texts["plan"],
            int(texts["number"]),
            Blame(
                {int(i): why for i, why in certain.items()},
                {(a, b): why for a, b, why in pairs},
                set(muted),
            ),
            round_keys,
            survivors and _bytes(survivors),
            _read(parse_json(texts["masks"])),
            _read(parse_json(texts["pairs"])),
            None if survivors is None else arrays["total"],
        )


class MaskedReports:
    """The masked reports of the current try, of equal size, in one file, in the order of arrival.

    Each is noise without the masks of all others. They are kept until the next try, so that a
    wrongly masked report can be found, and a guilty site's report can be taken out of the sum.

    ``size`` is the bytes of a report; ``sites`` are those whose reports are there, in their order.
    Without any, the file begins empty.
    """

    def __init__(self, path: Path, size: int, sites: Iterable[int] = ()) -> None:
        self._path, self._size, self._sites = path, size, list(sites)
        if not self._sites:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")

    def add(self, site: int, report: bytes) -> None:
        """Append the report of one more site."""
        with self._path.open("ab") as file:
            file.write(report)
        self._sites.append(site)

    def sync(self) -> None:
        """Flush to disk: the next steps rely on it."""
        with self._path.open("ab") as file:
            os.fsync(file.fileno())

    def of(self, site: int) -> bytes:
        """Return the report of one site."""
        with self._path.open("rb") as file:
            file.seek(self._sites.index(site) * self._size)
            return file.read(self._size)


def _hex(values: Any) -> dict[int, str]:
    return {i: value.hex() for i, value in values.items()}


def _field(value: Any) -> Any:
    return bytes.fromhex(value) if isinstance(value, str) else _bytes(value)


def _bytes(values: dict[str, str]) -> dict[int, bytes]:
    return {int(i): bytes.fromhex(value) for i, value in values.items()}


def _written(said: dict[int, Checks] | None) -> Any:
    return said and {i: [_hex(c.values), c.signature.hex()] for i, c in said.items()}


def _read(said: Any) -> dict[int, Checks] | None:
    return said and {int(i): Checks(_bytes(v), bytes.fromhex(s)) for i, (v, s) in said.items()}


def stage(run: Run, plan: Plan, done: int) -> str:
    """Describe what the server waits for after ``done`` rounds, according to its state files."""
    checkpoint = RoundCheckpoint.read(run.checkpoint, plan.digest)
    if checkpoint is None or round_of(checkpoint.number) < done or not checkpoint.round_keys:
        return "waiting for sites to take part"
    return "waiting for reports" if checkpoint.survivors is None else "opening the sum"
