"""Train the peers on one data set at one epsilon, judge them as ours is judged, print a table.

    python -m tests.benchmarks.peers --data mnist --epsilon 10 --ours runs/demo
    python -m tests.benchmarks.peers --epsilon 1 --only dp_merf dpsgd --rounds dpsgd=100

``--ours`` reads a finished run; a peer whose JSON stands in ``--out`` is not trained again (delete
it to do so). Each peer is one run with one training seed. The constants of the score network's
training were set on MNIST, without privacy and at epsilon = 10, by the Fréchet distance to real
training images: a choice that is charged to nobody, and in the peers' favour.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks.peers.judge import DELTA, PEERS, judged, ours
from tests.benchmarks.record import record

COLUMNS = (
    *("method", "trust", "guarantee", "epsilon"),
    *("accuracy cnn/mlp", "Frechet", "kernel", "minutes", "peak MB"),
)


def rounds_of(text: str) -> tuple[str, int]:
    """Read NAME=N."""
    name, _, number = text.partition("=")
    if name not in PEERS:
        raise argparse.ArgumentTypeError(f"{text!r}: give NAME=N, NAME one of {', '.join(PEERS)}.")
    return name, int(number)


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


def main() -> None:
    """Train, judge, print, record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--epsilon", type=float, default=10.0)
    parser.add_argument("--only", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--ours", type=Path, help="a finished run folder")
    parser.add_argument(
        "--rounds",
        type=rounds_of,
        nargs="+",
        default=[],
        metavar="NAME=N",
        help="rounds of dpsgd and federated_dp, steps of the others, instead of the recipe's own",
    )
    parser.add_argument("--per-class", type=int, default=1500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the classifiers")
    parser.add_argument(
        "--out", type=Path, help="folder for pictures and figures; default: a temporary one"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    out = arguments.out or Path(tempfile.mkdtemp(prefix="peers-"))
    out /= f"{arguments.data}-eps{arguments.epsilon:g}"
    out.mkdir(parents=True, exist_ok=True)
    print(f"pictures: {out}", flush=True)
    results: dict[str, Any] = {}
    if arguments.ours:
        results["ours"] = ours(arguments.ours, arguments.data, arguments.epsilon)
    for name in PEERS:
        kept = out / f"{name}.json"
        if kept.exists():
            results[name] = json.loads(kept.read_text())
        elif name in arguments.only:
            results[name] = judged(
                name,
                arguments.data,
                arguments.epsilon,
                dict(arguments.rounds).get(name),
                arguments.per_class,
                arguments.seeds,
                out,
            )
            print(row(name, results[name]), flush=True)
    print(" | ".join(COLUMNS))
    for name, facts in results.items():
        print(row(name, facts))
    figures = {"data": arguments.data, "delta": DELTA, "per_class": arguments.per_class}
    name = f"peers-{arguments.data}-eps{arguments.epsilon:g}"
    record(name, figures | {"epsilon": arguments.epsilon, "methods": results})


if __name__ == "__main__":
    main()
