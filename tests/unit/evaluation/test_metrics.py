"""Distances, density and coverage, nearest records: by hand and by brute force."""

from collections.abc import Callable

import numpy as np
import pytest

from sampler.evaluation import metrics as module
from sampler.evaluation.metrics import (
    coverage_figures,
    density_and_coverage,
    frechet_distance,
    gaussian_frechet,
    kernel_distance,
    kernel_distance_of_blocks,
    nearest,
    nearest_figures,
    radial_power,
    spectrum_figures,
    with_standard_error,
)

RNG = np.random.default_rng(0)


def random_covariance(f: int) -> np.ndarray:
    a = RNG.normal(size=(f, f))
    return a @ a.T


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


def test_frechet_of_samples_is_that_of_their_moments() -> None:
    x = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [2.0, 2.0]])
    y = 3 * x + 5
    # Means (1, 1) and (8, 8); covariances 4/3 and 12 on the diagonal.
    assert frechet_distance(x, y) == pytest.approx(2 * 49 + 2 * (12**0.5 - (4 / 3) ** 0.5) ** 2)


def test_kernel_distance_is_unbiased() -> None:
    """The mean over 400 pairs of samples of one Gaussian; false alarm below 1e-6."""
    rng = np.random.default_rng(1)
    pairs = [(rng.normal(size=(30, 3)), rng.normal(size=(20, 3))) for _ in range(400)]

    def z(distance: Callable[[np.ndarray, np.ndarray], float]) -> float:
        values = [distance(x, y) for x, y in pairs]
        return float(np.mean(values) / (np.std(values) / 20))

    assert abs(z(kernel_distance)) < 5
    k = lambda a, b: ((a @ b.T / 3 + 1) ** 3).mean()  # noqa: E731 - counts the pairs (i, i)
    assert abs(z(lambda x, y: k(x, x) + k(y, y) - 2 * k(x, y))) > 5


def test_kernel_distance_is_the_same_in_any_chunks() -> None:
    x, y = RNG.normal(size=(2500, 4)), RNG.normal(size=(1200, 4)) + 0.1
    expected = 0.0
    for a, sign in ((x, 1), (y, 1)):
        k = (a @ a.T / 4 + 1) ** 3
        expected += sign * (k.sum() - np.trace(k)) / (len(a) * (len(a) - 1))
    expected -= 2 * ((x @ y.T / 4 + 1) ** 3).mean()
    assert kernel_distance(x, y) == pytest.approx(expected, rel=1e-9)


def test_blocks_are_dealt_at_random() -> None:
    """Halves of one set, ordered by class in opposite ways, are near; noise moves them apart."""
    x = np.repeat(np.arange(4.0), 500)[:, None] / 4 + RNG.normal(size=(2000, 8)) / 2
    half, other = x[::2], x[::-2].copy()
    noise = RNG.normal(size=half.shape)
    near, *noisy = (kernel_distance_of_blocks(half + s * noise, other) for s in (0, 0.5, 1))
    assert abs(near) < noisy[0] / 3 < noisy[1] / 10
    assert kernel_distance(half[:500], other[:500]) > 1  # a block of the first in either order


def test_the_standard_error_is_that_of_repeated_samples() -> None:
    """Of the difference of two means: sqrt(2 / n); 0.07 is six deviations of 400 halves."""

    def gap(x: np.ndarray, y: np.ndarray) -> float:
        return float(x.mean() - y.mean())

    x, y = RNG.normal(size=(200, 1)), RNG.normal(size=(200, 1))
    found = with_standard_error("gap", gap, x, y, range(400))
    assert found["gap"] == gap(x, y)
    assert found["gap_std"] == pytest.approx(np.sqrt(2 / 200), rel=0.25)
    assert with_standard_error("gap", gap, x, y, [7])["gap_std"] is None


