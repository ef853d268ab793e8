"""A contact sheet: one row per class, enlarged until a person can see it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ImageDraw

from dppm_model.files import write_bytes
from sampler.images import to_image

_TILE = 56  # pixels an image is enlarged to, at least
_GAP = 2
_MARGIN = 24  # for the class numbers
_GREY = 96


def contact_sheet(
    images: NDArray[np.uint8], labels: NDArray[np.int64], path: Path, *, columns: int = 16
) -> None:
    """Write the first ``columns`` images of each class as a PNG; nothing is selected by its look.

    Parameters
    ----------
    images, labels
        (n, C, H, W) uint8 and (n,).
    path
        Where the PNG goes; written atomically.
    """
    channels, height, width = images.shape[1:]
    scale = max(1, -(-_TILE // height))
    tall, wide = height * scale, width * scale
    classes = np.unique(labels)
    columns = min(columns, int(np.unique_counts(labels).counts.max()))
    size = (len(classes) * (tall + _GAP) + _GAP, _MARGIN + columns * (wide + _GAP) + _GAP)
    sheet = np.full((channels, *size), _GREY, dtype=np.uint8)
    for row, label in enumerate(classes):
        for column, image in enumerate(images[labels == label][:columns]):
            top, left = _GAP + row * (tall + _GAP), _MARGIN + _GAP + column * (wide + _GAP)
            big = image.repeat(scale, axis=1).repeat(scale, axis=2)
            sheet[:, top : top + tall, left : left + wide] = big
    picture = to_image(sheet)
    pen = ImageDraw.Draw(picture)
    for row, label in enumerate(classes):
        middle = (_MARGIN / 2, _GAP + row * (tall + _GAP) + tall / 2)
        pen.text(middle, str(label), fill="white", anchor="mm")
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    write_bytes(path, buffer.getvalue())
