"""The pyramid: a base image, and octaves that double it until it has its full size.

    p(image) = p(base; s_1) · prod_o p(image_o; s_(o+1) | image_(o-1) with noise s_o)

Each stage hands its image on with noise of a public level s: what lies below that level the next
octave makes anew, together with what is finer. (Ho et al. 2022 degrade what a stage is given in
training so that it forgives the errors of the one below; here the noise is the sampler's own, so
training and sampling see the same distribution.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file
from torch import nn
from torch.nn import functional

from dppm_model.records.pixels import to_tensor
from dppm_model.score.detail_network import FOLD, REACH, DetailNetwork, Local, look, parts, scaled
from dppm_model.score.networks import set_weights, zeroed
from dppm_model.score.pyramid_config import PyramidConfig

_PLACES = 1 << 14  # of the network, in one evaluation: what bounds its memory
START = Path(__file__).with_name("shapes.safetensors")  # see `shape_training`
KINDS = {1: "grey", 3: "rgb"}
_TRAINED = ("conditioning.", "films.", "last.")
_CHUNK = 64  # records a time whose large images are in memory as floats


def to_base(pixels: NDArray[np.uint8], octaves: int) -> torch.Tensor:
    """Average uint8 (n, C, H, W) over squares: the base images, float32 (n, C, h, w) in [-1, 1]."""
    if not octaves:
        return to_tensor(pixels)
    pieces = [
        functional.avg_pool2d(to_tensor(pixels[i : i + _CHUNK]), 2**octaves)
        for i in range(0, len(pixels), _CHUNK)
    ]
    c, h, w = pixels.shape[1], pixels.shape[2] >> octaves, pixels.shape[3] >> octaves
    return torch.cat([torch.empty(0, c, h, w), *pieces])


def start_weights(colours: int) -> NDArray[np.float32]:
    """Return the weights (d,) that drawn shapes taught, for images of so many channels (1 or 3)."""
    weights: NDArray[np.float32] = load_file(START)[KINDS[colours]].astype(np.float32)
    return weights


def build_detail(colours: int, arrays: Mapping[str, NDArray[np.generic]]) -> nn.Module:
    """Build the detail network, with the weights it starts from if the arrays have them.

    What private rounds train of it is trainable: how noise modulates it, and the last layer. Most
    of it stays as drawn shapes taught it, for the noise of a private gradient grows with its size.
    """
    with torch.device("meta"):  # no default initialisation: it would draw from a global generator
        network: nn.Module = DetailNetwork(colours)
    network = zeroed(network)
    if "detail.start" in arrays:
        set_weights(network, arrays["detail.start"])  # type: ignore[arg-type]
    for name, p in network.named_parameters():
        p.requires_grad_(name.startswith(_TRAINED))
    return network


@dataclass(frozen=True)
class Octave:
    """One doubling of images that are there: a `Denoiser` of what it adds, the residual.

    Attributes
    ----------
    network
        The detail network.
    below
        (n, C, h, w) the images below, with noise of standard deviation ``level``.
    classes
        Number of classes, which the details do not depend on.
    """

    network: nn.Module
    below: torch.Tensor
    level: float
    classes: int
    local: Local = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "local", look(self.below))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, 2h, 2w)."""
        _, c, h, w = self.local.enlarged.shape
        return c, h, w

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return E[residual | x, image below], (n, C, 2h, 2w).

        A few images are done at a time, or strips of a large one with all that the network sees
        around them: the memory that it takes does not grow with the image.
        """
        del y
        _, h, w = self.shape
        step = max(1, _PLACES * FOLD**2 // (h * w))
        strip = max(FOLD, _PLACES * FOLD // w * FOLD)
        out = torch.empty_like(x)
        for start in range(0, len(x), step):
            images = slice(start, start + step)
            for top in range(0, h, strip):
                low, high = max(0, top - REACH), min(h, top + strip + REACH)
                done = self._denoise(x, sigma, images, slice(low, high))
                out[images, :, top : top + strip] = done[:, :, top - low :][:, :, :strip]
        return out

    def _denoise(
        self, x: torch.Tensor, sigma: torch.Tensor, images: slice, rows: slice
    ) -> torch.Tensor:
        """Denoise some rows of some images, as if there were no others."""
        few, noise = x[images, :, rows], sigma[images]
        local = Local(*(t[images, :, rows] for t in self.local))
        base, c_out = parts(few, noise, local)
        level = torch.full_like(noise, self.level)
        below = self.below[images, :, rows.start // 2 : rows.stop // 2]
        f: torch.Tensor = self.network(*scaled(few, noise, local), below, noise, level)
        return base + c_out * f

    def class_shift(self, x: torch.Tensor, sigma: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return zero: the details know no class."""
        del sigma, y
        return torch.zeros_like(x)

    def finish(self, residual: torch.Tensor) -> torch.Tensor:
        """Return the images: what is below, enlarged, and the residual."""
        return self.local.enlarged + residual


@dataclass(frozen=True)
class Pyramid:
    """The octaves of a model, lowest first."""

    network: nn.Module
    config: PyramidConfig
    classes: int

    def octave(self, index: int, below: torch.Tensor) -> Octave:
        """Set an octave (from 0) upon images (n, C, h, w) that carry its level of noise."""
        return Octave(self.network, below, self.config.levels[index], self.classes)


def load_pyramid(
    config: PyramidConfig, colours: int, classes: int, arrays: Mapping[str, NDArray[np.generic]]
) -> Pyramid:
    """Build the octaves with the averaged weights of a model."""
    network = build_detail(colours, arrays)
    set_weights(network, arrays["detail.ema"])  # type: ignore[arg-type]
    return Pyramid(network.requires_grad_(False), config, classes)
