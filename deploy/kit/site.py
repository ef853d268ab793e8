"""A site's folder, made by `dppm site init`, and the operator's approvals.

site.toml (policy)  invitation.json  ca.crt  identity.key  node.key  node.pub  enrolment.json
approvals/ (plan, peers and code of each run)  bundles/
ledger.jsonl  audit.jsonl  sums/  reports/  flower/ (logs)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, fields
from datetime import UTC, datetime
from pathlib import Path

from client.approvals import Approval, read_approvals
from client.policy import Policy, write_template
from client.site import site_records
from deploy.kit.announcement import Announcement
from deploy.kit.bundle import digest_of, part_of, write_files
from deploy.kit.code_allowlist import bundle_file, bundle_folder, is_whole
from deploy.kit.enrolment import Enrolment, Invitation, named
from deploy.kit.keys import make_node_key
from deploy.kit.locks import changing
from deploy.making import making
from dppm_model.budget import alike
from dppm_model.errors import ConfigError, EnrolmentError, InUse
from dppm_model.files import sweep, write_bytes
from dppm_model.folders import remove
from dppm_model.plan import Plan
from dppm_model.privacy.accountant import epsilon
from dppm_model.privacy.ledger import Ledger, costs_of
from dppm_model.records.shards import open_records
from dppm_model.securesum.keys import Identity


def init_site(
    folder: Path, invitation: Path, name: str, records: Path, limits: Mapping[str, float]
) -> Enrolment:
    """Make a site's folder; its private keys are created in it and never leave it.

    Raises `ConfigError`, `EnrolmentError` or `DataError` if the folder is not empty or an input is
    invalid, and leaves nothing behind; `InUse` if another command is making it.

    Parameters
    ----------
    records
        Shard folder.
    limits
        Any of ``max_epsilon_secure_sum``, ``max_epsilon_site`` and ``delta``; the site refuses
        everything until the others are set in its file.
    """
    invited = Invitation.read(invitation)
    named("--name", name)
    for key, value in limits.items():
        if not value > 0 or (key == "delta" and not value < 1):
            raise ConfigError(f"{key} is {value}.", "Give a number above zero; delta below one.")
    manifest = open_records(records).manifest
    # If records name persons, the unit is the person unless the operator chooses otherwise.
    unit = "person" if manifest.persons else "record"
    defaults = {f.name: f.default for f in fields(Policy) if f.default is not MISSING}
    values = {**defaults, "unit": unit, "records": str(records.resolve()), **limits}
    with making_new(folder, "enrolment.json"):
        folder.chmod(0o700)
        write_template(folder / "site.toml", values)
        invited.write(folder / "invitation.json")
        write_bytes(folder / "ca.crt", invited.authority.encode())
        identity = Identity.generate()
        identity.write(folder / "identity.key")
        make_node_key(folder / "node.key")
        enrolment = Enrolment.make(invited.federation, name, identity, folder / "node.key")
        enrolment.write(folder / "enrolment.json")
    return enrolment


def require_site(folder: Path) -> None:
    """Raise `ConfigError` unless `dppm site init` made the folder; remove dead writers' files."""
    if not (folder / "enrolment.json").is_file():
        raise ConfigError(f"{folder} is not a site folder.", f"Make one: dppm site init {folder} …")
    sweep(folder)


def enrolment_of(folder: Path) -> Enrolment:
    """Read this site's enrolment."""
    return Enrolment.read(folder / "enrolment.json")


@contextmanager
def making_new(folder: Path, last: str) -> Iterator[None]:
    """Make a server's or a site's folder, writing file ``last`` last; see `making`.

    Raises `ConfigError` if the folder exists and is not empty; `InUse` if another command is making
    it.
    """
    foreign = ConfigError(f"{folder} exists and is not empty.", "Name a new folder.")
    busy = InUse(f"Another command is making {folder}.", "Wait for it, or stop it.")
    with making(folder, last, foreign=foreign, busy=busy) as new:
        if not new:
            raise foreign
        yield


class Proposal:
    """An announcement, compared with this site's records, policy and ledger.

    Raises `EnrolmentError` if the announcement is for another federation, or does not list this
    site's identity.
    """

    def __init__(self, folder: Path, announcement: Announcement) -> None:
        self.folder, self.announcement = folder, announcement
        self.policy = Policy.read(folder / "site.toml")
        enrolment = enrolment_of(folder)
        if announcement.federation != enrolment.federation:
            raise EnrolmentError(
                f"the announcement is for federation {announcement.federation}, this site is in "
                f"{enrolment.federation}.",
                "Ask the server's operator for the right one.",
            )
        listed = announcement.peers.get(enrolment.site)
        if listed is None or listed.hex() != enrolment.identity:
            raise EnrolmentError(
                f"the announcement does not list {enrolment.site} with this site's identity key.",
                "Compare fingerprints over the telephone: this may be an attack.",
            )

    @property
    def plan(self) -> Plan:
        """The plan to be approved."""
        return self.announcement.plan

    def check(self) -> None:
        """Refuse a plan that the policy does not allow or the site cannot afford.

        Raises as `Policy.check_plan` and `Budget.check` do; `DataError` if the records differ.
        """
        self.policy.check_plan(self.plan)
        self.announcement.facts.check(site_records(self.folder, self.policy).manifest)
        self.policy.budget.check(
            self.plan,
            self.plan.rounds - 1,
            Ledger(self.folder / "ledger.jsonl").debits,
            f"Raise the limit in {self.folder / 'site.toml'} above the cost of both at your "
            "delta (see above), or do not take part.",
        )

    def spending(self) -> dict[str, tuple[float, float, float, float]]:
        """Return (spent, this plan, both together, limit) in epsilon for each view."""
        debits = Ledger(self.folder / "ledger.jsonl").debits
        others = alike(self.plan, debits)
        delta = self.policy.delta
        found: dict[str, tuple[float, float, float, float]] = {}
        for view in self.plan.views:
            spent, planned = costs_of(others, view), self.plan.costs(view)
            now, alone, both = (epsilon(c, delta) for c in (spent, planned, (*spent, *planned)))
            found[view] = (now, alone, both, self.policy.budget.limits[view])
        return found

    def peers(self) -> Iterator[tuple[str, str, str]]:
        """Compare the peers with those pinned: (name, key, ``new``, ``same`` or ``CHANGED``)."""
        pinned = pinned_peers(self.folder)
        for name, key in sorted(self.announcement.peers.items()):
            state = "new" if name not in pinned else "same" if pinned[name] == key else "CHANGED"
            yield name, key.hex(), state
        for name in sorted(pinned.keys() - self.announcement.peers.keys()):
            yield name, pinned[name].hex(), "not in this run"

    def approve(self) -> None:
        """Store the bundle and unpack its site part; then write the approval in one file."""
        bundle = self.announcement.bundle
        digest = digest_of(bundle)
        note = f"approved {datetime.now(UTC).isoformat(timespec='seconds')}"
        with changing(self.folder):
            if not is_whole(self.folder, digest):
                remove(bundle_folder(self.folder, digest))
                write_files(part_of(bundle, "site"), bundle_folder(self.folder, digest))
                remove(bundle_file(self.folder, digest))
                write_bytes(bundle_file(self.folder, digest), bundle)
            Approval(self.plan, self.announcement.peers, digest, note).write(self.folder)


def pinned_peers(folder: Path) -> dict[str, bytes]:
    """Return the peers of all approved runs; for each name, the latest approval's key."""
    approvals = sorted(read_approvals(folder), key=lambda approval: approval.note)
    return {name: key for approval in approvals for name, key in approval.peers.items()}
