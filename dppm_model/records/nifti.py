"""Slices of NIfTI volumes: which, how they lie, and which values become black and white."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dppm_model.errors import ConfigError, DataError
from dppm_model.optional import needed
from dppm_model.records.window import PERCENTILES

Axis = Literal["sagittal", "coronal", "axial"]  # planes of a volume in RAS+, in its axes' order
AXES: tuple[Axis, ...] = get_args(Axis)
_SQUARE = 1.01  # sides of a pixel may differ by this factor
_ONE = Lock()  # two threads that need one volume read it once


@dataclass(frozen=True)
class Slices:
    """The slices to take: a range along an axis, by number (from 0) or by share; high is not in."""

    axis: Axis = "axial"
    low: float = 0.0
    high: float = 1.0
    shares: bool = True

    @classmethod
    def of(cls, axis: str, text: str | None) -> Slices:
        """Read ``30%:70%`` or ``40:60``, None for all; ConfigError otherwise."""
        plane = next(one for one in AXES if one == axis)
        if text is None:
            return cls(plane)
        found = re.fullmatch(r"(\d{1,9})(%?):(\d{1,9})(%?)", text)
        if found is None or found[2] != found[4] or not int(found[1]) < int(found[3]):
            raise ConfigError(
                f"--slices is {text!r}.",
                "Give a range LOW:HIGH of slice numbers from 0 (40:60), or of shares (30%:70%).",
            )
        scale = 100 if found[2] else 1
        low, high = int(found[1]) / scale, int(found[3]) / scale
        if found[2] and high > 1:
            raise ConfigError(f"--slices is {text!r}.", "Give shares up to 100%.")
        return cls(plane, low, high, bool(found[2]))

    def numbers(self, count: int) -> range:
        """Return the numbers of the slices taken from ``count``."""
        if self.shares:
            return range(round(self.low * count), round(self.high * count))
        return range(int(self.low), min(int(self.high), count))


@dataclass(frozen=True)
class NiftiSlice:
    """A slice of a volume by its number along an axis; ``oriented``: its file says how it lies."""

    path: Path
    axis: Axis
    number: int
    oriented: bool
    origin: ClassVar[None] = None

    @property
    def name(self) -> str:
        """The path, axis and number."""
        return f"{self.path}, {self.axis} slice {self.number}"

    def open(self) -> Image.Image:
        """Return it in mode L, with square pixels, as radiologists look at it.

        Up is superior, in axial slices anterior; left is the patient's right, in sagittal slices
        anterior. Raises DataError if the volume cannot be used.
        """
        found = self.path.stat()
        with _ONE:
            volume = _volume(self.path, found.st_mtime_ns, found.st_size)
        place = AXES.index(self.axis)
        rows, columns = (1, 0) if place == 2 else (2, 1 if place == 0 else 0)
        plane = np.moveaxis(volume.values, place, 0)[self.number, ::-1, ::-1].T
        high, wide = volume.spacing[rows], volume.spacing[columns]
        image = Image.fromarray(np.ascontiguousarray(plane))
        fine = min(high, wide)
        if max(high, wide) > _SQUARE * fine:
            size = round(image.width * wide / fine), round(image.height * high / fine)
            image = image.resize(size, Image.Resampling.BICUBIC)
        return image


class _Volume(NamedTuple):
    values: NDArray[np.uint8]  # (X, Y, Z) to the right, anterior, superior
    spacing: tuple[float, float, float]  # mm


def is_nifti(path: Path) -> bool:
    """Say whether a file is called like a NIfTI volume."""
    return path.name.lower().endswith((".nii", ".nii.gz"))


def slices_in(path: Path, slices: Slices) -> list[NiftiSlice]:
    """Return the chosen slices of a file, whose header alone is read.

    Raises ConfigError if nibabel is missing, DataError if the file is no volume of grey values, or
    has no slice in the range.
    """
    image = _opened(path)
    orientation = needed("nibabel.orientations", "nifti").io_orientation(image.affine)
    if not np.isfinite(orientation).all():
        raise DataError(f"{path} does not say how its axes lie.", "Repair its affine.")
    along = [int(axis) for axis in orientation[:, 0]].index(AXES.index(slices.axis))
    count = image.shape[along]
    numbers = slices.numbers(count)
    if not numbers:
        raise DataError(
            f"{path} has {count} {slices.axis} slices, none of which is in the range.",
            "Pass other --slices.",
        )
    codes = int(image.header["sform_code"]), int(image.header["qform_code"])
    return [NiftiSlice(path, slices.axis, number, any(codes)) for number in numbers]


def _opened(path: Path) -> Any:
    nibabel = needed("nibabel", "nifti")
    try:
        image = nibabel.load(path)
    except Exception as error:  # damaged files raise anything
        raise DataError(f"{path} is no readable NIfTI file ({error}).", "Get it again.") from None
    if not isinstance(image, nibabel.Nifti1Image):
        raise DataError(f"{path} is no NIfTI file.", "Convert it to NIfTI.")
    if len(image.shape) < 3 or {*image.shape[3:]} - {1} or 0 in image.shape:
        raise DataError(
            f"{path} has the shape {image.shape}, not that of one volume.",
            "Save one volume on its own.",
        )
    if image.get_data_dtype().kind not in "iuf":
        raise DataError(
            f"{path} holds {image.get_data_dtype()}, not grey values.", "Convert it to grey values."
        )
    return image


@lru_cache(maxsize=2)  # readers go through the slices in order
def _volume(path: Path, _modified: int, _size: int) -> _Volume:
    """Read a volume in 8 bits; the file's time and size keep a changed one apart."""
    nibabel = needed("nibabel", "nifti")
    image = _opened(path)
    try:
        canonical = nibabel.as_closest_canonical(image)
        values = canonical.get_fdata(dtype=np.float32, caching="unchanged")
        values = values.reshape(values.shape[:3])
        x, y, z = map(float, canonical.header.get_zooms()[:3])
    except Exception as error:
        raise DataError(f"{path} is damaged ({error}).", "Get it again.") from None
    if not np.isfinite(values).all():
        raise DataError(
            f"{path} holds values that are not finite.", "Replace them by the background's value."
        )
    if not (min(x, y, z) > 0 and max(x, y, z) < np.inf):
        raise DataError(f"{path} has voxels of {x}x{y}x{z} mm.", "Repair its header.")
    return _Volume(_in_8_bits(values, image), (x, y, z))


def _in_8_bits(values: NDArray[np.float32], image: Any) -> NDArray[np.uint8]:
    """Map a volume's percentiles to black and white; 8 bits without a scale stay as they are."""
    if image.get_data_dtype() == np.uint8 and values.min() >= 0 and values.max() <= 255:
        low, high = 0.0, 255.0
    else:
        low, high = map(float, np.percentile(values, PERCENTILES))
    scaled = (values - low) * (255 / max(high - low, 1e-9))
    grey: NDArray[np.uint8] = np.rint(scaled).clip(0, 255).astype(np.uint8)
    return grey
