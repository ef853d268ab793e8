"""Common to all networks for the residual: settings, registry, conditioning, first weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional

from dppm_model.bounds import check_settings
from dppm_model.mechanism.products import Linear
from dppm_model.score.precondition import WAVES, waves

KINDS: dict[str, type[NetworkConfig]] = {}  # of networks, by name


class NetworkConfig(ABC):
    """Settings of one kind of network: a frozen dataclass, registered under its ``kind``."""

    kind: ClassVar[str]

    def __init_subclass__(cls, kind: str) -> None:
        cls.kind = kind
        KINDS[kind] = cls

    def __post_init__(self) -> None:
        check_settings(self, "residual.network")

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dictionary that `network_config` reads back."""
        return {"kind": self.kind, **asdict(self)}  # type: ignore[call-overload]

    @abstractmethod
    def build(
        self, shape: tuple[int, int, int], classes: int, sigmas: tuple[float, float]
    ) -> nn.Module:
        """Build F(z, base, sigma, y) of band images (n, C, h, w) of this shape.

        Parameters
        ----------
        sigmas
            The least and the greatest noise level in training.

        Raises
        ------
        ConfigError
            If the settings do not fit the shape.
        """


class Conditioning(nn.Module):
    """Class and noise level -> a vector, (n, size); constant beyond the range of training."""

    def __init__(self, classes: int, channels: int, sigmas: tuple[float, float]) -> None:
        super().__init__()
        self.classes = classes
        self.range = sigmas
        self.linear = Linear(classes + 2 * WAVES, channels)

    def forward(self, sigma: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Embed sigma (n,) and y (n,)."""
        onehot = y[:, None] == torch.arange(
            self.classes, device=y.device
        )  # one_hot cannot be vmapped
        out: torch.Tensor = self.linear(torch.cat([onehot, waves(sigma.clamp(*self.range))], dim=1))
        return functional.silu(out)


def first_weights(network: nn.Module, seed: int) -> torch.Tensor:
    """Draw the weights (d,) that training begins with: variance 1/fan-in, last layer zero."""
    generator = torch.Generator().manual_seed(seed)
    draws = []
    for name, p in network.named_parameters():
        fan_in = p[0].numel()
        zero = p.ndim == 1 or name.startswith("last.")
        draws.append(torch.randn(p.numel(), generator=generator) * (0.0 if zero else fan_in**-0.5))
    return torch.cat(draws)
