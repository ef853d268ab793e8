"""The keys that a site publishes for one try of a round, and the check numbers of its masks."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from dppm_model.securesum import shamir
from dppm_model.securesum.group import Group
from dppm_model.securesum.keys import attested, verify

SEALED_BYTES = 2 * shamir.SHARE_BYTES + 16  # both shares for one holder, and the seal's tag
DIGESTS_BYTES = 64
CHECK_BYTES = 32
SELF, KEY = 0, 1  # the two secrets of a site, and the order of their shares


def digest_of(report: bytes) -> bytes:
    """SHA-256 of a masked report, which travels beside it."""
    return hashlib.sha256(report).digest()


def digests(shares: bytes) -> bytes:
    """SHA-256 of each of the two shares that one holder has of a site's secrets."""
    halves = shares[: shamir.SHARE_BYTES], shares[shamir.SHARE_BYTES :]
    return b"".join(hashlib.sha256(half).digest() for half in halves)


def is_share(digest: bytes, which: int, share: bytes) -> bool:
    """Say whether this is the dealt share of the self-mask, or of the mask key."""
    return hashlib.sha256(share).digest() == digest[32 * which :][:32]


def commitment(group: Group, number: int, index: int, dealt: Mapping[int, bytes]) -> bytes:
    """Bind a site to all shares that it deals, by their `digests`, without revealing them."""
    listed = b"".join(dealt[i] for i in range(group.size))
    return hashlib.sha256(group.label("shares", number, index) + listed).digest()


def statement(group: Group, number: int, mask_key: bytes, commitment: bytes) -> bytes:
    """Return the text that a site signs for its material."""
    return group.label("material", number) + mask_key + commitment


@dataclass(frozen=True)
class RoundKeys:
    """The keys that a site publishes for one try of a round."""

    mask_key: bytes  # public X25519 key of its pairwise masks
    commitment: bytes  # binds it to all its shares
    # of both, by its identity, for the server; sites verify both by the seals of their shares
    signature: bytes
    # for each site of the roster, of both shares for it; at a site only those for itself
    digests: Mapping[int, bytes]
    # for each other site, sealed: that site's shares of self-mask and mask key
    shares: Mapping[int, bytes]

    @property
    def published(self) -> bytes:
        """The signed part, authenticated together with every share."""
        return self.mask_key + self.commitment


@dataclass(frozen=True)
class Checks:
    """The signed check numbers of a site's masks; they reveal nothing about its report.

    ``values`` are `Sum.residue` of its mask with each site; its own entry stands for its self-mask.
    ``signature``, by its identity, covers these and the try's participants.
    """

    values: Mapping[int, bytes]
    signature: bytes

    def is_signed(
        self, group: Group, number: int, index: int, published: Mapping[int, bytes]
    ) -> bool:
        """Say whether site ``index`` signed them for the try with these participants."""
        said = checked(group, number, published, self.values)
        return verify(group.roster[index], said, self.signature)


def checked(
    group: Group, number: int, published: Mapping[int, bytes], values: Mapping[int, bytes]
) -> bytes:
    """Return the text that a site signs for its `Checks`."""
    listed = b"".join(i.to_bytes(8) + value for i, value in sorted(values.items()))
    return group.label("checks", number) + attested(group, number, published) + listed
