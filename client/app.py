"""The Flower ClientApp of a site: unpack a message, let the site answer, pack the reply.

Three messages, and two more where something went wrong; no other field leaves a site than those
written here: no loss, no count, no timing. A refusal holds the name of the error and whose keys or
shares were wrong; its text stays in the site's own log.

    query.join    -> identity, signed channel key                     once a run
    train         -> masked report, its digest, signed participants   each round
    query.open    -> shares that open the round; keys and shares for the next
    query.checks  -> check numbers of masks with drop-outs, or with peers that do not fit
    query.remove  -> keys of the masks with sites that are proven guilty
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from client import audit_log
from client.approvals import BUNDLE, read_approvals
from client.release import constant_time_release
from client.site import Site
from dppm_model.errors import ConfigError, DppmError, ModelError, SecureSumError
from dppm_model.mechanism.secure_rng import SecureRNG
from dppm_model.plan import Plan
from dppm_model.securesum import wire
from dppm_model.securesum.masks import Sum

log = logging.getLogger("dppm.client")
Answer = dict[str, wire.Fields]
Act = Callable[[Site, Plan, RecordDict], Answer]


@lru_cache(maxsize=4)
def read_plan(text: str) -> Plan:
    """Read a plan, once for all its rounds that one process sees."""
    return Plan.from_json(text)


def _as_bytes(value: object) -> bytes:
    if not isinstance(value, bytes):
        raise ModelError("The question's arrays are no bytes.", "Server and site differ.")
    return value


def preload(folder: Path) -> None:
    """Reckon a site's approved plans, before this process is forked for its messages."""
    site = Site(folder, SecureRNG())
    for approval in read_approvals(folder):
        with contextlib.suppress(DppmError):  # whoever asks by such a plan will hear it
            site.precompute_costs(read_plan(approval.plan.to_json()))


def site_folder(context: Context) -> Path:
    """Find the site's folder: node config ``site`` (deployment) or the simulation's numbering.

    The server chooses the run config, so a node that names its own folder never reads it.
    """
    if "site" in context.node_config:
        return Path(str(context.node_config["site"]))
    root = str(context.run_config.get("sites", ""))
    if not root or "partition-id" not in context.node_config:
        raise ConfigError(
            "This node has no site folder.", "Start the SuperNode with --node-config 'site=\"…\"'."
        )
    return Path(root) / f"{int(context.node_config['partition-id']):04d}"


def join(site: Site, plan: Plan, content: RecordDict) -> Answer:
    """Show who the site is, and its channel key for this run."""
    nonce = wire.read_nonce(content.config_records["join"])
    return {"member": wire.write_member(site.identity.public, *site.join(plan, nonce))}


def _try(content: RecordDict) -> tuple[int, int, int]:
    """Phase, round and try that a question is of."""
    question = content.config_records["question"]
    phase, round_, attempt = (wire.read_number(question, n) for n in ("phase", "round", "attempt"))
    return phase, round_, attempt


def _sum(plan: Plan, content: RecordDict) -> Sum:
    return plan.sum(*_try(content))


def report(site: Site, plan: Plan, content: RecordDict) -> Answer:
    """Answer one round, masked."""
    question, index = content.config_records["question"], site.index(plan)
    materials = wire.read_materials(content.config_records["participants"], index)
    phase, round_, attempt = _try(content)
    arrays = _as_bytes(question["arrays"])
    answer = site.report(plan, phase, round_, arrays, materials, attempt)
    return {"report": wire.write_report(index, *answer)}


def checks(site: Site, plan: Plan, content: RecordDict) -> Answer:
    """Say, of the masks with some peers, what shows a wrong one, and nothing of the report."""
    peers = wire.read_sites(content.config_records["peers"])
    return {"checks": wire.write_checks(site.checks(plan, _sum(plan, content), peers))}


def remove(site: Site, plan: Plan, content: RecordDict) -> Answer:
    """Help to take guilty sites out of a sum."""
    records = content.config_records
    proofs = [wire.read_proof(records[name]) for name in records if name.startswith("proof")]
    return {"keys": wire.write_keys(site.pair_keys(plan, _sum(plan, content), proofs))}


def report_on_the_beat(site: Site, plan: Plan, content: RecordDict) -> Answer:
    """Answer one round when the site's policy says."""
    with constant_time_release(site.policy.release_seconds):
        return report(site, plan, content)


