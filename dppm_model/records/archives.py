"""Sources in several files of one kind, such as ``train-00000-of-00002.parquet``: the files found.

A folder is such a source if it holds files of that kind and no images.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from dppm_model.errors import DataError
from dppm_model.records.folders import refuse
from dppm_model.records.listing import Listing, file_identity, split_of
from dppm_model.records.picture_files import is_picture


def archives_in(path: Path, suffix: str) -> tuple[list[Path], dict[str, list[str]]]:
    """Return the files with a suffix, and the names of others by reason: of ``path``, or in it.

    Each file once, sorted; none if the folder holds images too, which then are the source. Links
    are followed. Raises DataError if a file or folder cannot be read.
    """
    if not path.is_dir():
        return ([path] if path.suffix.lower() == suffix and path.is_file() else []), {}
    found: dict[tuple[int, int], Path] = {}
    others: dict[str, list[str]] = {}
    for file in _files(path):
        kind = file.suffix.lower()
        if is_picture(file):
            return [], {}
        if kind == suffix:
            found.setdefault(file_identity(file), file)
        else:
            others.setdefault(f"files {kind or 'without a suffix'}", []).append(str(file))
    return sorted(found.values()), others


def with_splits(listing: Listing, source: Path, files: list[Path], rows: list[int]) -> Listing:
    """Take the split of each file, of so many rows, by its name's beginning or its folder's name.

    If they name at most one side, the test records have yet to be chosen. Raises DataError if only
    some of them name a split, or a column says it too.
    """
    splits = [_split(source, file) for file in files]
    known = {split for split in splits if split is not None}
    if known and None in splits:
        raise DataError(
            f"{files[splits.index(None)]} names no split, other files of {source} do.",
            "Rename it, or import the splits by themselves (--test).",
        )
    if "test" not in known or known == {"test"}:
        return listing
    if listing.held_out is not None:
        raise DataError(
            f"{source} names splits by its files, and by a column.", "Leave one of them out."
        )
    held_out = np.repeat([split == "test" for split in splits], rows)
    note = "The files' names say what is held out" + (
        "; val joins train." * ("val" in known) or "."
    )
    return replace(listing, held_out=held_out, notes=(note, *listing.notes))


def _split(source: Path, file: Path) -> str | None:
    *folders, name = file.relative_to(source).parts if file != source else (file.name,)
    parts = [*reversed(folders), re.split(r"[-_.\d]", name, maxsplit=1)[0]]
    return next((split for part in reversed(parts) if (split := split_of(part))), None)


def _files(folder: Path) -> Iterator[Path]:
    seen = {file_identity(folder)}
    for place, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        inner = {name: file_identity(Path(place, name)) for name in folders}
        folders[:] = sorted(n for n in inner if not n.startswith(".") and inner[n] not in seen)
        seen |= {*inner.values()}
        yield from (Path(place, name) for name in sorted(names) if not name.startswith("."))
