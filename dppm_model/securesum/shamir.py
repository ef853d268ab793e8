"""Shamir's secret sharing (1979) over the prime field of order 2^521 - 1.

A secret of 32 bytes is the value at 0 of a random polynomial of degree t - 1; the share of holder x
is its value at x = 1, 2, … Any t shares give the secret; t - 1 reveal nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

PRIME = 2**521 - 1
SHARE_BYTES = 66
SECRET_BYTES = 32


def split(secret: bytes, holders: Iterable[int], threshold: int, key: bytes) -> list[bytes]:
    """Split a secret of 32 bytes into shares, any ``threshold`` of which give it back.

    ``holders`` are the numbers x, from 1, of the wanted shares. The polynomial is drawn from
    ``key``, 32 secret bytes used for this alone, so the same key gives the same shares again.
    Returns their shares, of 66 bytes each.
    """
    cipher = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None).encryptor()
    stream = cipher.update(bytes(SHARE_BYTES * (threshold - 1)))
    coefficients = [
        int.from_bytes(stream[i : i + SHARE_BYTES]) & PRIME
        for i in range(0, len(stream), SHARE_BYTES)
    ]
    shares = []
    for x in holders:
        value = 0
        for coefficient in coefficients:
            value = (value + coefficient) * x % PRIME
        shares.append(((value + int.from_bytes(secret)) % PRIME).to_bytes(SHARE_BYTES))
    return shares


def is_share(share: bytes) -> bool:
    """Say whether these bytes are a number of the field."""
    return len(share) == SHARE_BYTES and int.from_bytes(share) < PRIME


def weights(holders: Sequence[int]) -> dict[int, int]:
    """Return Lagrange's weights at 0 of these holders, for all secrets that they open together."""
    found = {}
    for x in holders:
        numerator = denominator = 1
        for other in holders:
            if other != x:
                numerator = numerator * other % PRIME
                denominator = denominator * (other - x) % PRIME
        found[x] = numerator * pow(denominator, -1, PRIME) % PRIME
    return found


def combine(shares: Mapping[int, bytes], weight: Mapping[int, int]) -> bytes | None:
    """Return the secret from the shares of the holders in ``weight``; None if inconsistent."""
    value = sum(w * int.from_bytes(shares[x]) for x, w in weight.items()) % PRIME
    return value.to_bytes(SHARE_BYTES)[-SECRET_BYTES:] if value < 1 << 8 * SECRET_BYTES else None
