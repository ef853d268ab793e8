"""A small federation of members in memory: what a server relays, for tests of the secure sum."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np

from dppm_model.securesum.group import Group
from dppm_model.securesum.keys import Channel, Identity
from dppm_model.securesum.masks import Sum
from dppm_model.securesum.member import Member
from dppm_model.securesum.opening import Opening
from dppm_model.securesum.round_keys import Checks, RoundKeys, digest_of


def identities(n: int) -> list[Identity]:
    """Fixed identities, in the order of the roster."""
    made = [Identity(i.to_bytes(32)) for i in range(1, n + 1)]
    return sorted(made, key=lambda i: i.public)


def group_of(n: int, *, run: str = "run", min_survivors: int | None = None) -> Group:
    roster = tuple(i.public for i in identities(n))
    return Group(run, "plan", roster, min_survivors or n // 2 + 1)


class Federation:
    """Members of one group, and an honest server's moves."""

    def __init__(self, folder: Path, n: int, *, min_survivors: int | None = None) -> None:
        self.folder, self.group = folder, group_of(n, min_survivors=min_survivors)
        self.members = {i: self.member(i) for i in range(n)}

    def member(self, i: int) -> Member:
        """Restart site i from its files."""
        return Member(self.group, identities(self.group.size)[i], self.folder / f"{i}.json")

    def channels(self, sites: Collection[int] | None = None) -> dict[int, Channel]:
        return {i: self.members[i].channel() for i in (self.members if sites is None else sites)}

    def prepare(self, number: int, sites: Collection[int]) -> dict[int, RoundKeys]:
        channels = self.channels(sites)
        return {i: self.members[i].prepare(number, channels) for i in sites}

    def admit(self, number: int, materials: dict[int, RoundKeys], site: int) -> None:
        self.members[site].admit(number, addressed(materials, site))

    def reveal(self, site: int, number: int, survivors: Collection[int]) -> dict[int, bytes]:
        """Ask a site to help, with each survivor's signature of the participants."""
        signed = {i: self.members[i].begun(number).attest() for i in survivors}
        return self.members[site].reveal(number, signed)

    def checks(self, site: int, sum_: Sum, peers: Collection[int]) -> Checks:
        return self.members[site].begun(sum_.number).checks(sum_, peers)

    def round(
        self,
        sum_: Sum,
        vectors: dict[int, np.ndarray],
        *,
        participants: Collection[int],
        reporters: Collection[int],
        helpers: Collection[int],
    ) -> np.ndarray:
        """One whole round with these sites at each stage; returns the opened sum."""
        materials = self.prepare(sum_.number, participants)
        opening = Opening(self.group, sum_, materials)
        for i in participants:
            self.admit(sum_.number, materials, i)
        for i in reporters:
            report, mask = self.members[i].begun(sum_.number).mask(sum_, vectors[i])
            opening.add(i, report, digest_of(report), mask)
        for i in reporters if opening.missing else ():
            opening.add_pairs(i, self.checks(i, sum_, opening.missing))
        assert opening.fits()
        for i in helpers:
            opening.add_shares(i, self.reveal(i, sum_.number, opening.reported))
        return opening.open()


def addressed(materials: dict[int, RoundKeys], site: int) -> dict[int, RoundKeys]:
    """Return what the server sends to one site: of each peer's shares only the one for it."""
    return {
        i: replace(
            m,
            digests={site: m.digests[site]},
            shares={k: s for k, s in m.shares.items() if k == site},
        )
        for i, m in materials.items()
    }
