"""A site's policy that allows nearly all."""

from math import inf

from client.policy import Policy


def policy(records: str, limit: float = inf, min_survivors: int = 1) -> Policy:
    """Allow a budget of ``limit`` in the secure-sum view, and sums of so few sites."""
    return Policy(
        records=records,
        index="",
        max_epsilon_secure_sum=limit,
        max_epsilon_site=inf,
        delta=1e-5,
        unit="record",
        max_records_per_person=1,
        min_records=1,
        mechanisms=("binomial",),
        min_survivors=min_survivors,
        colluding_sites=0,
        hours="00:00-24:00",
        release_seconds=0.0,
    )
