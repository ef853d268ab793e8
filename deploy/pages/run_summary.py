"""What a page tells of a run: read from its folder, and from nothing else.

A run folder of a server holds no record of any site, and nothing of a single site but when it took
part; so no page can show more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from dppm_model.config import Config, read_config
from dppm_model.errors import RunFolderError
from dppm_model.plan import Plan
from dppm_model.planner import epsilons
from dppm_model.reading import there
from dppm_model.run import Run
from sampler.images import manifest_of
from server.securesum.round_checkpoint import stage

STATES = ("not begun", "running", "stopped", "failed", "finished")
_OF_A_ROUND = (
    *("phase", "seconds", "sites", "uplink_bytes", "downlink_bytes"),
    *("answer_norm", "noise_norm", "epsilon_secure_sum", "epsilon_site"),
)


@dataclass(frozen=True)
class RunSummary:
    """A run as it stands.

    Attributes
    ----------
    rounds
        What ``metrics.jsonl`` says of each finished round.
    state
        One of `STATES`; ``stopped`` is a run that nobody trains now and that did not end.
    stage
        What the server waits for while it runs.
    evaluation, audit
        What these commands wrote, or None.
    """

    run: Run
    plan: Plan
    privacy: Mapping[str, Any]
    rounds: Sequence[Mapping[str, Any]]
    state: str
    stage: str
    error: str | None
    sessions: Sequence[Mapping[str, Any]]
    evaluation: Mapping[str, Any] | None
    audit: Mapping[str, Any] | None

    @classmethod
    def of(cls, run: Run) -> RunSummary:
        """Read a run folder.

        Raises
        ------
        RunFolderError
            If it is no run folder, or a file is damaged.
        """
        plan, rounds = run.plan(), run.rounds()
        if missing := {key for key in _OF_A_ROUND if any(key not in line for line in rounds)}:
            raise RunFolderError(
                f"{run.metrics} lacks {', '.join(sorted(missing))}: another version wrote it.",
                "Use the version that trained this run, or train it anew.",
            )
        state, error = _state(run)
        return cls(
            run,
            plan,
            run.read_json(run.privacy),
            rounds,
            state,
            stage(run, plan, len(rounds)) if state == "running" else "",
            error,
            run.starts(),
            run.read_json(run.evaluation) if there(run.evaluation) else None,
            run.read_json(run.audit) if there(run.audit) else None,
        )

    @cached_property
    def config(self) -> Config:
        """The resolved configuration."""
        return read_config(self.run.config)

    @cached_property
    def images(self) -> Mapping[str, Any] | None:
        """The manifest of the images, or None where none were drawn."""
        with suppress(RunFolderError):
            return manifest_of(self.run.samples)
        return None

    @cached_property
    def phase_of_round(self) -> tuple[str, ...]:
        """The phase of every planned round."""
        return tuple(p.name for p in self.plan.phases for _ in range(p.rounds))

    @property
    def planned(self) -> tuple[tuple[int, float, float], ...]:
        """Rounds, and epsilon of both views, that are planned for the end of each phase."""
        return _planned(self.plan)

    @property
    def spent(self) -> tuple[float, float]:
        """Epsilon of the secure sum and of a site's own reports, of the rounds so far."""
        if not self.rounds:
            return 0.0, 0.0
        last = self.rounds[-1]
        return last["epsilon_secure_sum"], last["epsilon_site"]

    @property
    def seconds(self) -> float:
        """How long the finished rounds took."""
        return float(sum(line["seconds"] for line in self.rounds))

    @property
    def missing(self) -> int:
        """How many reports were missing in the sums so far."""
        return sum(self.plan.sites - line["sites"] for line in self.rounds)

    def to_json(self) -> dict[str, Any]:
        """Return where the run stands, for JSON."""
        last = self.rounds[-1] if self.rounds else None
        spent, total = self.spent, self.planned[-1][1:]
        return {
            "run": self.plan.run,
            "folder": str(self.run.folder),
            "state": self.state,
            "stage": self.stage,
            "phase": self.phase_of_round[min(len(self.rounds), self.plan.rounds - 1)],
            "round": len(self.rounds),
            "rounds": self.plan.rounds,
            "sites": self.plan.sites,
            "sites_in_last_sum": last["sites"] if last else None,
            "seconds_of_last_round": last["seconds"] if last else None,
            "epsilon_secure_sum": {"spent": spent[0], "planned": total[0]},
            "epsilon_site": {"spent": spent[1], "planned": total[1]},
            "last_error": self.error,
        }

    @property
    def simulated(self) -> bool:
        """Whether the sites were virtual ones of this machine."""
        return self.run.sites.is_dir()


@lru_cache(maxsize=4)  # certificates take seconds, and a live page asks again each round
def _planned(plan: Plan) -> tuple[tuple[int, float, float], ...]:
    ends, done = [], 0
    for phase in plan.phases:
        done += phase.rounds
        ends.append((done, *epsilons(plan, done)))
    return tuple(ends)


def _state(run: Run) -> tuple[str, str | None]:
    said = run.read_json(run.status) if there(run.status) else {"state": "not begun"}
    if run.model.exists() and not run.in_work:  # also if a kill came before the last word
        return "finished", None
    state = said["state"]
    if state == "running" and not run.in_work:
        return "stopped", None
    return state, said.get("message")
