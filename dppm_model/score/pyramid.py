"""The pyramid: a base image, and stages that double it until it has its full size.

    p(image) = p(base; s_1) · prod_o p(image_o; s_(o+1) | image_(o-1) with noise s_o)

Each stage passes its image on with noise of a public level s, and the next stage redraws all detail
below that level together with the finer detail. (Ho et al. 2022 degrade a stage's input in training
so that it tolerates errors of the stage below; here the noise is the sampler's own, so training and
sampling see the same distribution.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from dppm_model.bounds import Between
from dppm_model.errors import ConfigError
from dppm_model.mechanism.gradients import trainable
from dppm_model.score.arrays import (
    MOST_WEIGHT,
    Arrays,
    ArraySpec,
    digest_of,
    network_specs,
    require,
)
from dppm_model.score.part import Part, Shape
from dppm_model.score.public_weights import public_weights
from dppm_model.score.upsampler import (
    CROP,
    FOLD,
    LEAST_SIGMA,
    MOST_LOW_RES_SIGMA,
    REACH,
    Context,
    Upsampler,
    context_of,
    parts,
    scaled,
)
from dppm_model.score.weights import set_weights, zeroed

if TYPE_CHECKING:
    from dppm_model.score.model_config import ModelConfig

_LEAST_BASE = CROP // 2  # pixels a side of a base, so that the image above holds a crop
_BASE = 64  # least pixels of a base's shorter side where ``stages`` is None
_LARGEST_BASE = 127  # most pixels there: a larger base would be halved once more
_PLACES = 1 << 14  # of the network in one evaluation; bounds its memory
KINDS = {1: "grey", 3: "rgb"}
_START = "detail.start"
_TRAINED = ("conditioning.", "films.", "last.")


@dataclass(frozen=True)
class PyramidConfig(Part):
    """Constants of the stages; all public, none taken from private data.

    Attributes
    ----------
    stages
        How often the base image is doubled.
    details
        Whether a network, trained in private rounds, adds detail finer than the base. It starts
        from drawn shapes; it gives letters sharp edges and tears photographs. Without it, images
        are enlarged by cubic interpolation, which costs no privacy.
    switch_sigma, stage_switch_sigma
        Noise level at which the first stage takes over from the base, and each later stage from
        the one below; the stage draws all detail below that level.
    weights
        SHA-256 of the public weights that the upsampler starts from.
    clip_share
        The clip norm is this multiple of the median gradient norm on drawn shapes.
    learning_rate, warmup, rounds, ema
        As in `dppm_model.score.residual`, for the private rounds.
    """

    stages: Annotated[int, Between(1, 8)] = 1
    details: bool = True
    switch_sigma: Annotated[float, Between(LEAST_SIGMA, MOST_LOW_RES_SIGMA)] = 0.3
    stage_switch_sigma: Annotated[float, Between(LEAST_SIGMA, MOST_LOW_RES_SIGMA)] = 0.1
    weights: str = ""
    clip_share: Annotated[float, Between(1e-3, 1e3)] = 0.8
    learning_rate: Annotated[float, Between(0.0, 10.0)] = 0.002
    warmup: Annotated[int, Between(1, 1e6)] = 5
    rounds: Annotated[int, Between(1, 1e6)] = 40
    ema: Annotated[float, Between(0.0, 0.9999)] = 0.9

    group = "pyramid"

    @classmethod
    def of(cls, values: Mapping[str, Any], image: Shape) -> PyramidConfig:
        """Build it for images (C, H, W), and name this installation's public weights.

        If ``stages`` is None, as many are made as leave the base's shorter side 64 pixels or more.

        Raises
        ------
        ConfigError
            If a key is unknown or a value is out of range; if the sides cannot be halved that
            often, the base would be too small, or the image is neither grey nor RGB.
        """
        wanted = values.get("stages")
        stages = _most_stages(image, _BASE) if wanted is None else wanted
        if wanted is None and not stages:
            raise _too_many(None, image)
        config = cls.from_dict({**values, "stages": stages})
        config._check(image)
        if wanted is None and (side := min(config.inner_shape(image)[1:])) > _LARGEST_BASE:
            raise ConfigError(
                f"Images have {image[1]} x {image[2]} pixels, but their base has sides of {side}.",
                "Import them with a --size such as 128, 192 or 256, or set pyramid.stages.",
            )
        weights = digest_of(start_weights(image[0])) if config.details else ""
        return replace(config, weights=weights)

    def check(self, config: ModelConfig) -> None:
        """Refuse images that do not fit the stages.

        Raises
        ------
        ConfigError
            If their sides cannot be halved that often, or they are neither grey nor RGB.
        """
        self._check(config.shape)

    def _check(self, image: Shape) -> None:
        if self.stages > _most_stages(image, _LEAST_BASE):
            raise _too_many(self.stages, image)
        if image[0] not in KINDS:
            raise ConfigError(
                f"The pyramid is for grey and RGB images, not for {image[0]} channels.",
                "Import the images as grey or RGB.",
            )

    @property
    def levels(self) -> tuple[float, ...]:
        """Noise level at which each stage takes over, lowest first."""
        return (self.switch_sigma, *(self.stage_switch_sigma,) * (self.stages - 1))

    def inner_shape(self, shape: Shape) -> Shape:
        """Return the (C, h, w) of the base of an image (C, H, W)."""
        channels, height, width = shape
        return channels, height >> self.stages, width >> self.stages

    def encode(self, x: torch.Tensor, arrays: Arrays) -> torch.Tensor:
        """Average images over squares, which gives the base images."""
        del arrays
        return functional.avg_pool2d(x, 2**self.stages)

    def decode(self, x: torch.Tensor, arrays: Arrays) -> torch.Tensor:
        """Enlarge base images, unless the network has done so."""
        del arrays
        if self.details:
            return x
        return functional.interpolate(
            x, scale_factor=2**self.stages, mode="bicubic", align_corners=False
        )

    def specs(self, config: ModelConfig) -> dict[str, ArraySpec]:
        """Return the rows of ``detail.start`` (public weights) and of the weights that train."""
        if not self.details:
            return {}
        network = lay_out_upsampler(config.shape[0])
        size = sum(p.numel() for p in network.parameters())
        start = ArraySpec((size,), -MOST_WEIGHT, MOST_WEIGHT, role="public", digest=self.weights)
        return {_START: start, **network_specs("detail", trainable(network).values())}

    @property
    def public_data(self) -> tuple[str, ...]:
        """See `Part`."""
        return ("drawn shapes",) if self.details else ()

    def public_arrays(self, config: ModelConfig) -> Arrays:
        """Return the weights pre-trained on drawn shapes."""
        return {_START: start_weights(config.shape[0])} if self.details else {}

    def upsampling(
        self, config: ModelConfig, arrays: Arrays, device: torch.device
    ) -> Pyramid | None:
        """Build the stages with the averaged weights, if there is a network."""
        if not self.details:
            return None
        require(arrays, (_START, "detail.ema"))
        network = build_upsampler(config.shape[0], arrays)
        set_weights(trainable(network).values(), arrays["detail.ema"])
        return Pyramid(network.requires_grad_(False).to(device), self, config.classes)


def _most_stages(image: tuple[int, int, int], least: int) -> int:
    """Return how often both sides can be halved and leave an even base of ``least`` or more pixels.

    Even, because the network works on the image above in squares of four pixels a side.
    """
    _, height, width = image
    stages = 0
    while height % 4 == width % 4 == 0 and min(height, width) >= 2 * least:
        height, width, stages = height // 2, width // 2, stages + 1
    return stages


def _too_many(stages: int | None, image: tuple[int, int, int]) -> ConfigError:
    most = _most_stages(image, _LEAST_BASE)
    return ConfigError(
        f"pyramid.stages is {stages}, but images have {image[1]} x {image[2]} pixels.",
        f"At most {most} fit: the base needs even sides of {_LEAST_BASE} pixels at least.",
    )


def start_weights(colours: int) -> NDArray[np.float32]:
    """Return the weights (d,) pre-trained on drawn shapes, for images of 1 or 3 channels.

    Raises
    ------
    ModelError
        If they are not installed here.
    """
    return public_weights("shapes", KINDS[colours])


def lay_out_upsampler(colours: int) -> nn.Module:
    """Lay out the network; its weights have sizes but no memory.

    Private rounds train only its noise modulation and last layer. The other weights stay as
    pre-trained, because the noise of a private gradient grows with its size.
    """
    with torch.device("meta"):  # no default initialisation: it would draw from a global generator
        network: nn.Module = Upsampler(colours)
    for name, p in network.named_parameters():
        p.requires_grad_(name.startswith(_TRAINED))
    return network


def build_upsampler(colours: int, arrays: Arrays) -> nn.Module:
    """Build the network with its public weights if the arrays have them, else zeros."""
    network = zeroed(lay_out_upsampler(colours))
    if _START in arrays:
        set_weights(network.parameters(), arrays[_START])
    return network


@dataclass(frozen=True)
class Stage:
    """One doubling of given images: a `Denoiser` of the residual that it adds.

    Attributes
    ----------
    network
        The upsampler.
    low_res
        (n, C, h, w) the images below, with noise of standard deviation ``level``.
    classes
        Number of classes; details do not depend on the class.
    """

    network: nn.Module
    low_res: torch.Tensor
    level: float
    classes: int
    context: Context = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "context", context_of(self.low_res))

    @property
    def device(self) -> torch.device:
        """The device of the images below."""
        return self.low_res.device

    @property
    def shape(self) -> Shape:
        """(C, 2h, 2w)."""
        _, c, h, w = self.context.enlarged.shape
        return c, h, w

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return E[residual | x, image below], (n, C, 2h, 2w).

        It denoises a few images at a time, or strips of a large one with their surroundings, so
        that its memory does not grow with the image.
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
        """Denoise some rows of some images on their own."""
        few, noise = x[images, :, rows], sigma[images]
        context = Context(*(t[images, :, rows] for t in self.context))
        base, c_out = parts(few, noise, context)
        level = torch.full_like(noise, self.level)
        low_res = self.low_res[images, :, rows.start // 2 : rows.stop // 2]
        f: torch.Tensor = self.network(*scaled(few, noise, context), low_res, noise, level)
        return base + c_out * f

    def class_shift(self, x: torch.Tensor, sigma: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return zero: details do not depend on the class."""
        del sigma, y
        return torch.zeros_like(x)

    def finish(self, residual: torch.Tensor) -> torch.Tensor:
        """Return the images: the enlarged images below plus the residual."""
        return self.context.enlarged + residual


@dataclass(frozen=True)
class Pyramid:
    """The stages of a model, lowest first."""

    network: nn.Module
    config: PyramidConfig
    classes: int

    @property
    def levels(self) -> tuple[float, ...]:
        """See `PyramidConfig.levels`."""
        return self.config.levels

    def stage(self, index: int, low_res: torch.Tensor) -> Stage:
        """Condition a stage (from 0) on images (n, C, h, w) that carry its level of noise."""
        return Stage(self.network, low_res, self.config.levels[index], self.classes)
