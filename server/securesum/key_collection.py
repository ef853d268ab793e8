"""Keys and shares of the next try, which sites send at the end of a round, or when asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from dppm_model.aggregation import Fields
from dppm_model.errors import WrongReport
from dppm_model.securesum.group import Group
from dppm_model.securesum.keys import Channel, usable, verify
from dppm_model.securesum.round_keys import SEALED_BYTES, RoundKeys, commitment, statement
from server.broadcast import Records
from server.securesum import wire

Read = Callable[[int, Records], None]


class KeyCollection:
    """The keys and shares collected for try ``number``; -1 if they are no longer usable."""

    def __init__(self, group: Group, question: Fields) -> None:
        self._group, self._question = group, question
        self.number = -1
        self.round_keys: dict[int, RoundKeys] = {}

    def begin(self, number: int) -> None:
        """Start collecting for another try."""
        self.number, self.round_keys = number, {}

    def asks(self, channels: Mapping[int, Channel]) -> dict[str, Fields]:
        """Return the fields to ask with, including the channels to deal shares for."""
        written = wire.write_channels(self.number, channels)
        return {"question": self._question, "channels": written}

    def reader(self, channels: Mapping[int, Channel]) -> Read:
        """Return a reader of their answers, which raises `WrongReport` for invalid ones."""
        number, asked = self.number, frozenset(channels)

        def read(site: int, records: Records) -> None:
            if "material" in records:
                keys = wire.read_round_keys(records["material"])
                check_round_keys(keys, self._group, number, site, asked)
                self.round_keys[site] = keys

        return read

    def complete(self, sites: frozenset[int]) -> dict[int, RoundKeys]:
        """Return the keys of those of ``sites`` that dealt shares to all others of them."""
        return {
            i: m
            for i, m in sorted(self.round_keys.items())
            if i in sites and sites <= m.shares.keys() | {i}
        }


def check_round_keys(
    keys: RoundKeys, group: Group, number: int, index: int, asked: frozenset[int]
) -> None:
    """Check the unsealed parts of a site's keys and shares, which must be for the sites ``asked``.

    Raises `WrongReport` if anything is wrong; then no other site ever sees them.
    """
    signed = statement(group, number, keys.mask_key, keys.commitment)
    if (
        keys.digests.keys() != set(range(group.size))
        or keys.commitment != commitment(group, number, index, keys.digests)
        or not verify(group.roster[index], signed, keys.signature)
        or not usable(keys.mask_key)
        or keys.shares.keys() != asked - {index}
        or any(len(share) != SEALED_BYTES for share in keys.shares.values())
    ):
        raise WrongReport(
            f"Keys and shares of site {index} for try {number} are not as they should be.",
            "Use one version everywhere.",
        )
