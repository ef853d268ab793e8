"""CSVs that lie among class folders: not used, but perhaps what the images' owner meant."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

from dppm_model.errors import DataError
from dppm_model.records.listing import Choices, Listing
from dppm_model.records.tables import role_of


def with_loose_tables(listing: Listing, folder: Path, choices: Choices) -> Listing:
    """Add a note on each CSV in a folder of classes.

    Raises DataError if one has a column of persons, and the images name none: others than these
    would be protected.
    """
    found = sorted([*folder.glob("*.csv"), *folder.glob("*/*.csv")])
    known = choices.no_person or any(picture.origin is not None for picture in listing.pictures)
    for path in found:
        if not known and "person" in _roles(path):
            raise DataError(
                f"{path} has a column of persons, but the folder is imported without it.",
                "Import that CSV in place of the folder, or pass --no-person.",
            )
    notes = [
        f"ATTENTION: {path} lies among the class folders and is not used. If it describes the "
        "images, import it in place of the folder."
        for path in found
    ]
    return replace(listing, notes=(*notes, *listing.notes))


def _roles(path: Path) -> set[str | None]:
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            return {role_of(name) for name in next(csv.reader(file), [])}
    except (OSError, csv.Error):
        return set()
