"""The server's side of a round: tries of it, until one sum of good reports is opened.

A try is given up, before anybody has helped to open it, as soon as it shows who may have spoiled
it. The next is without them, under other keys and masks, and with the same stored reports. So one
site that lies or fails can take at most its own report out of the sum.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from flwr.serverapp import Grid
from numpy.typing import NDArray

from dppm_model.errors import TooFewSites
from dppm_model.plan import Plan
from dppm_model.securesum import wire
from dppm_model.securesum.group import roster_of
from dppm_model.securesum.keys import Channel
from dppm_model.securesum.masks import TRIES, round_of
from dppm_model.securesum.material import Material
from dppm_model.securesum.ring import Vector
from dppm_model.steps import Step, reached
from server.attempt import Attempt, Read
from server.blame import Blame
from server.exchange import Exchange
from server.messages import Asker, Patience, Records, only
from server.reports import Reports
from server.roll import Roll

log = logging.getLogger("dppm.server")


@dataclass(frozen=True)
class Collected:
    """The sum over the sites that survived the round.

    Attributes
    ----------
    total
        (D,) int64, the sum of the tallies.
    sites
        How many reports are in it.
    left_out
        Why the other sites' reports are not, by their names.
    blamed
        What was found out in this round about who lied.
    uplink_bytes, downlink_bytes
        Bytes of all sites together.
    """

    total: NDArray[np.int64]
    sites: int
    left_out: dict[str, str]
    blamed: list[str]
    uplink_bytes: int
    downlink_bytes: int


class Federation:
    """The sites of one run, as the server reaches them.

    Parameters
    ----------
    grid
        Flower's messages.
    plan, peers
        The run, and its sites' identity keys by their names.
    path
        Where the exchange of the present round is kept; the masked reports are beside it.
    patience
        How long and how often sites are asked.
    """

    def __init__(
        self,
        grid: Grid,
        plan: Plan,
        peers: Mapping[str, bytes],
        path: Path,
        patience: Patience,
    ) -> None:
        roster = roster_of(peers)
        self.plan, self.group = plan, plan.group(tuple(roster))
        self._path, self._asker = path, Asker(grid, patience)
        self._question = {"plan": plan.to_json()}
        names = list(roster.values())
        self._roll = Roll(grid, self._asker, self.group, names, self._question)
        self._blame = Blame()
        self._late: dict[int, str] = {}  # sites that this round goes on without
        self._next: dict[int, Material] = {}  # materials of try `_next_number`
        self._next_number = -1

    def ask(self, phase: int, round_: int, model: bytes) -> Collected:
        """Ask all sites for one round and open the sum of the reports that come in time.

        Raises
        ------
        TooFewSites
            If fewer than `min_survivors` take part, report, or help.
        WrongSum
            If what came does not fit together, and nobody can be left out for it.
        """
        traffic = self._asker.traffic
        up, down, self._late = traffic.up, traffic.down, {}
        self._roll.call()
        exchange = Exchange.read(self._path, self.plan.digest)
        self._blame = exchange.blame if exchange else Blame()
        before = self._blame.lines
        number = self.plan.sum(phase, round_).number
        if exchange is None or round_of(exchange.number) != round_of(number):
            exchange = Exchange(self.plan.digest, number, self._blame)
        while True:
            if not exchange.materials:
                exchange = self._begin(exchange.number)
            attempt = self._attempt(exchange, phase, round_)
            if exchange.survivors is not None:
                break
            if self._collected(attempt, model):
                reached(Step.SERVER_SUMMED)
                exchange = attempt.closed()
                exchange.write(self._path)
                break
            exchange = Exchange(self.plan.digest, exchange.number + 1, self._blame)
            exchange.write(self._path)
            reached(Step.SERVER_BLAMED)
        reached(Step.SERVER_CLOSED)
        self._roll.call()  # who came meanwhile takes part in the next round
        known = len(self._blame)
        total = self._bounded(self._open(attempt), attempt, phase)
        if len(self._blame) > known:
            exchange.write(self._path)
        reached(Step.SERVER_OPENED)
        return Collected(
            total,
            len(attempt.opening.reported),
            self._reasons(attempt),
            [line for line in self._blame.lines if line not in before],
            traffic.up - up,
            traffic.down - down,
        )

    def _attempt(self, exchange: Exchange, phase: int, round_: int) -> Attempt:
        attempt = exchange.number % TRIES
        sum_ = self.plan.sum(phase, round_, attempt)
        reports = self._path.with_name("reports.bin")
        return Attempt(
            self._asker,
            self._roll,
            self.group,
            exchange,
            sum_,
            {**self._question, "phase": phase, "round": round_, "attempt": attempt},
            Reports(reports, sum_.ring.packed_bytes, exchange.survivors or ()),
            self._complained,
        )

    def _collected(self, attempt: Attempt, model: bytes) -> bool:
        """Say whether a try has good reports of enough sites, and spoils nothing."""
        before = len(self._blame)
        late = attempt.collect(model)
        self._late |= {site: attempt.reasons[site] for site in late}
        return not late and len(self._blame) == before

    def _begin(self, number: int) -> Exchange:
        """Fix who takes part: all sites whose keys and shares for this try are there."""
        least = self.group.min_survivors
        while True:
            out = self._left_out(number)
            if self._next_number != number:
                self._next, self._next_number = {}, number
            if len(self._next.keys() - out.keys()) < least:
                self._next = {}  # all anew, so that all materials are for the same channels
                self._prepare(number, self._roll.channels_of(out))
                if self._next_number != number:
                    continue
            # Every participant must have shares from every other.
            sites = self._next.keys() - out.keys()
            complete = {
                i: m for i, m in sorted(self._next.items()) if i in sites <= m.shares.keys() | {i}
            }
            if len(complete) < least:
                raise TooFewSites(
                    f"Only {len(complete)} sites sent shares for all others.",
                    "Check their versions.",
                )
            exchange = Exchange(self.plan.digest, number, self._blame, complete)
            exchange.write(self._path)
            reached(Step.SERVER_BEGUN)
            return exchange

    def _left_out(self, number: int) -> dict[int, str]:
        """Whom a try goes without, with why.

        Raises
        ------
        TooFewSites
            If too few sites are left. What is held against them is forgotten then, so that the
            same command begins anew with all.
        """
        out = self._blame.left_out()
        if self.group.size - len(out) < self.group.min_survivors:
            why = "; ".join(self._blame.lines)
            Exchange(self.plan.digest, number).write(self._path)
            raise TooFewSites(
                f"Too few sites are left for round {round_of(number)}: {why}.",
                "Mend these sites, or plan for fewer; the same command begins anew with all.",
            )
        return out | self._late

    def _prepare(self, number: int, channels: Mapping[int, Channel]) -> None:
        """Gather materials for a try; a complaint makes `_next_number` another."""
        least = self.group.min_survivors
        try:
            self._asker.ask(
                "query.open",
                only(self._roll.nodes, channels),
                lambda _: self._prepares(number, channels),
                self._material_reader(number, channels),
                lambda: len(self._next) >= least,
                lambda: f"round {round_of(number)}: {least} must take part",
                self._roll.name,
                self._complained,
            )
        except TooFewSites:
            if self._next_number == number:
                raise

    def _prepares(self, number: int, channels: Mapping[int, Channel]) -> dict[str, wire.Fields]:
        return {"question": self._question, "channels": wire.write_channels(number, channels)}

    def _material_reader(self, number: int, channels: Mapping[int, Channel]) -> Read:
        asked = frozenset(channels)

        def keep(site: int, records: Records) -> None:
            if "material" in records:
                material = wire.read_material(records["material"])
                material.check(self.group, number, site, asked)
                self._next[site] = material

        return keep

    def _complained(self, site: int, accused: list[int]) -> None:
        """Note that a site says of others that their keys or shares are wrong."""
        before = len(self._blame)
        for other in accused:
            if other != site and other < self.group.size:
                a, b = self._roll.name(site), self._roll.name(other)
                why = f"{a} says that keys or shares of {b} are wrong"
                self._blame.add_pair(other, site, why)
        if len(self._blame) > before:
            self._next_number = -1  # all are asked anew, without one of each pair

    def _open(self, attempt: Attempt) -> Vector:
        """Open the sum of a try, and gather materials for the round after it."""
        number = (round_of(attempt.opening.sum.number) + 1) * TRIES
        if round_of(number) == self.plan.rounds:
            nodes = only(self._roll.nodes, attempt.opening.participants)
            return attempt.open(nodes, {"question": self._question}, lambda *_: None)  # the last
        self._next, self._next_number = {}, number
        channels = self._roll.channels_of(self._blame.left_out())
        others, keep = self._prepares(number, channels), self._material_reader(number, channels)
        nodes = only(self._roll.nodes, channels.keys() | attempt.opening.participants.keys())
        return attempt.open(nodes, others, keep)

    def _bounded(self, total: Vector, attempt: Attempt, phase: int) -> NDArray[np.int64]:
        """Keep the sum in the range that honest reports give it.

        A site that reports what it likes spoils a sum, and nobody can see whose report it was.
        """
        number = attempt.opening.sum.number
        most = len(attempt.opening.reported) * self.plan.phases[phase].response.most
        if int(total.max(initial=0)) > most:
            log.warning("try %d: the sum is larger than its sites can make it", number)
        return np.minimum(total.astype(np.int64), most)

    def _reasons(self, attempt: Attempt) -> dict[str, str]:
        """Why reports are not in the sum, by name."""
        reasons = {
            **dict.fromkeys(set(range(self.group.size)) - self._roll.nodes.keys(), "not connected"),
            **attempt.reasons,
            **self._late,
            **self._blame.left_out(),
        }
        absent = set(range(self.group.size)) - attempt.opening.reported
        return {self._roll.name(i): reasons.get(i, "did not take part") for i in sorted(absent)}
