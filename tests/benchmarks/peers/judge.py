"""Train one peer in a process of its own, draw from it and judge it as ours is judged."""

from __future__ import annotations

import multiprocessing
import resource
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dppm_model.files import write_json
from dppm_model.records import sources
from dppm_model.run import Run
from sampler.images import to_pixels
from sampler.sheet import contact_sheet
from tests.benchmarks.peers import dp_merf, dpsgd, federated_dp, no_privacy
from tests.benchmarks.peers.peer import Task, Train
from tests.benchmarks.runner import judged

PEERS: dict[str, Train] = {
    "dp_merf": dp_merf.train,
    "dpsgd": dpsgd.train,
    "federated_dp": federated_dp.train,
    "no_privacy": no_privacy.train,
}
DELTA = 1e-5
_BATCH = 100  # images drawn at once

Drawn = tuple[NDArray[np.uint8], NDArray[np.int64], dict[str, Any]]


def make(name: str, data: str, epsilon: float, rounds: int | None, per_class: int) -> Drawn:
    """Train a peer and draw from it: images, labels and what it cost and promised.

    Minutes are of processor time, of one thread: the wall's depend on who else is at the machine.
    """
    torch.set_num_threads(1)
    task = Task.of(sources.load(data, "train"), epsilon, DELTA, rounds=rounds)
    begun = time.process_time()
    trained = PEERS[name](task)
    learnt = time.process_time()
    y = torch.arange(task.classes).repeat_interleave(per_class)
    images = [
        to_pixels(trained.draw(labels, seed).nan_to_num(0.0))
        for seed, labels in enumerate(y.split(_BATCH))
    ]
    return (
        np.concatenate(images),
        y.numpy(),
        {
            "trust": trained.trust,
            "guarantee": trained.guarantee,
            "epsilon": trained.epsilon,
            "recipe": trained.recipe,
            "training_minutes": (learnt - begun) / 60,
            "sampling_minutes": (time.process_time() - learnt) / 60,
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        },
    )


def figures_of(
    name: str,
    data: str,
    epsilon: float,
    rounds: int | None,
    per_class: int,
    seeds: Sequence[int],
    out: Path,
) -> dict[str, Any]:
    """Return all figures of a peer; its pictures go to ``out``."""
    # A fresh process, so that its peak of memory is its own.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        images, labels, facts = pool.submit(make, name, data, epsilon, rounds, per_class).result()
    contact_sheet(images, labels, out / f"{name}.png")
    facts["evaluation"] = judged((images, labels), data, seeds=seeds)
    write_json(out / f"{name}.json", facts)
    return facts


def ours(folder: Path, data: str, epsilon: float) -> dict[str, Any]:
    """Read the figures of a run of ours, which must be of the same data and epsilon."""
    run = Run(folder)
    privacy, evaluation = run.read_json(run.privacy), run.read_json(run.evaluation)
    assert privacy["data"] == data, f"{folder} is of {privacy['data']}"
    assert privacy["epsilon_secure_sum"] <= epsilon, "it promises less"
    assert privacy["delta"] == DELTA
    return {
        "trust": "nobody with records: secure sum of randomized responses",
        "guarantee": privacy["adjacency"],
        "epsilon": privacy["epsilon_secure_sum"],
        "recipe": {"plan": privacy["plan"], "epsilon_site": privacy["epsilon_site"]},
        "training_wall_minutes": sum(r["seconds"] for r in run.rounds()) / 60,
        "evaluation": evaluation,
    }
