"""The metrics of a run in Prometheus's text format; deploy/README.md documents them."""

from __future__ import annotations

import math
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    disable_created_metrics,
    generate_latest,
)

from deploy.pages.run_summary import SEEN, STATES

disable_created_metrics()  # type: ignore[no-untyped-call]  # no second series per counter
_METRICS = (  # kind, name, what it is, key of `RunSummary.to_json`
    (Counter, "dppm_rounds", "Finished rounds.", "round"),
    (Gauge, "dppm_rounds_planned", "Rounds of the whole plan.", "rounds"),
    (Gauge, "dppm_sites_planned", "Sites of the plan.", "sites"),
    (Gauge, "dppm_sites_least", "Fewest sites allowed in a sum.", "min_survivors"),
    (Gauge, "dppm_sites_online", "Sites connected now.", "sites_online"),
    (Gauge, "dppm_sites_in_last_sum", "Sites in the last sum.", "sites_in_last_sum"),
    (Counter, "dppm_reports_missing", "Reports missing in sums.", "reports_missing"),
    (Counter, "dppm_round_seconds", "Seconds of the finished rounds.", "seconds"),
    (Counter, "dppm_uplink_bytes", "Bytes from all sites to the server.", "uplink_bytes"),
    (Counter, "dppm_downlink_bytes", "Bytes from the server to all sites.", "downlink_bytes"),
)


def exposition(name: str, state: dict[str, Any]) -> bytes:
    """Return the metrics of a run, with the label ``run`` set to its name.

    ``state`` is `RunSummary.to_json`, and ``sites_online``.
    """
    registry = CollectorRegistry()
    for kind, metric, text, key in _METRICS:
        if state[key] is not None:
            found = kind(metric, text, ["run"], registry=registry).labels(name)
            found.inc(state[key])
    for what, text in (("spent", "the finished rounds"), ("planned", "the whole plan")):
        gauge = Gauge(
            f"dppm_epsilon_{what}", f"Epsilon of {text}.", ["run", "view"], registry=registry
        )
        for view in SEEN:
            value = state[f"epsilon_{view}"][what]
            gauge.labels(name, view).set(math.inf if value is None else value)
    one = Gauge("dppm_state", "1 for the state of the run.", ["run", "state"], registry=registry)
    for known in STATES:
        one.labels(name, known).set(float(known == state["state"]))
    return generate_latest(registry)
