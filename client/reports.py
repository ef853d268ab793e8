"""The last report of each run, which a site keeps because it may have to send it again."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dppm_model.errors import LedgerError
from dppm_model.files import write_bytes
from dppm_model.privacy.ledger import Ledger
from dppm_model.reading import read_array, reading

Tallies = NDArray[np.unsignedinteger]


class Reports:
    """Unmasked reports, ``reports/RUN/PHASE-ROUND.npy`` in a site's folder."""

    def __init__(self, folder: Path, ledger: Ledger) -> None:
        self._folder, self._ledger = folder / "reports", ledger

    def find(self, run: str, phase: str, round_: int) -> Tallies | None:
        """Return the stored report of a round, or None; `LedgerError` if it is damaged."""
        path = self._path(run, phase, round_)
        if not path.exists():
            return None
        with reading(path, LedgerError, "Sit out until the next run; spend nothing twice."):
            return read_array(path)

    def keep(self, run: str, phase: str, round_: int, tallies: Tallies) -> None:
        """Write a report durably before it is released."""
        buffer = io.BytesIO()
        np.save(buffer, tallies)
        write_bytes(self._path(run, phase, round_), buffer.getvalue())

    def forget(self) -> None:
        """Remove the reports of past rounds: only the last debit's report may be asked for again.

        Raises `LedgerError` if a run has a report but no debit: a report is stored after its debit,
        so the ledger was lost.
        """
        last = {d.run: self._path(d.run, d.phase, d.round) for d in self._ledger.debits}
        for path in self._folder.glob("*/*.npy"):
            if path.parent.name not in last:
                raise LedgerError(
                    f"{self._ledger.path} has no debit of run {path.parent.name}, but a report "
                    "of it exists: the ledger was lost.",
                    "Restore it from a backup: spent privacy cannot be unspent.",
                )
            if path != last[path.parent.name]:
                path.unlink()

    def _path(self, run: str, phase: str, round_: int) -> Path:
        return self._folder / run / f"{phase}-{round_:06d}.npy"
