"""What Prometheus reads of a run: documented in deploy/README.md."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from deploy.pages.run_summary import STATES, RunSummary


class RunMetrics(Collector):
    """The figures of one run, as they stand when they are asked for."""

    def __init__(self, facts: RunSummary, online: int | None) -> None:
        self._facts, self._online = facts, online

    def collect(self) -> Iterator[Metric]:
        """Yield every metric; a name is documented where it is made, and in the README."""
        f = self._facts
        lines = f.rounds
        run = f.run.folder.name

        def gauge(name: str, text: str, value: float) -> Metric:
            family = GaugeMetricFamily(name, text, labels=("run",))
            family.add_metric((run,), value)
            return family

        def counter(name: str, text: str, value: float) -> Metric:
            family = CounterMetricFamily(name, text, labels=("run",))
            family.add_metric((run,), value)
            return family

        yield counter("dppm_rounds", "Finished rounds.", len(lines))
        yield gauge("dppm_rounds_planned", "Rounds of the whole plan.", f.plan.rounds)
        for name, text, values in (
            ("dppm_epsilon_spent", "Epsilon of the finished rounds.", f.spent),
            ("dppm_epsilon_planned", "Epsilon of the whole plan.", f.planned[-1][1:]),
        ):
            family = GaugeMetricFamily(name, text, labels=("run", "view"))
            for view, value in zip(("secure_sum", "site"), values, strict=True):
                family.add_metric((run, view), value)
            yield family
        yield gauge("dppm_sites_planned", "Sites of the plan.", f.plan.sites)
        yield gauge("dppm_sites_least", "Fewest sites of a sum.", f.plan.min_survivors)
        if self._online is not None:
            yield gauge("dppm_sites_online", "Sites that are connected now.", self._online)
        if lines:
            yield gauge("dppm_sites_in_last_sum", "Sites of the last sum.", lines[-1]["sites"])
        yield counter("dppm_reports_missing", "Reports that were missing in sums.", f.missing)
        yield counter("dppm_round_seconds", "Seconds that finished rounds took.", f.seconds)
        for way, text in (("up", "sites to server"), ("down", "server to sites")):
            yield counter(
                f"dppm_{way}link_bytes",
                f"Bytes of all sites, {text}.",
                sum(line[f"{way}link_bytes"] for line in lines),
            )
        state = GaugeMetricFamily(
            "dppm_state", "1 for the state the run is in.", labels=("run", "state")
        )
        for name in STATES:
            state.add_metric((run, name), float(name == f.state))
        yield state


def exposition(facts: RunSummary, online: int | None) -> bytes:
    """Return the metrics in Prometheus's text format."""
    registry = CollectorRegistry()
    registry.register(RunMetrics(facts, online))
    return generate_latest(registry)
