"""How reports are added up: what an aggregation is, and how each one is accounted.

An aggregation is a protocol with three faces, one for each that has to trust it:

    accounting  an entry of `HONEST_REPORTS`: n, the honest reports in any sum
    site        a `SiteAggregation` (`client.app.AGGREGATIONS`): answers its messages
    server      a `server.aggregation.Aggregation` (`server.app.AGGREGATIONS`): asks them, and
                returns a round's sum

A plan names its aggregation, and is refused if there is no accounting for it. The deployed one is
the secure sum: `dppm_model.securesum`, `client.securesum`, `server.securesum`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol

from dppm_model.errors import DppmError, PlanError

Fields = dict[str, Any]
Question = Mapping[str, Mapping[str, Any]]  # a message's records, by name
Answer = dict[str, Fields | DppmError]  # of an error, only the name and the accused sites leave


class SiteAggregation(Protocol):
    """A site's face, for one run; ``train`` is the message that is answered by a report.

    It reads records only through `client.site.Site.answer`, within `Site.alone` and after
    `Site.authorize`.
    """

    messages: ClassVar[tuple[str, ...]]

    def __init__(self, site: Any, plan: Any) -> None:
        """Take the `client.site.Site`, and the plan as the server sent it."""

    def handle(self, message: str, content: Question) -> Answer:
        """Answer one of ``messages``: all that leaves the site.

        Raises DppmError if the site refuses.
        """


def secure_sum_honest_reports(sites: int, min_survivors: int, colluding: int) -> int:
    """Return n, the least number of honest reports in any sum that can be opened (Lemma 17).

    With s = min_survivors = t and c colluding sites, a sum that all sites agree on has s - c of
    them. A lying server may send every helper another list of survivors. Then each helper takes at
    most N - s sites for dropped, and a site's mask key is opened only if s - c honest helpers do
    so. That is possible for at most (N - c)(N - s)/(s - c) sites, which leaves (s - c) - (N -
    s)^2/(s - c). (Bonawitz et al. let sites sign the list of survivors first, which costs a third
    message a round.)

    Raises PlanError unless 2 s > N + c: otherwise s - c honest sites may reveal one kind of share
    for a peer, and s - c deceived ones the other kind.
    """
    sure, lost = min_survivors - colluding, sites - min_survivors
    if not 0 <= lost < sure or colluding < 0:
        raise PlanError(
            f"min_survivors is {min_survivors} of {sites} sites, {colluding} of them colluding.",
            "More than half of the sum of all and colluding sites must survive.",
        )
    return sure - lost * lost // sure


SECURE_SUM = "secure_sum"
HONEST_REPORTS: dict[str, Callable[[int, int, int], int]] = {SECURE_SUM: secure_sum_honest_reports}


def honest_reports(aggregation: str, sites: int, min_survivors: int, colluding: int) -> int:
    """Return the least number of honest reports in any sum that the server can learn.

    Raises PlanError if there is no such aggregation, or it cannot keep what it promises with these
    numbers.
    """
    if aggregation not in HONEST_REPORTS:
        raise PlanError(
            f"aggregation is {aggregation!r:.80}.", f"Use {' or '.join(HONEST_REPORTS)}."
        )
    return HONEST_REPORTS[aggregation](sites, min_survivors, colluding)
