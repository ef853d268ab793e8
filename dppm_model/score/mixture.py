"""The closed form: a Gaussian mixture per class, whose denoiser is exact at every noise level.

In the orthonormal cosine basis an image is u = (band, beyond): d low coefficients, and all others.
Axes A (d, d), orthonormal and learned once for all classes, turn the band to a = Aᵀ(band - m_y).
The first r of them tell classes apart, the others only have variances v:

    p(u | y) = sum_j pi_yj N(a_1..r; mu_yj, Sigma_yj) · N(a_r+1..d, beyond - m_y; 0, diag(v)),

where the components of a class may share one Sigma_y. Adding white noise of standard deviation
sigma keeps the form (Sigma + sigma² I), so density, posterior mean and posterior variance are
matrix products in the eigenbases of the Sigma. In the coordinates (a, beyond), which are
orthonormal, an image of P pixels takes O(P + r²); to get there and back, a cosine transform and
O(d²). A sampler therefore moves in these coordinates (`InAxes`), and leaves them at the end.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from dppm_model.mechanism.products import rows_by
from dppm_model.score.dct import Basis
from dppm_model.score.denoiser import BaseDenoiser, Coordinates

_LOG_2PI = math.log(2 * math.pi)


def eigh(matrices: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Eigenvalues and vectors by torch: NumPy's bits depend on the number of BLAS threads."""
    values, vectors = torch.linalg.eigh(torch.from_numpy(np.asarray(matrices, dtype=np.float64)))
    return values.numpy(), vectors.numpy()


