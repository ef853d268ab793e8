"""Networks F for the residual: what the closed-form denoiser misses.

``D = D_base + c_out(sigma) · F``. F sees the noisy and the base-denoised image in a band of low
frequencies, and begins at zero, so that it can only add. All parameters stand in ``Linear`` and
``Conv2d`` layers, and normalisation is over one record at a time: that is what makes per-record
gradients fast (`dppm_model.mechanism.gradients`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from dppm_model.errors import ConfigError
from dppm_model.mechanism.products import Linear, sides
from dppm_model.score.dct import dct_matrix
from dppm_model.score.precondition import WAVES, c_in, waves
from dppm_model.score.residual_config import ResidualConfig

if TYPE_CHECKING:
    from dppm_model.score.model_config import ModelConfig


@dataclass(frozen=True)
class Band:
    """The lowest ``side`` × ``side`` frequencies of an image, as a small image.

    The map is orthonormal: white noise stays white noise of the same standard deviation.
    """

    shape: tuple[int, int, int]
    side: int

    @property
    def small(self) -> tuple[int, int, int]:
        """(C, h, w) of the small image."""
        c, h, w = self.shape
        return c, min(self.side, h), min(self.side, w)

    @cached_property
    def _matrices(self) -> list[torch.Tensor]:
        sides = zip(self.small[1:], self.shape[1:], strict=True)
        return [(dct_matrix(s).T @ dct_matrix(n)[:s]).float() for s, n in sides]

    def down(self, x: torch.Tensor) -> torch.Tensor:
        """(n, C, H, W) -> (n, C, h, w)."""
        rows, columns = self._matrices
        return sides(rows, x, columns)

    def up(self, z: torch.Tensor) -> torch.Tensor:
        """(n, C, h, w) -> (n, C, H, W)."""
        rows, columns = self._matrices
        return sides(rows.T, z, columns.T)


class Conditioning(nn.Module):
    """Class and noise level -> a vector, (n, size); beyond the range of training it stays put."""

    def __init__(self, classes: int, config: ResidualConfig) -> None:
        super().__init__()
        self.classes = classes
        self.range = config.sigma_low, config.sigma_high
        self.linear = Linear(classes + 2 * WAVES, config.channels)

    def forward(self, sigma: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Sigma (n,), y (n,)."""
        onehot = y[:, None] == torch.arange(self.classes)  # one_hot cannot be vmapped
        out: torch.Tensor = self.linear(torch.cat([onehot, waves(sigma.clamp(*self.range))], dim=1))
        return functional.silu(out)


class ConvResidual(nn.Module):
    """Residual blocks of 3×3 convolutions on the folded band; ``conv``.

    The band is folded to h/f × w/f places of C·f² channels: a place sees f × f pixels at once, and
    all products are over few places with many channels.
    """

    def __init__(self, shape: tuple[int, int, int], classes: int, config: ResidualConfig) -> None:
        super().__init__()
        c, h, w = shape
        fold, channels = config.fold, config.channels
        if h % fold or w % fold:
            raise ConfigError(
                f"residual.fold is {fold}, but the band has {h} x {w} pixels.",
                "Choose residual.band as a multiple of residual.fold.",
            )
        self.fold = fold
        pixels = c * fold**2
        self.conditioning = Conditioning(classes, config)
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
        rows = torch.linspace(-1, 1, h)[:, None].expand(n, 1, h, w)
        columns = torch.linspace(-1, 1, w).expand(n, 1, h, w)
        x = torch.cat([x, rows, columns], dim=1)
        x = x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)  # channels last: faster here
        x = self.first(x)
        for film, block in zip(self.films, self.blocks, strict=True):
            scale, shift = film(e)[:, :, None, None].chunk(2, dim=1)
            x = x + block(functional.silu(functional.group_norm(x, 1) * (1 + scale) + shift))
        x = self.last(functional.silu(functional.group_norm(x, 1)))
        return functional.pixel_shuffle(x, self.fold)


