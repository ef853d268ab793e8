"""One try of a round: masked reports in, one sum out, and any site that spoils it identified.

Each site gets two messages: the question, answered by the masked report; and the survivors,
answered by the shares that open their sum, with the keys and shares of the next round. Two more are
sent only when needed: before anything is opened, one for check numbers of the masks that survivors
share with drop-outs (or with each other, if the masked sum is inconsistent); and one for the keys
of the masks shared with sites that the opened shares prove guilty.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress

from dppm_model.aggregation import Fields
from dppm_model.errors import TooFewSites, WrongReport, WrongSum
from dppm_model.fault_points import FaultPoint, reached
from dppm_model.securesum.group import Group
from dppm_model.securesum.keys import attested, verify
from dppm_model.securesum.masks import Sum
from dppm_model.securesum.opening import Opening
from dppm_model.securesum.ring import Vector
from dppm_model.securesum.round_keys import Checks
from dppm_model.securesum.wire import read_by_site, read_checks
from server.broadcast import Broadcaster, Complain, Records, select
from server.securesum import wire
from server.securesum.key_collection import Read
from server.securesum.membership import Membership
from server.securesum.round_checkpoint import MaskedReports, RoundCheckpoint

Content = Callable[[int], dict[str, Fields]]


class Attempt:
    """One try, continued from a checkpoint.

    ``question`` holds the fields of every message: plan, phase, round and try. ``reasons`` says why
    sites are not in the sum, according to their answers.
    """

    def __init__(
        self,
        broadcaster: Broadcaster,
        members: Membership,
        group: Group,
        checkpoint: RoundCheckpoint,
        sum_: Sum,
        question: Fields,
        reports: MaskedReports,
        complain: Complain,
    ) -> None:
        self._broadcaster, self._complain = broadcaster, complain
        self._members, self._group = members, group
        self._question, self._reports = question, reports
        self._plan, self._blame = checkpoint.plan, checkpoint.blame
        self.opening = Opening(
            group, sum_, checkpoint.round_keys, checkpoint.total, checkpoint.masks, checkpoint.pairs
        )
        self.signatures = dict(checkpoint.survivors or {})
        self.reasons: dict[int, str] = {}

    def collect(self, arrays: bytes) -> dict[int, str]:
        """Add up the masked reports, and blame sites that masked wrongly.

        Returns the sites that reported but then did not send their check numbers, with the reason.
        Raises `TooFewSites` if fewer than `min_survivors` report, and no site is to blame.
        """
        before = len(self._blame)
        try:
            self._gather(arrays)
        except TooFewSites:
            if len(self._blame) == before:
                raise
        if len(self._blame) > before:  # the next try leaves out the accused sites
            return {}
        self._reports.sync()
        late = self._ask_checks(self.opening.missing, self.opening.add_pairs)
        if late or self.opening.fits():
            return late
        rows: dict[int, Checks] = {}
        late = self._ask_checks(self.opening.masks.keys(), rows.__setitem__)
        wrong, pairs = self.opening.blamed(rows, self._reports.of)
        for site in sorted(wrong):
            self._blame.add(site, f"{self._name(site)} masked its report wrongly")
        for pair in sorted(pairs):
            a, b = map(self._name, pair)
            self._blame.add_pair(*pair, f"{a} and {b} disagree about their mask")
        if len(self._blame) == before and not late:
            raise WrongSum(
                f"The masked sum of try {self.opening.sum.number} is inconsistent, and no site is "
                "to blame.",
                "Check the server's memory and disk.",
            )
        return late

    def _gather(self, arrays: bytes) -> None:
        opening, least = self.opening, self._group.min_survivors
        statement = attested(self._group, opening.sum.number, opening.published)
        question = {**self._question, "arrays": arrays}

        def read(site: int, records: Records) -> None:
            masked, digest, signature, mask = wire.read_report(records.get("report", {}), site)
            if not verify(self._group.roster[site], statement, signature):
                raise WrongReport(
                    f"Site {site} did not sign its participants.", "Use one version everywhere."
                )
            opening.add(site, masked, digest, mask)
            self._reports.add(site, masked)
            self.signatures[site] = signature

        self._ask(
            "train",
            opening.participants,
            lambda site: {
                "question": question,
                "participants": wire.write_round_keys(opening.participants, site),
            },
            read,
            lambda: len(opening.reported) >= least,
            lambda: (
                f"{self._called}: {len(opening.reported)} of {len(opening.participants)} "
                f"reported, {least} must"
            ),
        )

    def _ask_checks(
        self, peers: Collection[int], keep: Callable[[int, Checks], None]
    ) -> dict[int, str]:
        """Ask sites that reported for check numbers; return those that do not send them."""
        if not peers:
            return {}
        silent = set(self.opening.masks)

        def read(site: int, records: Records) -> None:
            keep(site, read_checks(records.get("checks", {})))
            silent.discard(site)

        with suppress(TooFewSites):  # silent sites are left out
            self._ask(
                "query.checks",
                self.opening.masks,
                lambda site: {
                    "question": self._question,
                    "peers": {"sites": sorted(set(peers) - {site})},
                },
                read,
                lambda: not silent,
                lambda: f"{self._called}: all must send check numbers of their masks",
            )
        return dict.fromkeys(silent, "did not send check numbers of its masks")

    def open(self, everybody: Mapping[int, int], others: dict[str, Fields], keep: Read) -> Vector:
        """Collect shares of the survivors' sum, and open it; take out sites proven guilty.

        The nodes of ``everybody`` get a message with the fields ``others``; ``keep`` takes their
        answers to these. Raises `TooFewSites` if fewer than `min_survivors` help, or not all help
        to take out a guilty site; `WrongSum` if the answers are inconsistent, and nothing proves
        which site lied.
        """
        opening, number = self.opening, self.opening.sum.number
        survivors = wire.write_survivors(number, self.signatures)

        def content(site: int) -> dict[str, Fields]:
            if not self.holds(site):
                return others
            helper = {**others, "survivors": survivors}
            if site not in opening.masks:  # it missed the question, or was left out
                helper["participants"] = wire.write_round_keys(opening.participants, site)
            return helper

        def read(site: int, records: Records) -> None:
            if "shares" in records:
                opening.add_shares(site, read_by_site(records["shares"], "shares"))
            keep(site, records)

        least = self._group.min_survivors
        self._broadcaster.ask(
            "query.open",
            everybody,
            content,
            read,
            lambda: opening.helpers >= least,
            lambda: f"{self._called}: {least} must help to open its sum",
            self._members.name,
            self._complain,
        )
        for site in sorted(opening.liars):
            self._blame.add(site, f"{self._name(site)} sent a share that no site has dealt it")
        try:
            return opening.open()
        except WrongSum:
            if not self._remove_guilty():
                raise
        return opening.open()

    def holds(self, site: int) -> bool:
        """Return whether a site holds shares of all participants, and so can help."""
        round_keys = self.opening.participants
        return all(site in m.shares for dealer, m in round_keys.items() if dealer != site)

    def closed(self) -> RoundCheckpoint:
        """Return the state that a restarted server has to continue from."""
        opening = self.opening
        return RoundCheckpoint(
            self._plan,
            opening.sum.number,
            self._blame,
            dict(opening.participants),
            self.signatures,
            opening.masks,
            opening.pairs,
            opening.total,
        )

    def _remove_guilty(self) -> bool:
        """Take sites that the opened shares prove guilty out of the sum; False if none are."""
        opening, proofs = self.opening, self.opening.proofs()
        for proof in proofs:
            name = self._name(proof.accused)
            self._blame.add(proof.accused, f"{name} sent what its own secrets refute")
        if not proofs:
            return False
        reached(FaultPoint.SERVER_JUDGED)
        opening.remove((proof.accused for proof in proofs), self._reports.of)
        silent = set(opening.reported)
        written = {f"proof-{i}": wire.write_proof(proof) for i, proof in enumerate(proofs)}

        def read(site: int, records: Records) -> None:
            opening.add_keys(site, read_by_site(records.get("keys", {}), "keys", 32))
            silent.discard(site)

        self._ask(
            "query.remove",
            silent,
            lambda _: {"question": self._question, **written},
            read,
            lambda: not silent,
            lambda: f"{self._called}: all must help to take out a guilty site",
        )
        return True

    def _ask(
        self,
        kind: str,
        sites: Collection[int],
        content: Content,
        read: Read,
        enough: Callable[[], bool],
        what: Callable[[], str],
    ) -> None:
        nodes = select(self._members.nodes, sites)
        name = self._members.name
        self.reasons |= self._broadcaster.ask(
            kind, nodes, content, read, enough, what, name, self._complain
        )

    def _name(self, site: int) -> str:
        return self._members.name(site)

    @property
    def _called(self) -> str:
        return f"round {self._question['round']} of phase {self._question['phase']}"
