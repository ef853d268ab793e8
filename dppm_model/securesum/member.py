"""A site's side of the secure sum. Every refusal that protects a site is made here.

For each try of a round a site draws one secret seed. The key of its pairwise masks, its self-mask
and the shares of both are derived from it. So a repeated question gets the same bits, even after a
crash, and forgetting a try means deleting its seed.

The rules, each with its own error:

1. A channel key counts only if the pinned identity signed it, and never changes in a run.
2. A try has one list of participants, at least `min_survivors` long, each known by its signature
   and by shares that only it can have sealed, and one list of survivors. A second list of either
   is refused.
3. For one peer and try a site reveals its share of the self-mask (survivors) or of the mask key
   (drop-outs), never both.
4. A site helps to open one try of a round, and from then on takes part in no other.
5. A try that is over is over.
6. The key of a mask is revealed only for a peer that is proven guilty, see `Masking` and `Proof`.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dppm_model.errors import (
    ChangedKey,
    ParticipantsChanged,
    RoundOpened,
    SecureSumError,
    StaleRound,
    SurvivorsChanged,
    TooFewSurvivors,
    UnknownSite,
)
from dppm_model.securesum import shamir
from dppm_model.securesum.dealing import Dealing
from dppm_model.securesum.group import Group
from dppm_model.securesum.keys import (
    Channel,
    Identity,
    agree,
    joined,
    public_of,
    verify,
)
from dppm_model.securesum.masking import Masking
from dppm_model.securesum.masks import round_of
from dppm_model.securesum.memory import Memory, RoundMemory
from dppm_model.securesum.round_keys import RoundKeys


class Member:
    """One site in the secure sum of one run.

    ``group`` is from the plan and the site's *own* list of identities; ``identity``, the site's own
    key, must be in its roster; ``path`` is the file of the site's memory of this run. Raises
    UnknownSite if the identity is not in the roster, and LedgerError if the memory is damaged, or
    of another group under the same name of a run.
    """

    def __init__(self, group: Group, identity: Identity, path: Path) -> None:
        self.group, self.path = group, path
        self.index = group.index_of(identity.public)
        self._identity = identity
        self._memory = Memory.open(path, group)

    def channel(self) -> Channel:
        """Return this site's signed channel key."""
        public = public_of(self._memory.channel)
        return self._identity.sign_channel(self.group, public)

    def join(self, nonce: bytes) -> bytes:
        """Sign the server's nonce and the channel key, as only this site can."""
        public = public_of(self._memory.channel)
        return self._identity.sign(joined(self.group, nonce, public))

    def prepare(self, number: int, channels: Mapping[int, Channel]) -> RoundKeys:
        """Publish keys and shares for try ``number``, for the sites with these channels.

        Raises UnknownSite or ChangedKey if a channel is not signed by the pinned identity, or was
        another one before, and RoundOpened or StaleRound if the round was opened in another try, or
        a later try or round has begun.
        """
        _all(channels, lambda index: self._accept(index, channels[index]))
        memory = self._memory
        self._unopened(number)
        if number not in memory.rounds:
            if number <= memory.latest:
                raise _stale(number)
            memory.latest = number
            memory.rounds = {n: r for n, r in memory.rounds.items() if r.published}
            memory.rounds[number] = RoundMemory(secrets.token_bytes(32))
        agreed = {i: memory.agreed[i] for i in channels if i != self.index}
        material = self._dealing(number).material(self._identity, agreed)
        memory.rounds[number].own = material.published
        memory.save(self.path)
        return material

    def admit(
        self, number: int, materials: Mapping[int, RoundKeys], *, helps: bool = False
    ) -> None:
        """Record the participants of a try, once and for all.

        ``materials`` are those of all participants, but only the digests and shares for this site.
        With ``helps`` this site need not take part: it can help to open the sum of others.

        Raises
        ------
        TooFewSurvivors, UnknownSite, ForgedShare, ParticipantsChanged, StaleRound, RoundOpened
            See the rules of this module. Sites whose keys or shares are wrong are `accused`.
        """
        round_, dealing = self._round(number), self._dealing(number)
        published = {i: m.published for i, m in sorted(materials.items())}
        if round_.published not in ({}, published):
            raise ParticipantsChanged(
                f"Try {number} was begun with other participants.",
                "A try begins once; continue with it, or with the next.",
            )
        if len(published) < self.group.min_survivors:
            raise TooFewSurvivors(
                f"Try {number} has {len(published)} participants, at least "
                f"{self.group.min_survivors} are needed.",
                "Wait until more sites have connected.",
            )
        own = materials.get(self.index)
        if not (helps if own is None else own.published == round_.own):
            raise StaleRound(
                f"Try {number} does not list this site's own key.",
                "Prepare the round again.",
            )
        if round_.published:
            return
        received: dict[int, bytes] = {}

        def receive(peer: int) -> None:
            if peer == self.index:
                return
            if peer not in self._memory.peers:
                raise UnknownSite(f"Site {peer} never sent a channel key.", "Prepare again.")
            agreed = self._memory.agreed[peer]
            received[peer] = dealing.receive(peer, materials[peer], agreed)

        _all(materials, receive)
        round_.published, round_.shares = published, received
        for old in [n for n in self._memory.rounds if n < number]:
            del self._memory.rounds[old]  # without its seed, its masks are gone for good
        self._memory.save(self.path)

    def begun(self, number: int) -> Masking:
        """Return this site's masks of a try.

        Raises StaleRound if the try is over, or its participants are not known yet.
        """
        return Masking(
            self.group,
            self._identity,
            self.index,
            number,
            self._round(number, begun=True).published,
            self._dealing(number).secrets,
        )

    def reveal(self, number: int, survivors: Mapping[int, bytes]) -> dict[int, bytes]:
        """Reveal, for each participant, the one share that opens the sum of ``survivors``.

        Each survivor has attested the same list of participants as this site. Otherwise a site with
        a shorter list would be masked against drop-outs only, and could be opened alone.

        Raises
        ------
        SurvivorsChanged, TooFewSurvivors, StaleRound, RoundOpened
            See the rules of this module.
        """
        round_ = self._round(number, begun=True)
        wanted = sorted(set(survivors))
        if round_.survivors is not None and round_.survivors != wanted:
            raise SurvivorsChanged(
                f"Try {number} was opened for other survivors.",
                "One sum of a round is opened, never two.",
            )
        if not set(wanted) <= round_.published.keys():
            raise UnknownSite(
                f"The survivors of try {number} include sites that do not take part.",
                "Name only participants.",
            )
        if len(wanted) < self.group.min_survivors:
            raise TooFewSurvivors(
                f"Try {number} has {len(wanted)} survivors, at least {self.group.min_survivors} "
                "are needed.",
                "Wait for the missing reports.",
            )
        said = self.begun(number).attested()
        for i in wanted:
            if not verify(self.group.roster[i], said, survivors[i]):
                raise ParticipantsChanged(
                    f"Site {i} did not attest the participants of try {number}.",
                    "The server sent it another list, or sent no signature.",
                )
        if round_.survivors is None:
            round_.survivors = wanted
            self._memory.save(self.path)
        (own,) = self._dealing(number).shares([self.index])
        held = {self.index: own} | round_.shares
        half = shamir.SHARE_BYTES
        return {i: held[i][:half] if i in wanted else held[i][half:] for i in round_.published}

    def _dealing(self, number: int) -> Dealing:
        return Dealing(self.group, number, self.index, self._memory.rounds[number].seed)

    def _accept(self, index: int, channel: Channel) -> None:
        known = self._memory.peers.get(index)
        if known == channel.public:
            return
        if known is not None:
            raise ChangedKey(
                f"The channel key of site {index} has changed during the run.",
                "A site that lost its files sits out until the next run.",
            )
        if not 0 <= index < self.group.size:
            raise UnknownSite(f"There is no site {index}.", "Use the roster of the run.")
        channel.verify(self.group, index)
        self._memory.peers[index] = channel.public
        self._memory.agreed[index] = agree(self._memory.channel, channel.public)

    def _unopened(self, number: int) -> None:
        """Refuse a try of a round that was opened in another try (Lemma 16)."""
        for other, round_ in self._memory.rounds.items():
            same = other != number and round_of(other) == round_of(number)
            if same and round_.survivors is not None:
                raise RoundOpened(
                    f"Round {round_of(number)} was opened in try {other}, not {number}.",
                    "One sum of a round is opened, never two.",
                )

    def _round(self, number: int, *, begun: bool = False) -> RoundMemory:
        self._unopened(number)
        round_ = self._memory.rounds.get(number)
        if round_ is None or (begun and not round_.published):  # a try that is over was deleted
            raise _stale(number)
        return round_


def _all(sites: Iterable[int], act: Any) -> None:
    """Act for all sites, then raise the first refusal, which accuses all refused sites."""
    refused: list[tuple[int, SecureSumError]] = []
    for site in sites:
        try:
            act(site)
        except SecureSumError as error:
            refused.append((site, error))
    if refused:
        first = refused[0][1]
        first.accused = tuple(site for site, _ in refused)
        raise first


def _stale(number: int) -> StaleRound:
    return StaleRound(
        f"Try {number} is over, or was never prepared.", "Continue with the run's current round."
    )