def mean_power(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    frequency, powers = radial_power(images)
    return frequency, powers.mean(0)


def test_the_spectrum_of_white_noise_is_flat_and_of_a_wave_is_a_peak() -> None:
    frequency, power = mean_power(RNG.integers(0, 256, (50, 1, 128, 128), dtype=np.uint8))
    assert frequency[0] == pytest.approx(1 / 128)
    assert frequency[-1] == pytest.approx(0.5)
    assert np.abs(10 * np.log10(power[4:] / power[4:].mean())).max() < 1
    wave = 127.5 + 100 * np.sin(2 * np.pi * 0.25 * np.arange(128))
    images = np.broadcast_to(wave.astype(np.uint8), (1, 1, 128, 128))
    frequency, power = mean_power(images)
    assert frequency[power.argmax()] == pytest.approx(0.25)
    assert power.max() > 100 * np.median(power)


def blurred(images: np.ndarray) -> np.ndarray:
    mixed = sum(np.roll(images.astype(float), step, axis) for step in (0, 1) for axis in (2, 3))
    return (mixed / 4).round().astype(np.uint8)


def test_the_spectrum_sees_blur_and_grain() -> None:
    first, second, third = RNG.integers(0, 256, (3, 200, 3, 32, 32), dtype=np.uint8)
    same = spectrum_figures(first, second, third, (0, 1, 2))
    soft = spectrum_figures(blurred(first), second, third, (0, 1, 2))
    softer = spectrum_figures(blurred(blurred(first)), second, third, (0,))
    assert same["distance_db"] < 0.3
    assert same["distance_db_real"] == soft["distance_db_real"] < 0.3
    assert 1 < soft["distance_db"] < softer["distance_db"]
    assert 0 < same["distance_db_std"] < 0.3
    assert softer["distance_db_std"] is None
    one_colour = np.full((10, 3, 32, 32), 90, dtype=np.uint8)
    assert 30 < spectrum_figures(one_colour, second, third, (0,))["distance_db"] < 300


def column(*values: float) -> np.ndarray:
    return np.array(values, dtype=float)[:, None]


REAL = column(0, 1, 3, 7)  # balls for k = 1: (-1, 1), (0, 2), (1, 5), (3, 11)


@pytest.mark.parametrize(
    ("drawn", "k", "density", "coverage"),
    [
        ((0.5, 4, 4, 20), 1, 6 / 4, 1.0),  # 0.5 lies in two balls, each 4 in two, 20 in none
        ((4, 4, 20), 1, 4 / 3, 2 / 4),
        ((1,), 1, 1.0, 1 / 4),  # on the border of two balls, which are open
        ((20, 30), 1, 0.0, 0.0),
        ((4,), 2, 2 / 2, 2 / 4),  # balls for k = 2: (-3, 3), (-1, 3), (0, 6), (1, 13)
    ],
)
def test_by_hand(drawn: tuple[float, ...], k: int, density: float, coverage: float) -> None:
    assert density_and_coverage(REAL, column(*drawn), k) == (density, coverage)


@pytest.mark.parametrize("seed", range(5))
def test_by_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    real, drawn = rng.normal(size=(40, 3)), rng.normal(0.5, 0.8, (30, 3))
    inside = []
    for x in real:
        radius = sorted(np.linalg.norm(x - other) for other in real)[5]  # of the fifth neighbour
        inside.append([np.linalg.norm(x - y) < radius for y in drawn])
    expected = sum(map(sum, inside)) / (5 * 30), sum(map(any, inside)) / 40
    assert density_and_coverage(real, drawn, 5) == pytest.approx(expected)


def test_the_same_distribution_has_density_one_and_the_expected_coverage() -> None:
    rng = np.random.default_rng(0)
    density, coverage = density_and_coverage(rng.normal(size=(500, 4)), rng.normal(size=(500, 4)))
    assert density == pytest.approx(1, abs=0.1)
    assert coverage == pytest.approx(1 - 2**-5, abs=0.03)  # Naeem et al., Lemma 2


def test_a_lost_mode_halves_coverage_and_leaves_density() -> None:
    rng = np.random.default_rng(0)
    real = rng.normal(size=(400, 4))
    real[200:] += 20
    density, coverage = density_and_coverage(real, rng.normal(size=(400, 4)))
    assert coverage == pytest.approx(0.5, abs=0.02)
    assert density == pytest.approx(1, abs=0.15)


def test_classes_are_compared_in_equal_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Feature = pixels; class 1 is moved away in the synthetic images, class 2 is too rare."""
    monkeypatch.setattr(module, "features", lambda _, x: x.reshape(len(x), -1).astype(float))
    monkeypatch.setattr(module, "MOST_PER_CLASS", 30)
    rng = np.random.default_rng(0)

    def records(counts: tuple[int, ...], move: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.repeat(np.arange(3), counts)
        images = rng.integers(0, 100, (len(labels), 1, 2, 2), dtype=np.uint8)
        images[labels == 1] += np.uint8(move)
        return images, labels

    found = coverage_figures(
        None,  # type: ignore[arg-type]
        records((100, 25, 40), 150),
        records((80, 60, 40), 0),
        records((50, 50, 5), 0),
        classes=3,
    )
    assert found["images_per_class"] == [30, 25, 5]
    high, none, rare = found["coverage_per_class"]
    assert high > 0.8 and none == 0 and rare is None
    assert found["coverage"] == (high + none) / 2
    assert found["density_per_class"][1:] == [0, None]
    assert min(found["coverage_real_per_class"][:2]) > 0.8


RECORDS = RNG.integers(0, 256, (6000, 1, 10, 10), dtype=np.uint8)
UNSEEN = RNG.integers(0, 256, (200, 1, 10, 10), dtype=np.uint8)


def test_planted_copies_are_found_in_any_chunk() -> None:
    planted = np.array([5999, 0, 4999, 5000, 17])
    distance, index = nearest(RECORDS[planted], RECORDS)
    assert np.array_equal(index, planted)
    assert (distance == 0).all()


def test_distance_and_index_are_those_of_plain_search() -> None:
    distance, index = nearest(UNSEEN[:20], RECORDS)
    difference = UNSEEN[:20, None].astype(float) - RECORDS[None].astype(float)
    plain = np.sqrt((difference**2).mean((2, 3, 4))) / 255
    assert np.array_equal(index, plain.argmin(1))
    assert distance == pytest.approx(plain.min(1), rel=1e-5)


def test_figures_tell_copies_from_fresh_images() -> None:
    fresh = RNG.integers(0, 256, (200, 1, 10, 10), dtype=np.uint8)
    honest = nearest_figures(fresh, RECORDS, UNSEEN)
    assert honest["exact_copies"] == 0
    # 2 of 200 are expected below the 1 % quantile; 20 or more at 1e-9.
    assert honest["closer_than_test"] < 0.1
    copied = fresh.copy()
    copied[::4] = RECORDS[:50]  # the broken twin: a generator that copies
    caught = nearest_figures(copied, RECORDS, UNSEEN)
    assert caught["exact_copies"] == 50
    assert caught["closer_than_test"] >= 0.25
    nudged = copied ^ 1  # every pixel off by one: no exact copy, still far too near
    assert nearest_figures(nudged, RECORDS, UNSEEN)["exact_copies"] == 0
    assert nearest_figures(nudged, RECORDS, UNSEEN)["closer_than_test"] >= 0.25


def test_only_some_images_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_IMAGES", 30)
    assert nearest_figures(UNSEEN, RECORDS, UNSEEN)["images"] == 30
