"""The masked reports of the current try, in one file, in the order of arrival.

Each is noise without the masks of all others. They are kept until the next try, so that a report
that was masked wrongly can be found, and the report of a guilty site be taken out of the sum.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


class MaskedReports:
    """Masked reports of equal size.

    Parameters
    ----------
    path
        The file.
    size
        Bytes of a report.
    sites
        Whose reports are there, in their order; with none the file begins empty.
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
