"""The closed-form denoiser against brute force: integration, dense algebra, autograd, sampling."""

import json

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from dppm_model.score.dct import Basis, dct_matrix
from dppm_model.score.mixture import Mixture
from tests.benchmarks.runner import RESULTS

SHAPE = (1, 2, 3)
P, D, R, J, K = 6, 4, 3, 3, 2  # R of D axes tell the classes and their components apart


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


def settings(groups: int) -> dict[str, np.ndarray]:
    """Components share a covariance (groups = 1) or have their own (groups = J)."""
    rng = np.random.default_rng(0)
    a = rng.normal(size=(K, groups, R, R))
    return {
        "mean": rng.normal(size=(K, P)),
        "axes": np.linalg.qr(rng.normal(size=(D, D)))[0],
        "centres": rng.normal(size=(K, J, R)),
        "weights": rng.uniform(0.5, 1, size=(K, J)),
        "covariance": 0.3 * a @ a.transpose(0, 1, 3, 2) + 0.05 * np.eye(R),
        "variance": rng.uniform(0.05, 0.6, size=P - R),
    }


def build(
    cls: type[Mixture] = Mixture, dtype: torch.dtype = torch.float64, groups: int = 1
) -> Mixture:
    return cls(SHAPE, **settings(groups), dtype=dtype)


