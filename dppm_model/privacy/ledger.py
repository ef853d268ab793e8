"""The ledger: what has been spent, on disk before anything is released.

JSON lines, each carrying the SHA-256 of the line before it (a hash chain), appended under a lock
and fsynced. A debit names (run, phase, round) and the two costs of that round; debiting the same
round of the same plan again costs nothing, so a crash between debit and release neither loses nor
repeats it. Spent never goes down: there is no method that removes a line, and a high-water mark in
a second file (how many lines there were, and the digest of the last) tells if lines were cut off,
or the file was deleted or replaced by an older copy.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from dppm_model.errors import LedgerError, PlanError
from dppm_model.files import write_bytes
from dppm_model.privacy.accountant import RoundCost

_GENESIS = "0" * 64


@dataclass(frozen=True)
class Debit:
    """One round that was, or may have been, answered."""

    run: str
    plan: str
    phase: str
    round: int
    secure_sum: RoundCost
    site: RoundCost

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> Debit:
        """Rebuild an entry from its JSON object."""
        secure_sum, site = (RoundCost(**raw.pop(view)) for view in ("secure_sum", "site"))
        return cls(**raw, secure_sum=secure_sum, site=site)


def _digest(line: str) -> str:
    return hashlib.sha256(line.encode()).hexdigest()


class Ledger:
    """An append-only file of debits. Reading verifies the whole chain."""

    def __init__(self, path: Path) -> None:
        self.path, self._mark = path, path.with_suffix(".mark")
        self._verified = (-1, -1)  # (mtime_ns, size) of the file when it was last read
        self._debits: list[Debit] = []
        self._head = _GENESIS

    @contextmanager
    def _locked(self) -> Iterator[int]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield handle
        finally:
            os.close(handle)

    def _read(self) -> None:
        """Verify the chain and keep its debits; the file is read anew only if it has changed."""
        state = self.path.stat() if self.path.exists() else None
        stamp = (state.st_mtime_ns, state.st_size) if state else (0, 0)
        if stamp == self._verified:
            return
        *lines, torn = self.path.read_text().split("\n") if state else [""]
        debits, head = [], _GENESIS
        for number, line in enumerate(lines, 1):
            entry: dict[str, Any] = {}
            try:
                entry = json.loads(line)
                previous = entry.pop("previous")
                debits.append(Debit.from_dict(entry))
            except (ValueError, KeyError, TypeError, AttributeError, PlanError) as error:
                raise self._edited(number) from error
            if previous != head:
                raise self._edited(number)
            head = _digest(line)
        if torn:  # a crash tore the last append: its round was never released, so cut it off
            os.truncate(self.path, state.st_size - len(torn.encode()) if state else 0)
            state = self.path.stat()
            stamp = (state.st_mtime_ns, state.st_size)
        self._check_mark(lines)
        self._debits, self._head, self._verified = debits, head, stamp

    def _check_mark(self, lines: list[str]) -> None:
        """The mark is written after its line: it may lag behind by one, never be ahead."""
        if not self._mark.exists():
            return
        try:
            count, head = self._mark.read_text().split()
            known = int(count)
        except ValueError:
            raise self._edited(0) from None
        if known and (known > len(lines) or _digest(lines[known - 1]) != head):
            raise LedgerError(
                f"{self.path} has {len(lines)} lines, but {known} had been written: lines were cut "
                "off, or the file was replaced.",
                "Restore the file from a backup; what was spent stays spent.",
            )

    def _edited(self, number: int) -> LedgerError:
        return LedgerError(
            f"{self.path}, line {number}: the hash chain is broken, so the ledger was edited.",
            "Restore the file from a backup; spending cannot be reckoned from an edited ledger.",
        )

    @property
    def head(self) -> str:
        """Digest of the last line: compare it with a noted one to know that nothing was changed."""
        with self._locked():
            self._read()
        return self._head

    @property
    def debits(self) -> tuple[Debit, ...]:
        """All debits in order."""
        with self._locked():
            self._read()
        return tuple(self._debits)

    def debit(self, entry: Debit) -> bool:
        """Record ``entry`` durably; return False if this round of this plan is there already.

        Raises
        ------
        LedgerError
            If the same round was debited under another plan: it was answered, and must not be
            answered differently.
        """
        with self._locked() as handle:
            self._read()
            key = (entry.run, entry.phase, entry.round)
            for old in reversed(self._debits):
                if (old.run, old.phase, old.round) == key:
                    if old == entry:
                        return False
                    raise LedgerError(
                        f"{self.path}: round {entry.round} of {entry.phase} was debited under "
                        "another plan.",
                        "A round is answered once; start a new run for a new plan.",
                    )
            line = json.dumps({**asdict(entry), "previous": self._head})
            os.write(handle, (line + "\n").encode())
            os.fsync(handle)
            state = os.fstat(handle)
            self._debits.append(entry)
            self._head, self._verified = _digest(line), (state.st_mtime_ns, state.st_size)
            write_bytes(self._mark, f"{len(self._debits)} {self._head}\n".encode())
        return True


def costs_of(debits: tuple[Debit, ...], view: str) -> tuple[RoundCost, ...]:
    """Gather equal rounds, since the accountant composes T equal rounds faster than T rounds."""
    counts = Counter(d.site if view == "site" else d.secure_sum for d in debits)
    return tuple(
        replace(one, rounds=n, total_variation=n * one.total_variation) for one, n in counts.items()
    )
