"""A site's secrets of one try, all drawn from its seed, and their shares: sealed, and opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dppm_model.errors import ForgedShare
from dppm_model.securesum import shamir
from dppm_model.securesum.group import Group
from dppm_model.securesum.keys import Identity, derive, public_of, seal, unseal
from dppm_model.securesum.round_keys import RoundKeys, commitment, digests, statement


class Dealing:
    """The secrets and shares of one site in one try.

    ``index`` is its place in the roster; ``seed`` holds 32 secret bytes for this try alone.
    """

    def __init__(self, group: Group, number: int, index: int, seed: bytes) -> None:
        self.group, self.number, self.index = group, number, index
        self._seed = seed

    @property
    def secrets(self) -> tuple[bytes, bytes]:
        """Private mask key and self-mask."""
        return derive(self._seed, b"mask key"), derive(self._seed, b"self-mask")

    @property
    def mask_key(self) -> bytes:
        """The public mask key."""
        return public_of(self.secrets[0])

    def shares(self, sites: Sequence[int]) -> list[bytes]:
        """Split both secrets: for each site, its share of the self-mask, then of the mask key."""
        mask_key, self_mask = self.secrets
        holders, t = [site + 1 for site in sites], self.group.min_survivors
        first = shamir.split(self_mask, holders, t, derive(self._seed, b"shares of self-mask"))
        second = shamir.split(mask_key, holders, t, derive(self._seed, b"shares of mask key"))
        return [a + b for a, b in zip(first, second, strict=True)]

    def material(self, identity: Identity, agreed: Mapping[int, bytes]) -> RoundKeys:
        """Publish keys, and shares for the peers in ``agreed`` (secrets agreed with each)."""
        shares = self.shares(range(self.group.size))
        dealt = {i: digests(share) for i, share in enumerate(shares)}
        public, bound = self.mask_key, commitment(self.group, self.number, self.index, dealt)
        sealed = {
            peer: seal(self._key(secret, self.index, peer), shares[peer], public + bound)
            for peer, secret in agreed.items()
        }
        signature = identity.sign(statement(self.group, self.number, public, bound))
        return RoundKeys(public, bound, signature, dealt, sealed)

    def receive(self, peer: int, material: RoundKeys, agreed: bytes) -> bytes:
        """Open the shares that a peer sealed for this site.

        Raises ForgedShare if they are from another peer or try, or do not match its digests.
        """
        key, sealed = self._key(agreed, peer, self.index), material.shares.get(self.index, b"")
        share = unseal(key, sealed, material.published, peer)
        halves = share[: shamir.SHARE_BYTES], share[shamir.SHARE_BYTES :]
        if not all(map(shamir.is_share, halves)) or digests(share) != material.digests[self.index]:
            raise ForgedShare(
                f"The share from site {peer} differs from what that site published.",
                "Nothing was answered; the server will leave out that site or this one.",
            )
        return share

    def _key(self, agreed: bytes, sender: int, receiver: int) -> bytes:
        return derive(agreed, self.group.label("share", self.number, sender, receiver))
