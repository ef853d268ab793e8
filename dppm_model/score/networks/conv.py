"""``conv``: residual blocks of 3×3 convolutions, all at one resolution."""

from __future__ import annotations

from dataclasses import dataclass
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
class ConvConfig(NetworkConfig, kind="conv"):
    """Settings of `ConvResidual`.

    Attributes
    ----------
    fold
        fold × fold pixels of the band become the channels of one place.
    channels, blocks
        Channels of a place, and the number of residual blocks.
    """

    fold: Annotated[int, Between(1, 64)] = 4
    channels: Annotated[int, Between(1, 4096)] = 24
    blocks: Annotated[int, Between(1, 64)] = 3

    def build(
        self, shape: tuple[int, int, int], classes: int, sigmas: tuple[float, float]
    ) -> nn.Module:
        """See `NetworkConfig`."""
        return ConvResidual(shape, classes, sigmas, self)


class ConvResidual(nn.Module):
    """Residual blocks of 3×3 convolutions on the folded band.

    The band is folded to h/f × w/f places of C·f² channels: a place sees f × f pixels at once, and
    all products are over few places with many channels.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int,
        sigmas: tuple[float, float],
        config: ConvConfig,
    ) -> None:
        super().__init__()
        c, h, w = shape
        fold, channels = config.fold, config.channels
        if h % fold or w % fold:
            raise ConfigError(
                f"residual.network.fold is {fold}, but the band has {h} x {w} pixels.",
                "Choose residual.band as a multiple of residual.network.fold.",
            )
        self.fold = fold
        pixels = c * fold**2
        self.conditioning = Conditioning(classes, channels, sigmas)
        self.first = nn.Conv2d(2 * pixels + 2, channels, 3, padding=1)
        self.films = nn.ModuleList(Linear(channels, 2 * channels) for _ in range(config.blocks))
        self.blocks = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=1) for _ in range(config.blocks)
        )
        self.last = nn.Conv2d(channels, pixels, 3, padding=1)

    def forward(
        self, z: torch.Tensor, base: torch.Tensor, sigma: torch.Tensor, y: torch.Tensor
    ) -> torch.Tensor:
        """Noisy and base-denoised image, both (n, C, h, w) -> (n, C, h, w)."""
        e = self.conditioning(sigma, y)
        z = z * c_in(sigma)[:, None, None, None]
        x = functional.pixel_unshuffle(torch.cat([z, base], dim=1), self.fold)
        n, _, h, w = x.shape
        rows = torch.linspace(-1, 1, h, device=x.device)[:, None].expand(n, 1, h, w)
        columns = torch.linspace(-1, 1, w, device=x.device).expand(n, 1, h, w)
        x = torch.cat([x, rows, columns], dim=1)
        x = x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)  # channels last: faster here
        x = self.first(x)
        for film, block in zip(self.films, self.blocks, strict=True):
            scale, shift = film(e)[:, :, None, None].chunk(2, dim=1)
            x = x + block(functional.silu(functional.group_norm(x, 1) * (1 + scale) + shift))
        x = self.last(functional.silu(functional.group_norm(x, 1)))
        return functional.pixel_shuffle(x, self.fold)
