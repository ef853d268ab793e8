"""A contact sheet: one row per class, enlarged until a person can see it."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from dppm_model.files import write_bytes
from sampler.images import to_image

_TILE = 56  # pixels an image is enlarged to, at least
GAP = 2
_MARGIN = 24  # for the classes, at least
_LONGEST = 28  # characters of a class's name
_GREY = 96


def contact_sheet(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    path: Path,
    *,
    columns: int = 16,
    names: Sequence[str] = (),
) -> None:
    """Write the first ``columns`` images of each class as a PNG; nothing is selected by its look.

    Parameters
    ----------
    images, labels
        (n, C, H, W) uint8 and (n,).
    path
        Where the PNG goes; written atomically.
    names
        Of the classes, written beside their rows in place of their numbers.
    """
    classes = np.unique(labels)
    columns = min(columns, int(np.unique_counts(labels).counts.max()))
    sheet = grid(images, labels, classes, columns, tile=_TILE)
    texts = [_shortened(names[label]) if names else str(label) for label in classes]
    font = ImageFont.load_default()
    margin = max(_MARGIN, *(math.ceil(font.getlength(text)) + 2 * GAP for text in texts))
    picture = to_image(np.pad(sheet, ((0, 0), (0, 0), (margin, 0)), constant_values=_GREY))
    pen = ImageDraw.Draw(picture)
    pitch = (picture.height - GAP) / len(classes)
    for row, text in enumerate(texts):
        middle = (margin / 2, GAP / 2 + (row + 0.5) * pitch)
        pen.text(middle, text, fill="white", anchor="mm", font=font)
    write_bytes(path, _png(picture))


def encoded_grid(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    classes: NDArray[np.int64],
    columns: int,
    *,
    tile: int,
) -> bytes:
    """Return `grid`'s pixels as a PNG."""
    return _png(to_image(grid(images, labels, classes, columns, tile=tile)))


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def grid(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    classes: NDArray[np.int64],
    columns: int,
    *,
    tile: int,
) -> NDArray[np.uint8]:
    """Set the first ``columns`` images of each class in a row of its own, on grey.

    Returns (C, rows, columns) of pixels, `GAP` pixels between and around the images.

    Parameters
    ----------
    images, labels
        (n, C, H, W) uint8 and (n,).
    tile
        Images are enlarged by a whole factor, until they are this many pixels high at least.
    """
    channels, height, width = images.shape[1:]
    scale = max(1, -(-tile // height))
    tall, wide = height * scale, width * scale
    size = (len(classes) * (tall + GAP) + GAP, columns * (wide + GAP) + GAP)
    sheet = np.full((channels, *size), _GREY, dtype=np.uint8)
    for row, label in enumerate(classes):
        for column, index in enumerate(np.flatnonzero(labels == label)[:columns]):
            top, left = GAP + row * (tall + GAP), GAP + column * (wide + GAP)
            big = images[index].repeat(scale, axis=1).repeat(scale, axis=2)
            sheet[:, top : top + tall, left : left + wide] = big
    return sheet
