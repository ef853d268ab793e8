"""A contact sheet: one row per class, enlarged until a person can see it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dppm_model.files import write_bytes
from sampler.images import to_image

_TILE = 56  # pixels an image is enlarged to, at least
_GAP = 2
_GREY = 96


def contact_sheet(
    images: NDArray[np.uint8], labels: NDArray[np.int64], path: Path, *, columns: int = 16
) -> None:
    """Write the first ``columns`` images of each class as a PNG; nothing is selected by look."""
    channels, height, width = images.shape[1:]
    scale = max(1, _TILE // height)
    tile_h, tile_w = height * scale + _GAP, width * scale + _GAP
    classes = np.unique(labels)
    sheet = np.full((channels, len(classes) * tile_h, columns * tile_w), _GREY, dtype=np.uint8)
    for row, label in enumerate(classes):
        for column, image in enumerate(images[labels == label][:columns]):
            big = image.repeat(scale, axis=1).repeat(scale, axis=2)
            top, left = row * tile_h, column * tile_w
            sheet[:, top : top + height * scale, left : left + width * scale] = big
    buffer = io.BytesIO()
    to_image(sheet).save(buffer, "PNG")
    write_bytes(path, buffer.getvalue())
