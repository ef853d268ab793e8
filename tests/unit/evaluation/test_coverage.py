"""Density and coverage: by hand, by brute force, and what they are for."""

import numpy as np
import pytest

from sampler.evaluation import metrics as module
from sampler.evaluation.metrics import coverage_figures, density_and_coverage


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


def brute_force(real: np.ndarray, drawn: np.ndarray, k: int, own: int = 1) -> tuple[float, float]:
    inside = []
    for x in real:
        radius = sorted(np.linalg.norm(x - other) for other in real)[k - 1 + own]
        inside.append([np.linalg.norm(x - y) < radius for y in drawn])
    density = sum(map(sum, inside)) / (k * len(drawn))
    return density, sum(map(any, inside)) / len(real)


@pytest.mark.parametrize("seed", range(5))
def test_by_brute_force_and_its_broken_twin(seed: int) -> None:
    rng = np.random.default_rng(seed)
    real, drawn = rng.normal(size=(40, 3)), rng.normal(0.5, 0.8, (30, 3))
    found = density_and_coverage(real, drawn, 5)
    assert found == pytest.approx(brute_force(real, drawn, 5))
    # The twin counts an image as its own nearest neighbour.
    assert found != pytest.approx(brute_force(real, drawn, 5, own=0))


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
