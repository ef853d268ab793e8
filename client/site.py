"""A site: its records, its ledger, its limits, and the one thing it ever answers.

The order of `Site.report` is the privacy of the project: check the plan, check the secure sum's
participants, check the budget, debit on disk, only then read data, store the report, release it
masked. Whatever goes wrong in between, a report that was released has been debited, and the same
round is never answered with fresh coins.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client.approvals import approval_of
from client.policy import Policy
from dppm_model.errors import BudgetExhausted, DataError, LedgerError, ModelError, PlanError
from dppm_model.files import write_bytes
from dppm_model.mechanism.coins import Coins
from dppm_model.plan import Plan
from dppm_model.privacy.ledger import Ledger
from dppm_model.records.shards import Records, open_records
from dppm_model.records.units import Units
from dppm_model.round import report
from dppm_model.score.model import ScoreModel
from dppm_model.score.phases import build_query
from dppm_model.securesum.group import Group
from dppm_model.securesum.keys import Channel, Identity
from dppm_model.securesum.masks import Sum, round_of
from dppm_model.securesum.material import Checks, Material
from dppm_model.securesum.member import Member
from dppm_model.securesum.proof import Proof
from dppm_model.steps import Step, reached

Tallies = NDArray[np.unsignedinteger]


def site_records(folder: Path, policy: Policy) -> Records:
    """Open the records that a site's policy names, memory-mapped.

    Raises
    ------
    DataError
        If they, or the index into them, cannot be read.
    """
    records = open_records(Path(policy.records))
    if not policy.index:
        return records
    try:
        index = np.load(folder / policy.index)
    except (OSError, ValueError) as error:
        raise DataError(
            f"index: {folder / policy.index} cannot be read ({error}).",
            "Give an .npy file with record numbers, or an empty name for all records.",
        ) from None
    return records.select(index)


class Site:
    """One site's folder.

    ``site.toml`` (limits), ``identity.key``, ``approvals/`` (plans, with peers and code),
    ``ledger.jsonl``, ``sums/`` (memory of the secure sums), ``reports/`` (the last of each run).

    Parameters
    ----------
    folder
        The site's own folder.
    coins
        The source of the randomness of the site's answers.
    """

    def __init__(self, folder: Path, coins: Coins) -> None:
        self.folder, self.coins = folder, coins
        self.policy = Policy.read(folder / "site.toml")
        self.identity = Identity.read(folder / "identity.key")
        self.ledger = Ledger(folder / "ledger.jsonl")

    def records(self) -> Records:
        """Open the site's records, memory-mapped."""
        return site_records(self.folder, self.policy)

    def join(self, plan: Plan, nonce: bytes) -> tuple[Channel, bytes]:
        """Show the site's channel key for a run, and sign the nonce; see `Member.join`."""
        with self._alone():
            member = self._member(plan)
            return member.channel(), member.join(nonce)

    def prepare(self, plan: Plan, number: int, channels: Mapping[int, Channel]) -> Material:
        """Publish keys and shares for one try, if the site can afford it; see `Member.prepare`.

        Raises
        ------
        BudgetExhausted
            If the round would pass the site's limit: the site leaves before it is counted on.
        """
        with self._alone():
            member = self._member(plan)
            round_ = round_of(number)
            if not 0 <= round_ < plan.rounds:
                raise PlanError(f"round {round_} is not in the plan.", "Ask for a planned round.")
            self._check_budget(plan, round_)
            material = member.prepare(number, channels)
            reached(Step.SITE_PREPARED)
            return material

    def report(
        self,
        plan: Plan,
        phase: int,
        round_: int,
        model: ScoreModel,
        materials: Mapping[int, Material],
        attempt: int = 0,
    ) -> tuple[bytes, bytes, Checks]:
        """Answer one round of a plan under the masks of a try, or repeat the answer.

        In every try it is the same answer: the tallies that were stored.

        Returns
        -------
        The masked report, the signature of its participants, and what is said of the self-mask;
        see `Member`.

        Raises
        ------
        PlanError
            If the round is not one of the plan's, or the run was begun under another plan.
        SecureSumError
            If the participants are not as they should be; see `Member.admit`.
        BudgetExhausted
            If the round would pass the site's limit. No data have been read then.
        """
        sum_ = plan.sum(phase, round_, attempt)
        with self._alone():
            member = self._member(plan)
            member.admit(sum_.number, materials)
            reached(Step.SITE_ADMITTED)
            tallies = self._answer(plan, phase, round_, model)
            masked, checks = member.mask(sum_, tallies)
            reached(Step.SITE_MASKED)
            return masked, member.attest(sum_.number), checks

    def checks(self, plan: Plan, sum_: Sum, peers: Sequence[int]) -> Checks:
        """Say what the masks with some peers should add up to; see `Masking.checks`."""
        with self._alone():
            return self._member(plan, opens=True).begun(sum_.number).checks(sum_, peers)

    def reveal(
        self,
        plan: Plan,
        number: int,
        survivors: Mapping[int, bytes],
        materials: Mapping[int, Material],
    ) -> dict[int, bytes]:
        """Help to open the sum of one round; see `Member.reveal`.

        ``materials`` are for a site that missed the question, or was left out: it can help without
        having answered.
        """
        with self._alone():
            member = self._member(plan, opens=True)
            if materials:
                member.admit(number, materials, helps=True)
            shares = member.reveal(number, survivors)
            reached(Step.SITE_REVEALED)
            return shares

    def pair_keys(self, plan: Plan, sum_: Sum, proofs: Sequence[Proof]) -> dict[int, bytes]:
        """Help to take guilty sites out of a sum; see `Masking.pair_keys`."""
        with self._alone():
            masking = self._member(plan, opens=True).begun(sum_.number)
            keys = masking.pair_keys(sum_, proofs)
            reached(Step.SITE_REMOVED)
            return keys

    def index(self, plan: Plan) -> int:
        """Return the site's place in the roster."""
        return self._group(plan).index_of(self.identity.public)

    def _group(self, plan: Plan) -> Group:
        """The sites that the operator approved this plan with, whoever the server says they are."""
        return plan.group(approval_of(self.folder, plan).roster)

    def _member(self, plan: Plan, *, opens: bool = False) -> Member:
        """The site's side of the run's secure sum, from the site's *own* list of peers.

        Only who asks by an approved plan hears anything that depends on the records. Where a sum is
        opened (``opens``), neither they nor the hour matter: its reports are out already.
        """
        self._check_plan(plan)
        group = self._group(plan)
        self.policy.check_plan(plan)
        if not opens:
            self.policy.check_hours(datetime.now())
            self.policy.check_records(len(Units.of(self.records(), plan.unit, 1)))
        path = self.folder / "sums" / f"{plan.run}.json"
        if not path.exists() and any(d.run == plan.run for d in self.ledger.debits):
            raise LedgerError(
                f"{path} is lost, and with it the keys of the run.", "Sit out until the next run."
            )
        return Member(group, self.identity, path)

    def _answer(self, plan: Plan, phase: int, round_: int, model: ScoreModel) -> Tallies:
        """Return the round's tallies (D,), in the smallest unsigned type that holds m."""
        name = plan.phases[phase].name
        stored = self.folder / "reports" / plan.run / f"{name}-{round_:06d}.npy"
        if stored.exists():
            released: Tallies = np.load(stored)
            return released
        self._check_budget(plan, plan.number(phase, round_))
        entry = plan.debit(phase, round_)
        own = [d for d in self.ledger.debits if d.run == plan.run]
        if entry in own[:-1]:
            # Its report was released and given up for a later round's. Only the last debit can be
            # without a report because of a crash before the release.
            raise PlanError(
                f"round {round_} of phase {name} was answered before.",
                "A round is answered once; ask for the next one.",
            )
        records, query = self.records(), build_query(name, model)
        if query.dimension != plan.phases[phase].dimension:
            raise PlanError(
                f"the model asks {query.dimension} coordinates, phase {name} of the plan "
                f"{plan.phases[phase].dimension}.",
                "Plan and model must come from the same configuration.",
            )
        asked = (model.image_shape, model.classes)
        if asked != (held := (records.manifest.shape, len(records.manifest.classes))):
            raise ModelError(
                f"the model is for shape and classes {asked}, the site holds {held}.",
                "The server's configuration is of other data.",
            )
        query.check()
        units = Units.of(records, plan.unit, plan.records_per_person)
        plan.phases[phase].check_units(len(units))
        self.ledger.debit(entry)
        reached(Step.SITE_DEBITED)
        tallies = report(
            units,
            query,
            plan.phases[phase],
            plan.signs_seed(phase, round_),
            self.coins,
        ).astype(np.min_scalar_type(plan.phases[phase].response.most))
        reached(Step.SITE_ANSWERED)
        self._store(stored, tallies)
        reached(Step.SITE_STORED)
        return tallies

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep a second process from answering the same round with other coins meanwhile."""
        with (self.folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _check_plan(self, plan: Plan) -> None:
        """A run is answered under one plan only: the one of its first debit."""
        for debit in self.ledger.debits:
            if debit.run == plan.run and debit.plan != plan.digest:
                raise PlanError(
                    f"run {plan.run} was begun under plan {debit.plan[:12]}, now asked under "
                    f"{plan.digest[:12]}.",
                    "A plan cannot change in mid run; start a new run.",
                )

    def reckon(self, plan: Plan) -> None:
        """Compute what a plan costs and how much of it fits; this process then knows it.

        The certificates behind it take seconds, which a process for each message cannot afford.
        """
        with contextlib.suppress(BudgetExhausted):
            self._check_budget(plan, 0)

    def _check_budget(self, plan: Plan, number: int) -> None:
        self.policy.budget.check(
            plan,
            number,
            self.ledger.debits,
            "The site's operator may raise the limit in site.toml; the server cannot.",
        )

    def _store(self, path: Path, tallies: Tallies) -> None:
        """Keep the report until the run's next one: it may have to be sent again."""
        buffer = io.BytesIO()
        np.save(buffer, tallies)
        old = list(path.parent.glob("*.npy"))
        write_bytes(path, buffer.getvalue())
        for other in old:
            other.unlink(missing_ok=True)
