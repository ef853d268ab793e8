"""One picture of people's own data: a file, a page of a file, or an array of an npz."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from dppm_model.errors import DataError
from dppm_model.records.copies import fingerprint
from dppm_model.records.corner_text import has_text

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"}
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP")
_GREY = {"1", "L", "LA"}
_BITS_PER_SAMPLE = 258  # a tag of TIFF


@dataclass(frozen=True)
class Origin:
    """What a DICOM header says about a picture; all IDs are pseudonyms under the site's key.

    ``spelling`` is that of the patient's ID without regard to case, blanks and leading zeros.
    """

    patient: str | None
    spelling: str | None
    study: str | None
    instance: str | None
    annotated: bool  # BurnedInAnnotation is YES
    overlay: bool
    localizer: bool
    window: str  # for people


class Picture(Protocol):
    """A picture that is read when it is opened."""

    @property
    def name(self) -> str:
        """Its name in messages."""

    @property
    def origin(self) -> Origin | None:
        """What its DICOM header says, if it has one."""

    def open(self) -> Image.Image:
        """Return it upright, in mode L or RGB."""


@dataclass(frozen=True)
class FilePicture:
    """A picture in a file; ``page`` counts from zero."""

    path: Path
    page: int | None = None
    origin: ClassVar[Origin | None] = None

    @property
    def name(self) -> str:
        """The path, and the page if the file has several."""
        return str(self.path) if self.page is None else f"{self.path}, page {self.page + 1}"

    def open(self) -> Image.Image:
        """Return it turned upright as its EXIF says, and laid on white where it is transparent.

        Raises DataError if it is damaged, or has more than 8 bits a channel: only the owner of the
        images knows which bits matter (a window for scans), and Pillow keeps the high ones.
        """
        return _decoded(self.path, self.name, self.page or 0)


@dataclass(frozen=True, eq=False)
class EncodedPicture:
    """A picture in another file, such as an archive; ``read`` returns its encoded bytes."""

    name: str
    read: Callable[[], bytes]
    origin: ClassVar[Origin | None] = None

    def open(self) -> Image.Image:
        """Return it as that of a file; DataError also if it has several pages."""
        return _decoded(BytesIO(self.read()), self.name, None)


def _decoded(source: Path | BytesIO, name: str, page: int | None) -> Image.Image:
    """Decode a page; None: there must be one only."""
    try:
        with Image.open(source, formats=_FORMATS) as file:
            if page is None and (count := _count_pages(file)) > 1:
                raise DataError(
                    f"{name} has {count} pages, or frames.", "Save the right one on its own."
                )
            file.seek(page or 0)
            if _is_deep(file):
                raise DataError(
                    f"{name} has more than 8 bits a channel (mode {file.mode}).",
                    "Convert the images to 8-bit grey or RGB, with the window that matters.",
                )
            grey = file.mode in _GREY
            image = ImageOps.exif_transpose(file)
            if image.has_transparency_data:
                white = Image.new("RGBA", image.size, "white")
                image = Image.alpha_composite(white, image.convert("RGBA"))
            return image.convert("L" if grey else "RGB")
    except DataError:
        raise
    except Exception as error:  # damaged files make decoders raise anything, even SyntaxError
        raise _unreadable(name, error) from None


@dataclass(frozen=True, eq=False)
class ArrayPicture:
    """A picture in memory: uint8 (H, W) or (H, W, 3)."""

    name: str
    array: NDArray[np.uint8]
    origin: ClassVar[Origin | None] = None

    def open(self) -> Image.Image:
        """Return it as an image."""
        return Image.fromarray(self.array)


@dataclass(frozen=True)
class Look:
    """The facts about a picture that decide how all are taken."""

    size: tuple[int, int]  # (W, H)
    in_colour: bool  # stored with three channels
    grey: bool  # all channels are equal
    digest: bytes  # of the pixels, the same for grey stored as grey or as RGB
    fingerprint: NDArray[np.uint64]  # close to that of pictures that look alike
    text: bool  # a corner looks like writing


def pages_of(path: Path) -> int:
    """Count the pages of a file; DataError if it is damaged."""
    try:
        with Image.open(path, formats=_FORMATS) as file:
            return _count_pages(file)
    except Exception as error:
        raise _unreadable(str(path), error) from None


def _count_pages(file: Image.Image) -> int:
    """Count pages; the further images of a phone's MPO are views of the first."""
    return 1 if file.format == "MPO" else getattr(file, "n_frames", 1)


def look_at(picture: Picture, size: int | None) -> tuple[Look, NDArray[np.uint8]]:
    """Read a picture; return what it is like, and its pixels (C, H, W), one channel if it is grey.

    With ``size``, the largest centred square is cut out and resized to ``size`` pixels a side.
    Raises as the picture's ``open``.
    """
    image = picture.open()
    pixels = np.asarray(image)
    in_colour = pixels.ndim == 3
    grey = not in_colour or all(np.array_equal(pixels[..., 0], pixels[..., c]) for c in (1, 2))
    if in_colour and grey:
        pixels = pixels[..., 0]
        image = Image.fromarray(np.ascontiguousarray(pixels))
    digest = hashlib.sha256(str(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    look = Look(image.size, in_colour, grey, digest.digest(), fingerprint(image), has_text(image))
    if size is not None:
        image = ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)
        pixels = np.asarray(image)
    return look, pixels[None] if grey else np.moveaxis(pixels, -1, 0)


def _is_deep(file: Image.Image) -> bool:
    """Say whether a file has more than 8 bits a channel; in colour, its mode does not tell."""
    if file.mode.startswith(("I", "F")):
        return True
    if file.format == "TIFF":
        bits: tuple[int, ...] = file.tag_v2.get(_BITS_PER_SAMPLE, (1,))  # type: ignore[attr-defined]
        return max(bits) > 8
    return file.format == "PNG" and any(";16" in str(tile[3]) for tile in file.tile)  # type: ignore[attr-defined]


def _unreadable(name: str, error: Exception) -> DataError:
    return DataError(f"{name} is no readable image ({error}).", "Remove or mend it.")
