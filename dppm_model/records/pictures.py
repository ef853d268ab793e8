"""Image files by Pillow: their pixels as uint8 (C, H, W)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from dppm_model.errors import DataError

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"}
_GREY = {"1", "L", "LA"}
_HINT = "Remove or mend it."


def all_grey(files: Iterable[Path]) -> bool:
    """Return whether no file has colour, from the headers alone."""
    return all(_mode(path) in _GREY for path in files)


def _mode(path: Path) -> str:
    try:
        with Image.open(path) as image:
            return image.mode
    except Exception as error:  # a damaged file makes decoders raise anything, SyntaxError too
        raise DataError(f"{path} is no readable image ({error}).", _HINT) from None


def read_picture(path: Path, *, grey: bool, size: int | None) -> NDArray[np.uint8]:
    """Read one image, turned upright as its EXIF says and laid on white where transparent.

    Parameters
    ----------
    size
        Pixels a side; the largest centred square is cut out and resized.

    Returns
    -------
    uint8 (C, H, W), C = 1 or 3.

    Raises
    ------
    DataError
        If it is damaged, or has more than 8 bits a pixel: which of them matter only the owner of
        the images can say (a window for scans), and cutting them off would spoil them silently.
    """
    mode = _mode(path)
    if mode.startswith(("I", "F")):
        raise DataError(
            f"{path} has more than 8 bits a pixel (mode {mode}).",
            "Convert the images to 8-bit grey or RGB.",
        )
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            if image.has_transparency_data:
                white = Image.new("RGBA", image.size, "white")
                image = Image.alpha_composite(white, image.convert("RGBA"))
            image = image.convert("L" if grey else "RGB")
            if size is not None:
                image = ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)
            array = np.asarray(image, dtype=np.uint8)
    except Exception as error:
        raise DataError(f"{path} is no readable image ({error}).", _HINT) from None
    return array[None] if grey else np.moveaxis(array, -1, 0)
