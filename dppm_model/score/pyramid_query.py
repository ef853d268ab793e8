"""The ``detail`` phase: gradients of denoising a crop of each stage, given the crop below it.

A question sees one crop of a record for each stage, mostly near edges, and its base image. All
draws for a record (places, noise levels, noise) come from its own seed, and its crops are cut
separately: no other record of its batch changes them.

In sampling, the first stage receives the closed form's samples: images plus noise, with the closed
form's own errors. For half of the records the question therefore imitates such a sample: it adds
noise to the base image far above the switch, and follows the closed form's probability flow down to
it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from dppm_model.errors import ConfigError
from dppm_model.records.pixels import to_tensor
from dppm_model.score.closed_form import CLOSED_FORM
from dppm_model.score.gradient import GradientQuery
from dppm_model.score.mixture import Mixture
from dppm_model.score.model import ScoreModel
from dppm_model.score.model_config import ModelConfig
from dppm_model.score.pyramid import PyramidConfig, build_upsampler
from dppm_model.score.upsampler import (
    CROP,
    LEAST_SIGMA,
    MOST_LOW_RES_SIGMA,
    MOST_SIGMA,
    context_of,
    parts,
    scaled,
)

_ANYWHERE = 0.2  # share of crops that are taken without regard to edges
_STRIDE = 4  # pixels between places of crops
_DRIFTED, _DRIFT, _DRIFT_STEPS = 0.5, 5.0, 4  # share of records; most noise over the switch's
_BLURRED = 0.6  # share of low-resolution images that training blurs


class CroppedRecords(NamedTuple):
    """The view of n records.

    Attributes
    ----------
    crops
        (n, stages, C, CROP, CROP).
    base
        (n, C, h, w) base images.
    corner
        (n, 2) top and left of the first stage's crop, in pixels of the base; negative for a record
        that has crops but no image (drawn shapes).
    """

    crops: torch.Tensor
    base: torch.Tensor
    corner: torch.Tensor

    def packed(self) -> torch.Tensor:
        """Return one row a record, (n, F) float32."""
        return torch.cat([self.crops.flatten(1), self.base.flatten(1), self.corner.float()], dim=1)

    @classmethod
    def unpacked(
        cls, rows: torch.Tensor, stages: int, shape: tuple[int, int, int]
    ) -> CroppedRecords:
        """Undo `packed`, for a base of ``shape`` (C, h, w)."""
        size = stages * shape[0] * CROP**2
        return cls(
            rows[:, :size].reshape(-1, stages, shape[0], CROP, CROP),
            rows[:, size:-2].reshape(-1, *shape),
            rows[:, -2:].nan_to_num(-1.0).long(),
        )


def crop_records(
    pixels: NDArray[np.uint8], seeds: torch.Tensor, config: PyramidConfig
) -> CroppedRecords:
    """Cut one crop a stage out of each record, and average its base image.

    Parameters
    ----------
    pixels
        (n, C, H, W) uint8.
    seeds
        (n,) int64, one for each record.

    Returns
    -------
    float32 in [-1, 1].
    """
    stages = config.stages
    n, colours, height, width = pixels.shape
    crops = torch.empty(n, stages, colours, CROP, CROP)
    base = torch.empty(n, colours, height >> stages, width >> stages)
    corner = torch.empty(n, 2, dtype=torch.int64)
    for i, seed in enumerate(seeds.tolist()):
        where = torch.rand(stages, generator=torch.Generator().manual_seed(seed))
        image = to_tensor(pixels[i : i + 1])
        for stage in reversed(range(stages)):
            top, left = _place(image, float(where[stage]))
            crops[i, stage] = image[0, :, top : top + CROP, left : left + CROP]
            image = functional.avg_pool2d(image, 2)
        base[i], corner[i] = image[0], torch.tensor([top // 2, left // 2])
    return CroppedRecords(crops, base, corner)


def _place(image: torch.Tensor, where: float) -> tuple[int, int]:
    """Choose a crop of an image (1, C, H, W) by a number in [0, 1), preferring edges."""
    contrast = image.diff(dim=2)[..., :-1].abs() + image.diff(dim=3)[..., :-1, :].abs()
    energy = functional.pad(contrast.sum(1), (0, 1, 0, 1))
    # Only the middle of each crop counts: the network needs the rest as context.
    middle = functional.avg_pool2d(energy, CROP // 2, stride=_STRIDE, padding=0)[0]
    inner = middle[CROP // 4 // _STRIDE :, CROP // 4 // _STRIDE :]
    rows = (image.shape[2] - CROP) // _STRIDE + 1
    columns = (image.shape[3] - CROP) // _STRIDE + 1
    weights = inner[:rows, :columns].flatten().double()
    weights = weights + _ANYWHERE / (1 - _ANYWHERE) * weights.mean() + 1e-9
    sums = weights.cumsum(0)
    place = int(torch.searchsorted(sums, where * sums[-1]).clamp(max=len(sums) - 1))
    return place // columns * _STRIDE, place % columns * _STRIDE


def drifted(
    seen: CroppedRecords,
    y: torch.Tensor,
    seeds: torch.Tensor,
    config: PyramidConfig,
    mixture: Mixture,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Redraw base images by the closed form, from records noised to a random level.

    Returns
    -------
    The images below the crops of the first stage, (n, C, CROP/2, CROP/2), with noise of the
    switch's level; and a mask of the records to use them for, (n,).
    """
    n = len(seeds)
    u, noise = torch.empty(n, 2), torch.empty(seen.base.shape)
    for i, seed in enumerate(seeds.tolist()):
        generator = torch.Generator().manual_seed(seed ^ 1)  # not what `questions` draws
        u[i] = torch.rand(2, generator=generator)
        noise[i] = torch.randn(noise.shape[1:], generator=generator)
    u, noise = u.to(seen.base.device), noise.to(seen.base.device)
    sigma = _between(config.switch_sigma, _DRIFT * config.switch_sigma, u[:, 0])
    x = seen.base + sigma[:, None, None, None] * noise
    ratio = (config.switch_sigma / sigma) ** (1 / _DRIFT_STEPS)
    for _ in range(_DRIFT_STEPS):
        denoised = mixture.denoise(x, sigma, y)
        x = denoised + ratio[:, None, None, None] * (x - denoised)
        sigma = sigma * ratio
    side, corner = CROP // 2, seen.corner.clamp(min=0).cpu().tolist()
    cut = [
        image[:, top : top + side, left : left + side]
        for image, (top, left) in zip(x, corner, strict=True)
    ]
    use = (u[:, 1] < _DRIFTED) & (seen.corner[:, 0] >= 0)
    return torch.stack(cut), use


