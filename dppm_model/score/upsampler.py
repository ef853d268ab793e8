"""The upsampler: one small local network that doubles an image, whatever its size.

Given the image below, c (n, C, h, w), which carries noise of level s, it denoises the image above
as a residual r to the enlarged c:

    D(r; sigma, c, s) = g r + c_out F,    g = v/(v + sigma²),    c_out² = sigma² g

with v the guess of a pixel's residual variance that local contrast gives. That is EDM's
preconditioning (Karras et al. 2022, Table 1) with a local sigma_data, so that F is of order one at
an edge and flat areas pass through. Everything is local and nothing is normalised over places, so a
network that was trained on crops works on whole images.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from dppm_model.mechanism.products import Linear
from dppm_model.score.precondition import WAVES, waves

# Noise levels that the network is trained for: of an image, and of the one below it.
LEAST_SIGMA, MOST_SIGMA, MOST_LOW_RES_SIGMA = 0.02, 2.0, 1.0
CROP = 32  # pixels a side of a training crop
FOLD = 4  # pixels a side of a place, in the upper image
CHANNELS, BLOCKS = 48, 4
REACH = (BLOCKS + 2) * FOLD  # pixels of the receptive field to each side
_MOST = 3.0  # most standard deviations of noise that a gate removes
_CONTRAST, _LEAST = 0.5, 0.02**2  # residual variance over local variance below, and its floor


class Context(NamedTuple):
    """The image below, prepared for the network: both (n, C, 2h, 2w).

    Attributes
    ----------
    enlarged
        c, enlarged by cubic interpolation.
    variance
        v, the guess of a residual pixel's variance.
    """

    enlarged: torch.Tensor
    variance: torch.Tensor


def context_of(low_res: torch.Tensor) -> Context:
    """Enlarge an image (n, C, h, w), and estimate the variance of its residual."""
    enlarged = functional.interpolate(low_res, scale_factor=2, mode="bicubic", align_corners=False)

    def mean(x: torch.Tensor) -> torch.Tensor:
        return functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)

    contrast = (mean(low_res.square()) - mean(low_res).square()).clamp(min=0)
    variance = _CONTRAST * functional.interpolate(contrast, scale_factor=2, mode="nearest")
    return Context(enlarged, variance + _LEAST)


class Upsampler(nn.Module):
    """F: 3×3 convolutions over places of `FOLD` × `FOLD` pixels, modulated by noise levels.

    Parameters
    ----------
    colours
        C of an image.
    """

    def __init__(self, colours: int) -> None:
        super().__init__()
        channels, blocks = CHANNELS, BLOCKS
        inputs = colours * (2 * FOLD**2 + (FOLD // 2) ** 2) + 1
        self.conditioning = Linear(4 * WAVES, channels)
        self.first = nn.Conv2d(inputs, channels, 3, padding=1)
        self.films = nn.ModuleList(Linear(channels, 2 * channels) for _ in range(blocks))
        self.blocks = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=1) for _ in range(blocks)
        )
        self.last = nn.Conv2d(channels, 2 * colours * FOLD**2, 3, padding=1)

    def forward(
        self,
        r: torch.Tensor,
        noise: torch.Tensor,
        low_res: torch.Tensor,
        sigma: torch.Tensor,
        level: torch.Tensor,
    ) -> torch.Tensor:
        """Return F, (n, C, 2h, 2w): the network's output, less the noise that its gates select.

        In flat areas the noisy residual is all noise. A gate subtracts that noise directly, so that
        the channels of a place need not carry the noise of all its pixels.

        Parameters
        ----------
        r, noise
            (n, C, 2h, 2w) noisy residual: scaled to variance one, and over sigma (`scaled`).
        low_res
            (n, C, h, w) the image below.
        sigma, level
            (n,) noise of r, and of ``low_res``.
        """
        # Beyond the range of training the conditioning is constant.
        noises = [
            waves(sigma.clamp(LEAST_SIGMA, MOST_SIGMA)),
            waves(level.clamp(LEAST_SIGMA, MOST_LOW_RES_SIGMA)),
        ]
        e = functional.silu(self.conditioning(torch.cat(noises, dim=1)))
        noise = _MOST * torch.tanh(noise / _MOST)
        places = [functional.pixel_unshuffle(t, FOLD) for t in (r, noise)]
        places.append(functional.pixel_unshuffle(low_res, FOLD // 2))
        inside = torch.ones_like(places[0][:, :1])  # zero padding shows where the image ends
        x = torch.cat([*places, inside], dim=1)
        x = x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)  # channels last: faster here
        x = self.first(x)
        for film, block in zip(self.films, self.blocks, strict=True):
            scale, shift = film(e)[:, :, None, None].chunk(2, dim=1)
            x = x + block(functional.silu(_normalised(x) * (1 + scale) + shift))
        x = functional.pixel_shuffle(self.last(functional.silu(_normalised(x))), FOLD)
        added, gate = x.chunk(2, dim=1)
        return added - gate * noise


def _normalised(x: torch.Tensor) -> torch.Tensor:
    """Normalise every place to mean zero and variance one over its channels."""
    return functional.layer_norm(x.permute(0, 2, 3, 1), x.shape[1:2]).permute(0, 3, 1, 2)


def scaled(
    r: torch.Tensor, sigma: torch.Tensor, context: Context
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale a noisy residual to variance one, pixel by pixel, and to units of its noise."""
    noise = sigma[:, None, None, None]
    return r / (context.variance + noise**2).sqrt(), r / noise


def parts(
    r: torch.Tensor, sigma: torch.Tensor, context: Context
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return g r and c_out of D = g r + c_out F, both (n, C, 2h, 2w)."""
    noise = sigma[:, None, None, None]
    gain = context.variance / (context.variance + noise**2)
    return gain * r, noise * gain.sqrt()
