"""Whose the slices of a volume are: one person's, unless a table names persons."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dppm_model.errors import DataError
from dppm_model.records.listing import Choices, Listing
from dppm_model.records.nifti import NiftiSlice
from dppm_model.records.window import PERCENTILES


def with_volumes(listing: Listing, choices: Choices) -> Listing:
    """Take each volume as a person where the source names none; add notes.

    Raises DataError if only some of the pictures are slices, so that the others have no person.
    """
    slices = [picture for picture in listing.pictures if isinstance(picture, NiftiSlice)]
    if not slices:
        return listing
    low, high = PERCENTILES
    count = len({picture.path for picture in slices})
    notes = [
        f"{len(slices)} {choices.slices.axis} slices of {count} volumes. Black and white are the "
        f"percentiles {low} and {high} of each volume; 8 bits stay as they are."
    ]
    if unknown := {picture.path for picture in slices if not picture.oriented}:
        notes.append(
            f"{len(unknown)} volumes do not say how they lie, such as {min(unknown)}: their axes "
            "are taken as right, anterior, superior."
        )
    persons = listing.persons
    if persons is None and choices.no_person:
        notes.append("Volumes are not taken as persons: ε protects single slices.")
    elif persons is None:
        if len(slices) < len(listing):
            raise DataError(
                f"{len(listing) - len(slices)} pictures are no slices of volumes, and name no "
                "person.",
                "Import them by themselves, or name persons in a CSV (file,label,person).",
            )
        persons = np.array([str(picture.path) for picture in slices])
        notes.append(
            "Each volume is taken as one person. If someone has several, name persons in a CSV "
            "(file,label,person)."
        )
    return replace(listing, persons=persons, notes=(*listing.notes, *notes))
