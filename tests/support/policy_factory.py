"""Sites whose policy allows nearly all."""

from math import inf
from pathlib import Path

from client.approvals import Approval
from client.policy import Policy
from dppm_model.plan import Plan
from dppm_model.securesum.keys import Identity


def policy(records: str, limit: float = inf, min_survivors: int = 1) -> Policy:
    """Allow a budget of ``limit`` in the secure-sum view, and sums of ``min_survivors`` sites."""
    return Policy(
        records=records,
        index="",
        max_epsilon_secure_sum=limit,
        max_epsilon_site=inf,
        max_epsilon_trusted_server=0.0,
        delta=1e-5,
        unit="record",
        max_records_per_person=1,
        min_records=1,
        mechanisms=("binomial",),
        min_survivors=min_survivors,
        colluding_sites=0,
        hours="00:00-24:00",
        release_seconds=0.0,
        device="cpu",
    )


def site_folders(folder: Path, plan: Plan) -> dict[str, bytes]:
    """Make the plan's sites, without records, in folders 0000, 0001, ...; return their peers."""
    made = [Identity.generate() for _ in range(plan.sites)]
    peers = {f"site-{i:04d}": identity.public for i, identity in enumerate(made)}
    for i, identity in enumerate(made):
        home = folder / f"{i:04d}"
        home.mkdir()
        identity.write(home / "identity.key")
        Approval(plan, peers, bundle="", note="").write(home)
        policy("none").write(home / "site.toml")
    return peers
