"""A site's side of the secure sum. Every refusal that protects a site is made here.

For each round a site draws one secret seed. From it come, by derivation, the key of its pairwise
masks, its self-mask and the shares of both; so whatever is asked again is answered with the same
bits, also after a crash, and forgetting a round means deleting its seed.

The rules, each with its own error:

1. A channel key counts only if the pinned identity signed it, and never changes in a run.
2. A round has one list of participants, at least `min_survivors` long, each known by shares that
   only it can have sealed, and one list of survivors. A second list of either is refused.
3. For one peer and round a site tells its share of the self-mask (survivors) or of the mask key
   (drop-outs), never both.
4. A round that is over is over.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dppm_model.errors import (
    ChangedKey,
    ParticipantsChanged,
    StaleRound,
    SurvivorsChanged,
    TooFewSurvivors,
    UnknownSite,
)
from dppm_model.securesum import shamir
from dppm_model.securesum.group import Group
from dppm_model.securesum.keys import (
    Channel,
    Identity,
    agree,
    attested,
    commitment,
    derive,
    public_of,
    seal,
    unseal,
    verify,
)
from dppm_model.securesum.masks import Sum, add_pair_mask, add_self_mask
from dppm_model.securesum.material import Material
from dppm_model.securesum.memory import Memory, RoundMemory


class Member:
    """One site in the secure sum of one run.

    Parameters
    ----------
    group
        From the plan and the site's *own* list of identities.
    identity
        The site's own key; must be in the roster.
    path
        The site's memory of this run, a file of its own.

    Raises
    ------
    UnknownSite
        If the identity is not in the roster.
    LedgerError
        If the memory is damaged, or of another group under the same name of a run.
    """

    def __init__(self, group: Group, identity: Identity, path: Path) -> None:
        self.group, self.path = group, path
        self.index = group.index_of(identity.public)
        self._identity = identity
        self._memory = Memory.open(path, group)

    def channel(self) -> Channel:
        """Return this site's signed channel key."""
        public = public_of(bytes.fromhex(self._memory.channel))
        return self._identity.sign_channel(self.group, public)

    def prepare(self, number: int, channels: Mapping[int, Channel]) -> Material:
        """Publish keys and shares for round ``number``, for the sites with these channels.

        Raises
        ------
        UnknownSite, ChangedKey
            If a channel is not signed by the pinned identity, or was another one before.
        StaleRound
            If a later round has begun.
        """
        for index, channel in channels.items():
            self._accept(index, channel)
        memory = self._memory
        if number not in memory.rounds:
            if number <= memory.latest:
                raise _stale(number)
            memory.latest = number
            memory.rounds[number] = RoundMemory(secrets.token_hex(32))
            for old in [n for n in memory.rounds if n < number - 1]:
                del memory.rounds[old]
        self._memory.save(self.path)
        mask_key, self_mask = self._own(memory.rounds[number])
        public = public_of(mask_key)
        bound = commitment(self.group, number, self.index, self_mask)
        shares = self._split(memory.rounds[number], range(self.group.size))
        return Material(
            public,
            bound,
            {
                peer: seal(self._share_key(number, self.index, peer), shares[peer], public + bound)
                for peer in channels
                if peer != self.index
            },
        )

    def admit(self, number: int, materials: Mapping[int, Material]) -> None:
        """Take note of who takes part in a round, once and for all.

        Parameters
        ----------
        materials
            Of all participants, this site included; of ``shares`` only the one for this site.

        Raises
        ------
        TooFewSurvivors, UnknownSite, ForgedShare, ParticipantsChanged, StaleRound
            See the rules of this module.
        """
        round_ = self._round(number)
        participants = {i: m.mask_key.hex() for i, m in sorted(materials.items())}
        if round_.mask_keys:
            if participants != round_.mask_keys:
                raise ParticipantsChanged(
                    f"Round {number} was begun with other participants.",
                    "A round is begun once; go on with it, or with the next.",
                )
            return
        if len(participants) < self.group.min_survivors:
            raise TooFewSurvivors(
                f"Round {number} has {len(participants)} participants, at least "
                f"{self.group.min_survivors} are needed.",
                "Wait until more sites are connected.",
            )
        mask_key, _ = self._own(round_)
        if participants.get(self.index) != public_of(mask_key).hex():
            raise StaleRound(
                f"Round {number} holds a key of this site that it did not make.",
                "Prepare the round again.",
            )
        received = {}
        for peer, material in materials.items():
            if peer == self.index:
                continue
            if peer not in self._memory.peers:
                raise UnknownSite(f"Site {peer} never showed a channel key.", "Prepare again.")
            key = self._share_key(number, peer, self.index)
            sealed = material.shares.get(self.index, b"")
            received[peer] = unseal(key, sealed, material.bound, peer).hex()
        round_.mask_keys, round_.shares = participants, received
        for old in [n for n in self._memory.rounds if n < number]:
            del self._memory.rounds[old]  # with its seed, its masks are gone for good
        self._memory.save(self.path)

    def mask(self, sum_: Sum, tallies: NDArray[np.integer[Any]]) -> bytes:
        """Return the report under all masks, packed: alone it is uniform and says nothing.

        Raises
        ------
        StaleRound
            If the round is over, or its participants are not known yet.
        """
        round_ = self._round(sum_.number, begun=True)
        mask_key, self_mask = self._own(round_)
        vector = sum_.with_checks(self.group, tallies)
        add_self_mask(self.group, sum_, vector, self.index, self_mask)
        for peer, public in round_.mask_keys.items():
            if peer != self.index:
                shared = agree(mask_key, bytes.fromhex(public))
                add_pair_mask(self.group, sum_, vector, (self.index, peer), shared)
        return sum_.ring.pack(vector)

    def attest(self, number: int) -> bytes:
        """Sign the round's list of participants; travels beside the report."""
        return self._identity.sign(
            attested(self.group, number, self._round(number, begun=True).mask_keys)
        )

    def reveal(self, number: int, survivors: Mapping[int, bytes]) -> dict[int, bytes]:
        """Tell, for each participant, the one share that opens the sum of ``survivors``.

        Each has attested the very list that this site was told: else one that was told a shorter
        list would be masked against drop-outs only, and be opened alone.

        Raises
        ------
        SurvivorsChanged, TooFewSurvivors, StaleRound
            See the rules of this module.
        """
        round_ = self._round(number, begun=True)
        wanted = sorted(set(survivors))
        if round_.survivors is not None and round_.survivors != wanted:
            raise SurvivorsChanged(
                f"Round {number} was opened for other survivors.",
                "One sum of a round is opened, never two.",
            )
        if not set(wanted) <= round_.mask_keys.keys():
            raise UnknownSite(
                f"Round {number} is to be opened for sites that do not take part.",
                "Name participants only.",
            )
        if len(wanted) < self.group.min_survivors:
            raise TooFewSurvivors(
                f"Round {number} has {len(wanted)} survivors, at least {self.group.min_survivors} "
                "are needed.",
                "Wait for the missing reports.",
            )
        statement = attested(self.group, number, round_.mask_keys)
        for i in wanted:
            if not verify(self.group.roster[i], statement, survivors[i]):
                raise ParticipantsChanged(
                    f"Site {i} did not attest the participants of round {number}.",
                    "The server told it others, or sent no signature.",
                )
        if round_.survivors is None:
            round_.survivors = wanted
            self._memory.save(self.path)
        (own,) = self._split(round_, [self.index])
        held = {self.index: own} | {i: bytes.fromhex(s) for i, s in round_.shares.items()}
        half = shamir.SHARE_BYTES
        return {i: held[i][:half] if i in wanted else held[i][half:] for i in round_.mask_keys}

    def _own(self, round_: RoundMemory) -> tuple[bytes, bytes]:
        """Private mask key and self-mask of a round."""
        seed = bytes.fromhex(round_.seed)
        return derive(seed, b"mask key"), derive(seed, b"self-mask")

    def _split(self, round_: RoundMemory, sites: Sequence[int]) -> list[bytes]:
        """Split both secrets: for each site, its share of the self-mask, then of the mask key."""
        mask_key, self_mask = self._own(round_)
        seed, t = bytes.fromhex(round_.seed), self.group.min_survivors
        holders = [site + 1 for site in sites]
        first = shamir.split(self_mask, holders, t, derive(seed, b"shares of self-mask"))
        second = shamir.split(mask_key, holders, t, derive(seed, b"shares of mask key"))
        return [a + b for a, b in zip(first, second, strict=True)]

    def _share_key(self, number: int, sender: int, receiver: int) -> bytes:
        shared = self._memory.agreed[receiver if sender == self.index else sender]
        return derive(bytes.fromhex(shared), self.group.label("share", number, sender, receiver))

    def _accept(self, index: int, channel: Channel) -> None:
        known = self._memory.peers.get(index)
        if known == channel.public.hex():
            return
        if known is not None:
            raise ChangedKey(
                f"The channel key of site {index} has changed in mid run.",
                "A site that lost its files sits out until the next run.",
            )
        if not 0 <= index < self.group.size:
            raise UnknownSite(f"There is no site {index}.", "Use the roster of the run.")
        channel.verify(self.group, index)
        agreed = agree(bytes.fromhex(self._memory.channel), channel.public)
        self._memory.peers[index], self._memory.agreed[index] = channel.public.hex(), agreed.hex()

    def _round(self, number: int, *, begun: bool = False) -> RoundMemory:
        round_ = self._memory.rounds.get(number)
        if round_ is None or (begun and not round_.mask_keys):  # what is over was deleted
            raise _stale(number)
        return round_


def _stale(number: int) -> StaleRound:
    return StaleRound(
        f"Round {number} is over, or was never prepared.", "Go on with the run's present round."
    )
