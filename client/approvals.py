"""What the site's operator has approved: a plan, the peers it is played with, the code that runs.

One file an approval, ``approvals/DIGEST.json``, written at once: whoever deletes it withdraws it.
The three belong together: a plan is not answered to other peers, nor by other code, than it was
approved with.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from dppm_model.errors import ConfigError, NotApproved
from dppm_model.files import write_json
from dppm_model.plan import Plan
from dppm_model.reading import read_json, reason
from dppm_model.securesum.group import check_peers

BUNDLE = "DPPM_BUNDLE"  # set by the gate (`deploy.kit`): the digest of the bundle that runs


@dataclass(frozen=True)
class Approval:
    """One approved run.

    Attributes
    ----------
    plan
        All that may be asked.
    peers
        Name and identity key of every site.
    bundle
        SHA-256 of the Flower bundle that may answer; empty in simulation, where none is shipped.
    note
        When it was approved, for people.
    """

    plan: Plan
    peers: dict[str, bytes]
    bundle: str
    note: str

    @property
    def roster(self) -> tuple[bytes, ...]:
        """The peers' keys, sorted."""
        return tuple(sorted(self.peers.values()))

    def write(self, folder: Path) -> None:
        """Approve, in a site's folder."""
        own = {
            "plan": self.plan.to_json(),
            "peers": {name: key.hex() for name, key in self.peers.items()},
            "bundle": self.bundle,
            "note": self.note,
        }
        write_json(approval_file(folder, self.plan.digest), own)


def approval_file(folder: Path, digest: str) -> Path:
    """Return where a site keeps the approval of a plan."""
    return folder / "approvals" / f"{digest}.json"


def read_approvals(folder: Path) -> list[Approval]:
    """Read all approvals of a site.

    Raises
    ------
    ConfigError
        If one is damaged.
    """
    return [_read(path) for path in sorted((folder / "approvals").glob("*.json"))]


def approval_of(folder: Path, plan: Plan) -> Approval:
    """Find the approval of a plan, by the code that runs here.

    Raises
    ------
    NotApproved
        If there is none, or it is for other code.
    ConfigError
        If it is damaged.
    """
    path = approval_file(folder, plan.digest)
    if not path.is_file():
        raise NotApproved(
            f"plan {plan.digest[:12]} of run {plan.run} is not approved at this site.",
            "The site's operator can look at it and approve it: `dppm site approve`.",
        )
    approval = _read(path)
    if approval.bundle != os.environ.get(BUNDLE, ""):
        raise NotApproved(
            f"run {plan.run} was approved with another bundle than the one that runs.",
            "Ask by the code that was announced with the plan.",
        )
    return approval


def _read(path: Path) -> Approval:
    try:
        raw = read_json(path)
        peers = {name: bytes.fromhex(key) for name, key in raw["peers"].items()}
        plan = Plan.from_json(raw["plan"])
        approval = Approval(plan, check_peers(peers, str(path)), str(raw["bundle"]), raw["note"])
    except Exception as error:  # a refusal of the plan's, too: it is this file that is wrong
        raise ConfigError(f"{path}: {reason(error)}.", "Approve the announcement again.") from None
    if path.stem != plan.digest:
        raise ConfigError(f"{path} is of another plan.", "Approve the announcement again.")
    return approval
