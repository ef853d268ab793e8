"""DICOM files: recognised by their content, described by their header, opened frame by frame."""

from __future__ import annotations

import functools
import struct
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from PIL import Image

from dppm_model.errors import DataError
from dppm_model.optional import needed
from dppm_model.reading import reason
from dppm_model.records.dicom_pixels import (
    first_of,
    has_few_bits,
    has_window,
    picture_of,
    transfer_syntax,
    values_of,
)
from dppm_model.records.listing import file_identity, is_missing, one_spelling
from dppm_model.records.pictures import Origin
from dppm_model.records.site_key import SiteKey
from dppm_model.records.window import PERCENTILES, Window

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_PREAMBLE = 128
# The first elements of files without a preamble: of group 8, or of the header's group 2.
_STARTS = {
    struct.pack(f"{order}HH", group, element)
    for order in "<>"
    for group, elements in ((8, (0, 1, 5, 8, 0x12, 0x16)), (2, (0, 1, 2)))
    for element in elements
}
_NO_ONE = {"anonymous", "anonymized", "anonymised", "anon", "unknown"}  # IDs that are nobody's
_NO_IMAGES = {"SEG", "RTDOSE"}  # modalities that have pixels, and are derived from others' images
_OVERLAYS = range(0x6000, 0x6020, 2)
_TAGS = (
    *("SOPClassUID", "SOPInstanceUID", "PatientID", "StudyInstanceUID", "Modality", "ImageType"),
    *("BurnedInAnnotation", "NumberOfFrames", "Rows", "SamplesPerPixel", "BitsStored"),
    *("PhotometricInterpretation", "PixelRepresentation", "SharedFunctionalGroupsSequence"),
    *("PerFrameFunctionalGroupsSequence", "WindowCenter", "WindowWidth", "VOILUTSequence"),
)
_LIBRARY = "pip install 'dppm[dicom]'"
_TWELVE_BITS = "1.2.840.10008.1.2.4.51"  # JPEG Extended


@dataclass(frozen=True)
class DicomPicture:
    """A frame of a DICOM file; ``page`` counts from zero, None for the only one."""

    path: Path
    page: int | None
    window: Window
    origin: Origin

    @property
    def name(self) -> str:
        """The path, and the frame if the file has several."""
        return str(self.path) if self.page is None else f"{self.path}, page {self.page + 1}"

    def open(self) -> Image.Image:
        """Return it windowed to 8 bits, in mode L or RGB; DataError if it cannot be decoded."""
        header = _header(self.path)
        try:
            return picture_of(self.path, header, self.page or 0, self.window)
        except DataError:
            raise
        except Exception as error:  # decoders and damaged elements raise anything
            raise _undecodable(self.path, header, error) from None


@dataclass(frozen=True)
class DicomFile:
    """What a header says about its file; ``instance`` is its SOPInstanceUID."""

    path: Path
    frames: int  # 0: it holds no image
    instance: str
    origin: Origin