def questions(
    crops: torch.Tensor,
    seeds: torch.Tensor,
    config: PyramidConfig,
    drift: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> tuple[torch.Tensor, ...]:
    """Draw noise for crops (n, stages, C, S, S), and precondition them.

    Parameters
    ----------
    drift
        The result of `drifted`, if any.

    Returns
    -------
    The inputs of `denoising_losses`: noisy residuals (n, K, C, S, S) of K stages in both scales of
    `scaled`, low-resolution images (n, K, C, S/2, S/2), sigma and their noise level (n, K), targets
    of F (n, K, C, S, S).
    """
    n, k = crops.shape[:2]
    small = (*crops.shape[2:3], *(s // 2 for s in crops.shape[3:]))
    u = torch.empty(n, 3, k)
    noise, low_res_noise = torch.empty(crops.shape), torch.empty(n, k, *small)
    for i, seed in enumerate(seeds.tolist()):
        generator = torch.Generator().manual_seed(seed)
        torch.rand(k, generator=generator)  # the places of the crops
        u[i] = torch.rand(3, k, generator=generator)
        noise[i] = torch.randn(noise.shape[1:], generator=generator)
        low_res_noise[i] = torch.randn(low_res_noise.shape[1:], generator=generator)
    u, noise, low_res_noise = (t.to(crops.device) for t in (u, noise, low_res_noise))
    sigma = _between(LEAST_SIGMA, MOST_SIGMA, u[:, 0])
    level = _between(LEAST_SIGMA, MOST_LOW_RES_SIGMA, u[:, 1])
    fine = crops.flatten(0, 1)
    low_res = _blurred(functional.avg_pool2d(fine, 2), u[:, 2].flatten())
    low_res = low_res + level.flatten()[:, None, None, None] * low_res_noise.flatten(0, 1)
    if drift is not None:
        low_res = low_res.reshape(n, k, *small)
        images, use = drift
        low_res[:, 0] = torch.where(use[:, None, None, None], images, low_res[:, 0])
        level[:, 0] = torch.where(use, config.switch_sigma, level[:, 0])
        low_res = low_res.flatten(0, 1)
    context = context_of(low_res)
    clean = fine - context.enlarged
    noisy = clean + sigma.flatten()[:, None, None, None] * noise.flatten(0, 1)
    base, c_out = parts(noisy, sigma.flatten(), context)
    tensors = *scaled(noisy, sigma.flatten(), context), low_res, (clean - base) / c_out
    r, over, low_res, target = (t.reshape(n, k, *t.shape[1:]) for t in tensors)
    return r, over, low_res, sigma, level, target


def _blurred(x: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """Blur some images (n, C, h, w): samples of the stage below are smoother than averages."""
    share = (u / _BLURRED).clamp(max=1)[:, None, None, None]  # u = 1: hardly, u = 0: much
    share = 1 - share
    soft = functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
    return (1 - share) * x + share * soft


def _between(low: float, high: float, u: torch.Tensor) -> torch.Tensor:
    return torch.exp(math.log(low) + (math.log(high) - math.log(low)) * u)


class DetailQuery(GradientQuery):
    """A record's gradient of the denoising loss of its crops."""

    part = "detail"
    needed = CLOSED_FORM | {"detail.weights", "detail.scale"}

    @classmethod
    def dimension_of(cls, config: ModelConfig) -> int:
        """See `GradientQuery`.

        Raises
        ------
        ConfigError
            If the model has no stage, or no network to train.
        """
        if not config.part(PyramidConfig, "Use model=pyramid_details.").details:
            raise ConfigError("model.pyramid.details is false.", "Use model=pyramid_details.")
        return super().dimension_of(config)

    def build(self, model: ScoreModel) -> nn.Module:
        """See `GradientQuery`."""
        self.config: PyramidConfig = model.config.part(PyramidConfig)
        return build_upsampler(model.shape[0], model.arrays)

    def view(self, pixels: NDArray[np.uint8], seeds: torch.Tensor) -> torch.Tensor:
        """Return crops and base images; see `dppm_model.score.pyramid_query.crop_records`."""
        return crop_records(pixels, seeds, self.config).packed().to(self.device)

    def questions(
        self, x: torch.Tensor, y: torch.Tensor, seeds: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        """Draw noise for crops; see `dppm_model.score.pyramid_query.questions`."""
        seen = CroppedRecords.unpacked(x, self.config.stages, self.model.shape)
        drift = drifted(seen, y, seeds, self.config, self.mixture)
        return questions(seen.crops, seeds, self.config, drift)
