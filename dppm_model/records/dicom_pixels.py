"""A frame of a DICOM file as a picture: modality, window, photometric interpretation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dppm_model.errors import DataError
from dppm_model.records.window import PERCENTILES, Window

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_GREY = ("MONOCHROME1", "MONOCHROME2")
_VALUES = (  # what turns stored values into those of the window
    *("ModalityLUTSequence", "RescaleSlope", "RescaleIntercept"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
)
_MACROS = ("PixelValueTransformationSequence", "FrameVOILUTSequence")  # of multi-frame files


def picture_of(path: Path, header: Dataset, frame: int, window: Window) -> Image.Image:
    """Decode a frame (from zero) as an image in mode L or RGB.

    Raises DataError if the window is the file's and it has none, or colours have more than 8 bits;
    and whatever a decoder raises.
    """
    stored = _stored(path, header, frame)
    photometric = str(header.PhotometricInterpretation)
    if photometric in _GREY:
        return Image.fromarray(_grey(path, header, stored, frame, window))
    if photometric == "PALETTE COLOR":
        from pydicom.pixels.processing import apply_color_lut

        stored = apply_color_lut(stored, header)[..., :3]
        if stored.dtype == np.uint16:  # the standard's tables have 16 bits
            stored = stored >> 8 if stored.max() > 255 else stored
    elif int(header.BitsStored) > 8:
        raise DataError(
            f"{path} has {header.BitsStored} bits a channel in colour.",
            "Convert the images to 8-bit RGB.",
        )
    return Image.fromarray(np.ascontiguousarray(stored.astype(np.uint8)))


def values_of(header: Dataset, frame: int) -> Dataset:
    """Return the modality and window elements that hold for a frame.

    Those of a frame come before those that all frames share, and these before the file's own.
    """
    from pydicom.dataset import Dataset

    own = header.get("PerFrameFunctionalGroupsSequence") or []
    groups = [header.get("SharedFunctionalGroupsSequence") or [], own[frame : frame + 1]]
    found = Dataset()
    items = [item for group in groups for one in group for m in _MACROS for item in one.get(m, [])]
    for source in (header, *items):
        for name in _VALUES:
            if name in source:
                found[name] = source[name]
    return found


def has_window(values: Dataset) -> bool:
    """Say whether a frame's elements have a window, or a table in its place."""
    windowed = values.get("WindowCenter") is not None and values.get("WindowWidth") is not None
    return windowed or bool(values.get("VOILUTSequence"))


def has_few_bits(header: Dataset) -> bool:
    """Say whether all stored values fit into 8 bits, so that they need no window."""
    return int(header.get("BitsStored") or 16) <= 8 and not header.get("PixelRepresentation")


def _stored(path: Path, header: Dataset, frame: int) -> NDArray[Any]:
    """Decode the stored values of a frame: (H, W) or (H, W, 3)."""
    from pydicom import dcmread
    from pydicom.pixels.utils import pixel_array

    syntax = transfer_syntax(header)
    if int(header.get("NumberOfFrames") or 1) > 1 and not syntax.is_deflated:
        # Only this frame is read from the file.
        return np.asarray(pixel_array(path, index=frame, transfer_syntax_uid=syntax))
    whole = dcmread(path, force=True)
    whole.file_meta.TransferSyntaxUID = syntax
    return np.asarray(pixel_array(whole, index=frame))


def transfer_syntax(header: Dataset) -> Any:
    """Return the transfer syntax; for a file without its own, the one that it was read with."""
    from pydicom import uid

    named = getattr(header, "file_meta", {}).get("TransferSyntaxUID")
    if named:
        return uid.UID(named)
    implicit, little = header.original_encoding
    if implicit:
        return uid.ImplicitVRLittleEndian
    return uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian


def _grey(
    path: Path, header: Dataset, stored: NDArray[Any], frame: int, window: Window
) -> NDArray[np.uint8]:
    from pydicom.dataset import FileMetaDataset
    from pydicom.pixels.processing import apply_modality_lut, apply_voi

    values = values_of(header, frame)
    values.file_meta = FileMetaDataset()
    values.file_meta.TransferSyntaxUID = transfer_syntax(header)  # it says how tables are stored
    padding = _padding(header, stored)
    scan = apply_modality_lut(stored, values)
    if window.rule == "given":
        shown = _windowed(scan, window.center, window.width, "LINEAR")
    elif window.rule != "percentile" and has_window(values):
        if values.get("WindowCenter") is None:
            table = apply_voi(np.rint(scan).astype(np.int64), values)
            depth = values.VOILUTSequence[0].LUTDescriptor[2]
            shown = table * (255.0 / (2**depth - 1))
        else:
            center, width = (
                first_of(values[name].value) for name in ("WindowCenter", "WindowWidth")
            )
            shown = _windowed(scan, center, width, values.get("VOILUTFunction") or "LINEAR")
    elif window.rule == "file":
        raise DataError(
            f"{path} has no window.", "Pass --window CENTER,WIDTH, or --window percentile."
        )
    elif window.rule == "auto" and has_few_bits(header):
        shown = stored * (255.0 / (2 ** int(header.BitsStored) - 1))
    else:
        low, high = np.percentile(scan[~padding] if not padding.all() else scan, PERCENTILES)
        shown = _windowed(scan, (low + high) / 2, max(high - low, 1e-9), "LINEAR_EXACT")
    if header.PhotometricInterpretation == "MONOCHROME1":
        shown = 255 - shown
    result: NDArray[np.uint8] = np.rint(shown).clip(0, 255).astype(np.uint8)
    result[padding] = 0
    return result


def _windowed(scan: NDArray[Any], center: float, width: float, function: str) -> NDArray[Any]:
    """Map a window to 0..255 by the standard's function of that name."""
    from pydicom.dataset import Dataset
    from pydicom.pixels.processing import apply_windowing

    wanted = Dataset()
    wanted.PhotometricInterpretation = "MONOCHROME2"
    wanted.BitsStored, wanted.PixelRepresentation = 8, 0  # the range of the result
    wanted.add_new("WindowCenter", "FD", center)
    wanted.add_new("WindowWidth", "FD", width)
    wanted.VOILUTFunction = function
    return np.asarray(apply_windowing(scan, wanted))


def first_of(value: Any) -> float:
    """Return the first of several windows; the others are alternatives."""
    return float(value if isinstance(value, str) or not hasattr(value, "__len__") else value[0])


def _padding(header: Dataset, stored: NDArray[Any]) -> NDArray[np.bool_]:
    """Mark what lies outside the scan: it becomes black, and counts for no percentile."""
    first = header.get("PixelPaddingValue")
    if not isinstance(first, int):
        return np.zeros(stored.shape, dtype=bool)
    last = header.get("PixelPaddingRangeLimit")
    last = last if isinstance(last, int) else first
    marked: NDArray[np.bool_] = (stored >= min(first, last)) & (stored <= max(first, last))
    return marked
