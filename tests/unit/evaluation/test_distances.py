import numpy as np
import pytest

from sampler.evaluation.metrics import frechet_distance, gaussian_frechet, kernel_distance

RNG = np.random.default_rng(0)


def random_covariance(f: int) -> np.ndarray:
    a = RNG.normal(size=(f, f))
    return a @ a.T


def without_covariance(m1, c1, m2, c2) -> float:
    """Broken twin: the means alone."""
    return float(((m1 - m2) ** 2).sum())


def root_of_each(m1, c1, m2, c2) -> float:
    """Broken twin: tr((C1^½ C2^½)), right only when the covariances commute."""

    def root(c):
        values, vectors = np.linalg.eigh(c)
        return (vectors * np.sqrt(values.clip(0))) @ vectors.T

    cross = np.trace(root(c1) @ root(c2))
    return float(((m1 - m2) ** 2).sum() + np.trace(c1) + np.trace(c2) - 2 * cross)


def diagonal_case() -> tuple:
    s, t = np.array([1.0, 2.0, 0.5]), np.array([0.3, 1.0, 4.0])
    m = np.array([1.0, -2.0, 0.0])
    return (m, np.diag(s**2), 0 * m, np.diag(t**2)), 5.0 + ((s - t) ** 2).sum()


def transported_case() -> tuple:
    """N(0, C) and its image under x -> A x, A symmetric positive: W² = tr((A - 1) C (A - 1))."""
    c, a = random_covariance(4), random_covariance(4)
    step = a - np.eye(4)
    zero = np.zeros(4)
    return (zero, c, zero, a @ c @ a), np.trace(step @ c @ step)


def singular_case() -> tuple:
    u, v = np.array([3.0, 4.0]), np.array([0.0, 2.0])
    zero = np.zeros(2)
    # Rank one each: tr (C1^½ C2 C1^½)^½ = |u·v|.
    return (zero, np.outer(u, u), zero, np.outer(v, v)), 25 + 4 - 2 * 8.0


CASES = [diagonal_case(), transported_case(), singular_case()]


@pytest.mark.parametrize(("gaussians", "expected"), CASES)
def test_frechet_closed_forms(gaussians: tuple, expected: float) -> None:
    assert gaussian_frechet(*gaussians) == pytest.approx(expected, rel=1e-6)
    m1, c1, m2, c2 = gaussians
    assert gaussian_frechet(m2, c2, m1, c1) == pytest.approx(expected, rel=1e-6)
    assert gaussian_frechet(m1, c1, m1, c1) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("twin", [without_covariance, root_of_each])
def test_frechet_twins_are_caught(twin) -> None:
    assert any(abs(twin(*gaussians) / expected - 1) > 1e-3 for gaussians, expected in CASES)


def test_frechet_of_samples_is_that_of_their_moments() -> None:
    x = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 2.0]])
    y = 3 * x + 5
    # Means (1, 1) and (8, 8); covariances 4/3 and 12 on the diagonal.
    assert frechet_distance(x, y) == pytest.approx(2 * 49 + 2 * (12**0.5 - (4 / 3) ** 0.5) ** 2)


def test_kernel_distance_by_hand() -> None:
    x, y = np.array([[1.0], [2.0], [0.0]]), np.array([[3.0], [-1.0]])
    k = lambda a, b: (a * b + 1.0) ** 3  # noqa: E731
    own = (k(1, 2) + k(1, 0) + k(2, 0)) / 3
    other = k(3, -1)
    cross = np.mean([k(a, b) for a in (1, 2, 0) for b in (3, -1)])
    assert kernel_distance(x, y) == pytest.approx(own + other - 2 * cross)


def biased(x, y) -> float:
    """Broken twin: pairs (i, i) counted."""
    f = x.shape[1]
    k = lambda a, b: ((a @ b.T / f + 1) ** 3).mean()  # noqa: E731
    return float(k(x, x) + k(y, y) - 2 * k(x, y))


def kernel_z(distance) -> float:
    """Mean over 400 pairs of samples of one Gaussian, in standard errors."""
    rng = np.random.default_rng(1)
    values = [distance(rng.normal(size=(30, 3)), rng.normal(size=(20, 3))) for _ in range(400)]
    return float(np.mean(values) / (np.std(values) / 20))


def test_kernel_distance_is_unbiased_and_the_biased_twin_is_caught() -> None:
    assert abs(kernel_z(kernel_distance)) < 5  # false alarm below 1e-6
    assert abs(kernel_z(biased)) > 5


def test_kernel_distance_is_the_same_in_any_chunks() -> None:
    x, y = RNG.normal(size=(2500, 4)), RNG.normal(size=(1200, 4)) + 0.1
    expected = 0.0
    for a, sign in ((x, 1), (y, 1)):
        k = (a @ a.T / 4 + 1) ** 3
        expected += sign * (k.sum() - np.trace(k)) / (len(a) * (len(a) - 1))
    expected -= 2 * ((x @ y.T / 4 + 1) ** 3).mean()
    assert kernel_distance(x, y) == pytest.approx(expected, rel=1e-9)
