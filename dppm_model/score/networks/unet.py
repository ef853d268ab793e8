"""``unet``: convolutions at several resolutions, with skips (Ronneberger et al. 2015).

On the way down, places are averaged two by two and channels doubled; on the way up, places are
repeated and concatenated with those of the same resolution on the way down. All convolutions have
stride one, so per-record gradients are exact and fast, as for every network here.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

import torch
from torch import nn
from torch.nn import functional

from dppm_model.bounds import Between
from dppm_model.errors import ConfigError
from dppm_model.mechanism.products import Linear
from dppm_model.score.networks._network import Conditioning, NetworkConfig
from dppm_model.score.precondition import c_in


@dataclass(frozen=True)
class UNetConfig(NetworkConfig, kind="unet"):
    """Settings of `UNet`.

    Attributes
    ----------
    fold
        At the input, fold × fold pixels of the band become the channels of one place.
    channels
        Channels of a place at the finest resolution.
    depth
        Number of halvings of the resolution.
    """

    fold: Annotated[int, Between(1, 64)] = 2
    channels: Annotated[int, Between(1, 1024)] = 16
    depth: Annotated[int, Between(1, 5)] = 1

    def build(
        self, shape: tuple[int, int, int], classes: int, sigmas: tuple[float, float]
    ) -> nn.Module:
        """See `NetworkConfig`."""
        return UNet(shape, classes, sigmas, self)


class UNet(nn.Module):
    """The network; its output is zero while its last layer is zero."""

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int,
        sigmas: tuple[float, float],
        config: UNetConfig,
    ) -> None:
        super().__init__()
        c, h, w = shape
        multiple = config.fold * 2**config.depth
        if h % multiple or w % multiple:
            raise ConfigError(
                f"residual.network.fold is {config.fold} and depth {config.depth}, but the band "
                f"has {h} x {w} pixels.",
                f"Choose residual.band as a multiple of {multiple}.",
            )
        self.fold = config.fold
        pixels, widths = c * config.fold**2, [config.channels << i for i in range(config.depth + 1)]
        self.conditioning = Conditioning(classes, widths[0], sigmas)
        self.first = _conv(2 * pixels, widths[0])
        self.downs = nn.ModuleList(_Block(widths[0], i, o) for i, o in _steps(widths))
        self.middle = _Block(widths[0], widths[-1], widths[-1])
        self.ups = nn.ModuleList(_Block(widths[0], i + o, i) for i, o in reversed(_steps(widths)))
        self.last = _conv(widths[0], pixels)

    def forward(
        self, z: torch.Tensor, base: torch.Tensor, sigma: torch.Tensor, y: torch.Tensor
    ) -> torch.Tensor:
        """Noisy and denoised image, both (n, C, h, w) -> (n, C, h, w)."""
        e = self.conditioning(sigma, y)
        z = z * c_in(sigma)[:, None, None, None]
        x = self.first(functional.pixel_unshuffle(torch.cat([z, base], dim=1), self.fold))
        skips = []
        for down in self.downs:
            skips.append(x)
            x = down(functional.avg_pool2d(x, 2), e)
        x = self.middle(x, e)
        for up in self.ups:
            x = functional.interpolate(x, scale_factor=2, mode="nearest")
            x = up(torch.cat([x, skips.pop()], dim=1), e)
        x = self.last(functional.silu(functional.group_norm(x, 1)))
        return functional.pixel_shuffle(x, self.fold)


class _Block(nn.Module):
    """A convolution of the normalised places, modulated by class and noise level."""

    def __init__(self, conditions: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.film = Linear(conditions, 2 * inputs)
        self.conv = _conv(inputs, outputs)

    def forward(self, x: torch.Tensor, e: torch.Tensor) -> torch.Tensor:
        scale, shift = self.film(e)[:, :, None, None].chunk(2, dim=1)
        out: torch.Tensor = self.conv(
            functional.silu(functional.group_norm(x, 1) * (1 + scale) + shift)
        )
        return x + out if out.shape == x.shape else out


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def _steps(widths: list[int]) -> list[tuple[int, int]]:
    return list(pairwise(widths))
