"""The ``detail`` phase: gradients of the network that doubles an image, on crops of each octave."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from dppm_model.errors import ConfigError
from dppm_model.mechanism.gradients import trainable
from dppm_model.score.detail_loss import Seen, detail_losses, drifted, questions, see
from dppm_model.score.gradient import GradientQuery
from dppm_model.score.model import CLOSED_FORM, ScoreModel
from dppm_model.score.model_config import ModelConfig
from dppm_model.score.pyramid import build_detail
from dppm_model.score.pyramid_config import PyramidConfig
from dppm_model.score.shape_training import shape_crops


class DetailQuery(GradientQuery):
    """A record's gradient of the denoising loss of its crops."""

    part = "detail"
    losses = staticmethod(detail_losses)
    needed = CLOSED_FORM | {"detail.start", "detail.weights", "detail.scale"}

    @classmethod
    def dimension_of(cls, config: ModelConfig) -> int:
        """See `GradientQuery`.

        Raises
        ------
        ConfigError
            If there is no octave.
        """
        if not config.pyramid.octaves:
            raise ConfigError("The model has no octaves to detail.", "Use model=pyramid.")
        return super().dimension_of(config)

    def build(self, model: ScoreModel) -> nn.Module:
        """See `GradientQuery`."""
        self.config: PyramidConfig = model.config.pyramid
        return build_detail(model.shape[0], model.arrays)

    @classmethod
    def first(cls, model: ScoreModel, seed: int) -> dict[str, NDArray[np.float32]]:
        """Begin with the weights that drawn shapes taught."""
        del seed  # one start for all runs
        network = build_detail(model.shape[0], model.arrays)
        trained = [p.flatten() for p in trainable(network).values()]
        return {"detail.weights": torch.cat(trained).detach().numpy()}

    def view(self, pixels: NDArray[np.uint8], seeds: torch.Tensor) -> torch.Tensor:
        """See crops and the base image; see `dppm_model.score.detail_loss.see`."""
        return see(pixels, seeds, self.config).packed()

    def questions(
        self, x: torch.Tensor, y: torch.Tensor, seeds: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """Draw noise for crops; see `dppm_model.score.detail_loss.questions`."""
        seen = Seen.unpacked(x, self.config.octaves, self.model.shape)
        drift = drifted(seen, y, seeds, self.config, self.mixture)
        return questions(seen.crops, seeds, self.config, drift)

    def public(self, n: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw shapes."""
        crops = shape_crops(n, self.config.octaves, self.model.shape[0], generator)
        seen = Seen(crops, torch.zeros(n, *self.model.shape), torch.full((n, 2), -1))
        return seen.packed(), torch.zeros(n, dtype=torch.int64)
