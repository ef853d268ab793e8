"""Dealing records to sites: everything once, nobody at two sites."""

import numpy as np
import pytest

from dppm_model.errors import ConfigError, DataError
from dppm_model.records.partition import partition

LABELS = np.random.default_rng(0).integers(0, 10, 2003)
OPTIONS = [
    {"scheme": "even"},
    {"scheme": "dirichlet", "alpha": 0.5},
    {"scheme": "sizes", "sizes": [1, 2, 3, 4, 5, 6, 7]},
    {"scheme": "exclusive"},
]


def covers_once(parts: list[np.ndarray], count: int) -> bool:
    return bool(np.array_equal(np.sort(np.concatenate(parts)), np.arange(count)))


@pytest.mark.parametrize("options", OPTIONS)
def test_every_record_once_and_the_same_way_for_a_seed(options: dict) -> None:
    parts = partition(LABELS, 7, seed=3, **options)
    assert len(parts) == 7
    assert covers_once(parts, len(LABELS))
    assert all(part.size and np.all(np.diff(part) > 0) for part in parts)
    again = partition(LABELS, 7, seed=3, **options)
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))
    other = partition(LABELS, 7, seed=4, **options)
    assert not all(np.array_equal(a, b) for a, b in zip(parts, other, strict=True))


def test_even_is_even_and_sizes_are_in_proportion() -> None:
    sizes = [len(part) for part in partition(LABELS, 7, scheme="even", seed=0)]
    assert max(sizes) - min(sizes) <= 1
    sizes = [len(p) for p in partition(LABELS, 3, scheme="sizes", seed=0, sizes=[1, 1, 2])]
    np.testing.assert_allclose(sizes, [500.75, 500.75, 1001.5], atol=1)


def skew(parts: list[np.ndarray]) -> float:
    """Mean distance between a site's label frequencies and all labels'."""
    whole = np.bincount(LABELS, minlength=10) / len(LABELS)
    own = [np.bincount(LABELS[part], minlength=10) / len(part) for part in parts]
    return float(np.mean([np.abs(f - whole).sum() for f in own]))


def test_a_small_alpha_is_uneven_and_a_large_one_is_not() -> None:
    uneven = partition(LABELS, 5, scheme="dirichlet", seed=0, alpha=0.3)
    level = partition(LABELS, 5, scheme="dirichlet", seed=0, alpha=1000)
    assert skew(uneven) > 0.5 > 0.15 > skew(level)


def test_exclusive_gives_one_site_a_class_nobody_else_has() -> None:
    first, *others = partition(LABELS, 5, scheme="exclusive", seed=0)
    assert (LABELS[first] == 0).sum() == (LABELS == 0).sum()
    assert all((LABELS[part] != 0).all() for part in others)
    assert {len(np.unique(LABELS[part])) for part in (first, *others)} == {9, 10}


@pytest.mark.parametrize("options", OPTIONS)
def test_persons_are_never_split(options: dict) -> None:
    persons = np.random.default_rng(1).integers(0, 400, len(LABELS))

    def shared(parts: list[np.ndarray]) -> int:
        seen = [set(persons[part].tolist()) for part in parts]
        return sum(len(s) for s in seen) - len(set.union(*seen))

    parts = partition(LABELS, 7, seed=0, persons=persons, **options)
    assert covers_once(parts, len(LABELS))
    assert shared(parts) == 0
    assert shared(partition(LABELS, 7, seed=0, **options)) > 0  # the broken twin: persons ignored


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({"scheme": "odd"}, "scheme"),
        ({"scheme": "even", "sites": 0}, "sites"),
        ({"scheme": "even", "sites": 3000}, "none of"),
        ({"scheme": "dirichlet", "alpha": 1e-4}, "none of"),
        ({"scheme": "dirichlet", "alpha": 0.0}, "alpha"),
        ({"scheme": "dirichlet", "alpha": float("nan")}, "alpha"),
        ({"scheme": "dirichlet", "alpha": float("inf")}, "alpha"),
        ({"scheme": "sizes"}, "sizes"),
        ({"scheme": "sizes", "sizes": [1, 2]}, "sizes"),
        ({"scheme": "sizes", "sizes": [1] * 6 + [0]}, "sizes"),
        ({"scheme": "sizes", "sizes": [1] * 6 + [float("nan")]}, "sizes"),
    ],
)
def test_what_cannot_be_dealt_is_refused(options: dict, cause: str) -> None:
    with pytest.raises(ConfigError, match=cause) as refusal:
        partition(LABELS, seed=0, **{"sites": 7, **options})
    assert refusal.value.hint


def test_one_person_per_record() -> None:
    with pytest.raises(DataError, match="persons"):
        partition(LABELS, 2, scheme="even", seed=0, persons=np.arange(5))
