"""A site's kernel: its records, its ledger, its limits, and its only kind of answer.

Privacy rests on the order of an answer. `Site.authorize` checks the plan against the operator's
approval and policy. `Site.answer` checks the budget, the question, and that this machine treats all
records alike; it debits on disk, only then reads data, and stores the report. The aggregation
(`client.securesum`) checks the participants first, and releases the report masked. No matter what
fails in between, a released report was debited, and no round is answered twice with fresh coins.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from client.approvals import Approval, approval_of
from client.policy import Policy
from client.reports import Reports, Tallies
from dppm_model.batch_invariance import check_batch_invariance
from dppm_model.device import device_of
from dppm_model.errors import BudgetExhausted, DataError, ModelError, PlanError
from dppm_model.fault_points import FaultPoint, reached
from dppm_model.files import sweep
from dppm_model.locks import locked
from dppm_model.mechanism.secure_rng import SecureRNG
from dppm_model.phase import PhasePlan
from dppm_model.plan import Plan
from dppm_model.privacy.ledger import Ledger
from dppm_model.reading import read_array, reading
from dppm_model.records.shards import Records, open_records
from dppm_model.records.units import Units
from dppm_model.round import report
from dppm_model.score import phases
from dppm_model.score.model_config import ModelConfig
from dppm_model.score.query import Query
from dppm_model.score.unit_batches import try_question
from dppm_model.securesum.keys import Identity


def site_records(folder: Path, policy: Policy) -> Records:
    """Open the records that a site's policy names, memory-mapped; `DataError` if damaged."""
    records = open_records(Path(policy.records))
    if not policy.index:
        return records
    hint = "Name an .npy file with record indices, or leave it empty for all records."
    with reading(f"index: {folder / policy.index}", DataError, hint):
        index = read_array(folder / policy.index)
    return records.select(index)


@lru_cache(maxsize=1)  # shared by all virtual sites of one process
def read_question(
    phase: PhasePlan, config: ModelConfig, content: bytes, device: torch.device
) -> Query:
    """Build a question from the plan and the arrays that were sent, and try it out on a device.

    Raises `ModelError` as `dppm_model.score.phases.read_question` and `try_question` do.
    """
    query = phases.read_question(phase.name, config, content).to(device)
    try_question(query, phase.grid, config.shape)
    return query


class Site:
    """One site's folder.

    ``site.toml`` (limits), ``identity.key``, ``approvals/`` (plans, with peers and code),
    ``ledger.jsonl``, ``sums/`` (memory of the secure sums), ``reports/`` (the last of each run).

    ``coins`` is the source of the randomness of its answers.
    """

    def __init__(self, folder: Path, coins: SecureRNG) -> None:
        self.folder, self.coins = folder, coins
        sweep(folder)  # a killed process may have left secrets that were since forgotten
        self.policy = Policy.read(folder / "site.toml")
        self.identity = Identity.read(folder / "identity.key")
        self.ledger = Ledger(folder / "ledger.jsonl")
        self.reports = Reports(folder, self.ledger)

    def records(self) -> Records:
        """Open the site's records, memory-mapped."""
        return site_records(self.folder, self.policy)

    def authorize(self, plan: Plan, *, opens: bool = False) -> Approval:
        """Return the operator's approval of a plan, if the site takes part in it.

        Only questions under an approved plan get an answer that depends on the records. To open a
        sum (``opens``), neither the records nor the hour matter: its reports have left already.

        Raises `PlanError` if the run was begun under another plan; `NotApproved`, `PolicyError` or
        `TooFewSurvivors` if the operator does not allow this one; `ConfigError` if there is no
        device to answer on.
        """
        self._check_plan(plan)
        approval = approval_of(self.folder, plan)
        self.policy.check_plan(plan)
        if not opens:
            self.policy.check_hours(datetime.now())
            device_of(self.policy.device)
            self.policy.check_records(len(Units.of(self.records(), plan.unit, 1)))
        return approval

    def check_budget(self, plan: Plan, number: int) -> None:
        """Raise `BudgetExhausted` if a round, numbered over all phases, would pass the limit."""
        self.policy.budget.check(
            plan,
            number,
            self.ledger.debits,
            "The site's operator can raise the limit in site.toml; the server cannot.",
        )

    def answer(self, plan: Plan, phase: int, round_: int, question: bytes) -> Tallies:
        """Return a round's tallies (D,), in the smallest unsigned type that holds m.

        A repeated question gets the same bits (Lemma 11). They are not masked: the aggregation
        (`AGGREGATIONS`) asks for them after `authorize`, holding the folder's lock.

        Parameters
        ----------
        question
            The question's arrays, as the server sent them. The plan fixes the question and the
            sizes of the arrays (`dppm_model.score.phases.read_question`).

        Raises
        ------
        PlanError
            If the plan has no such round, or it was answered and its report is gone.
        BudgetExhausted
            If the round would exceed the site's limit; no data are read.
        ModelError
            If an array is unknown or out of its public range; nothing is spent.
        NotBatchInvariant
            If a record's integers depend on its batch on this machine; nothing is spent.
        """
        planned = plan.phases[phase]
        name = planned.name
        stored = self.reports.find(plan.run, name, round_)
        if stored is not None:
            return stored
        self.check_budget(plan, plan.number(phase, round_))
        entry = plan.debit(phase, round_)
        own = [d for d in self.ledger.debits if d.run == plan.run]
        if entry in own[:-1]:
            # Its report was released, then replaced by a later round's. Only the last debit may
            # lack a report, after a crash before the release.
            raise PlanError(
                f"round {round_} of phase {name} was already answered.",
                "A round is answered once; ask for the next one.",
            )
        records = self.records()
        asked = (plan.model.shape, plan.model.classes)
        if asked != (held := (records.manifest.shape, len(records.manifest.classes))):
            raise ModelError(
                f"the plan's model is for shape and classes {asked}, the site holds {held}.",
                "The server is configured for other data.",
            )
        device = device_of(self.policy.device)
        query = read_question(planned, plan.model, question, device)
        check_batch_invariance(name, plan.model, device)
        units = Units.of(records, plan.unit, plan.records_per_person)
        planned.check_units(len(units))
        self.ledger.debit(entry)
        reached(FaultPoint.SITE_DEBITED)
        self.reports.forget()
        tallies = report(units, query, planned, plan.signs_seed(phase, round_), self.coins).astype(
            np.min_scalar_type(planned.max_count)
        )
        reached(FaultPoint.SITE_ANSWERED)
        self.reports.keep(plan.run, name, round_, tallies)
        reached(FaultPoint.SITE_STORED)
        return tallies

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep a second process from answering the same round with other coins."""
        with locked(self.folder / ".lock"):
            self.reports.forget()
            yield

    def _check_plan(self, plan: Plan) -> None:
        """Refuse any plan but the one of the run's first debit."""
        for debit in self.ledger.debits:
            if debit.run == plan.run and debit.plan != plan.digest:
                raise PlanError(
                    f"run {plan.run} was begun under plan {debit.plan[:12]}, not "
                    f"{plan.digest[:12]}.",
                    "A plan cannot change during a run; start a new run.",
                )

    def precompute_costs(self, plan: Plan) -> None:
        """Compute a plan's cost and check this machine's arithmetic; this process caches both.

        Both take seconds, too long for the process of a single message. Only a GPU is checked by
        each of them: a process that has used one cannot be forked.
        """
        device = device_of(self.policy.device)
        with contextlib.suppress(BudgetExhausted):
            self.check_budget(plan, 0)
        for phase in plan.phases if device.type == "cpu" else ():
            check_batch_invariance(phase.name, plan.model, device)
