"""A network on top of a denoiser, for the detail that the closed form misses.

    D(x; sigma, y) = D_below(x; sigma, y) + c_out(sigma) F(x, D_below, sigma, y)

with c_out the typical error of the denoiser below (`dppm_model.score.precondition`). F sees a band
of low frequencies and begins at zero; `dppm_model.score.networks` has its kinds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import torch
from torch import nn

from dppm_model.bounds import Between, from_settings
from dppm_model.errors import ConfigError
from dppm_model.mechanism.products import sides
from dppm_model.score.arrays import Arrays, ArraySpec, network_specs
from dppm_model.score.dct import dct_matrix
from dppm_model.score.denoiser import BaseDenoiser
from dppm_model.score.denoising import DenoisingPart
from dppm_model.score.networks import NetworkConfig, network_config
from dppm_model.score.networks.conv import ConvConfig
from dppm_model.score.part import Shape
from dppm_model.score.weights import set_weights, zeroed

if TYPE_CHECKING:
    from dppm_model.score.model_config import ModelConfig


@dataclass(frozen=True)
class ResidualConfig(DenoisingPart):
    """Constants of the ``score`` phase; see `DenoisingPart` for those of its rounds.

    Attributes
    ----------
    network
        Which network, and its own settings.
    band
        Side of the block of lowest frequencies that the network sees and corrects.
    """

    network: NetworkConfig = field(default_factory=ConvConfig)
    band: Annotated[int, Between(1, 256)] = 28

    group = "residual"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ResidualConfig:
        """See `Part.from_dict`."""
        if not isinstance(values, Mapping) or "network" not in values:
            return from_settings(cls, cls.group, values)
        network = network_config(values["network"])
        return from_settings(cls, cls.group, {**values, "network": network})

    def to_dict(self) -> dict[str, Any]:
        """See `Part.to_dict`."""
        return {**asdict(self), "network": self.network.to_dict()}

    def check(self, config: ModelConfig) -> None:
        """Refuse a model without a part below."""
        if config.parts[0] is self:
            raise ConfigError("The residual has no part below it.", "Add model.mixture.")

    def lay_out(self, shape: Shape, classes: int) -> tuple[Band, nn.Module]:
        """Lay out the band and the network; its weights have sizes but no memory.

        Raises
        ------
        ConfigError
            If the network does not fit the band.
        """
        band = Band(shape, self.band)
        with torch.device("meta"):  # no default initialisation from a global generator
            network = self.network.build(band.small, classes, self.sigmas)
        return band, network

    def build(self, shape: Shape, classes: int) -> tuple[Band, nn.Module]:
        """Build the band and the network, with all weights zero."""
        band, network = self.lay_out(shape, classes)
        return band, zeroed(network)

    def specs(self, config: ModelConfig) -> dict[str, ArraySpec]:
        """Return the rows of the network."""
        _, network = self.lay_out(config.base_shape, config.classes)
        return network_specs("residual", network.parameters())

    def denoiser(
        self, config: ModelConfig, arrays: Arrays, below: BaseDenoiser | None
    ) -> BaseDenoiser | None:
        """Put the network, with averaged weights, on the denoiser below, once it is trained."""
        if below is None or "residual.ema" not in arrays:
            return below
        band, network = self.build(config.base_shape, config.classes)
        set_weights(network.parameters(), arrays["residual.ema"])
        return ResidualDenoiser(below, band, network.requires_grad_(False))


class Band(nn.Module):
    """The lowest ``side`` × ``side`` frequencies of an image, as a small image.

    The map is orthonormal: white noise stays white noise of the same standard deviation.

    Attributes
    ----------
    small
        (C, h, w) of the small image.
    """

    rows: torch.Tensor
    columns: torch.Tensor

    def __init__(self, shape: Shape, side: int) -> None:
        super().__init__()
        c, h, w = shape
        self.small = c, min(side, h), min(side, w)
        for name, s, n in zip(("rows", "columns"), self.small[1:], (h, w), strict=True):
            matrix = (dct_matrix(s).T @ dct_matrix(n)[:s]).float()
            self.register_buffer(name, matrix, persistent=False)

    def down(self, x: torch.Tensor) -> torch.Tensor:
        """(n, C, H, W) -> (n, C, h, w)."""
        return sides(self.rows, x, self.columns)

    def up(self, z: torch.Tensor) -> torch.Tensor:
        """(n, C, h, w) -> (n, C, H, W)."""
        return sides(self.rows.T, z, self.columns.T)


class ResidualDenoiser(BaseDenoiser):
    """The denoiser below and the network F on top of it; see the module."""

    def __init__(self, below: BaseDenoiser, band: Band, network: nn.Module) -> None:
        super().__init__()
        self.shape, self.classes = below.shape, below.classes
        self.below, self.band, self.network = below, band, network

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """See `BaseDenoiser`."""
        base = self.below.denoise(x, sigma, y)
        with torch.no_grad():
            f = self.band.up(self.network(self.band.down(x), self.band.down(base), sigma, y))
        return base + self.below.error_std(sigma) * f

    def class_shift(self, x: torch.Tensor, sigma: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the shift of the denoiser below."""
        return self.below.class_shift(x, sigma, y)

    def error_std(self, sigma: torch.Tensor) -> torch.Tensor:
        """Return the error of the denoiser below, an approximate upper bound."""
        return self.below.error_std(sigma)
