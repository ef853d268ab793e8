"""What a report says that is more than a field of the `RunSummary`: the templates say the rest."""

from __future__ import annotations

import hashlib
import math
import platform
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import yaml

from deploy.pages.run_summary import RunSummary
from dppm_model.score.phases import kind_of
from dppm_model.securesum.masks import Sum

Row = tuple[str, ...]

_PEERS = Path(__file__).parent / "peers.yaml"
_NEAR = 1.05  # epsilons are equal when they differ by no more than this factor


@dataclass(frozen=True)
class Peer:
    """Another method's accuracy: whom one must trust with the records, and who measured it."""

    method: str
    trust: str
    measured_by: str
    epsilon: float
    accuracy: float


def peers_of(data: str, epsilon: float) -> list[Peer]:
    """Return other methods on a data set at an epsilon within 5 %, the best first."""
    table = yaml.safe_load(_PEERS.read_text())
    found = [
        Peer(entry["method"], entry["trust"], by, float(at), accuracy)
        for group, by in (("published", "DPImageBench"), ("ours", "this project"))
        for entry in table[group]
        for at, accuracy in entry.get(data, {}).items()
        if abs(math.log(at / epsilon)) <= math.log(_NEAR)
    ]
    return sorted(found, key=lambda p: -p.accuracy)


def phases(summary: RunSummary) -> Iterator[Row]:
    """Describe each phase: name, question, T, q, D, kB up, noise of a coordinate, mu in both views.

    The noise is that of the mean over all units, in units of the clip norm.
    """
    for p in summary.plan.phases:
        yield (
            p.name,
            kind_of(p.name).text,
            str(p.rounds),
            f"{p.sampling_rate:.3g}",
            f"{p.dimension}",
            f"{Sum(0, p.bits, p.report_length).ring.packed_bytes / 1000:.0f}",
            f"{p.noise_std(p.sites) / p.clip_norm:.2g}",
            f"{p.cost('secure_sum', 1).mu:.3f}",
            f"{p.cost('site', 1).mu:.3f}",
        )


def commands(summary: RunSummary) -> list[str]:
    """Return the commands that make such a run again (answers are random, so never the same)."""
    name = summary.run.folder.name
    changed = shlex.join(summary.run.read_json(summary.run.overrides)["overrides"])
    lines = [f"dppm simulate runs/{name} {changed}".rstrip()]
    if not summary.simulated:
        lines = [
            f"dppm server announce FED {name} {changed}".rstrip(),
            f"dppm server run FED {name}",
        ]
    lines.append(f"dppm sample runs/{name}")
    if summary.evaluation is not None:
        raw = summary.evaluation.raw
        recipe = "" if raw["recipe"] == "quick" else f" evaluation={raw['recipe']}"
        seeds = f" evaluation.seeds=[{','.join(map(str, raw['seeds']))}]"
        lines.append(f"dppm evaluate runs/{name}{recipe}{'' if raw['seeds'] == [0] else seeds}")
    if summary.audit is not None:
        lines.append(f"dppm audit runs/{name}")
    return [*lines, f"dppm report runs/{name}"]


def digests(summary: RunSummary) -> list[Row]:
    """Return the SHA-256 of the files that identify a run."""
    run = summary.run
    found: list[Row] = [("plan", summary.plan.digest)]
    for name, path in (("model", run.model), ("ledger", run.ledger), ("configuration", run.config)):
        if path.is_file():
            found.append((name, hashlib.sha256(path.read_bytes()).hexdigest()))
    return found


def versions(summary: RunSummary) -> list[Row]:
    """Return what ran the rounds, and what wrote this page: (what, versions)."""

    def text(found: dict[str, str]) -> str:
        return ", ".join(f"{name} {number}" for name, number in found.items())

    packages = {name: version(name) for name in ("dppm", "torch", "numpy", "flwr", "ray")}
    starts = [dict(session) for session in summary.sessions]
    return [
        *((f"rounds, begun {start.pop('begun')}", text(start)) for start in starts),
        ("this page", text({"python": platform.python_version()} | packages)),
    ]