def dense(groups: int, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights (J,), means (J, P) and covariances (J, P, P) of class k, in coefficients."""
    own = settings(groups)
    axes = np.eye(P)
    axes[:D, :D] = own["axes"]
    means = own["mean"][k] + own["centres"][k] @ axes[:, :R].T
    covariances = np.zeros((J, P, P))
    covariances[:, :R, :R] = own["covariance"][k]
    covariances[:, range(R, P), range(R, P)] = own["variance"]
    return own["weights"][k] / own["weights"][k].sum(), means, axes @ covariances @ axes.T


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
    turn = np.array([[0.8, -0.6], [0.6, 0.8]])
    centres = np.array([[-1.0, 0.3], [0.8, -0.6]])
    mean = np.array([0.6, -0.8])
    mixture = cls(
        (1, 1, 2),
        mean[None],
        turn,
        centres[None],
        np.array([[0.3, 0.7]]),
        covariances[None],
        np.zeros(0),
        dtype=torch.float64,
    )
    axis = torch.linspace(-5, 5, 401, dtype=torch.float64)
    u = torch.cartesian_prod(axis, axis)
    prior = torch.zeros(len(u), dtype=torch.float64)
    for j, weight in enumerate((0.3, 0.7)):
        covariance = torch.from_numpy(turn @ covariances[j % groups] @ turn.T)
        r = u - torch.from_numpy(mean + turn @ centres[j])
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


@pytest.mark.parametrize("groups", [1, J])
def test_densities_and_denoised_images_are_those_of_dense_algebra(groups: int) -> None:
    mixture = build(groups=groups)
    x, sigma, y = batch()
    u = mixture.basis.forward(x).numpy()
    density = mixture.log_density(x, sigma, y).numpy()
    denoised = mixture.basis.forward(mixture.denoise(x, sigma, y)).numpy()
    for i, (level, k) in enumerate(zip(sigma.tolist(), y.tolist(), strict=True)):
        weights, means, covariances = dense(groups, k)
        noisy = covariances + level**2 * np.eye(P)
        logs = np.log(weights) + [
            multivariate_normal(m, c).logpdf(u[i]) for m, c in zip(means, noisy, strict=True)
        ]
        assert density[i] == pytest.approx(logsumexp(logs), abs=1e-9)
        pull = np.linalg.solve(noisy, (u[i] - means)[..., None])
        each = means + (covariances @ pull)[..., 0]
        np.testing.assert_allclose(denoised[i], np.exp(logs - logsumexp(logs)) @ each, atol=1e-9)


def test_equal_covariances_are_one_covariance() -> None:
    shared, same = settings(1), settings(1)
    same["covariance"] = np.repeat(same["covariance"], J, axis=1)
    one, each = (Mixture(SHAPE, **own, dtype=torch.float64) for own in (shared, same))
    x, sigma, y = batch()
    assert torch.allclose(each.denoise(x, sigma, y), one.denoise(x, sigma, y), atol=1e-12)
    assert torch.allclose(each.log_density(x, sigma, y), one.log_density(x, sigma, y))


def test_an_image_takes_no_square_of_its_pixels() -> None:
    """A dense matrix of 96² · 3 coefficients would have 764 million entries."""
    shape, d, r = (3, 96, 96), 20, 4
    size = 3 * 96 * 96
    mixture = Mixture(
        shape,
        np.zeros((2, size)),
        np.eye(d),
        np.zeros((2, 1, r)),
        np.ones((2, 1)),
        np.repeat(np.eye(r)[None, None], 2, axis=0),
        np.ones(size - r),
    )
    y = torch.zeros(2, dtype=torch.int64)
    x = mixture.sample(y, torch.Generator().manual_seed(0))
    assert torch.allclose(mixture.denoise(x, torch.ones(2), y), x / 2, atol=1e-4)
    assert max(buffer.numel() for buffer in mixture.buffers()) <= 2 * size


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


def axes_gap(mixture: Mixture) -> float:
    """Largest difference between pixels and the coordinates in which a sampler moves."""
    x, sigma, y = batch()
    mixture.class_log_weights = torch.tensor([0.3, 0.7], dtype=torch.float64).log()
    axes = mixture.coordinates
    u = mixture.to_axes(x).view(-1, *axes.shape)
    pairs = [
        (axes.image(u), x),
        (u.flatten(1).norm(dim=1), x.flatten(1).norm(dim=1)),  # an orthonormal change
        (axes.image(axes.denoise(u, sigma, y)), mixture.denoise(x, sigma, y)),
        (axes.image(axes.class_shift(u, sigma, y)), mixture.class_shift(x, sigma, y)),
    ]
    return max(float((a - b).abs().max()) for a, b in pairs)


class Skewed(Mixture):
    """Broken twin: axes that are not orthonormal, undone by their inverse."""

    def to_axes(self, x: torch.Tensor) -> torch.Tensor:
        return 1.1 * super().to_axes(x)

    def from_axes(self, u: torch.Tensor) -> torch.Tensor:
        return super().from_axes(u / 1.1)


@pytest.mark.parametrize("groups", [1, J])
def test_a_sampler_may_move_in_the_axes(groups: int) -> None:
    assert axes_gap(build(groups=groups)) < 1e-12
    assert axes_gap(build(Skewed, groups=groups)) > 0.01


def test_one_level_and_one_class_for_all_rows_give_what_a_mixed_batch_gives() -> None:
    mixture = build()
    x, _, y = batch()
    level = torch.full((1,), 0.3, dtype=torch.float64)
    mixed = mixture.denoise(x, level.repeat(len(x)), y)
    for k in range(K):
        alike = mixture.denoise(x, level.expand(len(x)), torch.full_like(y, k))
        assert torch.equal(alike[y == k], mixed[y == k])


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
    weights, means, _ = zip(*(dense(1, k) for k in range(K)), strict=True)
    mean = torch.from_numpy(np.stack([w @ m for w, m in zip(weights, means, strict=True)]))
    assert torch.allclose(mixture.denoise(x, huge, y), mixture.basis.inverse(mean[y]), atol=1e-5)


def test_rows_do_not_depend_on_each_other() -> None:
    mixture = build()
    x, sigma, y = batch()
    alone = torch.cat([mixture.denoise(x[i, None], sigma[i, None], y[i, None]) for i in range(12)])
    assert torch.allclose(mixture.denoise(x, sigma, y), alone, atol=1e-12)
    assert mixture.denoise(x[:0], sigma[:0], y[:0]).shape == (0, *SHAPE)


@pytest.mark.parametrize("groups", [1, J])
def test_samples_have_the_mixture_moments(groups: int) -> None:
    """z below 5.5 for 6 means and 36 products: false-alarm rate below 2e-6."""
    mixture, n = build(groups=groups), 40_000
    y = torch.ones(n, dtype=torch.int64)
    u = mixture.basis.forward(mixture.sample(y, torch.Generator().manual_seed(0))).numpy()
    weights, means, covariances = dense(groups, 1)
    mean = weights @ means
    spread = means - mean
    total = np.einsum("j,jab->ab", weights, covariances) + (weights[:, None] * spread).T @ spread
    centred = u - mean
    products = centred[:, :, None] * centred[:, None]
    assert (abs(centred.mean(0)) < 5.5 * np.sqrt(np.diagonal(total) / n)).all()
    assert (abs(products.mean(0) - total) < 5.5 * products.std(0) / n**0.5).all()


def test_posterior_variance_is_the_mean_squared_error_of_a_gaussian() -> None:
    """One component: E|D - x|² per pixel equals the posterior variance (z below 5)."""
    own = settings(1)
    own["centres"], own["weights"] = np.zeros((K, 1, R)), np.ones((K, 1))
    own["covariance"][1] = own["covariance"][0]  # what is said is a mean over classes
    mixture = Mixture(SHAPE, **own, dtype=torch.float64)
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


@pytest.mark.parametrize("kind", ["photographs", "drawings"])
@pytest.mark.parametrize("size", ["28", "32", "48", "64"])
def test_the_prior_is_near_the_spectra_of_public_images(kind: str, size: str) -> None:
    """Brightness, up to 19 periods; beyond, images have less. Neither falls more slowly."""
    measured = json.loads((RESULTS / "spectra.json").read_text())["figures"][kind][size]
    f, brightness, *colours = map(np.array, (measured["one_and_frequency"], *measured["variance"]))
    ratio = np.log(brightness * f**2)[(f > 2) & (f < 20)]
    assert np.exp(abs(ratio - ratio.mean()).max()) < 3.3
    assert max(measured["slope"]) < -2.2
    assert all((brightness / colour)[f > 2].min() > 2.8 for colour in colours)


def test_brightness_has_a_wider_band_than_colour() -> None:
    basis = Basis((3, 32, 32))
    channel = basis.order[:300] // 32**2
    brightness, *colours = torch.bincount(channel, minlength=3).tolist()
    assert all(2 < brightness / colour < 4 for colour in colours)
    assert channel.tolist().index(0) == 0
