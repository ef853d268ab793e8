"""Pictures inside the page: a sheet a class, the film strip of the chain, twins and their records.

They are PNG in ``data:`` addresses, so that a page is one file and asks nobody for anything.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sampler.evaluation.classifier import shrink
from sampler.evaluation.nearest import nearest
from sampler.sheet import encoded_grid

_COLUMNS, _SIDE = 20, 96  # of a sheet; larger images are shrunk to this many pixels
_MOST_PIXELS = 1 << 17  # of a sheet: so that a page of a hundred classes stays a few MB


@dataclass(frozen=True)
class Picture:
    """An image of a page: ``address`` is its content, ``text`` what it shows, in words."""

    address: str
    text: str
    caption: str = ""


def from_file(path: Path, text: str, caption: str = "") -> Picture:
    """Take in a PNG file."""
    return Picture(_address(path.read_bytes()), text, caption)


def sheets(
    images: NDArray[np.uint8], labels: NDArray[np.int64], names: Sequence[str]
) -> list[Picture]:
    """Return one picture a class: its first images, none selected by its look.

    Parameters
    ----------
    images, labels
        (n, C, H, W) uint8 and (n,).
    names
        One a class.
    """
    side = min(_SIDE, max(images.shape[2:]))
    columns = max(4, min(_COLUMNS, _MOST_PIXELS // side**2))
    found = []
    for label, name in enumerate(names):
        few = images[labels == label][:columns]
        if len(few):
            found.append(
                Picture(_row(few, side), f"The first {len(few)} synthetic images of {name}", name)
            )
    return found


def twins(
    synthetic: NDArray[np.uint8], records: NDArray[np.uint8], pairs: int = 16
) -> list[Picture]:
    """Return synthetic images, evenly spaced, and the real record nearest to each.

    Both rows hold pictures of the same order: the second shows *private* records.
    """
    few = synthetic[np.linspace(0, len(synthetic) - 1, pairs).round().astype(int)]
    _, index = nearest(few, records)
    side = min(_SIDE, max(synthetic.shape[2:]))
    return [
        Picture(_row(few, side), f"{pairs} synthetic images", "synthetic"),
        Picture(
            _row(records[index], side), f"The real record nearest to each of the {pairs}", "real"
        ),
    ]


def _row(images: NDArray[np.uint8], side: int) -> str:
    small = shrink(images, side).numpy() if max(images.shape[2:]) > side else images
    labels = np.zeros(len(small), dtype=np.int64)
    return _address(encoded_grid(small, labels, np.arange(1), len(small), tile=1))


def _address(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
