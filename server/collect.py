"""The server's side of a round: masked reports in, one sum out.

Two messages a site: the question with what it needs of the other participants, answered by the
masked report; and the survivors, answered by shares that open their sum together with the keys and
shares of the next round. Reports are added up as they arrive; none is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from flwr.app import ConfigRecord
from flwr.serverapp import Grid
from numpy.typing import NDArray

from dppm_model.errors import TooFewSites, WrongReport
from dppm_model.plan import Plan
from dppm_model.securesum import wire
from dppm_model.securesum.keys import Channel, attested, verify
from dppm_model.securesum.material import Material
from dppm_model.securesum.opening import Opening
from dppm_model.steps import Step, reached
from server.exchange import Exchange
from server.messages import Asker, Patience, Records, only


@dataclass(frozen=True)
class Collected:
    """The sum over the sites that survived the round.

    Attributes
    ----------
    total
        (D,) int64, the sum of the tallies.
    sites
        How many reports are in it.
    uplink_bytes, downlink_bytes
        Bytes of all sites together.
    """

    total: NDArray[np.int64]
    sites: int
    uplink_bytes: int
    downlink_bytes: int


class Federation:
    """The sites of one run, as the server reaches them.

    Parameters
    ----------
    grid
        Flower's messages.
    plan, roster
        The run, and its sites' identity keys.
    path
        Where the exchange of the present round is kept.
    patience
        How long and how often sites are asked.
    """

    def __init__(
        self,
        grid: Grid,
        plan: Plan,
        roster: tuple[bytes, ...],
        path: Path,
        patience: Patience,
    ) -> None:
        self.plan, self.group = plan, plan.group(roster)
        self._grid, self._path = grid, path
        self._asker = Asker(grid, patience)
        self._question = {"plan": plan.to_json()}
        self._nodes: dict[int, int] = {}  # site -> node
        self._channels: dict[int, Channel] = {}
        self._next: dict[int, Material] = {}  # materials of round `_next_number`
        self._next_number = -1

    def ask(self, phase: int, round_: int, question: bytes) -> Collected:
        """Ask all sites for one round and open the sum of the reports that come in time.

        ``question`` is the arrays that the round asks by.

        Raises
        ------
        TooFewSites
            If fewer than `min_survivors` take part, report, or help.
        WrongSum
            If what came does not fit together; nothing is learned from it.
        """
        number = self.plan.number(phase, round_)
        up, down = self._asker.traffic.up, self._asker.traffic.down
        self._join()
        exchange = Exchange.read(self._path, self.plan.digest)
        if exchange is None or exchange.number != number:
            exchange = self._begin(number)
        opening = Opening(
            self.group,
            self.plan.sum(phase, round_),
            exchange.materials,
            exchange.total,
            exchange.survivors or (),
        )
        survivors = exchange.survivors
        if survivors is None:
            survivors = self._collect(opening, phase, round_, question)
            reached(Step.SERVER_SUMMED)
            Exchange(self.plan.digest, number, exchange.materials, survivors, opening.total).write(
                self._path
            )
        reached(Step.SERVER_CLOSED)
        self._join()  # who came meanwhile takes part in the next round
        self._open(opening, survivors)
        total = opening.open().astype(np.int64)
        if (
            int(total.max(initial=0))
            > len(opening.reported) * self.plan.phases[phase].response.most
        ):
            raise WrongReport("The sum is larger than its sites can make it.", "Check the sites.")
        reached(Step.SERVER_OPENED)
        traffic = self._asker.traffic
        return Collected(total, len(opening.reported), traffic.up - up, traffic.down - down)

    def _join(self) -> None:
        """Learn the identity and the channel key of every node that is new."""
        nodes = set(self._grid.get_node_ids())
        self._nodes = {s: n for s, n in self._nodes.items() if n in nodes}
        new = {n: n for n in nodes - set(self._nodes.values())}
        if not new:
            return

        def read(node: int, records: Records) -> None:
            identity, channel = wire.read_member(records.get("member", {}))
            site = self.group.index_of(identity, "A node's")
            channel.verify(self.group, site)
            self._nodes[site], self._channels[site] = node, channel

        self._asker.ask(
            "query.join",
            new,
            lambda _: {"question": self._question},
            read,
            lambda: len(self._nodes) >= self.group.min_survivors,
            lambda: f"the run: {self.group.min_survivors} must join",
        )

    def _channels_for(self, number: int) -> wire.Fields:
        return wire.write_channels(number, self._channels)

    def _begin(self, number: int) -> Exchange:
        """Fix who takes part: all sites whose keys and shares for this round are there."""
        least = self.group.min_survivors
        if self._next_number != number:
            self._next, self._next_number = {}, number
        if len(self._next) < least:
            self._next = {}  # all anew, so that all materials are for the same channels
            message = {"question": self._question, "channels": self._channels_for(number)}
            self._asker.ask(
                "query.open",
                self._nodes,
                lambda _: message,
                self._keep_material,
                lambda: len(self._next) >= least,
                lambda: f"round {number}: {least} must take part",
            )
        # Every participant must have shares from every other.
        sites = self._next.keys()
        complete = {i: m for i, m in self._next.items() if sites <= m.shares.keys() | {i}}
        if len(complete) < least:
            raise TooFewSites(
                f"Only {len(complete)} sites sent shares for all others.", "Check their versions."
            )
        exchange = Exchange(self.plan.digest, number, dict(sorted(complete.items())))
        exchange.write(self._path)
        reached(Step.SERVER_BEGUN)
        return exchange

    def _keep_material(self, site: int, records: Records) -> None:
        if "material" in records:
            self._next[site] = wire.read_material(records["material"])

    def _collect(
        self, opening: Opening, phase: int, round_: int, question: bytes
    ) -> dict[int, bytes]:
        """Add up the masked reports; return the survivors' signatures of the participants."""
        statement = attested(
            self.group,
            opening.sum.number,
            {i: m.mask_key.hex() for i, m in opening.participants.items()},
        )
        signatures: dict[int, bytes] = {}
        content = {**self._question, "phase": phase, "round": round_, "arrays": question}
        least = self.group.min_survivors

        def read(site: int, records: Records) -> None:
            report = records["report"] if "report" in records else ConfigRecord()
            masked, digest = report.get("masked"), report.get("digest")
            signature = report.get("signature")
            if not (
                isinstance(masked, bytes)
                and isinstance(digest, bytes)
                and isinstance(signature, bytes)
                and verify(self.group.roster[site], statement, signature)
            ):
                raise WrongReport(f"Site {site} sent no report.", "Use one version everywhere.")
            opening.add(site, masked, digest)
            signatures[site] = signature

        self._asker.ask(
            "train",
            only(self._nodes, opening.participants),
            lambda site: {
                "question": content,
                "participants": wire.write_materials(opening.participants, site),
            },
            read,
            lambda: len(opening.reported) >= least,
            lambda: (
                f"round {round_} of phase {self.plan.phases[phase].name}: "
                f"{len(opening.reported)} of {len(opening.participants)} reported, {least} must"
            ),
        )
        return signatures

    def _open(self, opening: Opening, signatures: Mapping[int, bytes]) -> None:
        """Gather shares for the survivors' sum, and materials for the round after it."""
        number = opening.sum.number
        survivors = wire.write_survivors(number, signatures)
        everybody: dict[str, wire.Fields] = {"question": self._question}
        last = number + 1 == self.plan.rounds
        if not last:
            everybody["channels"] = self._channels_for(number + 1)
        self._next, self._next_number = {}, number + 1

        def content(site: int) -> dict[str, wire.Fields]:
            if site not in opening.participants:
                return everybody
            helper = {**everybody, "survivors": survivors}
            if site not in opening.reported:  # it may have missed the question
                helper["participants"] = wire.write_materials(opening.participants, site)
            return helper

        def read(site: int, records: Records) -> None:
            if "shares" in records:
                opening.add_shares(site, wire.read_shares(records["shares"]))
            self._keep_material(site, records)

        self._asker.ask(
            "query.open",
            only(self._nodes, opening.participants) if last else self._nodes,
            content,
            read,
            lambda: opening.helpers >= self.group.min_survivors,
            lambda: f"round {number}: {self.group.min_survivors} must help to open its sum",
        )
