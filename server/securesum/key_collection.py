"""Keys and shares of the next try, as sites send them: with the end of a round, or when asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from dppm_model.securesum import wire
from dppm_model.securesum.group import Group
from dppm_model.securesum.keys import Channel
from dppm_model.securesum.round_keys import RoundKeys
from server.broadcast import Records

Read = Callable[[int, Records], None]


class KeyCollection:
    """Materials for one try.

    Attributes
    ----------
    number
        The try; -1 if they are of no use any more.
    materials
        What has come.
    """

    def __init__(self, group: Group, question: wire.Fields) -> None:
        self._group, self._question = group, question
        self.number = -1
        self.materials: dict[int, RoundKeys] = {}

    def begin(self, number: int) -> None:
        """Gather for another try."""
        self.number, self.materials = number, {}

    def asks(self, channels: Mapping[int, Channel]) -> dict[str, wire.Fields]:
        """Return what sites are asked with: the channels that their shares are to be for."""
        written = wire.write_channels(self.number, channels)
        return {"question": self._question, "channels": written}

    def reader(self, channels: Mapping[int, Channel]) -> Read:
        """Return what takes their answers; it raises `WrongReport` for wrong ones."""
        number, asked = self.number, frozenset(channels)

        def read(site: int, records: Records) -> None:
            if "material" in records:
                material = wire.read_material(records["material"])
                material.check(self._group, number, site, asked)
                self.materials[site] = material

        return read

    def complete(self, sites: frozenset[int]) -> dict[int, RoundKeys]:
        """Return the materials of those of some sites that have shares for all others of them."""
        return {
            i: m
            for i, m in sorted(self.materials.items())
            if i in sites and sites <= m.shares.keys() | {i}
        }
