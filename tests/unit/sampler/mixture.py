"""An exact denoiser for tests: a Gaussian mixture per class, and what is known of it."""

from dataclasses import dataclass

import numpy as np
import torch


@dataclass
class ExactMixture:
    """D(x; sigma) = sum_k r_k (mu_k + Sigma_k (Sigma_k + sigma² I)^-1 (x - mu_k)).

    weights (classes, J), means (classes, J, d), covariances (classes, J, d, d), all float64 with
    d = C·H·W; the answer has the type of x.
    """

    shape: tuple[int, int, int]
    weights: torch.Tensor
    means: torch.Tensor
    covariances: torch.Tensor

    def __post_init__(self) -> None:
        self.values, self.vectors = torch.linalg.eigh(self.covariances)

    @property
    def classes(self) -> int:
        return len(self.weights)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.shape

    @property
    def pyramid(self) -> None:
        return None

    @property
    def coordinates(self) -> "ExactMixture":
        return self

    def image(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def decode(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def _parts(self, x: torch.Tensor, sigma: torch.Tensor, y: torch.Tensor):
        flat = x.flatten(1).double()
        a = torch.einsum("njde,njd->nje", self.vectors[y], flat[:, None] - self.means[y])
        total = self.values[y] + (sigma.double() ** 2)[:, None, None]
        logits = self.weights[y].log() - (a**2 / total + total.log()).sum(2) / 2
        return a, total, logits

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        a, total, logits = self._parts(x, sigma, y)
        pull = torch.einsum("njde,nje->njd", self.vectors[y], a * self.values[y] / total)
        mean = (logits.softmax(1)[:, :, None] * (self.means[y] + pull)).sum(1)
        return mean.reshape(x.shape).to(x.dtype)

    def class_shift(self, x: torch.Tensor, sigma: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        labels = [torch.full_like(y, k) for k in range(self.classes)]
        share = torch.stack([-self.potential(x, sigma, k) for k in labels]).softmax(0)
        means = torch.stack([self.denoise(x, sigma, k) for k in labels])
        return self.denoise(x, sigma, y) - torch.einsum("kn,kn...->n...", share.to(x.dtype), means)

    def potential(self, x: torch.Tensor, sigma: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """U = -log p(x; sigma | y) up to a constant, (n,)."""
        return -self._parts(x, sigma, y)[2].logsumexp(1)

    def draw(self, n: int, sigma: float, rng: np.random.Generator, y: int = 0) -> torch.Tensor:
        """Draw from p(x; sigma | y) exactly: (n, C, H, W) float64."""
        j = torch.from_numpy(rng.choice(self.weights.shape[1], n, p=self.weights[y].numpy()))
        noise = torch.from_numpy(rng.standard_normal((n, self.means.shape[2])))
        scaled = noise * (self.values[y] + sigma**2).sqrt()[j]
        x = self.means[y][j] + torch.einsum("nde,ne->nd", self.vectors[y][j], scaled)
        return x.reshape(n, *self.shape)

    def moments(self, sigma: float, y: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean (d,) and second moment E[x xᵀ] (d, d) of p(x; sigma | y)."""
        w, mu = self.weights[y], self.means[y]
        spread = self.covariances[y] + sigma**2 * torch.eye(mu.shape[1], dtype=torch.float64)
        second = spread + mu[:, :, None] * mu[:, None, :]
        return w @ mu, (w[:, None, None] * second).sum(0)

    def score(self, sigma: float, y: int = 0):
        """Grad log p(x; sigma | y) at one level."""

        def score_at(x: torch.Tensor) -> torch.Tensor:
            n = len(x)
            levels = torch.full((n,), sigma, dtype=torch.float64)
            return (self.denoise(x, levels, torch.full((n,), y)) - x) / sigma**2

        return score_at


def gaussian(covariance: list[list[float]], mean: list[float]) -> ExactMixture:
    one = torch.ones(1, 1, dtype=torch.float64)
    return ExactMixture(
        (1, 1, len(mean)),
        one,
        torch.tensor([[mean]], dtype=torch.float64),
        torch.tensor([[covariance]], dtype=torch.float64),
    )


def two_modes(apart: float, weight: float = 0.3, variance: float = 0.05) -> ExactMixture:
    """Two round modes in the plane, ``apart`` from each other; the first has ``weight``."""
    means = torch.tensor([[[-apart / 2, 0.0], [apart / 2, 0.0]]], dtype=torch.float64)
    return ExactMixture(
        (1, 1, 2),
        torch.tensor([[weight, 1 - weight]], dtype=torch.float64),
        means,
        variance * torch.eye(2, dtype=torch.float64).expand(1, 2, 2, 2).clone(),
    )


def pictures(classes: int = 3, side: int = 6, modes: int = 4) -> ExactMixture:
    """Small pictures: random means and covariances, fixed once for all."""
    rng = np.random.default_rng(11)
    d = side * side
    roots = rng.standard_normal((classes, modes, d, d)) * 0.15 / np.sqrt(d)
    return ExactMixture(
        (1, side, side),
        torch.from_numpy(rng.dirichlet(np.ones(modes) * 5, classes)),
        torch.from_numpy(rng.uniform(-0.8, 0.8, (classes, modes, d))),
        torch.from_numpy(roots @ roots.swapaxes(-1, -2)),
    )


class BatchNoise:
    """A noise source of one stream, for large batches of chains in float64."""

    def __init__(self, seed: int, n: int) -> None:
        self._rng, self._n = np.random.default_rng(seed), n

    def normal(self, shape: tuple[int, ...]) -> torch.Tensor:
        return torch.from_numpy(self._rng.standard_normal((self._n, *shape)))

    def uniform(self) -> torch.Tensor:
        return torch.from_numpy(1 - self._rng.random(self._n))


def worst_z(values: torch.Tensor, truth: torch.Tensor) -> float:
    """Largest |z| of the column means of independent rows (n, k) against ``truth`` (k,)."""
    z = (values.mean(0) - truth) / (values.std(0) / len(values) ** 0.5)
    return float(z.abs().max())
