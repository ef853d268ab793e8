"""The question of the ``detail`` phase: denoising a crop of each octave, given the crop below it.

A record shows one crop an octave, mostly from where its edges are. What is drawn for it (places,
noise levels, noise) comes from its own seed, and its crops are cut by itself: what other records
are asked beside it changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from dppm_model.records.pixels import to_tensor
from dppm_model.score.detail_network import look, parts, scaled
from dppm_model.score.pyramid_config import CROP, PyramidConfig

_ANYWHERE = 0.2  # share of crops that are taken without regard to edges
_STRIDE = 4  # pixels between places of crops
_BLURRED = 0.6  # share of images below that are blurred, in training
_LEVEL_HIGH = 1.0  # largest noise of an image below, in training


def crops_of(pixels: NDArray[np.uint8], seeds: torch.Tensor, config: PyramidConfig) -> torch.Tensor:
    """Cut one crop an octave out of each record.

    Parameters
    ----------
    pixels
        (n, C, H, W) uint8.
    seeds
        (n,) int64, one for each record.

    Returns
    -------
    (n, octaves, C, CROP, CROP) float32 in [-1, 1].
    """
    octaves = config.octaves
    found = torch.empty(len(pixels), octaves, pixels.shape[1], CROP, CROP)
    for i, seed in enumerate(seeds.tolist()):
        where = torch.rand(octaves, generator=torch.Generator().manual_seed(seed))
        image = to_tensor(pixels[i : i + 1])
        for octave in reversed(range(octaves)):
            found[i, octave] = _crop(image, float(where[octave]))
            image = functional.avg_pool2d(image, 2)
    return found


def _crop(image: torch.Tensor, where: float) -> torch.Tensor:
    """Choose a crop of an image (1, C, H, W) by a number in [0, 1): edges first, then anywhere."""
    contrast = image.diff(dim=2)[..., :-1].abs() + image.diff(dim=3)[..., :-1, :].abs()
    energy = functional.pad(contrast.sum(1), (0, 1, 0, 1))
    # Of the middle of each crop: the network sees what is around it.
    middle = functional.avg_pool2d(energy, CROP // 2, stride=_STRIDE, padding=0)[0]
    inner = middle[CROP // 4 // _STRIDE :, CROP // 4 // _STRIDE :]
    rows = (image.shape[2] - CROP) // _STRIDE + 1
    columns = (image.shape[3] - CROP) // _STRIDE + 1
    weights = inner[:rows, :columns].flatten().double()
    weights = weights + _ANYWHERE / (1 - _ANYWHERE) * weights.mean() + 1e-9
    sums = weights.cumsum(0)
    place = int(torch.searchsorted(sums, where * sums[-1]).clamp(max=len(sums) - 1))
    top, left = place // columns * _STRIDE, place % columns * _STRIDE
    return image[0, :, top : top + CROP, left : left + CROP]


def questions(
    crops: torch.Tensor, seeds: torch.Tensor, config: PyramidConfig
) -> tuple[torch.Tensor, ...]:
    """Draw noise for crops (n, octaves, C, S, S) and do the preconditioning's part.

    Returns
    -------
    The inputs of `detail_losses`: noisy residuals (n, K, C, S, S) with K octaves in both scales of
    `scaled`, images below (n, K, C, S/2, S/2), sigma and noise level below (n, K), targets of F
    (n, K, C, S, S).
    """
    n, k = crops.shape[:2]
    small = (*crops.shape[2:3], *(s // 2 for s in crops.shape[3:]))
    u = torch.empty(n, 3, k)
    noise, noise_below = torch.empty(crops.shape), torch.empty(n, k, *small)
    for i, seed in enumerate(seeds.tolist()):
        generator = torch.Generator().manual_seed(seed)
        torch.rand(k, generator=generator)  # the places of the crops
        u[i] = torch.rand(3, k, generator=generator)
        noise[i] = torch.randn(noise.shape[1:], generator=generator)
        noise_below[i] = torch.randn(noise_below.shape[1:], generator=generator)
    sigma = _between(config.sigma_low, config.sigma_high, u[:, 0])
    level = _between(config.sigma_low, _LEVEL_HIGH, u[:, 1])
    fine = crops.flatten(0, 1)
    below = _blurred(functional.avg_pool2d(fine, 2), u[:, 2].flatten())
    below = below + level.flatten()[:, None, None, None] * noise_below.flatten(0, 1)
    local = look(below)
    clean = fine - local.enlarged
    noisy = clean + sigma.flatten()[:, None, None, None] * noise.flatten(0, 1)
    base, c_out = parts(noisy, sigma.flatten(), local)
    tensors = *scaled(noisy, sigma.flatten(), local), below, (clean - base) / c_out
    r, over, below, target = (t.reshape(n, k, *t.shape[1:]) for t in tensors)
    return r, over, below, sigma, level, target


def _blurred(x: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """Blur some images (n, C, h, w): what is drawn below is smoother than what was averaged."""
    share = (u / _BLURRED).clamp(max=1)[:, None, None, None]  # u = 1: hardly, u = 0: much
    share = 1 - share
    soft = functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
    return (1 - share) * x + share * soft


def _between(low: float, high: float, u: torch.Tensor) -> torch.Tensor:
    return torch.exp(math.log(low) + (math.log(high) - math.log(low)) * u)


def detail_losses(
    network: Callable[..., torch.Tensor],
    r: torch.Tensor,
    noise: torch.Tensor,
    below: torch.Tensor,
    sigma: torch.Tensor,
    level: torch.Tensor,
    target: torch.Tensor,
) -> torch.Tensor:
    """Mean square error of F per record, (n,), over its octaves and pixels."""
    inputs = (t.flatten(0, 1) for t in (r, noise, below, sigma, level))
    f = network(*inputs)
    return (f - target.flatten(0, 1)).square().reshape(len(r), -1).mean(dim=1)
