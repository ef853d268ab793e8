"""Keys and shares of the next try, which sites send at the end of a round, or when asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from dppm_model.aggregation import Fields
from dppm_model.securesum.group import Group
from dppm_model.securesum.keys import Channel
from dppm_model.securesum.round_keys import RoundKeys
from server.broadcast import Records
from server.securesum import wire

Read = Callable[[int, Records], None]


class KeyCollection:
    """The keys and shares collected for one try.

    Attributes
    ----------
    number
        The try; -1 if they are no longer usable.
    materials
        Keys and shares that have arrived.
    """

    def __init__(self, group: Group, question: Fields) -> None:
        self._group, self._question = group, question
        self.number = -1
        self.materials: dict[int, RoundKeys] = {}

    def begin(self, number: int) -> None:
        """Start collecting for another try."""
        self.number, self.materials = number, {}

    def asks(self, channels: Mapping[int, Channel]) -> dict[str, Fields]:
        """Return the fields to ask with, including the channels to deal shares for."""
        written = wire.write_channels(self.number, channels)
        return {"question": self._question, "channels": written}

    def reader(self, channels: Mapping[int, Channel]) -> Read:
        """Return a reader of their answers, which raises `WrongReport` for invalid ones."""
        number, asked = self.number, frozenset(channels)

        def read(site: int, records: Records) -> None:
            if "material" in records:
                material = wire.read_material(records["material"])
                material.check(self._group, number, site, asked)
                self.materials[site] = material

        return read

    def complete(self, sites: frozenset[int]) -> dict[int, RoundKeys]:
        """Return the materials of those of ``sites`` that dealt shares to all others of them."""
        return {
            i: m
            for i, m in sorted(self.materials.items())
            if i in sites and sites <= m.shares.keys() | {i}
        }
