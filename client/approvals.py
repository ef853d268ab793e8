"""Approvals by the site's operator: a plan, the peers that take part, and the code that runs.

Each approval is one file, ``approvals/DIGEST.json``, written atomically; deleting it withdraws the
approval. The three belong together: a plan is answered only with the peers and the code that it
was approved with.
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

BUNDLE = "DPPM_BUNDLE"  # digest of the running bundle, set by `deploy.kit.code_allowlist`


@dataclass(frozen=True)
class Approval:
    """One approved run: a plan, the identity key of every site by name, and the code."""

    plan: Plan
    peers: dict[str, bytes]
    # SHA-256 of the Flower bundle that may answer; empty in simulation, where none is shipped
    bundle: str
    note: str  # date of approval, for people to read

    @property
    def roster(self) -> tuple[bytes, ...]:
        """The peers' keys, sorted."""
        return tuple(sorted(self.peers.values()))

    def write(self, folder: Path) -> None:
        """Write the approval into a site's folder."""
        own = {
            "plan": self.plan.to_json(),
            "peers": {name: key.hex() for name, key in self.peers.items()},
            "bundle": self.bundle,
            "note": self.note,
        }
        write_json(approval_file(folder, self.plan.digest), own)


def approval_file(folder: Path, digest: str) -> Path:
    """Return the path of a plan's approval."""
    return folder / "approvals" / f"{digest}.json"


def read_approvals(folder: Path) -> list[Approval]:
    """Read all approvals of a site; `ConfigError` if one is damaged."""
    return [_read(path) for path in sorted((folder / "approvals").glob("*.json"))]


def approval_of(folder: Path, plan: Plan) -> Approval:
    """Find the approval of a plan for the code that runs here.

    Raises `NotApproved` if there is none, or it is for different code; `ConfigError` if it is
    damaged.
    """
    path = approval_file(folder, plan.digest)
    if not path.is_file():
        raise NotApproved(
            f"plan {plan.digest[:12]} of run {plan.run} is not approved at this site.",
            "The site's operator can review and approve it: `dppm site approve`.",
        )
    approval = _read(path)
    if approval.bundle != os.environ.get(BUNDLE, ""):
        raise NotApproved(
            f"run {plan.run} was approved with a different bundle from the one that runs.",
            "Run the code that was announced with the plan.",
        )
    return approval


def _read(path: Path) -> Approval:
    try:
        raw = read_json(path)
        peers = {name: bytes.fromhex(key) for name, key in raw["peers"].items()}
        plan = Plan.from_json(raw["plan"])
        approval = Approval(plan, check_peers(peers, str(path)), str(raw["bundle"]), raw["note"])
    except Exception as error:  # including a refusal by the plan: this file is at fault
        raise ConfigError(f"{path}: {reason(error)}.", "Approve the announcement again.") from None
    if path.stem != plan.digest:
        raise ConfigError(f"{path} is for another plan.", "Approve the announcement again.")
    return approval