class MlpResidual(nn.Module):
    """A perceptron on the coefficients of the band; ``dct_mlp``."""

    def __init__(self, shape: tuple[int, int, int], classes: int, config: ResidualConfig) -> None:
        super().__init__()
        size, channels = math.prod(shape), config.channels
        self.conditioning = Conditioning(classes, config)
        self.first = Linear(2 * size, channels)
        self.blocks = nn.ModuleList(Linear(channels, channels) for _ in range(config.blocks))
        self.last = Linear(channels, size)

    def forward(
        self, z: torch.Tensor, base: torch.Tensor, sigma: torch.Tensor, y: torch.Tensor
    ) -> torch.Tensor:
        """As `ConvResidual.forward` (the small image is the coefficients, rotated)."""
        e = self.conditioning(sigma, y)
        x = torch.cat([z.flatten(1) * c_in(sigma)[:, None], base.flatten(1)], dim=1)
        x = self.first(x) + e
        for block in self.blocks:
            x = x + block(functional.silu(functional.layer_norm(x, x.shape[1:])))
        out: torch.Tensor = self.last(functional.silu(functional.layer_norm(x, x.shape[1:])))
        return out.view_as(z)


def lay_out_network(
    config: ResidualConfig, shape: tuple[int, int, int], classes: int
) -> tuple[Band, nn.Module]:
    """Lay out the band and the network of a configuration; its weights have sizes but no memory.

    Raises
    ------
    ConfigError
        If the band cannot be folded.
    """
    band = Band(shape, config.band)
    with torch.device("meta"):  # no default initialisation: it would draw from a global generator
        kind = ConvResidual if config.network == "conv" else MlpResidual
        network = kind(band.small, classes, config)
    return band, network


def build_network(
    config: ResidualConfig, shape: tuple[int, int, int], classes: int
) -> tuple[Band, nn.Module]:
    """Do the same, with weights that are zero."""
    band, network = lay_out_network(config, shape, classes)
    return band, zeroed(network)


def zeroed(network: nn.Module) -> nn.Module:
    """Give a network of the meta device memory, all zeros.

    What was freed there before, another record perhaps, must not become a weight: a model that
    lacks weights would then make answers depend on more than the record and the model.
    """
    network = network.to_empty(device="cpu")
    with torch.no_grad():
        for p in network.parameters():
            p.zero_()
    return network


def first_weights(network: nn.Module, seed: int) -> torch.Tensor:
    """Draw the weights (d,) that training begins with: variance 1/fan-in, last layer zero."""
    generator = torch.Generator().manual_seed(seed)
    draws = []
    for name, p in network.named_parameters():
        fan_in = p[0].numel()
        zero = p.ndim == 1 or name.startswith("last.")
        draws.append(torch.randn(p.numel(), generator=generator) * (0.0 if zero else fan_in**-0.5))
    return torch.cat(draws)


def set_weights(network: nn.Module, weights: NDArray[np.float32]) -> None:
    """Set all trainable weights from one vector (d,), in the order of `nn.Module.parameters`."""
    trained = [p for p in network.parameters() if p.requires_grad]
    # Copied, each into memory of its own that begins a cache line (`mechanism.products`).
    parts = torch.split(torch.tensor(weights), [p.numel() for p in trained])
    with torch.no_grad():
        for p, values in zip(trained, parts, strict=True):
            p.copy_(values.view_as(p))


def load_residual(
    config: ModelConfig, weights: NDArray[np.float32]
) -> Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]:
    """Return F(x, D_base, sigma, y), all of base images, with these weights (d,)."""
    assert config.residual is not None
    band, network = build_network(config.residual, config.base_shape, config.classes)
    set_weights(network, weights)

    @torch.no_grad()
    def residual(
        x: torch.Tensor, base: torch.Tensor, sigma: torch.Tensor, y: torch.Tensor
    ) -> torch.Tensor:
        return band.up(network(band.down(x), band.down(base), sigma, y))

    return residual
