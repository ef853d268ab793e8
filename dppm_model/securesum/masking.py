"""A site's masks in a try that has begun: its masked report, and its statements about the masks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dppm_model.errors import NotGuilty, StaleRound, UnknownSite
from dppm_model.securesum.group import Group
from dppm_model.securesum.keys import Identity, agree, attested
from dppm_model.securesum.masks import Sum, add_pair_mask, add_self_mask, pair_key
from dppm_model.securesum.proof import Proof
from dppm_model.securesum.round_keys import Checks, checked


class Masking:
    """One site in the try ``number``; it masks in no other.

    ``index`` is its place in the roster; ``published`` are the keys of each participant, this site
    included; ``secrets`` are its private mask key and self-mask.
    """

    def __init__(
        self,
        group: Group,
        identity: Identity,
        index: int,
        number: int,
        published: Mapping[int, bytes],
        secrets: tuple[bytes, bytes],
    ) -> None:
        self.group, self.index, self.published = group, index, published
        self._identity, self._number = identity, number
        self._mask_key, self._self_mask = secrets

    def attest(self) -> bytes:
        """Sign the try's list of participants; the signature travels beside the report."""
        return self._identity.sign(self.attested())

    def attested(self) -> bytes:
        """Return the text that every participant with the same list signs."""
        return attested(self.group, self._number, self.published)

    def mask(self, sum_: Sum, tallies: NDArray[np.integer[Any]]) -> tuple[bytes, Checks]:
        """Return the packed report under all masks: alone it is uniform and reveals nothing.

        Returns the report of the tallies (D,), and the signed check numbers of its self-mask.
        """
        own = sum_.ring.zeros()
        add_self_mask(self.group, sum_, own, self.index, self._self_mask)
        vector, residue = sum_.masked(self.group, tallies, own)
        for peer in self.published.keys() - {self.index}:
            key = self._pair_key(sum_, peer)
            add_pair_mask(sum_, vector, (self.index, peer), key)
        return sum_.ring.pack(vector), self._signed(sum_, {self.index: residue})

    def checks(self, sum_: Sum, peers: Iterable[int]) -> Checks:
        """Return the signed check numbers of the masks with some peers.

        They reveal nothing about the report, even with all other messages: see PRIVACY.md.

        Raises UnknownSite if a peer is not a participant.
        """
        values = {}
        for peer in sorted(set(peers)):
            vector = sum_.ring.zeros()
            key = self._pair_key(sum_, peer)
            add_pair_mask(sum_, vector, (self.index, peer), key)
            values[peer] = sum_.residue(self.group, vector)
        return self._signed(sum_, values)

    def pair_keys(self, sum_: Sum, proofs: Iterable[Proof]) -> dict[int, bytes]:
        """Return the keys of the masks with peers that are proven guilty (Lemma 20).

        With them, the reports of those peers can be taken out of the sum. A guilty peer's
        accomplices know the keys that it shares with this site already, so they learn nothing.

        Raises NotGuilty or UnknownSite if a proof does not hold, or a peer is not a participant.
        """
        keys = {}
        for proof in proofs:
            if not proof.holds(self.group, sum_, self.published):
                raise NotGuilty(
                    f"Site {proof.accused} is not proven guilty in try {sum_.number}.",
                    "The server made it up, or runs another version.",
                )
            keys[proof.accused] = self._pair_key(sum_, proof.accused)
        return keys

    def _check_try(self, sum_: Sum) -> None:
        if sum_.number != self._number:
            raise StaleRound(f"These masks are not of try {sum_.number}.", "Ask for its own.")

    def _pair_key(self, sum_: Sum, peer: int) -> bytes:
        self._check_try(sum_)
        if peer == self.index or peer not in self.published:
            raise UnknownSite(f"Site {peer} is not a peer of this site.", "Name only participants.")
        shared = agree(self._mask_key, self.published[peer][:32])
        return pair_key(self.group, sum_, (self.index, peer), shared)

    def _signed(self, sum_: Sum, values: dict[int, bytes]) -> Checks:
        self._check_try(sum_)
        said = checked(self.group, sum_.number, self.published, values)
        return Checks(values, self._identity.sign(said))
