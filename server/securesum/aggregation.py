"""The server's side of a round: repeated tries until a sum of valid reports is opened.

A try is abandoned, before any site has helped to open it, as soon as it shows which sites may have
spoiled it. The next leaves them out, with new keys and masks and the same stored reports. So a
site that lies or fails can keep at most its own report out of the sum.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from flwr.serverapp import Grid
from numpy.typing import NDArray

from dppm_model.errors import TooFewSites
from dppm_model.fault_points import FaultPoint, reached
from dppm_model.plan import Plan
from dppm_model.securesum.group import Group
from dppm_model.securesum.masks import TRIES, Sum, round_of
from dppm_model.securesum.ring import Vector
from server.aggregation import Aggregate
from server.broadcast import Broadcaster, RetryPolicy, select
from server.securesum.attempt import Attempt
from server.securesum.blame import Blame, Exclusions
from server.securesum.key_collection import KeyCollection
from server.securesum.membership import Membership
from server.securesum.round_checkpoint import MaskedReports, RoundCheckpoint

log = logging.getLogger("dppm.server")


class SecureSum:
    """The server's side of one run's secure sum.

    Parameters
    ----------
    grid
        Carries Flower's messages.
    plan, peers
        The plan, and the sites' identity keys by name.
    path
        File of the current round's checkpoint; the masked reports are kept beside it.
    retry
        Deadlines and retries.
    """

    def __init__(
        self, grid: Grid, plan: Plan, peers: Mapping[str, bytes], path: Path, retry: RetryPolicy
    ) -> None:
        names = sorted(peers, key=peers.__getitem__)
        self.plan, self.group = plan, Group.of(plan, tuple(sorted(peers.values())))
        self._path, self._broadcaster = path, Broadcaster(grid, retry)
        self._question = {"plan": plan.to_json()}
        self._members = Membership(grid, self._broadcaster, self.group, names, self._question)
        self._next = KeyCollection(self.group, self._question)
        self._absent = Exclusions(self.group, self._members, Blame())

    def aggregate(self, phase: int, round_: int, question: bytes) -> Aggregate:
        """Ask all sites for one round, and open the sum of the reports that arrive in time.

        ``question`` holds the arrays of the round's question. Raises `TooFewSites` if fewer than
        `min_survivors` take part, report, or help; `WrongSum` if the answers are inconsistent, and
        no site can be left out for it.
        """
        up, down = self._broadcaster.up, self._broadcaster.down
        self._members.call()
        checkpoint = RoundCheckpoint.read(self._path, self.plan.digest)
        blame = checkpoint.blame if checkpoint else Blame()
        self._absent = Exclusions(self.group, self._members, blame)
        number = Sum.of(self.plan, phase, round_).number
        if checkpoint is None or round_of(checkpoint.number) != round_of(number):
            checkpoint = RoundCheckpoint(self.plan.digest, number, blame)
        while True:
            if not checkpoint.round_keys:
                checkpoint = self._begin(checkpoint)
            attempt = self._attempt(checkpoint, phase, round_)
            if checkpoint.survivors is not None:
                break
            if self._collected(attempt, question):
                reached(FaultPoint.SERVER_SUMMED)
                checkpoint = attempt.closed()
                checkpoint.write(self._path)
                break
            checkpoint = RoundCheckpoint(self.plan.digest, checkpoint.number + 1, blame)
            checkpoint.write(self._path)
            reached(FaultPoint.SERVER_BLAMED)
        reached(FaultPoint.SERVER_CLOSED)
        self._members.call()  # newly connected sites take part in the next round
        known = blame.lines
        total = self._bounded(self._open(attempt), attempt, phase)
        if blame.lines != known:
            checkpoint.write(self._path)
        reached(FaultPoint.SERVER_OPENED)
        reported = attempt.opening.reported
        return Aggregate(
            total,
            len(reported),
            self._absent.reasons(reported, attempt.reasons),
            self._absent.news,
            self._broadcaster.up - up,
            self._broadcaster.down - down,
        )

    def _attempt(self, checkpoint: RoundCheckpoint, phase: int, round_: int) -> Attempt:
        attempt = checkpoint.number % TRIES
        sum_ = Sum.of(self.plan, phase, round_, attempt)
        reports = self._path.with_name("reports.bin")
        return Attempt(
            self._broadcaster,
            self._members,
            self.group,
            checkpoint,
            sum_,
            {**self._question, "phase": phase, "round": round_, "attempt": attempt},
            MaskedReports(reports, sum_.ring.packed_bytes, checkpoint.survivors or ()),
            self._complained,
        )

    def _collected(self, attempt: Attempt, question: bytes) -> bool:
        """Return whether enough sites sent valid reports; else exclude sites from the next try."""
        before, absent = len(self._absent.blame), self._absent
        try:
            late = attempt.collect(question)
        except TooFewSites:
            if not absent.goes_on(dict.fromkeys(attempt.opening.missing, "did not report")):
                raise
            return False
        absent.late |= late
        return not late and len(absent.blame) == before

    def _begin(self, checkpoint: RoundCheckpoint) -> RoundCheckpoint:
        """Fix the participants: all sites whose keys and shares for this try have arrived."""
        number, least = checkpoint.number, self.group.min_survivors
        while True:
            try:
                out = self._absent.left_out(number)
            except TooFewSites:
                checkpoint.write(self._path)
                raise
            sites = frozenset(range(self.group.size)) - out.keys()
            if self._next.number != number:
                self._next.begin(number)
            if len(self._next.round_keys.keys() & sites) < least:
                self._next.begin(number)  # start over: all must be for the same channels
                self._prepare(sites)
                if self._next.number != number:
                    continue
            # Every participant must have shares from every other.
            complete = self._next.complete(sites & self._next.round_keys.keys())
            if len(complete) < least:
                raise TooFewSites(
                    f"Only {len(complete)} sites sent shares for all other sites.",
                    "Check the versions that the sites run.",
                )
            begun = RoundCheckpoint(self.plan.digest, number, checkpoint.blame, complete)
            begun.write(self._path)
            reached(FaultPoint.SERVER_BEGUN)
            return begun

    def _prepare(self, sites: frozenset[int]) -> None:
        """Collect keys and shares for a try; discard them if the set of sites changes."""
        number, least = self._next.number, self.group.min_survivors
        channels = self._absent.channels()
        asked = self._next.asks(channels)
        try:
            self._broadcaster.ask(
                "query.open",
                select(self._members.nodes, channels),
                lambda _: asked,
                self._next.reader(channels),
                lambda: len(self._next.round_keys.keys() & sites) >= least,
                lambda: f"round {round_of(number)}: {least} must take part",
                self._members.name,
                self._complained,
            )
        except TooFewSites:
            if self._next.number == number:
                silent = dict.fromkeys(sites - self._next.round_keys.keys(), "did not prepare")
                if not self._absent.goes_on(silent):
                    raise
                self._next.number = -1

    def _complained(self, site: int, record: str, accused: list[int]) -> None:
        if self._absent.complained(site, record, accused):
            self._next.number = -1  # ask all again, leaving out one of each pair

    def _open(self, attempt: Attempt) -> Vector:
        """Open the sum of a try, and collect keys and shares for the next round."""
        round_ = round_of(attempt.opening.sum.number) + 1
        holders = {site for site in range(self.group.size) if attempt.holds(site)}
        if round_ == self.plan.rounds:  # there is no next round
            nodes = select(self._members.nodes, holders)
            return attempt.open(nodes, {"question": self._question}, lambda *_: None)
        self._next.begin(round_ * TRIES)
        channels = self._absent.channels()
        nodes = select(self._members.nodes, channels.keys() | holders)
        return attempt.open(nodes, self._next.asks(channels), self._next.reader(channels))

    def _bounded(self, total: Vector, attempt: Attempt, phase: int) -> NDArray[np.int64]:
        """Clamp the sum to the range that honest reports can give it.

        A site that reports arbitrary numbers spoils a sum, and it cannot be identified.
        """
        number = attempt.opening.sum.number
        most = len(attempt.opening.reported) * self.plan.phases[phase].max_count
        if int(total.max(initial=0)) > most:
            log.warning("try %d: the sum exceeds what its sites can report", number)
        return np.minimum(total.astype(np.int64), most)
