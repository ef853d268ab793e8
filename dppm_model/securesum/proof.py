"""Proofs of guilt: the opened shares of a try contradict a site's own signed statements.

An honest site cannot be proven guilty, even if all others collude: see PRIVACY.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dppm_model.securesum import shamir
from dppm_model.securesum.group import Group
from dppm_model.securesum.keys import agree, public_of
from dppm_model.securesum.masks import Sum, add_pair_mask, add_self_mask, pair_key
from dppm_model.securesum.round_keys import KEY, SELF, Checks, commitment, is_share


@dataclass(frozen=True)
class Proof:
    """A proof that a participant of a try lied."""

    accused: int  # the accused site
    # the site whose secret the shares open: the accused, or a drop-out that shares the mask
    dealer: int
    which: int  # the self-mask, or the mask key
    # the digests of all shares of the dealer, to which its commitment binds it
    digests: Mapping[int, bytes]
    shares: Mapping[int, bytes]  # shares of t holders
    said: Checks  # the check numbers that the accused signed

    def holds(self, group: Group, sum_: Sum, published: Mapping[int, bytes]) -> bool:
        """Say whether the proof holds; no proof against an honest site does (Lemma 19).

        ``published`` is what each participant of the try published, as the judge received it.
        """
        number = sum_.number
        if not {self.accused, self.dealer} <= published.keys():
            return False
        if self.which not in (SELF, KEY):
            return False
        mask_key, bound = published[self.dealer][:32], published[self.dealer][32:]
        if (
            self.digests.keys() != set(range(group.size))
            or commitment(group, number, self.dealer, self.digests) != bound
            or len(self.shares) != group.min_survivors
            or not self.shares.keys() <= self.digests.keys()
            or not all(is_share(self.digests[h], self.which, s) for h, s in self.shares.items())
        ):
            return False
        secret = opened(self.shares)
        own = self.accused == self.dealer
        if secret is None or (self.which == KEY and public_of(secret) != mask_key):
            return own
        if own != (self.which == SELF):
            return False
        true = residue(group, sum_, self.accused, self.dealer, secret, published)
        value = self.said.values.get(self.dealer)
        signed = self.said.is_signed(group, number, self.accused, published)
        return signed and value is not None and value != true


def opened(shares: Mapping[int, bytes]) -> bytes | None:
    """Return the secret of these shares; None if they are inconsistent."""
    held = {holder + 1: share for holder, share in shares.items()}
    return shamir.combine(held, shamir.weights(tuple(held)))


def residue(
    group: Group,
    sum_: Sum,
    index: int,
    dealer: int,
    secret: bytes,
    published: Mapping[int, bytes],
) -> bytes:
    """Return the true check numbers of a site for its self-mask, or its mask with a drop-out.

    Raises UnknownSite if the key of site ``index`` cannot be agreed with.
    """
    vector = sum_.ring.zeros()
    if index == dealer:
        add_self_mask(group, sum_, vector, index, secret)
    else:
        key = pair_key(group, sum_, (index, dealer), agree(secret, published[index][:32]))
        add_pair_mask(sum_, vector, (index, dealer), key)
    return sum_.residue(group, vector)
