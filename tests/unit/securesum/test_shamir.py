"""Shamir's shares: any t open the secret, t - 1 are consistent with every secret."""

import secrets

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dppm_model.securesum.shamir import PRIME, combine, split, weights

KEY = bytes(range(32))


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_any_threshold_of_holders_opens_the_secret(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 40))
    t = data.draw(st.integers(1, n))
    secret = data.draw(st.binary(min_size=32, max_size=32))
    shares = split(secret, range(1, n + 1), t, data.draw(st.binary(min_size=32, max_size=32)))
    holders = data.draw(st.permutations(range(1, n + 1)))[:t]
    weight = weights(holders)
    assert combine({x: shares[x - 1] for x in holders}, weight) == secret


def test_too_few_shares_fit_every_secret() -> None:
    """With t - 1 shares and any guess, there is a t-th share that confirms the guess."""
    secret, guess = bytes(31) + b"\1", secrets.token_bytes(32)
    shares = split(secret, range(1, 6), 3, KEY)
    w = weights([1, 2, 3])
    known = {1: shares[0], 2: shares[1]}
    rest = int.from_bytes(guess) - sum(w[x] * int.from_bytes(s) for x, s in known.items())
    third = (rest * pow(w[3], -1, PRIME) % PRIME).to_bytes(66)
    assert combine({**known, 3: third}, w) == guess


def test_the_same_key_gives_the_same_shares_and_another_key_others() -> None:
    assert split(KEY, range(1, 5), 3, KEY) == split(KEY, range(1, 5), 3, KEY)
    assert split(KEY, range(1, 5), 3, KEY) != split(KEY, range(1, 5), 3, KEY[::-1])


def test_wrong_shares_give_no_secret() -> None:
    shares = split(KEY, [1, 2, 3], 2, KEY)
    assert combine({1: shares[1], 2: shares[0]}, weights([1, 2])) is None  # swapped
    assert combine({1: shares[0], 2: shares[1]}, weights([1, 2])) == KEY


@pytest.mark.parametrize("t", [2, 5])
def test_the_twin_with_too_low_a_degree_is_caught(t: int) -> None:
    """If t - 1 shares opened it, the guess test above would have a second solution."""
    shares = split(KEY, range(1, 7), t - 1, KEY)  # the fault: one coefficient too few
    holders = list(range(1, t))
    assert combine({x: shares[x - 1] for x in holders}, weights(holders)) == KEY
    honest = split(KEY, range(1, 7), t, KEY)
    assert combine({x: honest[x - 1] for x in holders}, weights(holders)) != KEY
