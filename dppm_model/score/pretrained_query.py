"""The ``fine_tuning`` phase: gradients of denoising score matching, for the pretrained network.

As in `dppm_model.score.residual_query`: E |F - (x - D_closed)/s|², of which a record draws K noise
levels.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import nn

from dppm_model.score.class_maps import class_maps
from dppm_model.score.closed_form import CLOSED_FORM, LATER
from dppm_model.score.denoising import draw_noise
from dppm_model.score.gradient import GradientQuery
from dppm_model.score.model import ScoreModel
from dppm_model.score.model_config import ModelConfig
from dppm_model.score.pretrained import PretrainedConfig
from dppm_model.score.pretrained_network import network_inputs


class FineTuningQuery(GradientQuery):
    """A record's gradient of the denoising loss, by the weights that private rounds train."""

    part = "pretrained"
    needed = CLOSED_FORM | {"pretrained.weights", "pretrained.scale"}
    optional = LATER

    @classmethod
    def dimension_of(cls, config: ModelConfig) -> int:
        """See `GradientQuery`.

        Raises
        ------
        ConfigError
            If there is to be no such network.
        """
        config.part(PretrainedConfig, "Use model=pretrained.")
        return super().dimension_of(config)

    def build(self, model: ScoreModel) -> nn.Module:
        """See `GradientQuery`."""
        self.config: PretrainedConfig = model.config.part(PretrainedConfig)
        return self.config.build(model.shape, model.arrays)

    @cached_property
    def maps(self) -> torch.Tensor:
        """What the network is told of each class."""
        return class_maps(self.mixture)

    def questions(
        self, x: torch.Tensor, y: torch.Tensor, seeds: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """Draw noise for records and let the closed form do its part.

        Returns
        -------
        (n, K, ...) each: what `PretrainedNetwork` takes, and the targets of F.
        """
        n, k = len(x), self.config.draws
        sigma, noise = (t.to(x.device) for t in draw_noise(seeds, tuple(x.shape[1:]), self.config))
        noisy = (x[:, None] + sigma[:, :, None, None, None] * noise).flatten(0, 1)
        labels = y[:, None].expand(n, k).flatten()
        inputs = network_inputs(noisy, sigma.flatten(), labels, self.mixture, self.maps)
        clean = x[:, None].expand(n, k, *x.shape[1:]).flatten(0, 1)
        target = (clean - inputs[1]) / inputs[-1][:, None, None, None]
        return tuple(t.reshape(n, k, *t.shape[1:]) for t in (*inputs, target))
