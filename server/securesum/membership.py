"""Membership of one run: the names of its sites, their nodes, and their channel keys."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Collection

from flwr.serverapp import Grid

from dppm_model.aggregation import Fields
from dppm_model.errors import ChangedKey, UnknownSite
from dppm_model.securesum.group import Group
from dppm_model.securesum.keys import Channel, joined, verify
from server.broadcast import Broadcaster, Records
from server.securesum import wire

log = logging.getLogger("dppm.server")


class Membership:
    """The sites that have joined a run, by their indices in the roster.

    ``names`` are in roster order; ``question`` holds the fields of every message. ``nodes`` has the
    Flower node of each connected site, ``channels`` the keys of all sites that ever joined.
    """

    def __init__(
        self, grid: Grid, broadcaster: Broadcaster, group: Group, names: list[str], question: Fields
    ) -> None:
        self._grid, self._broadcaster, self._group = grid, broadcaster, group
        self._names, self._question = names, question
        self.nodes: dict[int, int] = {}
        self.channels: dict[int, Channel] = {}

    def name(self, site: int) -> str:
        """Return the name of a site by its roster index."""
        return self._names[site]

    def call(self) -> None:
        """Ask every new node for its identity and channel key.

        Each signs its own nonce, so that no node can replay another site's signature.
        """
        there = set(self._grid.get_node_ids())
        self.nodes = {s: n for s, n in self.nodes.items() if n in there}
        new = {n: n for n in there - set(self.nodes.values())}
        if not new:
            return
        nonces = {node: secrets.token_bytes(32) for node in new}

        def read(node: int, records: Records) -> None:
            identity, channel, proof = wire.read_member(records.get("member", {}))
            site = self._group.index_of(identity, "A node's")
            channel.verify(self._group, site)
            if not verify(identity, joined(self._group, nonces[node], channel.public), proof):
                raise UnknownSite(
                    f"Node {node} joins as {self.name(site)} without its identity key.",
                    "It replays another node's signature; find out whose node it is.",
                )
            self._take(site, node, channel)

        self._broadcaster.ask(
            "query.join",
            new,
            lambda node: {"question": self._question, "join": {"nonce": nonces[node]}},
            read,
            lambda: len(self.nodes) >= self._group.min_survivors,
            lambda: f"the run: {self._group.min_survivors} must join",
            lambda node: f"node {node}",
        )

    def _take(self, site: int, node: int, channel: Channel) -> None:
        if site in self.nodes:
            raise UnknownSite(
                f"Node {node} joins as {self.name(site)}, which another node has joined as.",
                "Run only one SuperNode per site.",
            )
        if self.channels.setdefault(site, channel).public != channel.public:
            raise ChangedKey(
                f"The channel key of {self.name(site)} has changed during the run.",
                "A site that lost its files sits out until the next run.",
            )
        self.nodes[site] = node

    def channels_but(self, sites: Collection[int]) -> dict[int, Channel]:
        """Return the channels of all sites but ``sites``."""
        return {site: c for site, c in self.channels.items() if site not in sites}
