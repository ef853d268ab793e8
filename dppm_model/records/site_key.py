"""The site's secret key for pseudonyms: whoever has a data set without it cannot test an ID."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import stat
from functools import cached_property
from pathlib import Path

from dppm_model.errors import DataError
from dppm_model.files import write_bytes
from dppm_model.locks import locked
from dppm_model.reading import read_bytes, reading

_BYTES = 32


class SiteKey:
    """A random key in the file ``person.key`` of a store, readable by its owner only.

    With the same key, a person has the same pseudonym in every import. It is read when it is
    needed, and one that is not on disk yet is written by `keep`; both raise DataError if the file
    is damaged, or others can read it.
    """

    def __init__(self, store: Path) -> None:
        self.store = store
        self.path = store / "person.key"

    @cached_property
    def _key(self) -> bytes:
        return self._read() or secrets.token_bytes(_BYTES)

    def pseudonym(self, text: str) -> str:
        """Return the HMAC-SHA256 of a text, in hexadecimal."""
        return hmac.new(
            self._key, text.encode(errors="surrogateescape"), hashlib.sha256
        ).hexdigest()

    def keep(self) -> None:
        """Write the key, unless it is there; DataError if another import wrote one meanwhile."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with locked(self.path.with_name(f".{self.path.name}.lock")):
            there = self._read()
            if there is None:
                write_bytes(self.path, self._key)
            elif there != self._key:
                raise DataError(
                    f"{self.path} was created meanwhile by another import.", "Import again."
                )

    def _read(self) -> bytes | None:
        hint = "Restore it; a new key (remove the file) gives persons new pseudonyms."
        with reading(self.path, DataError, hint):
            try:
                key = read_bytes(self.path, follow=False)
            except (FileNotFoundError, NotADirectoryError):
                return None
        if len(key) != _BYTES:
            raise DataError(f"{self.path} has {len(key)} bytes, not {_BYTES}.", hint)
        if stat.S_IMODE(self.path.stat().st_mode) & 0o077:
            raise DataError(f"{self.path} can be read by others.", f"Run `chmod 600 {self.path}`.")
        return key
