"""Public digits drawn from fonts, in the format of MNIST, for runs with ``public=font-digits``.

    python -m tests.benchmarks.font_digits FONTS font-digits.npz
    dppm data import font-digits.npz --name font-digits

FONTS is a folder of fonts, such as that of the Debian package texlive-fonts-extra. As MNIST's are,
digits are scaled to 20 pixels and centred by mass in 28 (LeCun et al. 1998). Nobody's data.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dppm_model.records.glyphs.build import Painter, list_fonts
from tests.benchmarks.runner import benchmark

DIGITS = "0123456789"
_SIDE, _INK = 28, 20
_LEAST_DISTINCT = 9  # a font whose digits look alike draws empty boxes
_TEST = 10  # every tenth font is kept for the test split


def placed(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Scale a digit (256, 256) to 20 pixels and centre its mass: (28, 28)."""
    rows, columns = (np.flatnonzero(picture.any(axis)) for axis in (1, 0))
    ink = Image.fromarray(picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    size = tuple(max(1, round(side * _INK / max(ink.size))) for side in ink.size)
    small = np.asarray(ink.resize((size[0], size[1]), Image.Resampling.BOX))
    mass = small.astype(float) + 1e-9
    out = np.zeros((_SIDE, _SIDE), np.uint8)
    corner = []
    for axis in (0, 1):
        along = mass.sum(1 - axis)
        centre = float(along @ np.arange(len(along)) / along.sum())
        most = _SIDE - small.shape[axis]
        corner.append(min(max(round(_SIDE / 2 - 0.5 - centre), 0), most))
    top, left = corner
    out[top : top + small.shape[0], left : left + small.shape[1]] = small
    return out


def draw(fonts: Path, out: Path) -> None:
    """Draw all fonts' digits into one npz, in MedMNIST's format."""
    images: dict[str, list[NDArray[np.uint8]]] = {"train": [], "test": []}
    paths = list_fonts(fonts)
    with Painter() as painter:
        for number, path in enumerate(paths):
            drawn = painter.pictures(fonts / path, DIGITS)
            if drawn is None:
                continue
            digits = np.stack([placed(picture) for picture in drawn[:, 0]])
            if len({d[::2, ::2].tobytes() for d in digits}) >= _LEAST_DISTINCT:
                images["test" if number % _TEST == 0 else "train"].append(digits)
            if number % 100 == 0:
                print(f"\r{number} of {len(paths)} fonts", end="", flush=True)
    arrays = {}
    for split, found in images.items():
        arrays[f"{split}_images"] = np.concatenate(found)
        arrays[f"{split}_labels"] = np.tile(np.arange(len(DIGITS)), len(found))[:, None]
        print(f"\n{split}: {len(found)} fonts")
    np.savez_compressed(out, **arrays)


if __name__ == "__main__":
    benchmark(draw)
