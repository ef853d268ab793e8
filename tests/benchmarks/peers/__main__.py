"""Train the peers on one data set at one epsilon, judge them as ours is judged, print a table.

    python -m tests.benchmarks.peers --data mnist --epsilon 10 --ours runs/demo
    python -m tests.benchmarks.peers --epsilon 1 --only dp_merf dpsgd --rounds dpsgd=100

``--ours`` reads a finished run; a peer whose JSON stands in ``--out`` is not trained again (delete
it to do so). Each peer is one run with one training seed. The constants of the score network's
training were set on MNIST, without privacy and at epsilon = 10, by the Fréchet distance to real
training images: a choice that is charged to nobody, and in the peers' favour.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks.peers import judge
from tests.benchmarks.peers.judge import DELTA, PEERS, figures_of
from tests.benchmarks.runner import benchmark, record

COLUMNS = [
    "method",
    "trust",
    "guarantee",
    "epsilon",
    "accuracy cnn/mlp",
    "Frechet",
    "kernel",
    "minutes",
    "peak MB",
]


def row(name: str, facts: dict[str, Any]) -> str:
    """One line of the table."""
    found = facts["evaluation"]
    epsilon = "none" if facts["epsilon"] is None else f"{facts['epsilon']:.3f}"
    if "peak_mb" in facts:
        minutes = f"{facts['training_minutes'] + facts['sampling_minutes']:.1f} cpu"
        peak = f"{facts['peak_mb']:.0f}"
    else:
        minutes, peak = f"{facts['training_wall_minutes']:.1f} wall", "not measured"
    return " | ".join(
        [
            *(name, facts["trust"], facts["guarantee"], epsilon),
            f"{found['accuracy']:.4f}/{found['accuracy_mlp']:.4f}",
            f"{found['distances']['frechet']:.2f}",
            f"{found['distances']['kernel']:.4f}",
            *(minutes, peak),
        ]
    )


def compare(
    data: str = "mnist",
    epsilon: float = 10.0,
    only: Sequence[str] = tuple(PEERS),
    ours: Path | None = None,
    rounds: Sequence[str] = (),
    per_class: int = 1500,
    seeds: Sequence[int] = (0,),
    out: Path | None = None,
) -> None:
    """Train, judge, print, record.

    Parameters
    ----------
    ours
        A finished run folder.
    rounds
        NAME=N: rounds of dpsgd and federated_dp, steps of the others, instead of the recipe's own.
    seeds
        Of the classifiers.
    out
        Folder for pictures and figures; None takes a temporary one.
    """
    torch.set_num_threads(1)
    out = out or Path(tempfile.mkdtemp(prefix="peers-"))
    out /= f"{data}-eps{epsilon:g}"
    out.mkdir(parents=True, exist_ok=True)
    print(f"pictures: {out}", flush=True)
    chosen = {name: int(number) for name, number in (text.split("=") for text in rounds)}
    results: dict[str, Any] = {}
    if ours is not None:
        results["ours"] = judge.ours(ours, data, epsilon)
    for name in PEERS:
        kept = out / f"{name}.json"
        if kept.exists():
            results[name] = json.loads(kept.read_text())
        elif name in only:
            results[name] = figures_of(name, data, epsilon, chosen.get(name), per_class, seeds, out)
            print(row(name, results[name]), flush=True)
    print(" | ".join(COLUMNS))
    for name, facts in results.items():
        print(row(name, facts))
    figures = {"data": data, "delta": DELTA, "per_class": per_class, "epsilon": epsilon}
    record(f"peers-{data}-eps{epsilon:g}", figures | {"methods": results})


if __name__ == "__main__":
    benchmark(compare)
