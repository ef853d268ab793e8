"""Writing in the corners of pictures, where devices burn in names and dates: a simple detector."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

SMALLEST = 96  # pixels a side: below, letters are too small to tell
_LARGEST = 1024  # pixels a side that are looked at
_HIGH, _WIDE = 0.2, 0.4  # of the picture, the size of a corner
_STROKE = 9  # pixels: a line of a letter is thinner
_CONTRAST = 70  # of 255, between a letter and its ground
_LETTERS = 5  # in a row make a text
_EDGES = 2 * 5 * _LETTERS  # two sides of five rows of each letter


def has_text(image: Image.Image) -> bool:
    """Say whether a corner of a picture has a row of letter-like marks.

    It misses handwriting, single letters and text in the middle, and is no proof of either.
    """
    if min(image.size) < SMALLEST:
        return False
    grey = image.convert("L")
    grey.thumbnail((_LARGEST, _LARGEST), Image.Resampling.BOX)
    pixels = np.asarray(grey)
    high, wide = int(_HIGH * pixels.shape[0]), int(_WIDE * pixels.shape[1])
    corners = (
        part[rows]
        for rows in (slice(None, high), slice(-high, None))
        for part in (pixels[:, :wide], pixels[:, -wide:])
    )
    return any(_has_row(corner) for corner in corners)


def _has_row(corner: NDArray[np.uint8]) -> bool:
    steps = corner[:, 2:].astype(np.int16) - corner[:, :-2]
    if np.count_nonzero(abs(steps) > _CONTRAST) < _EDGES:  # saves time where nothing is sharp
        return False
    for hat in (ndimage.white_tophat, ndimage.black_tophat):  # bright letters, and dark ones
        marks = hat(corner, size=(_STROKE, _STROKE)) > _CONTRAST
        if not marks.any():
            continue
        boxes = ndimage.find_objects(ndimage.label(marks, np.ones((3, 3)))[0])
        letters = np.array(
            [[b[0].start, b[0].stop, b[1].start, b[1].stop] for b in boxes if _is_letter(b, corner)]
        )
        if len(letters) >= _LETTERS and _longest_row(letters) >= _LETTERS:
            return True
    return False


def _is_letter(box: tuple[slice, ...], corner: NDArray[np.uint8]) -> bool:
    high, wide = (side.stop - side.start for side in box)
    letter: bool = 5 <= high <= corner.shape[0] / 2 and 1 <= wide <= 2 * high
    return letter


def _longest_row(letters: NDArray[np.int64]) -> int:
    """Count the letters of the longest row: of one height and line, each close to the next.

    ``letters`` (n, 4) are top, bottom, left and right of each.
    """
    longest = 0
    for top, bottom, *_ in letters:
        high = bottom - top
        heights = letters[:, 1] - letters[:, 0]
        same = (abs(letters[:, 1] - bottom) <= 0.2 * high) & (abs(heights - high) <= 0.35 * high)
        row = letters[same]
        row = row[np.argsort(row[:, 2])]
        near = row[1:, 2] - row[:-1, 3] <= 1.5 * high
        run = 1
        for close in near:
            run = run + 1 if close else 1
            longest = max(longest, run)
    return longest
