"""The test split: chosen by class and by whole persons, or checked where the source brings one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dppm_model.errors import DataError
from dppm_model.records.dicom import DicomPicture
from dppm_model.records.listing import Listing, file_identity
from dppm_model.records.nifti import NiftiSlice
from dppm_model.records.pictures import FilePicture


def check_sides(listing: Listing) -> None:
    """Refuse a file, a person, or a study of DICOM images on both sides of the split."""
    if listing.held_out is None:
        return
    sides = ("train", "test")
    for whose, owners in (("persons", listing.persons), ("studies", listing.studies)):
        if owners is None:
            continue
        own = [{*owners[listing.held_out == side]} for side in (False, True)]
        if both := sorted(own[0] & own[1]):
            example = listing.pictures[owners.tolist().index(both[0])].name
            raise DataError(
                f"{len(both)} {whose} have training and test images, such as {both[0]} "
                f"({example}).",
                "Keep each on one side; --test-fraction does so by itself.",
            )
    seen: dict[tuple[int, int], tuple[str, bool]] = {}
    for picture, held in zip(listing.pictures, listing.held_out.tolist(), strict=True):
        if isinstance(picture, FilePicture | DicomPicture | NiftiSlice):
            name, side = seen.setdefault(file_identity(picture.path), (picture.name, held))
            if side != held:
                raise DataError(
                    f"{picture.name} is in {sides[held]}, and in {sides[side]} as {name}.",
                    "Keep each image on one side.",
                )


def hold_out(listing: Listing, fraction: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Choose the test records of each class: by whole persons, or studies where none are named.

    At least one unit of each class, but never all: a person counts under their first label.
    """
    owners: NDArray[Any] | None
    owners = listing.studies if listing.persons is None else listing.persons
    if owners is None:
        owners = np.arange(len(listing))
    _, first, unit_of = np.unique(owners, return_index=True, return_inverse=True)
    held_out = np.zeros(len(first), dtype=bool)
    for name in listing.classes:
        units = rng.permutation(np.flatnonzero(listing.labels[first] == name))
        number = min(max(round(fraction * len(units)), int(fraction > 0)), len(units) - 1)
        held_out[units[: max(number, 0)]] = True
    if fraction and not held_out.any():
        raise DataError(
            "The test split would take every record of a class: each has only one record, or "
            "person.",
            "Pass --test-fraction 0, or bring more images.",
        )
    chosen: NDArray[np.bool_] = held_out[unit_of]
    return chosen


def check_classes(listing: Listing) -> None:
    """Refuse a class without a training image: it would be trained on nothing, and drawn."""
    assert listing.held_out is not None
    present = {*listing.labels[~listing.held_out]}
    if missing := [name for name in listing.classes if name not in present]:
        raise DataError(
            f"{len(missing)} classes have no training image, such as {missing[0]!r}.",
            "Bring training images of them, or leave these classes out.",
        )
    for name in listing.classes:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise DataError(
                f"The name of class {name!r} is not UTF-8.", "Rename that folder."
            ) from None
