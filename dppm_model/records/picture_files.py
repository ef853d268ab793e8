"""The pictures in a file: the pages of an image, the slices of a volume, the frames of DICOM."""

from __future__ import annotations

from pathlib import Path

from dppm_model.errors import DataError
from dppm_model.records.dicom import DicomPicture, is_dicom, read_dicom
from dppm_model.records.listing import Choices
from dppm_model.records.nifti import is_nifti, slices_in
from dppm_model.records.pictures import SUFFIXES, FilePicture, Picture, pages_of
from dppm_model.records.site_key import SiteKey

_DICOM_SUFFIXES = {".dcm", ".dicom", ".ima"}


def is_picture(path: Path) -> bool:
    """Say whether a file is meant as a picture: by its suffix, or DICOM by its content."""
    return path.suffix.lower() in SUFFIXES | _DICOM_SUFFIXES or is_nifti(path) or is_dicom(path)


def pictures_in(path: Path, choices: Choices, key: SiteKey) -> list[Picture]:
    """Return a file's pictures, none for DICOM without an image, such as a report.

    Raises DataError if it has several and ``choices.pages`` is not set, or cannot be read.
    """
    if is_nifti(path):
        return [*slices_in(path, choices.slices)]
    try:
        dicom = is_dicom(path)
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}).", "Let this user read it."
        ) from None
    if not dicom:
        if path.suffix.lower() in _DICOM_SUFFIXES:
            raise DataError(f"{path} is not DICOM.", "Remove or mend it.")
        return [FilePicture(path, page) for page in _pages(path, pages_of(path), choices)]
    found = read_dicom(path, choices.window, key)
    pages = _pages(path, found.frames, choices) if found.frames else []
    return [DicomPicture(path, page, choices.window, found.origin) for page in pages]


def _pages(path: Path, count: int, choices: Choices) -> list[int | None]:
    if count == 1:
        return [None]
    if not choices.pages:
        raise DataError(
            f"{path} has {count} pages, or frames.",
            "Pass --pages to make each page a record, or save the right one on its own.",
        )
    return [*range(count)]