def is_dicom(path: Path) -> bool:
    """Say whether a file's content is DICOM, with or without the 128 bytes before it.

    Raises OSError if it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(_PREAMBLE + 4)
    return head[_PREAMBLE:] == b"DICM" or head[:4] in _STARTS


def read_dicom(path: Path, window: Window, key: SiteKey) -> DicomFile:
    """Read the header of a DICOM file, without its pixels.

    Patient and study are pseudonyms under ``key``. Raises DataError if it or the key's file is
    damaged, ConfigError if pydicom is not installed.
    """
    header = _header(path, (*_TAGS, *((group << 16) + 0x0010 for group in _OVERLAYS)))
    try:
        has_image = "Rows" in header and "PhotometricInterpretation" in header
        is_image = has_image and header.get("Modality") not in _NO_IMAGES
        frames = int(header.get("NumberOfFrames") or 1) if is_image else 0
        patient = str(header.get("PatientID") or "").strip()
        study = str(header.get("StudyInstanceUID") or "").strip()
        instance = str(header.get("SOPInstanceUID") or "").strip()
        named = not (is_missing(patient) or one_spelling(patient) in _NO_ONE)
        origin = Origin(
            patient=key.pseudonym(patient) if named else None,
            spelling=key.pseudonym(one_spelling(patient)) if named else None,
            study=key.pseudonym(study) if study else None,
            instance=key.pseudonym(instance) if instance else None,
            annotated=str(header.get("BurnedInAnnotation")).upper() == "YES",
            overlay=any((group, 0x0010) in header for group in _OVERLAYS),
            localizer="LOCALIZER" in (header.get("ImageType") or ()),
            window=_window_text(header, window) if frames else "",
        )
    except DataError:  # of the key
        raise
    except Exception as error:
        raise _damaged(path, error) from None
    return DicomFile(path, frames, instance, origin)


def instances_of(files: Sequence[Path]) -> dict[str, Path]:
    """Return the DICOM images among files by their SOPInstanceUID; a DICOMDIR stands for its list.

    Raises DataError if two files have one.
    """
    found: dict[str, Path] = {}
    for path in files:
        if not is_dicom(path):
            continue
        header = _header(path, ("SOPInstanceUID", "Rows", "DirectoryRecordSequence"))
        if "DirectoryRecordSequence" in header:
            if len(files) == 1:
                return instances_of(_listed(path, header))
            continue  # its files are there by themselves
        name = str(header.get("SOPInstanceUID") or "").strip()
        if name and "Rows" in header and found.setdefault(name, path) != path:
            raise DataError(
                f"{path} and {found[name]} have the same SOPInstanceUID.", "Keep one of them."
            )
    return found


def _listed(directory: Path, header: Dataset) -> list[Path]:
    """Return the files that a DICOMDIR lists."""
    records = header.DirectoryRecordSequence or []
    names = [record.get("ReferencedFileID") for record in records]
    parts = [[name] if isinstance(name, str) else [*name] for name in names if name]
    files = [directory.parent.joinpath(*part) for part in parts]
    for file in files:
        file_identity(file)  # refuses what is not there
    if not files:
        raise DataError(f"{directory} lists no files.", "Name the folder of the images.")
    return files


def _window_text(header: Dataset, window: Window) -> str:
    """Say which window an image's first frame gets."""
    if not str(header.PhotometricInterpretation).startswith("MONOCHROME"):
        return "colours as they are"
    values = values_of(header, 0)
    if window.rule == "given":
        return f"{window.center:g},{window.width:g} as given"
    if window.rule != "percentile" and has_window(values):
        if values.get("WindowCenter") is None:
            return "the file's table"
        return f"{first_of(values.WindowCenter):g},{first_of(values.WindowWidth):g} of the file"
    if window.rule == "auto" and has_few_bits(header):
        return "all of 8 bits"
    return f"percentiles {PERCENTILES[0]:g} to {PERCENTILES[1]:g} of each image"


@functools.cache
def _pydicom() -> ModuleType:
    """Import pydicom, which then reads values as they are, without a word on each odd one."""
    pydicom: ModuleType = needed("pydicom", "dicom")
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    warnings.filterwarnings("ignore", module="pydicom")
    return pydicom


def _header(path: Path, tags: Sequence[str | int] | None = None) -> Dataset:
    """Read a file up to its pixels, all elements or some."""
    pydicom = _pydicom()
    try:
        header: Dataset = pydicom.dcmread(
            path, force=True, stop_before_pixels=True, specific_tags=tags and [*tags]
        )
    except Exception as error:
        raise _damaged(path, error) from None
    return header


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} is no readable DICOM file ({reason(error)}).", "Remove or mend it.")


def _undecodable(path: Path, header: Dataset, error: Exception) -> DataError:
    syntax = transfer_syntax(header)
    cure = "Export it again without compression, or remove it."
    if syntax == _TWELVE_BITS:  # no decoder of it has a licence for a dependency
        cure = "Install pylibjpeg-libjpeg (GPL), or export it again without compression."
    elif syntax.is_compressed:
        cure = f"Run `{_LIBRARY}` for the decoders. If that is done: {cure[0].lower()}{cure[1:]}"
    return DataError(f"{path} cannot be decoded from {syntax.name} ({reason(error)}).", cure)
