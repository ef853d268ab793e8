"""Answers are independent where the proof says so: pairs of them against the product of their laws.

With the production coins, keyed by the operating system; each test raises a false alarm with a
probability of at most 1e-6.
"""

import multiprocessing
from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import chi2_contingency

from dppm_model.mechanism.binomial import BinomialMechanism
from dppm_model.mechanism.directions import DirectionsMechanism
from dppm_model.mechanism.secure_rng import SecureRNG

N = 60_000
Pairs = tuple[np.ndarray, np.ndarray]
YES_NO = BinomialMechanism(range_=1.0, truth_strength=0.2, responses=3)
NAMES = DirectionsMechanism(directions=4, truth_strength=0.5, slots=4)


def answers(coins: SecureRNG) -> np.ndarray:
    """N tallies of the same coordinate."""
    return YES_NO.tallies(np.full(N, 1 << 20), 2.0**-22, coins)


def of_a_process(queue: "multiprocessing.Queue[np.ndarray]", coins: SecureRNG | None) -> None:
    queue.put(answers(coins or SecureRNG()))


def in_processes(method: str, coins: SecureRNG | None) -> Pairs:
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    started = [context.Process(target=of_a_process, args=(queue, coins)) for _ in range(2)]
    for process in started:
        process.start()
    found = [queue.get(timeout=60) for _ in started]
    for process in started:
        process.join()
    return found[0], found[1]


def coordinates() -> Pairs:
    found = answers(SecureRNG())
    return found[:-1:2], found[1::2]


def rounds() -> Pairs:
    coins = SecureRNG()
    return answers(coins), answers(coins)


def sites() -> Pairs:
    return answers(SecureRNG()), answers(SecureRNG())


def forks() -> Pairs:
    coins = SecureRNG()
    coins.words(1)  # the stream has begun before the processes part
    return in_processes("fork", coins)


def processes() -> Pairs:
    return in_processes("spawn", None)


def records() -> Pairs:
    """The records that are sampled in one round."""
    coins = SecureRNG()
    found = np.stack([coins.bernoulli(1 << 30, 2) for _ in range(N)])
    return found[:, 0], found[:, 1]


def sampling_and_answers() -> Pairs:
    """Whether a record was sampled, and how an untouched coordinate is answered after that."""
    coins, sampled, tallies = SecureRNG(), [], []
    zero = np.zeros(1, dtype=np.int64)
    for _ in range(N // 4):
        sampled.append(coins.bernoulli(1 << 31, 1)[0])
        tallies.append(YES_NO.tallies(zero, 1.0, coins)[0])
    return np.array(sampled), np.array(tallies)


def names_of_slots() -> Pairs:
    """How often two names that nobody tells occur together, in reports of two slots."""
    coins = SecureRNG()
    found = coins.below(4, N)
    return found[:-1:2], found[1::2]


def p_value(a: np.ndarray, b: np.ndarray) -> float:
    table = np.zeros((int(a.max()) + 1, int(b.max()) + 1))
    np.add.at(table, (a.astype(int), b.astype(int)), 1)
    return float(chi2_contingency(table, correction=False).pvalue)


@pytest.mark.parametrize(
    "pairs",
    [coordinates, rounds, sites, forks, processes, records, sampling_and_answers, names_of_slots],
    ids=lambda f: f.__name__,
)
def test_answers_are_independent(pairs: Callable[[], Pairs]) -> None:
    a, b = pairs()
    assert p_value(a, b) > 1e-6


def test_twins_whose_coins_are_shared_are_caught() -> None:
    class Repeats(SecureRNG):
        """One answer in five hundred is made with the coins of the one before."""

        def words(self, count: int) -> np.ndarray:
            found = super().words(count).copy()
            found[1:-1:40] = found[0:-2:40]
            return found

    found = answers(Repeats())
    assert p_value(found[:-1:2], found[1::2]) < 1e-6


def test_a_sum_of_names_has_the_variance_of_independent_slots() -> None:
    coins, nobody = SecureRNG(), np.zeros(0, dtype=np.int64)
    found = np.array([NAMES.counts(nobody, np.zeros(0), coins)[0] for _ in range(N // 4)])
    expected = 4 * 0.25 * 0.75
    statistic = ((found - 1.0) ** 2).sum() / expected
    spread = np.sqrt(len(found) * (((found - 1.0) ** 2).var() / expected**2))
    assert abs(statistic - len(found)) < 5 * spread
