"""What a machine's cores do together."""

from __future__ import annotations

import multiprocessing
import os
from time import perf_counter

import numpy as np
import torch

from dppm_model.securesum.keys import agree, public_of
from dppm_model.securesum.ring import Ring
from tests.benchmarks.unit_costs.clock import seconds


def _work() -> None:
    """Do something of each kind that sites do: key streams, curves, sums, matrix products."""
    torch.set_num_threads(1)
    ring = Ring(16, 1 << 17)
    vector, private = ring.zeros(), bytes(range(32))
    public, matrix = public_of(private), torch.ones(384, 384, dtype=torch.float64)
    for _ in range(20):
        for _ in range(5):
            ring.add_mask(vector, private)
        for _ in range(20):
            agree(private, public)
        matrix = matrix @ matrix / 384
        np.bitwise_count(vector).sum()


def _forever() -> None:
    while True:
        _work()


def machine() -> dict[str, float]:
    """Unit costs by the names of `deploy.cost.units.Units`."""
    cores = os.cpu_count() or 1
    alone = seconds(_work, 9, perf_counter)
    context = multiprocessing.get_context("spawn")
    others = [context.Process(target=_forever, daemon=True) for _ in range(cores - 1)]
    for process in others:
        process.start()
    try:
        seconds(_work, 8, perf_counter)  # until they have begun
        together = seconds(_work, 9, perf_counter)
    finally:
        for process in others:
            process.terminate()
    return {
        "cores": cores,
        "parallel": max(min(cores, 1.1), cores * min(1.0, alone / together)),
    }
