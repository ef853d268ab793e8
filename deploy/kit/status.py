"""The status of a server and of a site: `dppm server status`, `dppm site status`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from client import audit_log
from client.approvals import read_approvals
from client.policy import Policy
from deploy.kit.control import FlowerControl
from deploy.kit.enrolment import Invitation
from deploy.kit.federation import ServerSettings, enrolled
from deploy.kit.locks import is_running
from deploy.kit.site import enrolment_of
from deploy.pages.run_summary import RunSummary
from dppm_model.errors import FederationError, StorageError
from dppm_model.folders import read_json_lines
from dppm_model.mechanism.base import VIEWS, View
from dppm_model.privacy.accountant import epsilon, finite
from dppm_model.privacy.ledger import Debit, Ledger, costs_of
from dppm_model.reading import reading
from dppm_model.run import Run


def server_status(folder: Path) -> dict[str, Any]:
    """Describe a server: its sites, and each run's round, spending and last error."""
    settings = ServerSettings.read(folder)
    running = is_running(folder)
    return {
        "federation": settings.federation,
        "address": settings.address,
        "running": running,
        "online": online(folder) if running else 0,
        "enrolled": sorted(enrolled(folder)),
        "runs": [
            RunSummary.of(Run(path)).to_json()
            for path in sorted((folder / "runs").glob("*"))
            if (path / "plan.json").is_file()
        ],
    }


def online(folder: Path) -> int | None:
    """Return the number of connected SuperNodes; None while the SuperLink does not answer."""
    try:
        return FlowerControl(folder.resolve() / "flower").online()
    except FederationError:
        return None


def site_status(folder: Path) -> dict[str, Any]:
    """Describe a site: its rounds, its spending and limits, and the last refusal."""
    policy, enrolment = Policy.read(folder / "site.toml"), enrolment_of(folder)
    debits = Ledger(folder / "ledger.jsonl").debits
    answered, error = _last(folder / audit_log.NAME)
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
        **{f"epsilon_{view}": _left(policy, debits, view) for view in VIEWS},
        "trusted_rounds": sum(d.trusts_server for d in debits),
        "delta": policy.delta,
        "last_answer": answered,
        "last_error": error,
    }


def _left(policy: Policy, debits: tuple[Debit, ...], view: View) -> dict[str, Any]:
    """Return a limit and its spending; rounds that trusted the server count only for releases."""
    counted = tuple(d for d in debits if d.trusts_server == (view == "release"))
    return {
        "spent": epsilon(costs_of(counted, view), policy.delta),
        "limit": finite(policy.budget.limits[view]),
    }


def _last(log: Path) -> tuple[str | None, str | None]:
    """Return the time of a site's last answer, and its last refusal with its time."""
    hint = "Restore it from a backup, or move it away."
    lines = read_json_lines(log, StorageError, hint)
    with reading(log, StorageError, hint):
        answers = (line["time"] for line in reversed(lines) if line["event"] == "answer")
        errors = (f"{line['time']} {error}" for line in reversed(lines) if (error := _error(line)))
        return next(answers, None), next(errors, None)


def _error(line: dict[str, Any]) -> str | None:
    """Return the refusal in a line of the audit log, if any."""
    if line["event"] == "task":
        return None if line["approved"] else "asked by code that is not approved: dppm site approve"
    return next((part["error"] for part in line["released"].values() if "error" in part), None)
