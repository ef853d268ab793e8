"""DICOM secondary captures of synthetic images, each its own patient, who never was.

Two files of the same image have the same UIDs, and files of different images different ones: they
are made from the pixels and the model (UUIDs of version 5, as DICOM PS3.5 B.2 derives them).
"""

from __future__ import annotations

import hashlib
import io
import math
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from deploy.export.files import folder_file, for_json
from deploy.export.synthetic import NOTE, SyntheticImage, SyntheticSet
from deploy.show import epsilon_text
from dppm_model.files import write_bytes
from dppm_model.optional import needed

_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
_LONG_STRING = 64  # characters of a DICOM LO


def write_dicom(made: Path, images: SyntheticSet) -> Iterator[int]:
    """Write ``CLASS/LABEL-INDEX.dcm``: Secondary Capture, 8 bits, grey or RGB, uncompressed."""
    for done, image in enumerate(images, 1):
        path = made / folder_file(images, image, "dcm")
        write_bytes(path, dicom_file(images, image), durable=False)
        yield done


def dicom_file(images: SyntheticSet, image: SyntheticImage) -> bytes:
    """Return the DICOM file of an image; ConfigError if pydicom is missing."""
    pydicom = needed("pydicom", "dicom")
    facts = images.facts(image)
    data = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = _EXPLICIT_LITTLE_ENDIAN
    data.SpecificCharacterSet = "ISO_IR 192"  # UTF-8: names of classes
    _set_identity(data, images, image)
    data.SyntheticData = "YES"
    data.ImageType = ["DERIVED", "SECONDARY"]
    data.Modality, data.ConversionType = "OT", "SYN"
    data.DerivationDescription = NOTE
    data.ImageComments = for_json(facts)
    name = facts["class"].replace("\\", "/")  # which would part two values
    data.SeriesDescription = f"Synthetic: {name}"[:_LONG_STRING]
    data.Manufacturer, data.ManufacturerModelName = "DPPM", "dppm"
    data.SoftwareVersions = facts["software"]
    _set_pixels(data, image)
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, data, enforce_file_format=True)
    return buffer.getvalue()


def _set_identity(data: Any, images: SyntheticSet, image: SyntheticImage) -> None:
    """Name a patient of its own, with one study of one series of one image."""
    model = images.manifest["model"]
    data.SOPClassUID = _SECONDARY_CAPTURE
    origin = f"{model}/{image.name}/{hashlib.sha256(image.pixels.tobytes()).hexdigest()}"
    for level in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        named = uuid.uuid5(uuid.NAMESPACE_URL, f"dppm:{origin}/{level}")
        setattr(data, level, f"2.25.{named.int}")
    data.PatientID = f"SYNTHETIC-{model[:12].upper()}-{image.name}"
    data.PatientName = "Synthetic^Image"
    if math.isinf(images.epsilon):
        data.PatientIdentityRemoved = "NO"  # nothing bounds what the model remembers
    else:
        data.PatientIdentityRemoved = "YES"
        data.DeidentificationMethod = (
            f"Differentially private synthesis, epsilon {epsilon_text(images.epsilon)} "
            f"per {images.privacy['unit']}"
        )
    # What a patient would have, and must be there, empty.
    data.PatientBirthDate = data.PatientSex = data.ReferringPhysicianName = ""
    data.StudyDate = data.StudyTime = data.StudyID = data.AccessionNumber = ""
    data.PatientOrientation = data.Laterality = ""
    data.SeriesNumber = image.label + 1
    data.InstanceNumber = image.index + 1


def _set_pixels(data: Any, image: SyntheticImage) -> None:
    channels, data.Rows, data.Columns = image.pixels.shape
    data.SamplesPerPixel = channels
    data.PhotometricInterpretation = "MONOCHROME2" if channels == 1 else "RGB"
    if channels > 1:
        data.PlanarConfiguration = 0
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation = 7, 0
    pixels = np.ascontiguousarray(np.moveaxis(image.pixels, 0, -1)).tobytes()
    data.PixelData = pixels + bytes(len(pixels) % 2)
    data["PixelData"].VR = "OB"
