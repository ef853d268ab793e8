"""The closed-form denoiser against brute force: integration, autograd, sampling."""

import numpy as np
import pytest
import torch

from dppm_model.score.dct import Basis, dct_matrix
from dppm_model.score.mixture import Mixture

SHAPE = (1, 2, 3)
P, D, J, K = 6, 4, 3, 2


class WrongGain(Mixture):
    """Broken twin: adds sigma where the variance sigma² belongs."""

    def _variance(self, sigma: torch.Tensor) -> torch.Tensor:
        return sigma.to(self.mean.dtype)[:, None]


class NearestOnly(Mixture):
    """Broken twin: takes the most likely component instead of weighing all."""

    def _logits(self, k: int, a: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
        return 1e3 * super()._logits(k, a, variance)


class OneVolume(Mixture):
    """Broken twin: forgets that a wide component is thin everywhere."""

    def _logits(self, k: int, a: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
        total = self.values[k] + variance[:, None]
        return super()._logits(k, a, variance) + torch.log(total).sum(2, keepdim=True) / 2


def build(
    cls: type[Mixture] = Mixture, dtype: torch.dtype = torch.float64, groups: int = 1
) -> Mixture:
    """Components share a covariance (groups = 1) or have their own (groups = J)."""
    rng = np.random.default_rng(0)
    mean = rng.normal(size=(K, P))
    centres = mean[:, None, :D] + rng.normal(size=(K, J, D))
    a, b = rng.normal(size=(K, groups, D, D)), rng.normal(size=(P - D, P - D))
    covariance = 0.3 * a @ a.transpose(0, 1, 3, 2) + 0.05 * np.eye(D)
    weights = rng.uniform(0.5, 1, size=(K, J))
    high = 0.2 * b @ b.T + 0.05 * np.eye(P - D)
    return cls(SHAPE, mean, centres, weights, covariance, high, dtype=dtype)


def batch(n: int = 12) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    x = 2 * torch.randn((n, *SHAPE), generator=g, dtype=torch.float64)
    sigma = torch.logspace(-1.5, 1, n, dtype=torch.float64)
    return x, sigma, torch.arange(n) % K


def tweedie_gap(mixture: Mixture) -> float:
    """Largest |D - (x + sigma² grad log p)|, with the gradient by autograd."""
    x, sigma, y = batch()
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(mixture.log_density(x, sigma, y).sum(), x)
    expected = x + sigma[:, None, None, None] ** 2 * gradient
    return float((mixture.denoise(x, sigma, y) - expected).detach().abs().max())


def integration_gap(cls: type[Mixture], groups: int = 1) -> float:
    """Largest |D - posterior mean by summing over a fine grid|, for a two-pixel image."""
    covariances = np.array([[[0.3, 0.1], [0.1, 0.2]], [[0.05, 0.0], [0.0, 0.6]]])[:groups]
    rng = np.random.default_rng(3)
    mean = 0.3 * rng.normal(size=(1, 2))
    centres = mean[:, None] + np.array([[[-1.0, 0.3], [0.8, -0.6]]])
    mixture = cls(
        (1, 1, 2),
        mean,
        centres,
        np.array([[0.3, 0.7]]),
        covariances[None],
        np.zeros((0, 0)),
        dtype=torch.float64,
    )
    axis = torch.linspace(-5, 5, 401, dtype=torch.float64)
    u = torch.cartesian_prod(axis, axis)
    prior = torch.zeros(len(u), dtype=torch.float64)
    for j, (centre, weight) in enumerate(
        zip(torch.from_numpy(centres[0]), (0.3, 0.7), strict=True)
    ):
        covariance = torch.from_numpy(covariances[j % groups])
        r = u - centre
        density = torch.exp(-((r @ torch.linalg.inv(covariance)) * r).sum(1) / 2)
        prior += weight * density / torch.linalg.det(covariance).sqrt()
    images = u @ dct_matrix(2)  # coefficients back to pixels
    gap = 0.0
    for sigma in (0.3, 1.0):
        for x in (torch.tensor([0.2, -0.4]), torch.tensor([1.5, 0.7])):
            x = x.double()
            p = prior * torch.exp(-((images - x) ** 2).sum(1) / (2 * sigma**2))
            exact = (p[:, None] * images).sum(0) / p.sum()
            noise = torch.tensor([sigma], dtype=torch.float64)
            got = mixture.denoise(x.reshape(1, 1, 1, 2), noise, torch.zeros(1, dtype=torch.int64))
            gap = max(gap, float((got.flatten() - exact).abs().max()))
    return gap


def test_denoiser_is_the_posterior_mean() -> None:
    for groups in (1, 2):
        assert integration_gap(Mixture, groups) < 1e-8
    for groups in (1, J):
        assert tweedie_gap(build(groups=groups)) < 1e-9


@pytest.mark.parametrize("twin", [WrongGain, NearestOnly, OneVolume])
def test_broken_denoisers_are_caught(twin: type[Mixture]) -> None:
    assert integration_gap(twin, groups=2) > 1e-3


def test_equal_covariances_are_one_covariance() -> None:
    shared = build()
    own = build(groups=J)
    own.high_values, own.high_vectors = shared.high_values, shared.high_vectors
    k, d, _ = shared.vectors.shape
    own.values = shared.values.expand(k, J, d).clone()
    own.vectors = shared.vectors.repeat(1, 1, J)
    own.offset = shared.offset.transpose(1, 2).clone()
    own.log_weights = shared.log_weights.transpose(1, 2).clone()
    x, sigma, y = batch()
    assert torch.allclose(own.denoise(x, sigma, y), shared.denoise(x, sigma, y), atol=1e-12)
    assert torch.allclose(own.log_density(x, sigma, y), shared.log_density(x, sigma, y))


def test_class_shift_is_the_gradient_of_the_class_posterior() -> None:
    mixture, weights = build(), torch.tensor([0.3, 0.7], dtype=torch.float64)
    x, sigma, y = batch()
    x.requires_grad_()
    both = [mixture.log_density(x, sigma, torch.full_like(y, k)) for k in range(K)]
    logits = torch.stack(both, dim=1) + weights.log()
    posterior = logits.log_softmax(1)[torch.arange(len(y)), y]
    (gradient,) = torch.autograd.grad(posterior.sum(), x)
    expected = sigma[:, None, None, None] ** 2 * gradient
    mixture.class_log_weights = weights.log()
    shift = mixture.class_shift(x, sigma, y).detach()
    torch.testing.assert_close(shift, expected, rtol=1e-9, atol=1e-9)
    mixture.class_log_weights = weights.flip(0).log()  # the twin: another prior
    other = mixture.class_shift(x, sigma, y).detach()
    assert float((other - expected).abs().max()) > 0.01


def test_log_density_integrates_to_one() -> None:
    mixture = Mixture(
        (1, 1, 2),
        np.zeros((1, 2)),
        np.array([[[-1.0], [1.0]]]),
        np.array([[1.0, 2.0]]),
        np.full((1, 1, 1, 1), 0.2),
        np.full((1, 1), 0.4),
        dtype=torch.float64,
    )
    axis = torch.linspace(-6, 6, 301, dtype=torch.float64)
    x = torch.cartesian_prod(axis, axis).reshape(-1, 1, 1, 2)
    sigma = torch.full((len(x),), 0.5, dtype=torch.float64)
    density = mixture.log_density(x, sigma, torch.zeros(len(x), dtype=torch.int64)).exp()
    assert float(density.sum()) * (12 / 300) ** 2 == pytest.approx(1, abs=1e-6)


def test_single_precision_agrees() -> None:
    x, sigma, y = batch()
    double = build().denoise(x, sigma, y)
    single = build(dtype=torch.float32).denoise(x.float(), sigma.float(), y)
    assert single.dtype == torch.float32
    assert torch.allclose(single.double(), double, atol=1e-3)


def test_limits_of_the_noise_level() -> None:
    mixture = build()
    x, _, y = batch()
    tiny = torch.full((len(x),), 1e-5, dtype=torch.float64)
    assert torch.allclose(mixture.denoise(x, tiny, y), x, atol=1e-6)
    huge = torch.full((len(x),), 1e6, dtype=torch.float64)
    centre = (mixture.log_weights.exp()[..., None] * mixture.offset).sum((1, 2))
    mean = mixture.mean.clone()
    mean[:, :D] += torch.einsum("kd,kcd->kc", centre, mixture.vectors)
    assert torch.allclose(mixture.denoise(x, huge, y), mixture.basis.inverse(mean[y]), atol=1e-5)


def test_rows_do_not_depend_on_each_other() -> None:
    mixture = build()
    x, sigma, y = batch()
    alone = torch.cat([mixture.denoise(x[i, None], sigma[i, None], y[i, None]) for i in range(12)])
    assert torch.allclose(mixture.denoise(x, sigma, y), alone, atol=1e-12)
    assert mixture.denoise(x[:0], sigma[:0], y[:0]).shape == (0, *SHAPE)


@pytest.mark.parametrize("groups", [1, J])
def test_samples_have_the_mixture_moments(groups: int) -> None:
    """z below 5.5 for 6 means and 6 variances: false-alarm rate below 1e-6."""
    mixture = build(groups=groups)
    n = 40_000
    y = torch.ones(n, dtype=torch.int64)
    u = mixture.basis.forward(mixture.sample(y, torch.Generator().manual_seed(0)))
    weights = mixture.log_weights[1].exp().flatten()
    vectors = mixture.vectors[1].view(D, groups, D).transpose(0, 1)
    centres = (mixture.offset[1] @ vectors.transpose(1, 2)).flatten(0, 1)
    within = ((vectors**2) * mixture.values[1][:, None]).sum(2)  # (groups, D)
    within = mixture.log_weights[1].exp().sum(1) @ within
    mean = mixture.mean[1].clone()
    mean[:D] += weights @ centres
    variance = torch.empty(P, dtype=torch.float64)
    spread = centres - weights @ centres
    variance[:D] = within + weights @ spread**2
    variance[D:] = ((mixture.high_vectors**2) * mixture.high_values).sum(1)
    centred = u - mean
    assert (centred.mean(0).abs() < 5.5 * (variance / n).sqrt()).all()
    spread_of_square = (centred**2).std(0) / n**0.5
    assert (((centred**2).mean(0) - variance).abs() < 5.5 * spread_of_square).all()


def test_posterior_variance_is_the_mean_squared_error_of_a_gaussian() -> None:
    """One component: E|D - x|² per pixel equals the posterior variance (z below 5)."""
    rng = np.random.default_rng(5)
    a = rng.normal(size=(1, P, P))
    mixture = Mixture(
        SHAPE,
        rng.normal(size=(1, P)),
        np.zeros((1, 1, P)),
        np.ones((1, 1)),
        0.2 * (a @ a.transpose(0, 2, 1))[:, None],
        np.zeros((0, 0)),
        dtype=torch.float64,
    )
    g = torch.Generator().manual_seed(2)
    y = torch.zeros(20_000, dtype=torch.int64)
    x = mixture.sample(y, g)
    sigma = torch.full((len(y),), 0.7, dtype=torch.float64)
    noisy = x + 0.7 * torch.randn(x.shape, generator=g, dtype=x.dtype)
    error = ((mixture.denoise(noisy, sigma, y) - x) ** 2).flatten(1).mean(1)
    claimed = float(mixture.posterior_variance(sigma[:1])[0])
    assert abs(float(error.mean()) - claimed) < 5 * float(error.std()) / len(y) ** 0.5


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (2, 5, 3)])
def test_the_basis_is_orthonormal_and_low_frequencies_come_first(
    shape: tuple[int, int, int],
) -> None:
    basis = Basis(shape)
    x = torch.randn((3, *shape), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u = basis.forward(x)
    assert torch.allclose(u.norm(dim=1), x.flatten(1).norm(dim=1))
    assert torch.allclose(basis.inverse(u), x)
    assert (basis.prior_variance.diff() <= 0).all()
    flat = torch.zeros_like(u)
    flat[:, 0] = 1
    assert torch.allclose(basis.inverse(flat), torch.full_like(x, basis.size**-0.5))
