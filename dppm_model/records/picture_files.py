"""The pictures in a file: the pages of an image, or the slices of a volume."""

from __future__ import annotations

from pathlib import Path

from dppm_model.errors import DataError
from dppm_model.records.listing import Choices
from dppm_model.records.nifti import is_nifti, slices_in
from dppm_model.records.pictures import SUFFIXES, FilePicture, Picture, pages_of


def is_picture(path: Path) -> bool:
    """Say whether a file is meant as a picture, by its suffix."""
    return path.suffix.lower() in SUFFIXES or is_nifti(path)


def pictures_in(path: Path, choices: Choices) -> list[Picture]:
    """Return a file's pictures.

    Raises DataError if it has several pages and ``choices.pages`` is not set, or cannot be read.
    """
    if is_nifti(path):
        return [*slices_in(path, choices.slices)]
    count = pages_of(path)
    if count == 1:
        return [FilePicture(path)]
    if not choices.pages:
        raise DataError(
            f"{path} has {count} pages, or frames.",
            "Pass --pages to make each page a record, or save the right one on its own.",
        )
    return [FilePicture(path, page) for page in range(count)]
