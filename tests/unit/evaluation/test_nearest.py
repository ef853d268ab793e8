import numpy as np
import pytest

from sampler.evaluation import metrics as module
from sampler.evaluation.metrics import nearest, nearest_figures

RNG = np.random.default_rng(0)
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


def test_black_against_white_is_one() -> None:
    black = np.zeros((1, 3, 64, 64), dtype=np.uint8)
    assert nearest(black, black + 255)[0] == pytest.approx([1.0])


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


def test_at_most_so_many_images_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_IMAGES", 30)
    assert nearest_figures(UNSEEN, RECORDS, UNSEEN)["images"] == 30
