"""The round loop: ask, sum, learn, and stop when the plan is done.

After a crash the round's snapshot either exists, or the round is asked for again. Sites then send
the report that they stored, so nothing is spent twice.
"""

from __future__ import annotations

import json
import math
import time

import numpy as np
from numpy.typing import NDArray

from dppm_model.budget import Budget
from dppm_model.errors import RunFolderError
from dppm_model.fault_points import FaultPoint, reached
from dppm_model.files import append_json_line, write_bytes
from dppm_model.mechanism.secure_rng import SecureRNG
from dppm_model.plan import Plan
from dppm_model.planner import epsilon_fields
from dppm_model.privacy.ledger import Ledger
from dppm_model.round import estimate
from dppm_model.run import Run
from dppm_model.score.model import ScoreModel
from dppm_model.score.phases import write_question
from dppm_model.training.learner import build_learner
from server.aggregation import Aggregate, Aggregation
from server.state import Release, Snapshot


def train(
    run: Run, initial: ScoreModel, seed: int, budget: Budget, aggregation: Aggregation
) -> ScoreModel:
    """Run the plan of a run folder to its end, from its last finished round.

    Raises `BudgetExhausted` if the plan costs more than ``budget``, after the rounds that fit;
    `RunFolderError` if the folder's initial model does not match the plan.

    Parameters
    ----------
    run
        The run folder, with its plan.
    initial
        The model before any phase.
    seed
        Seed of the learners' public randomness.
    budget
        The server's own limit; a round that would exceed it is refused before any site is asked.
    aggregation
        Reaches the sites and adds up their reports.

    Returns
    -------
    The trained model, which is also saved in the run folder.
    """
    plan = run.plan()
    ledger = Ledger(run.ledger)
    snapshot = Snapshot.read(run.snapshot, plan.digest)
    model = initial if snapshot is None else ScoreModel.from_bytes(snapshot.model)
    if model.config != plan.model:
        raise RunFolderError(
            "The run's initial model has a different configuration from the plan's.",
            "Restore state/initial.safetensors, or start a new run.",
        )
    first_phase = 0 if snapshot is None else snapshot.phase
    _drop_unfinished(run, plan, snapshot)
    for index in range(first_phase, len(plan.phases)):
        phase = plan.phases[index]
        started_from = model.to_bytes()
        learner = build_learner(phase.name, model, seed)
        first_round = 0
        if snapshot is not None and snapshot.phase == index:
            learner.load_state_dict(snapshot.learner)
            first_round = snapshot.round
        for round_ in range(first_round, phase.rounds):
            begun = time.monotonic()
            budget.check(
                plan,
                plan.number(index, round_),
                ledger.debits,
                "Make a plan that fits into privacy.epsilon.",
            )
            ledger.debit(plan.debit(index, round_))
            reached(FaultPoint.SERVER_DEBITED)
            question = write_question(phase.name, learner.query().model)
            answer = aggregation.aggregate(index, round_, question)
            total, sites = released(run, plan, index, round_, answer)
            mean = estimate(total, sites, phase, plan.signs_seed(index, round_))
            noise_std = phase.noise_std(sites)
            learner.step(mean, noise_std)
            reached(FaultPoint.SERVER_LEARNED)
            done = plan.number(index, round_) + 1
            append_json_line(
                run.metrics,
                {
                    "phase": phase.name,
                    "round": round_,
                    "seconds": round(time.monotonic() - begun, 4),
                    "sites": sites,
                    "left_out": answer.left_out,
                    "blamed": answer.blamed,
                    "uplink_bytes": answer.uplink_bytes,
                    "downlink_bytes": answer.downlink_bytes,
                    "answer_norm": float(np.linalg.norm(mean)) / phase.clip_norm,
                    "noise_norm": noise_std * math.sqrt(phase.dimension) / phase.clip_norm,
                    **epsilon_fields(plan, done),
                },
            )
            Snapshot(plan.digest, index, round_ + 1, started_from, learner.state_dict()).write(
                run.snapshot
            )
            reached(FaultPoint.SERVER_SAVED)
        model = learner.result()
    model.save(run.model)
    return model


def released(
    run: Run, plan: Plan, phase: int, round_: int, answer: Aggregate
) -> tuple[NDArray[np.int64], int]:
    """Return the release of a round's sum, and its number of sites, once (Theorem 6).

    The server draws its own noise once per round. The noisy sum is on disk before anybody sees any
    of it, and a restarted server continues with it. Two releases of one sum with fresh noise would
    average to less noise; two of different sums, of more and of fewer sites, would reveal their
    difference.
    """
    mechanism = plan.phases[phase].mechanism
    if not mechanism.trusts_server:
        return answer.total, answer.sites
    number = plan.number(phase, round_)
    kept = Release.read(run.release, plan.digest)
    if kept is None or kept.number != number:
        total = mechanism.release(answer.total, plan.phases[phase], SecureRNG())
        kept = Release(plan.digest, number, answer.sites, total)
        kept.write(run.release)
        reached(FaultPoint.SERVER_RELEASED)
    return kept.total, kept.sites


def _drop_unfinished(run: Run, plan: Plan, snapshot: Snapshot | None) -> None:
    """Remove the metrics of a round whose snapshot was not written: it is asked for again."""
    done = 0
    if snapshot is not None:
        done = sum(p.rounds for p in plan.phases[: snapshot.phase]) + snapshot.round
    lines = [json.dumps(line) + "\n" for line in run.rounds()[:done]]
    write_bytes(run.metrics, "".join(lines).encode())
