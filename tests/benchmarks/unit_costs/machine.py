"""What a machine's cores do together."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
import torch

from dppm_model.files import write_bytes
from dppm_model.securesum.keys import agree, public_of
from dppm_model.securesum.ring import Ring
from tests.benchmarks.unit_costs.clock import seconds

WRITES = 100


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


def _write() -> None:
    """Replace files as sites do."""
    with tempfile.TemporaryDirectory() as folder:
        for number in range(WRITES):
            write_bytes(Path(folder) / str(number % 10), bytes(4000))


def _waiting() -> float:
    """Seconds that pass and are not spent, as a clock."""
    return perf_counter() - process_time()


def _forever(work: Callable[[], None]) -> None:
    while True:
        work()


def _beside_others(work: Callable[[], None], clock: Callable[[], float], cores: int) -> float:
    """Seconds of some work while all other cores do the same."""
    context = multiprocessing.get_context("spawn")
    others = [context.Process(target=_forever, args=(work,), daemon=True) for _ in range(cores - 1)]
    for process in others:
        process.start()
    try:
        seconds(work, 8, clock)  # until they have begun
        return seconds(work, 9, clock)
    finally:
        for process in others:
            process.terminate()


def machine() -> dict[str, float]:
    """Unit costs by the names of `deploy.cost.units.Units`."""
    cores = os.cpu_count() or 1
    alone = seconds(_work, 9, perf_counter)
    together = _beside_others(_work, perf_counter, cores)
    return {
        "cores": cores,
        "parallel": max(min(cores, 1.1), cores * min(1.0, alone / together)),
        "flush": _beside_others(_write, _waiting, cores) / (2 * WRITES),  # the file, its folder
    }
