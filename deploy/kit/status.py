"""Where things stand: `dppm server status`, `dppm site status`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from client import audit_log
from client.approvals import read_approvals
from client.policy import Policy
from deploy.kit.control import FlowerControl
from deploy.kit.federation import ServerSettings, enrolled
from deploy.kit.locks import is_running
from deploy.kit.papers import Invitation
from deploy.kit.site import enrolment_of
from dppm_model.errors import FederationError
from dppm_model.files import read_json_lines
from dppm_model.plan import Plan
from dppm_model.planner import epsilons
from dppm_model.privacy.accountant import epsilon
from dppm_model.privacy.ledger import Debit, Ledger, costs_of
from dppm_model.run import Run
from server.exchange import Exchange


def server_status(folder: Path) -> dict[str, Any]:
    """Describe a server: its sites, and of each run the round, what it spent, its last error."""
    settings = ServerSettings.read(folder / "server.toml")
    running = is_running(folder)
    return {
        "federation": settings.federation,
        "address": settings.address,
        "running": running,
        "online": _online(folder) if running else 0,
        "enrolled": sorted(enrolled(folder)),
        "runs": [
            _run_status(Run(path))
            for path in sorted((folder / "runs").glob("*"))
            if (path / "plan.json").is_file()
        ],
    }


def _run_status(run: Run) -> dict[str, Any]:
    plan, rounds = run.plan(), run.rounds()
    path = run.folder / "status.json"
    said = json.loads(path.read_text()) if path.is_file() else {"state": "not begun"}
    spent = epsilons(plan, len(rounds)) if rounds else (0.0, 0.0)
    total = epsilons(plan)
    return {
        "run": plan.run,
        "folder": str(run.folder),
        "state": said["state"],
        "stage": _stage(run, plan, len(rounds)) if said["state"] == "running" else "",
        "round": len(rounds),
        "rounds": plan.rounds,
        "sites": plan.sites,
        "sites_in_last_sum": rounds[-1]["sites"] if rounds else None,
        "seconds_of_last_round": rounds[-1]["seconds"] if rounds else None,
        "epsilon_secure_sum": {"spent": spent[0], "planned": total[0]},
        "epsilon_site": {"spent": spent[1], "planned": total[1]},
        "last_error": said.get("cause"),
    }


def _online(folder: Path) -> int | None:
    """How many SuperNodes are connected; None while the SuperLink does not answer."""
    try:
        return FlowerControl(folder.resolve() / "flower").online()
    except FederationError:
        return None


def _stage(run: Run, plan: Plan, done: int) -> str:
    """What the ServerApp waits for, as far as its state files tell."""
    exchange = Exchange.read(run.exchange, plan.digest)
    if exchange is None or exchange.number < done:
        return "waiting for sites to take part"
    return "waiting for reports" if exchange.survivors is None else "opening the sum"


def site_status(folder: Path) -> dict[str, Any]:
    """Describe a site: what was asked last, what is spent and left, and the last refusal."""
    policy, enrolment = Policy.read(folder / "site.toml"), enrolment_of(folder)
    debits = Ledger(folder / "ledger.jsonl").debits
    lines = read_json_lines(folder / audit_log.NAME)
    answers = [line for line in lines if line["event"] == "answer"]
    return {
        "site": enrolment.site,
        "federation": enrolment.federation,
        "server": Invitation.read(folder / "invitation.json").address,
        "running": is_running(folder),
        "runs": [
            {
                "run": plan.run,
                "answered": sum(d.run == plan.run for d in debits),
                "rounds": plan.rounds,
                "sites": plan.sites,
            }
            for plan in (approval.plan for approval in read_approvals(folder))
        ],
        "epsilon_secure_sum": _left(
            debits, "secure_sum", policy.max_epsilon_secure_sum, policy.delta
        ),
        "epsilon_site": _left(debits, "site", policy.max_epsilon_site, policy.delta),
        "delta": policy.delta,
        "last_answer": answers[-1]["time"] if answers else None,
        "last_error": next(
            (f"{line['time']} {error}" for line in reversed(lines) if (error := _error(line))),
            None,
        ),
    }


def _left(debits: tuple[Debit, ...], view: str, limit: float, delta: float) -> dict[str, Any]:
    spent = epsilon(costs_of(debits, view), delta)
    return {"spent": spent, "limit": limit if limit < float("inf") else None}


def _error(line: dict[str, Any]) -> str | None:
    """Return what a line of the audit log refused, if anything."""
    if line["event"] == "task":
        return None if line["approved"] else "asked by code that is not approved: dppm site approve"
    return next((part["error"] for part in line["released"].values() if "error" in part), None)
