"""The Flower ClientApp of a site: unpack a message, let the site answer, pack the reply.

Only the fields written by the aggregation (`client.securesum`) leave a site: no loss, no count, no
timing. A refusal holds the name of the error and whose keys or shares were wrong; its text stays
in the site's log.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from client import audit_log
from client.approvals import BUNDLE, read_approvals
from client.securesum import SecureSumSite
from client.site import Site
from dppm_model.aggregation import SECURE_SUM, Answer, Fields, SiteAggregation
from dppm_model.errors import ConfigError, DppmError, SecureSumError
from dppm_model.mechanism.secure_rng import SecureRNG
from dppm_model.plan import Plan
from dppm_model.privacy.accountant import finite

log = logging.getLogger("dppm.client")
Released = dict[str, Fields]
AGGREGATIONS: dict[str, type[SiteAggregation]] = {SECURE_SUM: SecureSumSite}


@lru_cache(maxsize=4)
def read_plan(text: str) -> Plan:
    """Read a plan; cached, since one process sees it in every round."""
    return Plan.from_json(text)


def preload(folder: Path) -> None:
    """Compute the costs of a site's approved plans before this process forks to handle messages."""
    site = Site(folder, SecureRNG())
    for approval in read_approvals(folder):
        with contextlib.suppress(DppmError):  # refused when a round of it is asked
            site.precompute_costs(read_plan(approval.plan.to_json()))


def site_folder(context: Context) -> Path:
    """Find the site's folder: node config ``site`` (deployment) or a number (simulation).

    The server controls the run config, so it is ignored if the node config names a folder.
    """
    if "site" in context.node_config:
        return Path(str(context.node_config["site"]))
    root = str(context.run_config.get("sites", ""))
    if not root or "partition-id" not in context.node_config:
        raise ConfigError(
            "This node has no site folder.", "Start the SuperNode with --node-config 'site=\"…\"'."
        )
    return Path(root) / f"{int(context.node_config['partition-id']):04d}"


def _refused(error: DppmError) -> Fields:
    """Name an error, and the sites whose keys or shares it refuses, by their roster indices."""
    accused = error.accused if isinstance(error, SecureSumError) else ()
    return {"error": _log(error)} | ({"accused": list(accused)} if accused else {})


def _log(error: DppmError) -> str:
    log.error("%s: %s %s", type(error).__name__, error.message, error.hint)
    return type(error).__name__


def create_app(coins: Callable[[int], SecureRNG] = lambda _: SecureRNG()) -> ClientApp:
    """Build the ClientApp, which handles the messages of all `AGGREGATIONS`.

    Only tests pass ``coins``, which makes a site's source of randomness from its partition number.
    """
    app = ClientApp()

    def answer(message: Message, context: Context) -> Message:
        torch.set_num_threads(1)  # sites of a simulation share the machine's cores
        try:
            own = coins(int(context.node_config.get("partition-id", 0)))
            fields = ask(site_folder(context), own, message, context)
        except Exception as error:  # Flower would send its text to the server
            fields = refusal(error)
        reply = RecordDict({name: ConfigRecord(values) for name, values in fields.items()})
        return Message(reply, reply_to=message)

    for kind in sorted({kind for face in AGGREGATIONS.values() for kind in face.messages}):
        category, _, action = kind.partition(".")
        register = getattr(app, category)
        (register(action) if action else register())(answer)
    return app


@contextmanager
def constant_time_release(seconds: float) -> Iterator[None]:
    """End the block ``seconds`` after its start, or at a multiple if it takes longer; 0: no delay.

    So response times do not reveal the number of records, even if the block fails. Choose more than
    any round takes: a multiple reveals that the work took longer.
    """
    begun = time.monotonic()
    try:
        yield
    finally:
        if seconds:
            time.sleep(-(time.monotonic() - begun) % seconds)


def ask(folder: Path, coins: SecureRNG, message: Message, context: Context) -> Released:
    """Let a site answer, and record the answer in its audit log before it leaves.

    If the record cannot be written, nothing is released.
    """
    site, before, kind = None, 0, message.metadata.message_type
    facts: dict[str, Any] = {
        "message": kind,
        "message_id": message.metadata.message_id,
        "flower_run": str(context.run_id),
        "bundle": os.environ.get(BUNDLE, ""),
    }
    try:
        site = Site(folder, coins)
        before = len(site.ledger.debits)
        content = message.content.config_records
        question = content["question"]
        plan = read_plan(str(question["plan"]))
        facts |= {"run": plan.run, "plan": plan.digest}
        numbers = {key: question.get(key) for key in ("phase", "round", "attempt")}
        facts |= {key: n for key, n in numbers.items() if type(n) is int}
        with constant_time_release(site.policy.release_seconds if kind == "train" else 0):
            answer = released(AGGREGATIONS[plan.aggregation](site, plan).handle(kind, content))
    except Exception as error:
        answer = refusal(error)
    with contextlib.suppress(DppmError):  # a broken ledger is already recorded as a refusal
        debits, head = (site.ledger.debits[before:], site.ledger.head) if site else ((), "")
        facts["charged"] = [
            {"secure_sum_mu": finite(d.secure_sum.mu), "site_mu": finite(d.site.mu)} for d in debits
        ]
        facts["ledger"] = head
    audit_log.note(folder, "answer", **facts, released=audit_log.described(answer))
    return answer


def released(answer: Answer) -> Released:
    """Replace each error by the only part that may leave: its name and the sites it accuses."""
    return {
        name: _refused(part) if isinstance(part, DppmError) else part
        for name, part in answer.items()
    }


def refusal(error: Exception) -> Released:
    """Return the name of a `DppmError`, or ``InternalError`` for anything else."""
    if isinstance(error, DppmError):
        return {"refusal": _refused(error)}
    log.exception("A message could not be answered.", exc_info=error)
    return {"refusal": {"error": "InternalError"}}


app = create_app()
