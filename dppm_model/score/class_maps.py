"""The closed form's mean and standard deviation of each pixel, for each class."""

from __future__ import annotations

import torch

from dppm_model.mechanism.products import sides
from dppm_model.score.dct import mixed
from dppm_model.score.mixture import Mixture


def class_maps(mixture: Mixture) -> torch.Tensor:
    """Return the mean and the standard deviation of the pixels of each class.

    Returns
    -------
    (classes, 2, C, H, W), on the mixture's device.
    """
    r, d = mixture.rank, len(mixture.axes)
    basis, axes = mixture.basis, mixture.axes
    images = basis.inverse(torch.nn.functional.pad(axes.T, (0, basis.size - d)))  # (d, C, H, W)
    leading, others = images[:r].flatten(1), images[r:].flatten(1)
    shared = (others.square() * mixture.variance[: d - r, None]).sum(0)
    shared = shared + _beyond(mixture).flatten()
    found = []
    for k in range(mixture.classes):
        mean, covariance = _moments(mixture, k)
        variance = (leading * (covariance @ leading)).sum(0) + shared
        centre = mixture.from_axes(mixture.mean[k][None])[0].flatten() + mean @ leading
        found.append(torch.stack([centre, variance.clamp(min=0).sqrt()]))
    return torch.stack(found).reshape(mixture.classes, 2, *mixture.shape)


def _moments(mixture: Mixture, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean (r,) and covariance (r, r) of class k in the leading axes, of all components."""
    groups, r = mixture.values[k].shape
    vectors = mixture.vectors[k].reshape(r, groups, r)
    weights = mixture.log_weights[k].exp()  # (G, J/G)
    centres = torch.einsum("rge,gje->gjr", vectors, mixture.offset[k])
    mean = torch.einsum("gj,gjr->r", weights, centres)
    within = torch.einsum("g,rge,ge,sge->rs", weights.sum(1), vectors, mixture.values[k], vectors)
    between = torch.einsum("gj,gjr,gjs->rs", weights, centres - mean, centres - mean)
    return mean, within + between


def _beyond(mixture: Mixture) -> torch.Tensor:
    """Return what the coefficients beyond the band add to the variance of each pixel, (C, H, W)."""
    basis, d = mixture.basis, len(mixture.axes)
    variance = mixture.mean.new_zeros(basis.size)
    variance[basis.order[d:]] = mixture.variance[d - mixture.rank :]
    channels, rows, columns = (m.square() for m in basis.matrices(variance.dtype))
    grid = variance.reshape(1, *mixture.shape)
    return mixed(channels.T, sides(rows.T, grid, columns.T))[0]
