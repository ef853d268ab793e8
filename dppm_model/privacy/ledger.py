"""The ledger: the spent budget, on disk before anything is released.

JSON lines, each carrying the SHA-256 of the line before it (a hash chain), appended under a lock
and fsynced. A debit names (run, phase, round) and the two costs of that round; debiting the same
round of the same plan again costs nothing, so a crash between debit and release neither loses nor
repeats it. Spending never decreases: no method removes a line.

A high-water mark in a second file holds the number of lines and the digest of the last. It is made
before the first line and written after each, so a crash leaves it at most one line behind. This
reveals an edited, inserted or removed line; lines that were cut off; a ledger, or its mark, that
was deleted, damaged, or replaced by an older copy. These two files alone do not reveal that *both*
were deleted (as if the ledger had never begun), or both replaced by an older pair. A site's stored
reports reveal the first (`client.site`); for the second, note the head that `dppm site ledger
verify` prints somewhere else.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dppm_model.errors import LedgerError
from dppm_model.files import append_line, write_bytes
from dppm_model.locks import locked
from dppm_model.privacy.accountant import RoundCost
from dppm_model.reading import parse_json, read_text, reading, reason

_GENESIS = "0" * 64
_MARK = re.compile(r"(0|[1-9][0-9]{0,17}) ([0-9a-f]{64})\n")
_HINT = "Restore the file from a backup; an edited ledger does not show what was spent."


@dataclass(frozen=True)
class Debit:
    """One round that was, or may have been, answered."""

    run: str
    plan: str
    phase: str
    round: int
    secure_sum: RoundCost
    site: RoundCost
    release: RoundCost

    @property
    def trusts_server(self) -> bool:
        """Whether the round was protected by the server's noise only."""
        return math.isinf(self.secure_sum.mu)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {k: v.to_dict() if isinstance(v, RoundCost) else v for k, v in vars(self).items()}

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> Debit:
        """Rebuild an entry from its JSON object."""
        views = ("secure_sum", "site", "release")
        return cls(**raw | {view: RoundCost.from_dict(raw[view]) for view in views})


def _digest(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()


class Ledger:
    """An append-only file of debits. Reading verifies the whole chain."""

    def __init__(self, path: Path) -> None:
        self.path, self._mark = path, path.with_suffix(".mark")
        self._verified = (-1, -1, "")  # what `_stamp` was when the file was last read
        self._debits: list[Debit] = []
        self._head = _GENESIS

    def _look(self) -> None:
        """Read the ledger, and create nothing."""
        try:
            with locked(self.path, os.O_RDONLY, fcntl.LOCK_SH) as handle:
                self._read(handle)
        except FileNotFoundError:
            self._verify(b"")
            self._debits, self._head = [], _GENESIS
        except OSError as error:
            raise LedgerError(f"{self.path}: {reason(error)}.", _HINT) from None

    def _read(self, handle: int) -> None:
        """Verify the chain and keep its debits; the file is read again only if it has changed."""
        stamp = self._stamp(handle)
        if stamp == self._verified:
            return
        with os.fdopen(os.dup(handle), "rb") as file:
            file.seek(0)
            content = file.read()
        self._debits, self._head = self._verify(content)
        self._verified = stamp

    def _stamp(self, handle: int) -> tuple[int, int, str]:
        state = os.fstat(handle)
        return state.st_mtime_ns, state.st_size, self._marked()

    def _verify(self, content: bytes) -> tuple[list[Debit], str]:
        """Return the debits and the digest of the last line, without a torn end.

        A crash tore that line: its round was never released, and the next line replaces it.
        """
        *lines, _torn = content.split(b"\n")
        debits, head = [], _GENESIS
        for number, line in enumerate(lines, 1):
            cause = f"{self.path}, line {number}: the hash chain is broken: it"
            with reading(cause, LedgerError, _HINT):
                entry: dict[str, Any] = parse_json(line)
                previous = entry.pop("previous")
                debits.append(Debit.from_dict(entry))
                if previous != head:
                    raise ValueError("it does not follow from the previous line")
            head = _digest(line)
        self._check_mark(content, lines)
        return debits, head

    def _marked(self) -> str:
        """Return the content of the mark's file, empty if there is none."""
        with reading(self._mark, LedgerError, _HINT):
            try:
                return read_text(self._mark)
            except FileNotFoundError:
                return ""

    def _check_mark(self, content: bytes, lines: list[bytes]) -> None:
        """Check the mark, which is written after its line: it may lag by one line, never lead."""
        if not content and not self._mark.exists():
            return  # never begun
        found = _MARK.fullmatch(self._marked())
        if not found:
            raise LedgerError(
                f"{self._mark} is missing or damaged, and {self.path} has {len(lines)} lines.",
                "Restore both files from one backup; what was spent stays spent.",
            )
        known, head = int(found[1]), found[2]
        here = known <= len(lines) and (_digest(lines[known - 1]) if known else _GENESIS) == head
        if not here or known < len(lines) - 1:
            raise LedgerError(
                f"{self.path} has {len(lines)} lines, but {known} were written: lines were cut "
                "off, or the file was replaced.",
                "Restore the file from a backup; what was spent stays spent.",
            )

    @property
    def head(self) -> str:
        """Digest of the last line: equal to a noted one, it proves that nothing has changed."""
        self._look()
        return self._head

    @property
    def debits(self) -> tuple[Debit, ...]:
        """All debits in order."""
        self._look()
        return tuple(self._debits)

    def debit(self, entry: Debit) -> bool:
        """Record ``entry`` durably; return False if this round of this plan is there already.

        Raises
        ------
        LedgerError
            If the same round was debited under another plan: it was answered, and must not be
            answered differently. If the ledger is damaged, or cannot be written: then the file is
            as it was, or has the line, which spends too much rather than too little.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with locked(self.path) as handle:
                return self._debit(handle, entry)
        except OSError as error:
            self._verified = (-1, -1, "")
            raise LedgerError(
                f"{self.path}: the debit cannot be written: {reason(error)}.",
                "Free disk space and check permissions; nothing was released.",
            ) from None

    def _debit(self, handle: int, entry: Debit) -> bool:
        self._read(handle)
        if self._marked() != self._own_mark():  # it is new, or a crash left the mark one behind
            write_bytes(self._mark, self._own_mark().encode())
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
        line = json.dumps({**entry.to_dict(), "previous": self._head}).encode()
        append_line(handle, line)
        self._debits.append(entry)
        self._head = _digest(line)
        write_bytes(self._mark, self._own_mark().encode())
        self._verified = self._stamp(handle)
        return True

    def _own_mark(self) -> str:
        return f"{len(self._debits)} {self._head}\n"


def costs_of(debits: tuple[Debit, ...], view: str) -> tuple[RoundCost, ...]:
    """Gather equal rounds, which the accountant composes faster than single ones."""
    counts = Counter(getattr(d, view) for d in debits)
    return tuple(
        replace(one, rounds=n, total_variation=n * one.total_variation) for one, n in counts.items()
    )
