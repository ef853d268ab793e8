"""``dct_mlp``: a perceptron on the coefficients of the band."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import nn
from torch.nn import functional

from dppm_model.bounds import Between
from dppm_model.mechanism.products import Linear
from dppm_model.score.networks._network import Conditioning, NetworkConfig
from dppm_model.score.precondition import c_in


@dataclass(frozen=True)
class MlpConfig(NetworkConfig, kind="dct_mlp"):
    """Settings of `MlpResidual`.

    Attributes
    ----------
    channels, blocks
        Hidden units, and the number of residual blocks.
    """

    channels: Annotated[int, Between(1, 4096)] = 24
    blocks: Annotated[int, Between(1, 64)] = 3

    def build(
        self, shape: tuple[int, int, int], classes: int, sigmas: tuple[float, float]
    ) -> nn.Module:
        """See `NetworkConfig`."""
        return MlpResidual(shape, classes, sigmas, self)


class MlpResidual(nn.Module):
    """A perceptron on the coefficients of the band."""

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int,
        sigmas: tuple[float, float],
        config: MlpConfig,
    ) -> None:
        super().__init__()
        size, channels = math.prod(shape), config.channels
        self.conditioning = Conditioning(classes, channels, sigmas)
        self.first = Linear(2 * size, channels)
        self.blocks = nn.ModuleList(Linear(channels, channels) for _ in range(config.blocks))
        self.last = Linear(channels, size)

    def forward(
        self, z: torch.Tensor, base: torch.Tensor, sigma: torch.Tensor, y: torch.Tensor
    ) -> torch.Tensor:
        """Noisy and denoised image, both (n, C, h, w): the coefficients, rotated."""
        e = self.conditioning(sigma, y)
        x = torch.cat([z.flatten(1) * c_in(sigma)[:, None], base.flatten(1)], dim=1)
        x = self.first(x) + e
        for block in self.blocks:
            x = x + block(functional.silu(functional.layer_norm(x, x.shape[1:])))
        out: torch.Tensor = self.last(functional.silu(functional.layer_norm(x, x.shape[1:])))
        return out.view_as(z)
