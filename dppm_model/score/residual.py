"""The ``score`` phase: gradients of the residual network on top of the closed form."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dppm_model.errors import ConfigError
from dppm_model.score.gradient import GradientQuery
from dppm_model.score.loss import denoising_losses, questions
from dppm_model.score.model import CLOSED_FORM, ScoreModel
from dppm_model.score.model_config import ModelConfig
from dppm_model.score.networks import build_network, first_weights
from dppm_model.score.pyramid import to_base
from dppm_model.score.residual_config import ResidualConfig


class ResidualQuery(GradientQuery):
    """A record's gradient of the denoising loss of the base image."""

    part = "residual"
    losses = staticmethod(denoising_losses)
    needed = CLOSED_FORM | {"residual.weights", "residual.scale"}

    @classmethod
    def dimension_of(cls, config: ModelConfig) -> int:
        """See `GradientQuery`.

        Raises
        ------
        ConfigError
            If there is to be no such network.
        """
        if config.residual is None:
            raise ConfigError("The model has no residual network to train.", "Use model=residual.")
        return super().dimension_of(config)

    def build(self, model: ScoreModel) -> nn.Module:
        """See `GradientQuery`."""
        assert model.config.residual is not None
        self.config: ResidualConfig = model.config.residual
        self.band, network = build_network(self.config, model.shape, model.classes)
        return network

    @classmethod
    def first(cls, model: ScoreModel, seed: int) -> dict[str, NDArray[np.float32]]:
        """Draw the weights, the last layer's zero."""
        assert model.config.residual is not None
        _, network = build_network(model.config.residual, model.shape, model.classes)
        return {"residual.weights": first_weights(network, seed).numpy()}

    def view(self, pixels: NDArray[np.uint8], seeds: torch.Tensor) -> torch.Tensor:
        """Look at the base images."""
        del seeds
        return to_base(pixels, self.model.config.pyramid.octaves)

    def questions(
        self, x: torch.Tensor, y: torch.Tensor, seeds: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """Draw noise for records; see `dppm_model.score.loss.questions`."""
        return questions(x, y, self.mixture, self.band, self.config, seeds)

    def public(self, n: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw images from the closed form."""
        y = torch.arange(n) % self.model.classes
        return self.mixture.sample(y, generator).clamp(-1, 1), y