class Mixture(BaseDenoiser):
    """A mixture of Gaussians per class, in learned axes of the cosine basis of images of a shape.

    Parameters
    ----------
    shape
        (C, H, W) of an image: P coefficients.
    mean
        (classes, P) class means.
    axes
        (d, d) orthonormal columns: the axes of the d lowest coefficients.
    centres
        (classes, J, r) component means, less those of their class, in the first r axes.
    weights
        (classes, J) non-negative, at least one positive per class; normalised here.
    covariance
        (classes, G, r, r), positive semi-definite: one for all components of a class (G = 1), or
        each component's own (G = J).
    variance
        (P - r,) of the other axes and of the coefficients beyond the band, the same for all
        classes.
    class_weights
        (classes,) positive frequencies; none if nobody will ask for `class_shift`.
    dtype
        Precision of the computation.
    """

    mean: torch.Tensor  # (classes, P), in the axes
    axes: torch.Tensor  # (d, d)
    values: torch.Tensor  # (classes, G, r)
    vectors: torch.Tensor  # (classes, r, G r): the eigenbases of a class, for one product
    offset: torch.Tensor  # (classes, G, J/G, r): centres in the eigenbasis
    log_weights: torch.Tensor  # (classes, G, J/G)
    variance: torch.Tensor  # (P - r,)
    class_log_weights: torch.Tensor  # (classes,)

    def __init__(
        self,
        shape: tuple[int, int, int],
        mean: NDArray[np.floating],
        axes: NDArray[np.floating],
        centres: NDArray[np.floating],
        weights: NDArray[np.floating],
        covariance: NDArray[np.floating],
        variance: NDArray[np.floating],
        class_weights: NDArray[np.floating] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.shape, self.basis = shape, Basis(shape)
        self.classes, groups, self.rank, _ = covariance.shape
        values, vectors = eigh(covariance)
        offset = np.asarray(centres, np.float64).reshape(self.classes, groups, -1, self.rank)
        side_by_side = vectors.transpose(0, 2, 1, 3).reshape(self.classes, self.rank, -1)
        d = len(axes)
        turned = np.concatenate([np.asarray(mean[:, :d], np.float64) @ axes, mean[:, d:]], axis=1)
        log_weights = torch.log(torch.tensor(weights / weights.sum(1, keepdims=True), dtype=dtype))
        for name, array in (
            ("mean", turned),
            ("axes", axes),
            ("values", np.maximum(values, 0)),
            ("vectors", side_by_side),
            ("offset", offset @ vectors),
            ("log_weights", log_weights.reshape(self.classes, groups, -1).numpy()),
            ("variance", np.maximum(variance, 0)),
        ):
            self.register_buffer(name, torch.tensor(array, dtype=dtype))
        if class_weights is not None:
            self.register_buffer("class_log_weights", torch.from_numpy(class_weights).log())

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the posterior mean E[image | x = image + sigma · noise, y], (n, C, H, W)."""
        return self.from_axes(self.denoise_in_axes(self.to_axes(x), sigma, y)).to(x.dtype)

    def denoise_in_axes(
        self, u: torch.Tensor, sigma: torch.Tensor, y: torch.Tensor
    ) -> torch.Tensor:
        """Return the posterior mean in the axes, (n, P), given the noisy coordinates u (n, P).

        With responsibilities r_j of the components at this sigma,
        D = sum_j r_j (mu_j + Sigma_j (Sigma_j + sigma² I)^-1 (u - mu_j)).

        Products are over all rows for each class that occurs, whichever rows are of it: their size,
        and with it a row's last bits, do not tell how many others are of its class.
        """
        variance, classes = self._variance(sigma), _by_class(y)
        centre = self._centre(y, classes)
        out = u - centre
        low = out[:, : self.rank].clone()
        out[:, self.rank :] *= self.variance / (self.variance + variance)
        for k, rows in classes:
            out[rows, : self.rank] = self._leading(k, low, variance)[0][rows]
        return out.add_(centre)

    def _leading(
        self, k: int, low: torch.Tensor, variance: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return class k's posterior mean in the leading axes (n, r), and components' log density.

        ``low`` (n, r) is less the class's mean, and so is what is returned; for the log density
        (n, G, J/G), but for a constant, see `_logits`.
        """
        a = self._rotated(k, low)
        logits = self._logits(k, a, variance)
        share = logits.flatten(1).softmax(1).view(-1, *self.log_weights[k].shape)
        c = _weighted(share, self.offset[k])
        gain = self.values[k] / (self.values[k] + variance[:, None])
        mean = c + gain * (share.sum(2, keepdim=True) * a - c)
        return rows_by(mean.flatten(1), self.vectors[k].T), logits

    def log_density(self, x: torch.Tensor, sigma: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return log p(x; sigma | y), (n,); its gradient is the score (D - x)/sigma²."""
        return self._log_density(self.to_axes(x), sigma, y).to(x.dtype)

    def _log_density(self, u: torch.Tensor, sigma: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        variance, classes = self._variance(sigma), _by_class(y)
        a = u - self._centre(y, classes)
        out = _gaussian_log_density(a[:, self.rank :], self.variance + variance)
        for k, rows in classes:
            logits = self._logits(k, self._rotated(k, a[:, : self.rank]), variance)[rows]
            low = torch.logsumexp(logits.flatten(1), 1) - self.rank * _LOG_2PI / 2
            out = out.index_add(0, rows, low)
        return out

    def class_shift(self, x: torch.Tensor, sigma: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return D(x; sigma, y) - D(x; sigma) = sigma² grad log p(y | x; sigma), (n, C, H, W)."""
        return self.from_axes(self.class_shift_in_axes(self.to_axes(x), sigma, y)).to(x.dtype)

    def class_shift_in_axes(
        self, u: torch.Tensor, sigma: torch.Tensor, y: torch.Tensor
    ) -> torch.Tensor:
        """Return the shift in the axes, (n, P), given the noisy coordinates u (n, P).

        The mean without a class is that of all classes, weighed by their posterior probability
        with the class weights as prior. Beyond the leading axes classes differ in their means
        alone, so that all of them take two matrix products.
        """
        r, variance = self.rank, self._variance(sigma)
        total = self.variance + variance  # beyond the leading axes
        centre = self.mean.mean(0)
        apart = self.mean - centre
        own, rest = apart[:, :r], apart[:, r:]
        out = u - centre
        first = out[:, :r].clone()
        logits = rows_by(out[:, r:].div_(total), rest.T) - rows_by(1 / total, rest.T**2) / 2
        means, found = [], []
        for k in range(self.classes):
            low, density = self._leading(k, first - own[k], variance)
            means.append(low + own[k])
            found.append(density.flatten(1).double().logsumexp(1))
        logits = self.class_log_weights + logits.double() + torch.stack(found, dim=1)
        share = logits.softmax(1).to(u.dtype)
        every = torch.stack(means, dim=1)  # (n, classes, r)
        mine = every[torch.arange(len(y), device=y.device), y]
        out[:, :r] = mine - (share[:, :, None] * every).sum(1)
        out[:, r:] = (rest[y] - rows_by(share, rest)).mul_(variance / total)
        return out

    def posterior_variance(self, sigma: torch.Tensor) -> torch.Tensor:
        """Return the mean variance of a pixel given x and its component, (n,): a public scale."""
        variance = self._variance(sigma)
        every = self.values.reshape(1, -1)
        low = (every * variance / (every + variance)).sum(1) / self.values[..., 0].numel()
        rest = (self.variance * variance / (self.variance + variance)).sum(1)
        return ((low + rest) / self.basis.size).to(sigma.dtype).expand(len(sigma))

    def error_std(self, sigma: torch.Tensor) -> torch.Tensor:
        """See `BaseDenoiser`: the root of `posterior_variance`."""
        return self.posterior_variance(sigma).sqrt()[:, None, None, None]

    def sample(self, y: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Draw images of the classes ``y`` exactly by a CPU's coins (not clamped), (n, C, H, W)."""
        y = y.to(self.device)
        a = torch.randn(len(y), self.basis.size, generator=generator, dtype=self.mean.dtype)
        a = a.to(self.device)
        a[:, self.rank :] *= self.variance.sqrt()
        for k, rows in _by_class(y):
            weights = self.log_weights[k].exp().flatten()
            j = torch.multinomial(weights.cpu(), len(rows), True, generator=generator)
            j = j.to(self.device)
            g = j // self.log_weights.shape[2]
            low = self.offset[k].flatten(0, 1)[j] + a[rows, : self.rank] * self.values[k, g].sqrt()
            placed = low.new_zeros(len(rows), *self.values[k].shape)
            placed[torch.arange(len(rows), device=self.device), g] = low
            a[rows, : self.rank] = placed.flatten(1) @ self.vectors[k].T
        return self.from_axes(a + self.mean[y])

    @property
    def coordinates(self) -> Coordinates:
        """See `BaseDenoiser`: those in the axes."""
        return InAxes(self)

    def to_axes(self, x: torch.Tensor) -> torch.Tensor:
        """Return the coordinates of images in the axes: (n, C, H, W) -> (n, P)."""
        u, d = self.basis.forward(x.to(self.mean.dtype)), len(self.axes)
        return torch.cat([rows_by(u[:, :d], self.axes), u[:, d:]], dim=1)

    def from_axes(self, u: torch.Tensor) -> torch.Tensor:
        """Return the images of coordinates in the axes: (n, P) -> (n, C, H, W)."""
        d = len(self.axes)
        return self.basis.inverse(torch.cat([rows_by(u[:, :d], self.axes.T), u[:, d:]], dim=1))

    def _variance(self, sigma: torch.Tensor) -> torch.Tensor:
        """Return sigma² (n, 1); (1, 1) of one number that is expanded to all rows."""
        levels = sigma[:1] if sigma.stride(0) == 0 else sigma
        return (levels.to(self.mean.dtype) ** 2)[:, None]

    def _centre(self, y: torch.Tensor, classes: list[tuple[int, torch.Tensor]]) -> torch.Tensor:
        """Return the means of the rows' classes in the axes, (n, P); of a single class, (1, P)."""
        return self.mean[classes[0][0]][None] if len(classes) == 1 else self.mean[y]

    def _rotated(self, k: int, low: torch.Tensor) -> torch.Tensor:
        """Return low coefficients (n, d) in each eigenbasis of class k, (n, G, d)."""
        return rows_by(low, self.vectors[k]).reshape(-1, *self.values[k].shape)

    def _logits(self, k: int, a: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
        """Log weight and density of each component of class k, but for a constant, (n, G, J/G)."""
        total = self.values[k] + variance[:, None]
        b = self.offset[k]
        square = (a**2 / total).sum(2, keepdim=True) + _inner(1 / total, b**2)
        square = square - 2 * _inner(a / total, b)
        return self.log_weights[k] - (square + torch.log(total).sum(2, keepdim=True)) / 2


class InAxes:
    """A mixture's density over coordinates in its axes, as a `Denoiser` of "images" (1, 1, P)."""

    def __init__(self, mixture: Mixture) -> None:
        self._mixture = mixture
        self.shape = 1, 1, mixture.basis.size
        self.classes, self.device = mixture.classes, mixture.device

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """See `Denoiser`."""
        return self._mixture.denoise_in_axes(self._flat(x), sigma, y).view(x.shape).to(x.dtype)

    def class_shift(self, x: torch.Tensor, sigma: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """See `Denoiser`."""
        shift = self._mixture.class_shift_in_axes(self._flat(x), sigma, y)
        return shift.view(x.shape).to(x.dtype)

    def image(self, x: torch.Tensor) -> torch.Tensor:
        """See `Coordinates`."""
        return self._mixture.from_axes(self._flat(x)).to(x.dtype)

    def _flat(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1).to(self._mixture.mean.dtype)


def _weighted(share: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """Add up centres (G, J/G, d) by their shares (n, G, J/G): (n, G, d)."""
    if len(centres) == 1:
        return rows_by(share[:, 0], centres[0])[:, None]
    return share * centres[:, 0]  # each component has a covariance of its own: J/G is 1


def _inner(a: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """Return the inner products of a (n, G, d) with centres (G, J/G, d): (n, G, J/G)."""
    if len(centres) == 1:
        return rows_by(a[:, 0], centres[0].T)[:, None]
    return (a * centres[:, 0]).sum(dim=2, keepdim=True)


def _gaussian_log_density(a: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
    return -(a**2 / variance + torch.log(variance) + _LOG_2PI).sum(1) / 2


def _by_class(y: torch.Tensor) -> list[tuple[int, torch.Tensor]]:
    """Return each class that occurs with the rows it occurs in."""
    return [(int(k), (y == k).nonzero()[:, 0]) for k in torch.unique(y)]
