"""The summary of a run, computed once from its folder, which every page and table renders.

A server's run folder holds no record of any site, and of a single site only when it took part, so
no page can show more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from deploy.table import with_spread
from dppm_model.config import Config, read_config
from dppm_model.errors import RunFolderError
from dppm_model.folders import there
from dppm_model.mechanism.base import View
from dppm_model.plan import Plan
from dppm_model.planner import epsilon_fields, epsilon_if_colluding, epsilons
from dppm_model.reading import reason
from dppm_model.run import Run
from sampler.evaluation.detail import SIDES
from sampler.images import manifest_of
from server.securesum.round_checkpoint import stage

STATES = ("not begun", "running", "stopped", "failed", "finished")
SEEN: Mapping[View, str] = {
    "release": "the images, the model or the sum as it is released",
    "secure_sum": "the sum, the model or the images",
    "site": "a site's own reports",
}
_OF_A_ROUND = {
    *("phase", "seconds", "sites", "uplink_bytes", "downlink_bytes", "answer_norm", "noise_norm"),
    *(f"epsilon_{view}" for view in SEEN),
}


@dataclass(frozen=True)
class Score:
    """A figure of the synthetic images beside the same figure of real ones.

    ``digits`` are shown after the point; standard deviations are over several classifier seeds.
    """

    name: str
    value: float | None
    real: float | None
    digits: int = 3
    std: float | None = None
    real_std: float | None = None

    @property
    def text(self) -> str:
        """The figure of the synthetic images."""
        return with_spread(self.value, self.std, self.digits)

    @property
    def real_text(self) -> str:
        """The figure of the real images."""
        return with_spread(self.real, self.real_std, self.digits)

    def rounded(self, digits: int) -> str:
        """The figure of the synthetic images with other digits."""
        return with_spread(self.value, self.std, digits)

    @property
    def row(self) -> tuple[str, str, str]:
        """Name, synthetic, real."""
        return self.name, self.text, self.real_text


@dataclass(frozen=True)
class Evaluation:
    """Results of `dppm evaluate`, measured on real data: no epsilon covers them.

    Attributes
    ----------
    scores
        By key: ``accuracy``, ``frechet``, ``coverage`` and others.
    per_class
        ``accuracy``, ``coverage`` and ``density`` of each class, in the order of the classes.
    raw
        ``evaluation.json``.
    """

    scores: Mapping[str, Score]
    per_class: Mapping[str, Sequence[Score]]
    raw: Mapping[str, Any]

    @classmethod
    def of(cls, run: Run, names: Sequence[str]) -> Evaluation:
        """Read ``evaluation.json``, with the names of classes; `RunFolderError` if damaged."""
        raw = run.read_json(run.evaluation)
        try:
            return cls(_scores(raw), _per_class(raw, names), raw)
        except (KeyError, TypeError, IndexError) as error:
            raise RunFolderError(
                f"{run.evaluation} lacks a figure: {reason(error)}.",
                f"Run `dppm evaluate {run.folder}` again with this version.",
            ) from None


@dataclass(frozen=True)
class RunSummary:
    """A run as it stands.

    Attributes
    ----------
    rounds
        Lines of ``metrics.jsonl``, one for each finished round.
    state
        One of `STATES`; a ``stopped`` run has not ended, and no process trains it.
    stage
        The thing that the server waits for while the run is trained.
    sessions
        The start of each training, and its versions.
    """

    run: Run
    plan: Plan
    privacy: Mapping[str, Any]
    rounds: Sequence[Mapping[str, Any]]
    state: str
    stage: str
    error: str | None
    sessions: Sequence[Mapping[str, Any]]
    audit: Mapping[str, Any] | None

    @classmethod
    def of(cls, run: Run) -> RunSummary:
        """Read a run folder; `RunFolderError` if it is not one, or a file is damaged."""
        plan, rounds = run.plan(), run.rounds()
        if missing := {key for line in rounds for key in _OF_A_ROUND - line.keys()}:
            raise RunFolderError(
                f"{run.metrics} lacks {', '.join(sorted(missing))}: another version wrote it.",
                "Use the version that trained this run, or train it again.",
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
            run.read_json(run.audit) if there(run.audit) else None,
        )

    @cached_property
    def config(self) -> Config:
        """The resolved configuration."""
        return read_config(self.run.config)

    @cached_property
    def evaluation(self) -> Evaluation | None:
        """The results on real data, or None."""
        if not there(self.run.evaluation):
            return None
        return Evaluation.of(self.run, self.config.class_names)

    @cached_property
    def images(self) -> Mapping[str, Any] | None:
        """The manifest of the images, or None if none were drawn."""
        with suppress(RunFolderError):
            return manifest_of(self.run.samples)
        return None

    @cached_property
    def phase_of_round(self) -> tuple[str, ...]:
        """The phase of every planned round."""
        return tuple(p.name for p in self.plan.phases for _ in range(p.rounds))

    @property
    def phase(self) -> str:
        """The phase of the next round, or of the last."""
        return self.phase_of_round[min(len(self.rounds), self.plan.rounds - 1)]

    @property
    def views(self) -> Mapping[View, str]:
        """The things that are seen in each view in which the plan promises something."""
        return {view: SEEN[view] for view in self.plan.views}

    @property
    def planned(self) -> tuple[tuple[int, Mapping[View, float]], ...]:
        """Rounds, and epsilon in each view, planned for the end of each phase."""
        return _planned(self.plan)

    @property
    def epsilon_if_colluding(self) -> list[tuple[int, float]]:
        """Numbers of colluding sites beyond those planned, and epsilon for each."""
        return epsilon_if_colluding(self.plan)

    @property
    def spent(self) -> Mapping[View, float | None]:
        """Epsilon of the finished rounds in each view; None without protection."""
        return {view: self.rounds[-1][f"epsilon_{view}"] if self.rounds else 0.0 for view in SEEN}

    @property
    def seconds(self) -> float:
        """Seconds of the finished rounds."""
        return float(sum(line["seconds"] for line in self.rounds))

    @property
    def missing(self) -> int:
        """Reports missing in the sums so far."""
        return sum(self.plan.sites - line["sites"] for line in self.rounds)

    @property
    def traffic(self) -> tuple[int, int]:
        """Bytes of all sites so far, to the server and from it."""
        up, down = (sum(line[f"{way}link_bytes"] for line in self.rounds) for way in ("up", "down"))
        return up, down

    @property
    def simulated(self) -> bool:
        """Whether the sites were virtual ones on this machine."""
        return self.run.sites.is_dir()

    def to_json(self) -> dict[str, Any]:
        """Return the state of the run, without results on real data."""
        last = self.rounds[-1] if self.rounds else None
        total = epsilon_fields(self.plan)
        up, down = self.traffic
        return {
            "run": self.plan.run,
            "folder": str(self.run.folder),
            "state": self.state,
            "stage": self.stage,
            "phase": self.phase,
            "round": len(self.rounds),
            "rounds": self.plan.rounds,
            "sites": self.plan.sites,
            "min_survivors": self.plan.min_survivors,
            "sites_in_last_sum": last["sites"] if last else None,
            "reports_missing": self.missing,
            "seconds": self.seconds,
            "seconds_of_last_round": last["seconds"] if last else None,
            "uplink_bytes": up,
            "downlink_bytes": down,
            **{
                f"epsilon_{view}": {"spent": spent, "planned": total[f"epsilon_{view}"]}
                for view, spent in self.spent.items()
            },
            "last_error": self.error,
        }


def _scores(raw: Mapping[str, Any]) -> dict[str, Score]:
    def pair(name: str, key: str, found: Mapping[str, Any], digits: int = 3) -> Score:
        std, real_std = found.get(f"{key}_std"), found.get(f"{key}_real_std")
        return Score(name, found[key], found[f"{key}_real"], digits, std, real_std)

    distances, coverage, nearest = raw["distances"], raw["coverage"], raw["nearest"]
    elsewhere = {
        "public": ("public features", raw["public_distances"]),
        "inception": ("the given network's features", raw["inception_distances"]),
    }
    median, closest = (
        [nearest[kind][key] for kind in ("synthetic", "real_test")]
        for key in ("median", "percentile_1")
    )
    scores = {
        "images": Score("images", raw["synthetic_images"], raw["train_images"], 0),
        "accuracy": pair("accuracy, CNN", "accuracy", raw, 4),
        "balanced_accuracy": pair("balanced accuracy, CNN", "balanced_accuracy", raw, 4),
        "accuracy_mlp": pair("accuracy, MLP", "accuracy_mlp", raw, 4),
        "balanced_accuracy_mlp": pair("balanced accuracy, MLP", "balanced_accuracy_mlp", raw, 4),
        "frechet": pair("Fréchet distance", "frechet", distances),
        "kernel": pair("kernel distance", "kernel", distances, 4),
        **{
            f"{key}_{place}": pair(f"{name} distance, {where}", key, found, digits)
            for place, (where, found) in elsewhere.items()
            if found is not None
            for key, name, digits in (("frechet", "Fréchet", 2), ("kid", "kernel", 4))
        },
        "spectrum_distance": pair("spectrum, distance (dB)", "distance_db", raw["spectrum"], 2),
        "density": pair("density, mean over classes", "density", coverage),
        "coverage": pair("coverage, mean over classes", "coverage", coverage),
        "median": Score("nearest training record, median", *median),
        "percentile_1": Score("nearest training record, closest 1 %", *closest),
    }
    if detail := raw.get("detail"):
        for side in SIDES:
            key = f"accuracy_{side}"
            scores[key] = pair(f"accuracy at {side} pixels", key, detail, 4)
        scores["frechet_crops"] = pair("Fréchet distance of crops", "frechet_crops", detail, 2)
        decibel = detail["spectrum"]["largest_db_below_a_quarter"]
        scores["spectrum"] = Score("spectrum, largest difference (dB)", decibel, None, 1)
    return scores


def _per_class(raw: Mapping[str, Any], names: Sequence[str]) -> dict[str, list[Score]]:
    def of(key: str, found: Mapping[str, Any]) -> list[Score]:
        values = [found[f"{key}{kind}_per_class"] for kind in ("", "_real")]
        stds = [found.get(f"{key}{kind}_per_class_std") for kind in ("", "_real")]
        return [
            Score(name, values[0][c], values[1][c], 3, *(std and std[c] for std in stds))
            for c, name in enumerate(names)
        ]

    found = {key: of(key, raw["coverage"]) for key in ("coverage", "density")}
    return {"accuracy": of("accuracy", raw), **found}


@lru_cache(maxsize=4)  # certificates take seconds, and a live page asks again each round
def _planned(plan: Plan) -> tuple[tuple[int, Mapping[View, float]], ...]:
    ends, done = [], 0
    for phase in plan.phases:
        done += phase.rounds
        ends.append((done, epsilons(plan, done)))
    return tuple(ends)


def _state(run: Run) -> tuple[str, str | None]:
    status = run.read_json(run.status) if there(run.status) else {"state": "not begun"}
    if not run.in_work and run.model.exists():  # even if it was killed before it wrote its status
        return "finished", None
    if not run.in_work and status["state"] == "running":
        return "stopped", None
    return status["state"], status.get("message")