def open_(site: Site, plan: Plan, content: RecordDict) -> Answer:
    """Help to open a round and prepare the next; one may be refused without the other."""
    records = content.config_records

    def shares() -> wire.Fields:
        number, survivors = wire.read_survivors(records["survivors"])
        missed = records.get("participants")
        materials = wire.read_materials(missed, site.index(plan)) if missed else {}
        return wire.write_shares(site.reveal(plan, number, survivors, materials))

    def material() -> wire.Fields:
        following, channels = wire.read_channels(records["channels"])
        return wire.write_material(site.prepare(plan, following, channels))

    answer: Answer = {}
    if "survivors" in records:
        answer |= _part("shares", shares)
    if "channels" in records:
        answer |= _part("material", material)
    return answer


def _part(name: str, act: Callable[[], wire.Fields]) -> Answer:
    """One part of an answer, or the refusal of it."""
    try:
        return {name: act()}
    except DppmError as error:
        return {f"no_{name}": _refused(error)}


def _refused(error: DppmError) -> wire.Fields:
    """The name of an error, and whose keys or shares it refuses, by their places in the roster."""
    accused = error.accused if isinstance(error, SecureSumError) else ()
    return {"error": _log(error)} | ({"accused": list(accused)} if accused else {})


def _log(error: DppmError) -> str:
    log.error("%s: %s %s", type(error).__name__, error.message, error.hint)
    return type(error).__name__


def create_app(coins: Callable[[int], SecureRNG] = lambda _: SecureRNG()) -> ClientApp:
    """Build the ClientApp.

    Parameters
    ----------
    coins
        Makes the site's source of randomness from the site's partition number. Only tests pass it.
    """
    app = ClientApp()

    def handle(act: Act) -> Callable[..., Message]:
        def answer(message: Message, context: Context) -> Message:
            torch.set_num_threads(1)  # sites of a simulation share the machine's cores
            try:
                own = coins(int(context.node_config.get("partition-id", 0)))
                fields = ask(act, site_folder(context), own, message, context)
            except Exception as error:  # whose text Flower would send to the server
                fields = refusal(error)
            reply = RecordDict(
                {name: ConfigRecord(dict(values)) for name, values in fields.items()}
            )
            return Message(reply, reply_to=message)

        return answer

    app.query("join")(handle(join))
    app.train()(handle(report_on_the_beat))
    app.query("open")(handle(open_))
    app.query("checks")(handle(checks))
    app.query("remove")(handle(remove))
    return app


def ask(act: Act, folder: Path, coins: SecureRNG, message: Message, context: Context) -> Answer:
    """Let a site answer, and note in its audit log what is about to leave before it does.

    A note that cannot be written is an error like any other: nothing is released then.
    """
    site, before = None, 0
    facts: dict[str, Any] = {
        "message": message.metadata.message_type,
        "message_id": message.metadata.message_id,
        "flower_run": str(context.run_id),
        "bundle": os.environ.get(BUNDLE, ""),
    }
    try:
        site = Site(folder, coins)
        before = len(site.ledger.debits)
        question = message.content.config_records["question"]
        plan = read_plan(str(question["plan"]))
        facts |= {"run": plan.run, "plan": plan.digest}
        numbers = {key: question.get(key) for key in ("phase", "round", "attempt")}
        facts |= {key: n for key, n in numbers.items() if type(n) is int}
        answer = act(site, plan, message.content)
    except Exception as error:
        answer = refusal(error)
    with contextlib.suppress(DppmError):  # a broken ledger is noted as the refusal that it is
        debits, head = (site.ledger.debits[before:], site.ledger.head) if site else ((), "")
        facts["charged"] = [
            {"secure_sum_mu": d.secure_sum.mu, "site_mu": d.site.mu} for d in debits
        ]
        facts["ledger"] = head
    audit_log.note(folder, "answer", **facts, released=audit_log.described(answer))
    return answer


def refusal(error: Exception) -> Answer:
    """Answer with the name of an error of ours, or with ``InternalError`` for any other."""
    if isinstance(error, DppmError):
        return {"refusal": _refused(error)}
    log.exception("A message could not be answered.", exc_info=error)
    return {"refusal": {"error": "InternalError"}}


app = create_app()
