"""The residual network F on top of the closed form, D = D_base + s(sigma) · F.

s is the typical error of the base at sigma, so F's target has unit variance at every noise level:
what EDM's c_skip and c_out do for a network from scratch (Karras et al. 2022, table 1), the closed
form does here. c_in and c_noise are EDM's. The last layer starts at zero: F can only add.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.func import functional_call
from torch.nn import functional as f

from dppm_model.errors import ConfigError
from dppm_model.mechanism.gradients import Gradients
from dppm_model.score.settings import from_settings

SIGMA_DATA = 0.5  # EDM's, for images in [-1, 1]
_MOST_CELLS = 8  # images are folded until they are at most this many cells a side


@dataclass(frozen=True)
class ResidualConfig:
    """The network and how it learns.

    Attributes
    ----------
    channels, blocks
        Width and depth.
    draws
        K, noise draws a record, averaged *before* clipping (Dockhorn et al. 2023).
    sigma_low, sigma_high
        ln sigma is uniform between the logarithms of these.
    learning_rate, warmup, rounds, ema
        Adam's step, linear warm-up, the length of the cosine decay (to a tenth), averaging.
    clip_share
        The clip norm as a share of the median gradient norm on images of the closed form.
    """

    channels: int = 24
    blocks: int = 3
    draws: int = 2
    sigma_low: float = 0.15
    sigma_high: float = 3.0
    learning_rate: float = 0.01
    warmup: int = 10
    rounds: int = 100
    ema: float = 0.95
    clip_share: float = 0.8

    def __post_init__(self) -> None:
        for name in (x.name for x in fields(self)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
                raise ConfigError(f"residual.{name} is {value!r}.", "Give a number above zero.")
        for name in ("channels", "blocks", "draws", "warmup", "rounds"):
            if not isinstance(getattr(self, name), int):
                raise ConfigError(f"residual.{name} is not whole.", "Give a whole number.")
        if not self.ema < 1 or self.sigma_low >= self.sigma_high:
            raise ConfigError(
                "residual.ema or sigma_low is too large.", "ema < 1 and sigma_low < sigma_high."
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ResidualConfig:
        """Build from a plain dictionary; missing keys take their defaults.

        Raises
        ------
        ConfigError
            If a key is unknown or a value is out of range.
        """
        return from_settings(cls, "residual", values)


class Block(nn.Module):
    """3×3 convolution of the normalised, modulated input, added to it."""

    def __init__(self, channels: int, condition: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, channels)
        self.film = nn.Linear(condition, 2 * channels)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, h: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """Map h (n, channels, H, W), condition (n, c), to the shape of h."""
        scale, shift = self.film(condition)[:, :, None, None].chunk(2, dim=1)
        out: torch.Tensor = h + self.conv(f.silu(self.norm(h) * (1 + scale) + shift))
        return out


class ResidualNet(nn.Module):
    """F(x, D_base, sigma, y): image and base, folded to at most 8×8 cells, a few 3×3 blocks."""

    def __init__(self, shape: tuple[int, int, int], classes: int, config: ResidualConfig) -> None:
        super().__init__()
        c, height, width = shape
        self.classes, self.fold = classes, 1
        while max(height, width) / self.fold > _MOST_CELLS and not (
            height % (2 * self.fold) or width % (2 * self.fold)
        ):
            self.fold *= 2
        cells = c * self.fold**2
        condition = classes + 5
        self.enter = nn.Conv2d(2 * cells + 2, config.channels, 3, padding=1)
        self.blocks = nn.ModuleList(Block(config.channels, condition) for _ in range(config.blocks))
        self.leave = nn.Conv2d(config.channels, cells, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]

    def forward(
        self, x: torch.Tensor, base: torch.Tensor, sigma: torch.Tensor, y: torch.Tensor
    ) -> torch.Tensor:
        """x, base (n, C, H, W), sigma (n,), y one-hot (n, classes) -> (n, C, H, W)."""
        c_in = torch.rsqrt(sigma**2 + SIGMA_DATA**2)[:, None, None, None]
        c_noise = sigma.log() / 4
        images = f.pixel_unshuffle(torch.cat([c_in * x, base], dim=1), self.fold)
        n, _, rows, columns = images.shape
        down = torch.linspace(-1, 1, rows)[None, None, :, None].expand(n, 1, rows, columns)
        right = torch.linspace(-1, 1, columns)[None, None, None, :].expand(n, 1, rows, columns)
        waves = [
            c_noise,
            *(g(k * math.pi * c_noise) for k in (1, 2) for g in (torch.sin, torch.cos)),
        ]
        condition = torch.cat([y, torch.stack(waves, dim=1)], dim=1)
        h = self.enter(torch.cat([images, down, right], dim=1))
        for block in self.blocks:
            h = block(h, condition)
        out: torch.Tensor = f.pixel_shuffle(self.leave(f.silu(h)), self.fold)
        return out


def build(shape: tuple[int, int, int], classes: int, settings: Mapping[str, Any]) -> Gradients:
    """Build the network, with seeded public first weights, and its per-record gradients."""
    config = ResidualConfig.from_dict(settings)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = ResidualNet(shape, classes, config)
    return Gradients(net, record_loss)


def record_loss(
    network: Any,
    target: torch.Tensor,
    x: torch.Tensor,
    base: torch.Tensor,
    sigma: torch.Tensor,
    y: torch.Tensor,
) -> torch.Tensor:
    """Denoising score matching of one record over its K draws.

    With target = (clean - D_base)/s(sigma) this is EDM's weighted loss of D (equation 8), where the
    weight is 1/s^2. Shapes: target, x, base (K, C, H, W), sigma (K,), y (classes,).
    """
    out = network(x, base, sigma, y.expand(len(x), -1))
    loss: torch.Tensor = ((out - target) ** 2).mean()
    return loss


def load_residual(meta: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Any:
    """Return F(x, D_base, sigma, y) with the averaged weights of a model."""
    shape = (int(meta["shape"][0]), int(meta["shape"][1]), int(meta["shape"][2]))
    classes = int(meta["classes"])
    gradients = build(shape, classes, meta["residual"])
    flat = torch.from_numpy(np.array(arrays["residual.ema"]))
    weights = gradients.unflatten(flat)

    def residual(
        x: torch.Tensor, base: torch.Tensor, sigma: torch.Tensor, y: torch.Tensor
    ) -> torch.Tensor:
        inputs = (x, base, sigma, f.one_hot(y, classes).float())
        out: torch.Tensor = functional_call(gradients.module, weights, inputs)
        return out

    return residual
