"""A site's side of the secure sum: five messages, each checked against the site's list of peers.

query.join    -> identity, signed channel key                     once a run
train         -> masked report, its digest, signed participants   each round
query.open    -> shares that open the round; keys and shares for the next
query.checks  -> check numbers of masks with drop-outs, or with peers whose masks do not match
query.remove  -> keys of the masks shared with sites that are proven guilty

`dppm_model.securesum.member` decides what may be revealed, and when; `server.securesum` asks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

from client.approvals import approval_of
from client.site import Site
from dppm_model.aggregation import Answer, Fields, Question
from dppm_model.errors import DppmError, LedgerError, ModelError, PlanError
from dppm_model.fault_points import FaultPoint, reached
from dppm_model.plan import Plan
from dppm_model.securesum import wire
from dppm_model.securesum.group import Group
from dppm_model.securesum.keys import Channel
from dppm_model.securesum.masks import Sum, round_of
from dppm_model.securesum.member import Member
from dppm_model.securesum.round_keys import Checks, RoundKeys


class SecureSumSite:
    """One site in the secure sum of one run.

    ``site`` decides whether the run may be answered, and computes the answers. ``plan`` is as the
    server sent it; only an approved plan is answered.
    """

    def __init__(self, site: Site, plan: Plan) -> None:
        self.site, self.plan = site, plan

    def handle(self, message: str, content: Question) -> Answer:
        """Answer a message; see `dppm_model.aggregation.SiteAggregation`."""
        return self._ACTS[message](self, content)

    def prepare(self, number: int, channels: Mapping[int, Channel]) -> RoundKeys:
        """Publish keys and shares for one try, if the site can afford it; see `Member.prepare`.

        Raises `BudgetExhausted` if the round would pass the site's limit: the site leaves before it
        is counted on.
        """
        with self.site.alone():
            member = self.member()
            round_ = round_of(number)
            if not 0 <= round_ < self.plan.rounds:
                raise PlanError(f"round {round_} is not in the plan.", "Ask for a planned round.")
            self.site.check_budget(self.plan, round_)
            own_keys = member.prepare(number, channels)
            reached(FaultPoint.SITE_PREPARED)
            return own_keys

    def report(
        self,
        phase: int,
        round_: int,
        question: bytes,
        round_keys: Mapping[int, RoundKeys],
        attempt: int = 0,
    ) -> tuple[bytes, bytes, Checks]:
        """Answer one round under the masks of a try, or repeat the answer.

        Returns the masked report, the signature of its participants, and the check numbers of the
        self-mask; see `Member`. Each try masks the same stored tallies (`Site.answer`). Raises
        `SecureSumError` if the participants are not valid; see `Member.admit`.
        """
        sum_ = Sum.of(self.plan, phase, round_, attempt)
        with self.site.alone():
            member = self.member()
            member.admit(sum_.number, round_keys)
            reached(FaultPoint.SITE_ADMITTED)
            tallies = self.site.answer(self.plan, phase, round_, question)
            masking = member.begun(sum_.number)
            masked, checks = masking.mask(sum_, tallies)
            reached(FaultPoint.SITE_MASKED)
            return masked, masking.attest(), checks

    def reveal(
        self, number: int, survivors: Mapping[int, bytes], round_keys: Mapping[int, RoundKeys]
    ) -> dict[int, bytes]:
        """Help to open the sum of one round; see `Member.reveal`.

        A site that missed the question or was left out gets ``round_keys``, and can help without
        having answered.
        """
        with self.site.alone():
            member = self.member(opens=True)
            if round_keys:
                member.admit(number, round_keys, helps=True)
            shares = member.reveal(number, survivors)
            reached(FaultPoint.SITE_REVEALED)
            return shares

    def member(self, *, opens: bool = False) -> Member:
        """Return the site's side of the run's secure sum, by the site's *own* list of peers."""
        approval = self.site.authorize(self.plan, opens=opens)
        group = Group.of(self.plan, approval.roster)
        path = self.site.folder / "sums" / f"{self.plan.run}.json"
        if not path.exists() and any(d.run == self.plan.run for d in self.site.ledger.debits):
            raise LedgerError(
                f"{path} is lost, and with it the keys of the run.", "Sit out until the next run."
            )
        return Member(group, self.site.identity, path)

    # Each message, by its fields.

    def _join(self, content: Question) -> Answer:
        nonce = wire.read_bytes(content["join"], "nonce", 32)
        with self.site.alone():
            member = self.member()
            channel, proof = member.channel(), member.join(nonce)
        return {"member": wire.write_member(self.site.identity.public, channel, proof)}

    def _report(self, content: Question) -> Answer:
        question, index = content["question"], self._index()
        round_keys = wire.read_materials(content["participants"], index)
        phase, round_, attempt = _numbers(content)
        arrays = question["arrays"]
        if not isinstance(arrays, bytes):
            raise ModelError("The question's arrays are not bytes.", "Server and site differ.")
        answer = self.report(phase, round_, arrays, round_keys, attempt)
        return {"report": wire.write_report(index, *answer)}

    def _checks(self, content: Question) -> Answer:
        peers = wire.read_numbers(content["peers"])
        sum_ = self._sum(content)
        with self.site.alone():
            checks = self.member(opens=True).begun(sum_.number).checks(sum_, peers)
        return {"checks": wire.write_checks(checks)}

    def _remove(self, content: Question) -> Answer:
        proofs = [wire.read_proof(content[name]) for name in content if name.startswith("proof")]
        sum_ = self._sum(content)
        with self.site.alone():
            keys = self.member(opens=True).begun(sum_.number).pair_keys(sum_, proofs)
            reached(FaultPoint.SITE_REMOVED)
        return {"keys": wire.write_keys(keys)}

    def _open(self, content: Question) -> Answer:
        """Help to open a round, and prepare the next; either may be refused alone."""

        def shares() -> Fields:
            number, survivors = wire.read_survivors(content["survivors"])
            missed = content.get("participants")
            round_keys = wire.read_materials(missed, self._index()) if missed else {}
            return wire.write_shares(self.reveal(number, survivors, round_keys))

        def own_keys() -> Fields:
            return wire.write_material(self.prepare(*wire.read_channels(content["channels"])))

        answer: Answer = {}
        if "survivors" in content:
            answer |= _part("shares", shares)
        if "channels" in content:
            answer |= _part("material", own_keys)
        return answer

    def _index(self) -> int:
        roster = approval_of(self.site.folder, self.plan).roster
        return Group.of(self.plan, roster).index_of(self.site.identity.public)

    def _sum(self, content: Question) -> Sum:
        return Sum.of(self.plan, *_numbers(content))

    _ACTS: ClassVar[dict[str, Callable[[SecureSumSite, Question], Answer]]] = {
        "query.join": _join,
        "train": _report,
        "query.open": _open,
        "query.checks": _checks,
        "query.remove": _remove,
    }
    messages: ClassVar[tuple[str, ...]] = tuple(_ACTS)


def _numbers(content: Question) -> tuple[int, int, int]:
    """Read the phase, round and try that a message is about."""
    question = content["question"]
    phase, round_, attempt = (wire.read_number(question, n) for n in ("phase", "round", "attempt"))
    return phase, round_, attempt


def _part(name: str, act: Callable[[], Fields]) -> Answer:
    """Return one part of an answer, or its refusal."""
    try:
        return {name: act()}
    except DppmError as error:
        return {f"no_{name}": error}
