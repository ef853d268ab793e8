"""Spectra of public images, beside the prior of the closed form (`dppm_model.score.dct`).

    python -m tests.benchmarks.spectra --photographs FOLDER... --drawings FOLDER...

Folders hold images in any depth. The recorded figures come from four packages of Debian 12 that
`apt-get download` and `dpkg -x` unpack: photographs from lomiri-wallpapers-16.04,
lomiri-wallpapers-20.04 and the folder `nature` of mate-backgrounds; drawings from openclipart-png.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from dppm_model.score.dct import Basis
from tests.benchmarks.runner import benchmark

SIZES = (28, 32, 48, 64)
_CROPS, _DRAWINGS = 48, 2000
_LEAST_SIDE = 4 * SIZES[-1]  # of a crop of a photograph
_MOST_PIXELS = 30_000_000
_SUFFIXES = {".jpg", ".jpeg", ".png"}

Resized = dict[int, NDArray[np.uint8]]


def opened(folders: Sequence[Path], mode: str) -> Iterator[Image.Image]:
    """Open the images in folders that are neither too small nor too large, in random order."""
    paths = (p for f in folders for p in sorted(f.rglob("*")) if p.suffix.lower() in _SUFFIXES)
    for path in np.random.default_rng(0).permutation(np.array(list(paths), object)):
        Image.MAX_IMAGE_PIXELS = None  # nothing but the size is read before it is looked at
        with Image.open(path) as image:
            if min(image.size) >= 2 * SIZES[-1] and math.prod(image.size) <= _MOST_PIXELS:
                yield image.convert(mode)


def crops(folders: Sequence[Path]) -> Iterator[Image.Image]:
    """Yield square crops of every scale: a photograph of a thing shows a part of the world."""
    rng = np.random.default_rng(0)
    for image in opened(folders, "RGB"):
        scales = [math.log(_LEAST_SIDE), math.log(min(image.size))]
        for scale in rng.uniform(*scales, _CROPS):
            side = round(math.exp(scale))
            left, top = (int(rng.integers(whole - side + 1)) for whole in image.size)
            yield image.crop((left, top, left + side, top + side))


def on_white(folders: Sequence[Path]) -> Iterator[Image.Image]:
    """Yield drawings on white squares."""
    for _, image in zip(range(_DRAWINGS), opened(folders, "RGBA"), strict=False):
        side = max(image.size)
        square = Image.new("RGBA", (side, side), "white")
        square.alpha_composite(image, ((side - image.width) // 2, (side - image.height) // 2))
        yield square.convert("RGB")


def resized(images: Iterable[Image.Image]) -> Resized:
    """Return images in all sizes, (n, size, size, 3)."""
    box = Image.Resampling.BOX
    small = [{size: np.asarray(i.resize((size, size), box)) for size in SIZES} for i in images]
    return {size: np.stack([each[size] for each in small]) for size in SIZES}


def spectrum(images: NDArray[np.uint8]) -> dict[str, Any]:
    """Return variances of coefficients by half octave of 1 + f, for pixels from -1 to 1.

    A row for each opponent colour; ``slope`` is that of the logarithms against each other.
    """
    size = images.shape[1]
    basis = Basis((3, size, size))
    variance = torch.cat(
        [
            basis.forward(torch.from_numpy(part.copy()).permute(0, 3, 1, 2) / 127.5 - 1)
            for part in np.array_split(images, 8)
        ]
    ).var(0)
    place = (basis.order % size**2).float()
    f = torch.hypot((place / size).floor(), place % size)
    shell = (2 * torch.log2(1 + f)).long()
    inside = f < size  # the corners hold hardly anything
    shells = [(shell == s) & inside for s in torch.unique(shell[inside])]
    middle = torch.tensor([float((1 + f[s]).log().mean()) for s in shells])
    rows = torch.tensor(
        [[float(variance[s & (basis.channel == c)].mean()) for s in shells] for c in range(3)]
    )
    centred = middle - middle.mean()
    slope = (rows.log() @ centred) / (centred @ centred)
    return {
        "images": len(images),
        "pixel_variance": significant(float(variance.mean())),
        "one_and_frequency": [significant(v) for v in middle.exp().tolist()],
        "variance": [[significant(v) for v in row] for row in rows.tolist()],
        "slope": [significant(v) for v in slope.tolist()],
    }


def significant(value: float) -> float:
    """Round to three digits."""
    return float(f"{value:.3g}")


def measure(photographs: Sequence[Path] = (), drawings: Sequence[Path] = ()) -> dict[str, Any]:
    """Measure photographs and drawings in several sizes."""
    torch.set_num_threads(1)
    kinds = {
        "photographs": resized(crops(photographs)),
        "drawings": resized(on_white(drawings)),
    }
    return {k: {str(size): spectrum(v[size]) for size in SIZES} for k, v in kinds.items()}


if __name__ == "__main__":
    benchmark(measure)
