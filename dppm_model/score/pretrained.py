"""A network that was trained on public images, put on the closed form and trained on in private.

`dppm_model.score.pretrained_network` says what it computes. Most of its weights stay as public
images taught them; those behind its coarse places are trained by private rounds, since the noise of
a private gradient grows with its size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import torch
from torch import nn

from dppm_model.bounds import Between, from_settings
from dppm_model.errors import ConfigError, ModelError
from dppm_model.mechanism.gradients import trainable
from dppm_model.score.arrays import MOST_WEIGHT, Arrays, ArraySpec, digest_of, network_specs
from dppm_model.score.class_maps import class_maps
from dppm_model.score.denoiser import BaseDenoiser
from dppm_model.score.denoising import DenoisingPart
from dppm_model.score.mixture import Mixture
from dppm_model.score.part import Shape
from dppm_model.score.pretrained_network import (
    SIZES,
    TRAINED,
    PretrainedNetwork,
    fold_of,
    network_inputs,
)
from dppm_model.score.public_weights import public_data, public_weights
from dppm_model.score.weights import set_weights, zeroed

if TYPE_CHECKING:
    from dppm_model.score.model_config import ModelConfig

START = "pretrained.start"


@dataclass(frozen=True)
class PretrainedConfig(DenoisingPart):
    """Constants of the ``fine_tuning`` phase; see `DenoisingPart` for those of its rounds.

    Attributes
    ----------
    weights
        Name of the file of public weights.
    size
        Size of the network; see `dppm_model.score.pretrained_network.SIZES`.
    digest
        SHA-256 of the public weights.
    data
        Names of the public data that taught them.
    """

    weights: str = "photographs-small"
    size: str = "small"
    digest: str = ""
    data: tuple[str, ...] = ()
    sigma_low: Annotated[float, Between(1e-3, 100.0)] = 0.03
    sigma_high: Annotated[float, Between(1e-3, 100.0)] = 5.0
    tilt: Annotated[float, Between(0.0, 20.0)] = 0.0
    learning_rate: Annotated[float, Between(0.0, 10.0)] = 0.003

    group = "pretrained"

    @classmethod
    def of(cls, values: Mapping[str, Any], image: Shape) -> PretrainedConfig:
        """Build it, and name this installation's public weights by their digest.

        Raises
        ------
        ConfigError
            If a key is unknown or a value is out of range.
        ModelError
            If the weights are not on this machine, or are not of this size.
        """
        del image
        config = cls.from_dict(values)
        weights = public_weights(config.weights, "weights")
        with torch.device("meta"):
            network = PretrainedNetwork(config.size)
        if len(weights) != sum(p.numel() for p in network.parameters()):
            raise ModelError(
                f"The public weights {config.weights!r:.80} are not of size {config.size!r}.",
                "Set model.pretrained.size to the size that they were made with.",
            )
        return replace(config, digest=digest_of(weights), data=public_data(config.weights))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size not in SIZES:
            raise ConfigError(
                f"pretrained.size is {self.size!r:.80}.", f"Use one of: {', '.join(SIZES)}."
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PretrainedConfig:
        """See `Part.from_dict`; JSON makes a list of a tuple."""
        data = values.get("data", ())
        known = {**values, "data": tuple(data) if isinstance(data, list) else data}
        return from_settings(cls, cls.group, known)

    def check(self, config: ModelConfig) -> None:
        """Refuse images that the network is not for, and to stand on nothing.

        Raises
        ------
        ConfigError
            Naming a setting.
        """
        if config.parts[0] is self:
            raise ConfigError("The pretrained network has no part below it.", "Add model.mixture.")
        fold_of(config.base_shape)

    def specs(self, config: ModelConfig) -> dict[str, ArraySpec]:
        """Return the public weights, and those of them that rounds train."""
        network = self.lay_out(config.base_shape)
        start = ArraySpec(
            (sum(p.numel() for p in network.parameters()),),
            -MOST_WEIGHT,
            MOST_WEIGHT,
            role="public",
            digest=self.digest,
        )
        return {START: start, **network_specs("pretrained", trainable(network).values())}

    @property
    def public_data(self) -> tuple[str, ...]:
        """See `Part`."""
        return self.data

    def public_arrays(self, config: ModelConfig) -> Arrays:
        """Return the weights that public images taught."""
        del config
        return {START: public_weights(self.weights, "weights")}

    def lay_out(self, shape: Shape) -> nn.Module:
        """Lay out the network; its weights have sizes but no memory."""
        with torch.device("meta"):  # no default first weights: they come from a global generator
            network: nn.Module = PretrainedNetwork(self.size)
        trained = (*TRAINED, f"outer.{fold_of(shape)}.")
        for name, p in network.named_parameters():
            p.requires_grad_(name.startswith(trained))
        return network

    def build(self, shape: Shape, arrays: Arrays) -> nn.Module:
        """Build the network, with its public weights if the arrays have them, else zeros."""
        network = zeroed(self.lay_out(shape))
        if START in arrays:
            set_weights(network.parameters(), arrays[START])
        return network

    def denoiser(
        self, config: ModelConfig, arrays: Arrays, below: BaseDenoiser | None
    ) -> BaseDenoiser | None:
        """Put the network on the closed form, with the averaged weights if it was trained on."""
        if not isinstance(below, Mixture):
            return below
        network = self.build(config.base_shape, arrays)
        if "pretrained.ema" in arrays:
            set_weights(trainable(network).values(), arrays["pretrained.ema"])
        return PretrainedDenoiser(below, network.requires_grad_(False))


class PretrainedDenoiser(BaseDenoiser):
    """The closed form and the network F on top of it; see the module."""

    maps: torch.Tensor

    def __init__(self, below: Mixture, network: nn.Module) -> None:
        super().__init__()
        self.shape, self.classes = below.shape, below.classes
        self.below, self.network = below, network
        self.register_buffer("maps", class_maps(below))

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """See `BaseDenoiser`."""
        inputs = network_inputs(x, sigma, y, self.below, self.maps)
        with torch.no_grad():
            f: torch.Tensor = self.network(*inputs)
        return inputs[1] + inputs[-1][:, None, None, None] * f

    def class_shift(self, x: torch.Tensor, sigma: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the shift of what is below."""
        return self.below.class_shift(x, sigma, y)

    def error_std(self, sigma: torch.Tensor) -> torch.Tensor:
        """Return that of what is below: an upper bound, about."""
        return self.below.error_std(sigma)
