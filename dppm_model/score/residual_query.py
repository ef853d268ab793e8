"""The ``score`` phase: gradients of denoising score matching, for the network on the closed form.

Karras et al. 2022, Eq. 2 and 8: E lambda(sigma) |D(x + sigma n; sigma) - x|², with
lambda = 1/c_out². Written for the network alone, with D = D_base + c_out F, it is
E |F - (x - D_base)/c_out|². K draws of (sigma, n) per record are averaged *before* the record's
gradient is clipped (noise multiplicity; Dockhorn et al. 2023).
"""

from __future__ import annotations

import torch
from torch import nn

from dppm_model.score.closed_form import CLOSED_FORM
from dppm_model.score.denoising import draw_noise
from dppm_model.score.gradient import GradientQuery
from dppm_model.score.mixture import Mixture
from dppm_model.score.model import ScoreModel
from dppm_model.score.model_config import ModelConfig
from dppm_model.score.residual import Band, ResidualConfig


def questions(
    x: torch.Tensor,
    y: torch.Tensor,
    mixture: Mixture,
    band: Band,
    config: ResidualConfig,
    seeds: torch.Tensor,
) -> tuple[torch.Tensor, ...]:
    """Draw noise for records, and denoise them by the closed form.

    Parameters
    ----------
    x, y
        (n, C, H, W) images in [-1, 1] and their (n,) labels.
    seeds
        (n,) int64, one seed for each record's draws.

    Returns
    -------
    The inputs of `denoising_losses`: z (n, K, C, h, w) noisy and base (n, K, C, h, w) denoised band
    images, sigma (n, K), labels (n, K), and the targets of F, (n, K, C, h, w).
    """
    n, k = len(x), config.draws
    sigma, noise = (t.to(x.device) for t in draw_noise(seeds, tuple(x.shape[1:]), config))
    noisy = (x[:, None] + sigma[:, :, None, None, None] * noise).flatten(0, 1)
    labels = y[:, None].expand(n, k)
    base = mixture.denoise(noisy, sigma.flatten(), labels.flatten())
    c_out = mixture.error_std(sigma.flatten())
    clean = x[:, None].expand(n, k, *x.shape[1:]).flatten(0, 1)
    target = band.down((clean - base) / c_out)
    z, base, target = (
        t.reshape(n, k, *band.small) for t in (band.down(noisy), band.down(base), target)
    )
    return z, base, sigma, labels, target


class ResidualQuery(GradientQuery):
    """A record's gradient of the denoising loss of the base image."""

    part = "residual"
    needed = CLOSED_FORM | {"residual.weights", "residual.scale"}

    @classmethod
    def dimension_of(cls, config: ModelConfig) -> int:
        """See `GradientQuery`.

        Raises
        ------
        ConfigError
            If the model has no such network.
        """
        config.part(ResidualConfig, "Use model=residual.")
        return super().dimension_of(config)

    def build(self, model: ScoreModel) -> nn.Module:
        """See `GradientQuery`."""
        self.config: ResidualConfig = model.config.part(ResidualConfig)
        self.band, network = self.config.build(model.shape, model.classes)
        return network

    def questions(
        self, x: torch.Tensor, y: torch.Tensor, seeds: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """Draw noise for records; see `dppm_model.score.residual_query.questions`."""
        return questions(x, y, self.mixture, self.band, self.config, seeds)
