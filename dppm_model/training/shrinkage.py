"""What a released value with noise of known size is worth: shrinkage of means and covariances.

All of this is post-processing of released values and public constants; it costs no privacy.
"""

from __future__ import annotations

import math

import torch


def octaves(std: torch.Tensor, channel: torch.Tensor) -> torch.Tensor:
    """Number each coefficient (P,) by its channel and its half octave of the public prior, int64.

    Channels have shells of their own: an image may have no colour at all.
    """
    half = (4 * torch.log2(std[0] / std)).long().clamp(min=0)
    return half + channel * (int(half.max()) + 1)


def shell_means(values: torch.Tensor, shell: torch.Tensor) -> torch.Tensor:
    """Return for each value (P,) the mean of those of its shell."""
    count = torch.bincount(shell).clamp(min=1)
    total = torch.zeros(len(count), dtype=values.dtype).index_add_(0, shell, values)
    return (total / count)[shell]


def wiener(values: torch.Tensor, noise: torch.Tensor, shell: torch.Tensor) -> torch.Tensor:
    """Shrink noisy values (k, P) of mean zero by signal/(signal + noise), shell by shell.

    The signal's variance is estimated (empirical Bayes) in each shell as the mean square less the
    noise, rows with less noise counting for more. ``noise`` (P,) or (k, P) is the known variance,
    ``shell`` (P,) numbers the shells.
    """
    tiny = torch.finfo(values.dtype).tiny
    noise = noise.expand_as(values)
    rows = noise.mean(1, keepdim=True).clamp(min=tiny)
    weight = 1 / (rows / rows.min())
    excess = (weight * (values**2 - noise)).sum(0) / weight.sum()
    signal = shell_means(excess, shell).clamp(min=0)
    return values * signal / (signal + noise).clamp(min=tiny)


def shrink_covariance(matrix: torch.Tensor, std: float, prior: torch.Tensor) -> torch.Tensor:
    """Clean the spectrum of a symmetric matrix that carries Gaussian noise.

    Noise of standard deviation ``std`` off the diagonal has a semicircle of eigenvalues that ends
    at the edge 2·sqrt(d)·std. An eigenvalue l above it comes from sqrt(l² - edge²), its
    Frobenius-optimal value (Shabalin & Nobel 2013; Gavish & Donoho 2017); those below tell nothing
    but their sum, which is given the shape of ``prior`` in the directions left.

    Parameters
    ----------
    matrix
        (d, d) released covariance.
    std
        Noise of an entry off the diagonal (on it: sqrt(2) times as much).
    prior
        (d, d) positive definite; only its shape matters.

    Returns
    -------
    (d, d) positive definite.
    """
    size = len(matrix)
    edge = 2 * math.sqrt(size) * std
    values, vectors = torch.linalg.eigh(matrix)
    kept = values > edge
    known = torch.sqrt((values[kept] ** 2 - edge**2).clamp(min=0))
    signal: torch.Tensor = (vectors[:, kept] * known) @ vectors[:, kept].T
    others = vectors[:, ~kept]
    tiny = 1e-6 * prior.trace() / size * torch.eye(size, dtype=matrix.dtype)
    if not others.shape[1]:
        return signal + tiny
    rest: torch.Tensor = others @ (others.T @ prior @ others) @ others.T
    amount = float((matrix.trace() - known.sum()) / rest.trace())
    most = edge / float(torch.linalg.matrix_norm(rest, 2))  # what is below the edge stays below it
    return signal + rest * min(max(amount, 0.0), most) + tiny


def shrink_difference(
    matrix: torch.Tensor, known: torch.Tensor, std: float, least: float
) -> torch.Tensor:
    """Keep of a noisy covariance what tells it from a known one, but for their sizes; (d, d).

    Parameters
    ----------
    matrix
        (d, d) with Gaussian noise of ``std`` off the diagonal (on it: sqrt(2) times as much).
    known
        (d, d) positive definite; it is first brought to the trace of ``matrix``, as far as noise
        does not explain how the two differ.
    least
        The smallest eigenvalue of the result, over the mean one.

    Eigenvalues of the difference within the edge 2·sqrt(d)·std of the noise are taken for noise;
    those beyond it are halfway between their value and the one that Frobenius' norm would choose.
    """
    size = len(matrix)
    edge = 2 * math.sqrt(size) * std
    trace = float(known.trace())
    moved = float(matrix.trace()) - trace
    if moved:
        moved *= max(0.0, 1 - 2 * size * std**2 / moved**2)
    mean = max(trace + moved, least * trace) / size
    start = known * (mean * size / trace)
    values, vectors = torch.linalg.eigh(matrix - start)
    root = (values**2 - edge**2).clamp(min=0).sqrt()
    kept = torch.where(values.abs() > edge, values.sign() * (values.abs() + root) / 2, 0.0)
    total = start + (vectors * kept) @ vectors.T
    values, vectors = torch.linalg.eigh(total)
    out: torch.Tensor = (vectors * values.clamp(min=least * mean)) @ vectors.T
    return out


def subtract_covariance(
    total: torch.Tensor, part: torch.Tensor, least: float = 0.2
) -> torch.Tensor:
    """Return total - part, but in no direction less than ``least`` of the total; (d, d)."""
    values, vectors = torch.linalg.eigh(total)
    least_value = max(1e-12 * float(values[-1]), torch.finfo(total.dtype).tiny)
    scale = values.clamp(min=least_value).sqrt()  # noise may have made some negative
    root, inverse = vectors * scale, vectors / scale
    left = torch.eye(len(total), dtype=total.dtype) - inverse.T @ part @ inverse
    share, axes = torch.linalg.eigh((left + left.T) / 2)
    out: torch.Tensor = root @ (axes * share.clamp(min=least)) @ axes.T @ root.T
    return out
