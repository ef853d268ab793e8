"""SecureRNG: keyed by the OS, no seed, independent after a fork, exact Bernoulli."""

import inspect
import os
from typing import Any

import numpy as np

from dppm_model.mechanism.secure_rng import SecureRNG
from tests.support.mutations import twin
from tests.support.seeded_rng import ScriptedRNG, SeededRNG


def test_no_seed_can_be_passed() -> None:
    assert list(inspect.signature(SecureRNG.__init__).parameters) == ["self"]


@twin(
    "every source of coins has the same key",
    "dppm_model.mechanism.secure_rng:SecureRNG._key",
    lambda _: lambda self: bytes(32),
)
def test_two_sources_differ() -> None:
    assert not np.array_equal(SecureRNG().words(64), SecureRNG().words(64))


def _restarts(old: Any) -> Any:
    def read(self: Any, count: int) -> bytearray:
        key = self.__dict__.setdefault("first_key", self._key())
        self._key, self._pid = lambda: key, -1
        return old(self, count)

    return read


@twin(
    "coins are used again: every read restarts the stream",
    "dppm_model.mechanism.secure_rng:SecureRNG._bytes",
    _restarts,
)
def test_stream_goes_on_and_is_replayable_only_under_the_same_key() -> None:
    whole = SeededRNG(1).words(96)
    coins = SeededRNG(1)
    np.testing.assert_array_equal(whole, np.concatenate([coins.words(32), coins.words(64)]))
    assert not np.array_equal(whole, SeededRNG(2).words(96))


def test_long_reads_do_not_repeat_the_stream() -> None:
    words = SeededRNG(3).words(1 << 18)  # 2 MiB: more than one block of zeros
    assert np.unique(words).size == words.size


def _words_of_a_child(coins: SecureRNG) -> np.ndarray:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write, coins.words(8).tobytes())
        os._exit(0)
    os.waitpid(pid, 0)
    return np.frombuffer(os.read(read, 64), dtype="<u8")


def _parents_coins(old: Any) -> Any:
    def read(self: Any, count: int) -> bytearray:
        if self._pid != -1:
            self._start = lambda: None
        return old(self, count)

    return read


@twin(
    "a forked process goes on with its parent's coins",
    "dppm_model.mechanism.secure_rng:SecureRNG._bytes",
    _parents_coins,
)
def test_a_fork_gets_its_own_stream() -> None:
    coins = SecureRNG()
    coins.words(1)
    child = _words_of_a_child(coins)
    assert not np.array_equal(child, coins.words(8))


def test_bernoulli_is_exact_at_the_border() -> None:
    numerator = 0x80000001
    data = np.array([numerator - 1, numerator, 0, 0xFFFFFFFF], dtype="<u4").tobytes()
    np.testing.assert_array_equal(
        ScriptedRNG(data).bernoulli(numerator, 4), [True, False, True, False]
    )
    assert SecureRNG().bernoulli(1 << 32, 1000).all()
    assert not SecureRNG().bernoulli(0, 1000).any()
