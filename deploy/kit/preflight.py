"""`dppm site preflight`: checks of a site before a run asks it anything.

Every check has its own exit code, a one-line message and a one-line hint. Nothing is spent, and
only the number of records is read from the data.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

from client.approvals import read_approvals
from client.policy import Policy
from client.site import site_records
from deploy.kit.code_allowlist import is_whole
from deploy.kit.connectivity import check_enrolled, check_server
from deploy.kit.enrolment import Invitation
from deploy.kit.site import enrolment_of, pinned_peers
from dppm_model.batch_invariance import check_batch_invariance
from dppm_model.device import device_of
from dppm_model.errors import ConfigError, DataError, DppmError, EnrolmentError, NotApproved
from dppm_model.privacy.ledger import Ledger
from dppm_model.records.units import Units
from dppm_model.securesum.keys import Identity
from sampler.draw import on_threads

_AHEAD_SECONDS, _BEHIND_SECONDS = 5, 300  # what a SuperLink tolerates of a node's clock
_SECRET = ("identity.key", "node.key")  # the rest is in a folder that only its owner can enter


@dataclass(frozen=True)
class Check:
    """A check, and the exit code of `dppm site preflight` if this is the first that fails.

    ``run`` takes the site's folder, and returns a message or raises `DppmError`.
    """

    name: str
    exit_code: int
    run: Callable[[Path], str]


@dataclass(frozen=True)
class Found:
    """The result of a check; ``hint`` is empty if it passed."""

    check: Check
    text: str
    hint: str = ""


def preflight(folder: Path) -> Iterator[Found]:
    """Run all checks in order, even after failures."""
    for check in CHECKS:
        try:
            yield Found(check, check.run(folder))
        except DppmError as error:
            yield Found(check, error.message, error.hint)
        except Exception as error:  # an unexpected error must not hide the other checks
            yield Found(check, repr(error), "Restore the site's folder, or make a new one.")


def _policy(folder: Path) -> str:
    policy = Policy.read(folder / "site.toml")
    policy.check_hours(datetime.now())
    timing = "reports leave at once, and their timing may reveal how many records answered"
    if policy.release_seconds:
        timing = f"reports leave after {policy.release_seconds:g} s"
    trusted = policy.max_epsilon_trusted_server
    return (
        f"at most ε = {policy.max_epsilon_secure_sum:g} (secure sum), "
        f"{policy.max_epsilon_site:g} (site); "
        + (f"{trusted:g} (releases of a TRUSTED SERVER); " if trusted else "no server is trusted; ")
        + f"unit {policy.unit}; {timing}"
    )


def _permissions(folder: Path) -> str:
    for path in (folder, *(folder / name for name in _SECRET)):
        if path.exists() and path.stat().st_mode & 0o077:
            raise ConfigError(
                f"{path} can be read by others.", f"chmod {700 if path.is_dir() else 600} {path}"
            )
    if not os.access(folder, os.W_OK):
        raise ConfigError(f"{folder} cannot be written.", "Run this as the folder's owner.")
    return "only the owner can read the folder and its keys"


def _keys(folder: Path) -> str:
    enrolment = enrolment_of(folder)
    public = (folder / "node.pub").read_text().strip() if (folder / "node.pub").is_file() else ""
    identity = Identity.read(folder / "identity.key").public.hex()
    if (identity, public) != (enrolment.identity, enrolment.node_key):
        raise EnrolmentError("the keys do not match enrolment.json.", "Restore the folder.")
    return f"{enrolment.site}: {enrolment.fingerprint}"


def _records(folder: Path) -> str:
    policy = Policy.read(folder / "site.toml")
    path = Path(policy.records)
    if not os.access(path, os.R_OK):
        raise DataError(
            f"records: {path} cannot be read.", "Mount it, or give this user read permission."
        )
    records = site_records(folder, policy)
    policy.check_records(len(Units.of(records, policy.unit, 1)))
    shape = "×".join(map(str, records.manifest.shape))
    return f"{len(records)} records of {shape}, {len(records.manifest.classes)} classes"


def _disk(folder: Path) -> str:
    return _enough(shutil.disk_usage(folder).free, "disk", "Free 1 GiB on the folder's disk.")


def _memory(_: Path) -> str:
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with Path("/proc/meminfo").open() as file:  # reclaimable page cache counts as free
        for line in file:
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) << 10
    return _enough(free, "memory", "Free 1 GiB.")


def _enough(free: int, what: str, hint: str) -> str:
    if free < 1 << 30:
        raise ConfigError(f"{free >> 20} MiB of {what} are free.", hint)
    return f"{free >> 30} GiB free"


def _server(folder: Path) -> str:
    address = Invitation.read(folder / "invitation.json").address
    check_server(address, folder / "ca.crt")
    return f"{address} answers with a certificate of the federation"


def _clock(folder: Path) -> str:
    date = check_server(Invitation.read(folder / "invitation.json").address, folder / "ca.crt")
    if date is None:
        return "the server does not send its time"
    ahead = time.time() - parsedate_to_datetime(date).timestamp()
    if not -_BEHIND_SECONDS < ahead - 1 < _AHEAD_SECONDS:  # the header has whole seconds
        raise ConfigError(
            f"this machine's clock is {ahead:+.0f} s off the server's clock.",
            "Run a time service (NTP) on both.",
        )
    return f"within {abs(ahead):.0f} s of the server's"


def _enrolled(folder: Path) -> str:
    check_enrolled(folder, Invitation.read(folder / "invitation.json").address)
    return "the server knows this site's node key"


def _peers(folder: Path) -> str:
    own = Identity.read(folder / "identity.key").public
    for approval in read_approvals(folder):
        if own not in approval.roster:
            raise EnrolmentError(
                f"run {approval.plan.run} was approved with a list of peers that lacks this site.",
                "Approve its announcement again.",
            )
    return f"{len(pinned_peers(folder))} sites are pinned, including this one"


def _approvals(folder: Path) -> str:
    approvals = read_approvals(folder)
    if not approvals:
        raise NotApproved("no run is approved.", "Approve an announcement: `dppm site approve`.")
    bundles = {approval.bundle for approval in approvals}
    if not all(is_whole(folder, digest) for digest in bundles):
        raise NotApproved(
            "the files of an approved bundle were changed.", "Approve the announcement again."
        )
    return f"{len(approvals)} runs, {len(bundles)} bundles"


def _ledger(folder: Path) -> str:
    ledger = Ledger(folder / "ledger.jsonl")
    return f"{len(ledger.debits)} debits, unbroken"


def _budget(folder: Path) -> str:
    policy, ledger = Policy.read(folder / "site.toml"), Ledger(folder / "ledger.jsonl")
    debits = ledger.debits
    for plan in (approval.plan for approval in read_approvals(folder)):
        policy.check_plan(plan)
        if sum(d.run == plan.run for d in debits) < plan.rounds:
            policy.budget.check(
                plan, plan.rounds - 1, debits, "Raise the limit in site.toml, or sit out."
            )
    return "the policy allows the approved runs, and they fit into the remaining budget"


def _arithmetic(folder: Path) -> str:
    plans = [approval.plan for approval in read_approvals(folder)]
    device = device_of(Policy.read(folder / "site.toml").device)
    with on_threads(1):  # as a site does when it answers
        for plan in plans:
            for phase in plan.phases:
                check_batch_invariance(phase.name, plan.model, device)
    return f"on {device} no record's result depends on the batch, in all {len(plans)} runs"


_RUNS = {
    "policy": _policy,
    "permissions": _permissions,
    "keys": _keys,
    "records": _records,
    "disk": _disk,
    "memory": _memory,
    "server": _server,
    "clock": _clock,
    "enrolled": _enrolled,
    "peers": _peers,
    "approvals": _approvals,
    "ledger": _ledger,
    "budget": _budget,
    "arithmetic": _arithmetic,
}
CHECKS = tuple(Check(name, code, run) for code, (name, run) in enumerate(_RUNS.items(), 40))
