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
from dppm_model.securesum.group import roster_of
from dppm_model.securesum.masks import TRIES, round_of
from dppm_model.securesum.ring import Vector
from dppm_model.steps import Step, reached
from server.absent import Absent
from server.attempt import Attempt
from server.blame import Blame
from server.exchange import Exchange
from server.messages import Asker, Patience, only
from server.prepared import Prepared
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
        self._next = Prepared(self.group, self._question)
        self._absent = Absent(self.group, self._roll, Blame())

    def ask(self, phase: int, round_: int, question: bytes) -> Collected:
        """Ask all sites for one round and open the sum of the reports that come in time.

        ``question`` is the arrays that the round asks by.

        Raises
        ------
        TooFewSites
            If fewer than `min_survivors` take part, report, or help.
        WrongSum
            If what came does not fit together, and nobody can be left out for it.
        """
        traffic = self._asker.traffic
        up, down = traffic.up, traffic.down
        self._roll.call()
        exchange = Exchange.read(self._path, self.plan.digest)
        blame = exchange.blame if exchange else Blame()
        self._absent = Absent(self.group, self._roll, blame)
        number = self.plan.sum(phase, round_).number
        if exchange is None or round_of(exchange.number) != round_of(number):
            exchange = Exchange(self.plan.digest, number, blame)
        while True:
            if not exchange.materials:
                exchange = self._begin(exchange)
            attempt = self._attempt(exchange, phase, round_)
            if exchange.survivors is not None:
                break
            if self._collected(attempt, question):
                reached(Step.SERVER_SUMMED)
                exchange = attempt.closed()
                exchange.write(self._path)
                break
            exchange = Exchange(self.plan.digest, exchange.number + 1, blame)
            exchange.write(self._path)
            reached(Step.SERVER_BLAMED)
        reached(Step.SERVER_CLOSED)
        self._roll.call()  # who came meanwhile takes part in the next round
        known = blame.lines
        total = self._bounded(self._open(attempt), attempt, phase)
        if blame.lines != known:
            exchange.write(self._path)
        reached(Step.SERVER_OPENED)
        reported = attempt.opening.reported
        return Collected(
            total,
            len(reported),
            self._absent.reasons(reported, attempt.reasons),
            self._absent.told,
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

    def _collected(self, attempt: Attempt, question: bytes) -> bool:
        """Say whether a try has good reports of enough sites; else the next goes without others."""
        before, absent = len(self._absent.blame), self._absent
        try:
            late = attempt.collect(question)
        except TooFewSites:
            if not absent.goes_on(dict.fromkeys(attempt.opening.missing, "did not report")):
                raise
            return False
        absent.late |= late
        return not late and len(absent.blame) == before

    def _begin(self, exchange: Exchange) -> Exchange:
        """Fix who takes part: all sites whose keys and shares for this try are there."""
        number, least = exchange.number, self.group.min_survivors
        while True:
            try:
                out = self._absent.left_out(number)
            except TooFewSites:
                exchange.write(self._path)
                raise
            sites = frozenset(range(self.group.size)) - out.keys()
            if self._next.number != number:
                self._next.begin(number)
            if len(self._next.materials.keys() & sites) < least:
                self._next.begin(number)  # all anew, so that all are for the same channels
                self._prepare(sites)
                if self._next.number != number:
                    continue
            # Every participant must have shares from every other.
            complete = self._next.complete(sites & self._next.materials.keys())
            if len(complete) < least:
                raise TooFewSites(
                    f"Only {len(complete)} sites sent shares for all others.",
                    "Check their versions.",
                )
            begun = Exchange(self.plan.digest, number, exchange.blame, complete)
            begun.write(self._path)
            reached(Step.SERVER_BEGUN)
            return begun

    def _prepare(self, sites: frozenset[int]) -> None:
        """Gather materials for a try; if others have to be asked, they are of no use any more."""
        number, least = self._next.number, self.group.min_survivors
        channels = self._absent.channels()
        asked = self._next.asks(channels)
        try:
            self._asker.ask(
                "query.open",
                only(self._roll.nodes, channels),
                lambda _: asked,
                self._next.reader(channels),
                lambda: len(self._next.materials.keys() & sites) >= least,
                lambda: f"round {round_of(number)}: {least} must take part",
                self._roll.name,
                self._complained,
            )
        except TooFewSites:
            if self._next.number == number:
                silent = dict.fromkeys(sites - self._next.materials.keys(), "did not prepare")
                if not self._absent.goes_on(silent):
                    raise
                self._next.number = -1

    def _complained(self, site: int, record: str, accused: list[int]) -> None:
        if self._absent.complained(site, record, accused):
            self._next.number = -1  # all are asked anew, without one of each pair

    def _open(self, attempt: Attempt) -> Vector:
        """Open the sum of a try, and gather materials for the round after it."""
        round_ = round_of(attempt.opening.sum.number) + 1
        holders = {site for site in range(self.group.size) if attempt.holds(site)}
        if round_ == self.plan.rounds:  # there is no next one
            nodes = only(self._roll.nodes, holders)
            return attempt.open(nodes, {"question": self._question}, lambda *_: None)
        self._next.begin(round_ * TRIES)
        channels = self._absent.channels()
        nodes = only(self._roll.nodes, channels.keys() | holders)
        return attempt.open(nodes, self._next.asks(channels), self._next.reader(channels))

    def _bounded(self, total: Vector, attempt: Attempt, phase: int) -> NDArray[np.int64]:
        """Keep the sum in the range that honest reports give it.

        A site that reports what it likes spoils a sum, and nobody can see whose report it was.
        """
        number = attempt.opening.sum.number
        most = len(attempt.opening.reported) * self.plan.phases[phase].response.most
        if int(total.max(initial=0)) > most:
            log.warning("try %d: the sum is larger than its sites can make it", number)
        return np.minimum(total.astype(np.int64), most)
