"""Per-record gradients of the residual network, beside a plain batch gradient and Opacus.

    python -m tests.benchmarks.gradients

The network and the K = 2 draws of `model=residual` on 28×28 images, 256 records, one thread;
medians of five, all in one run. Opacus' hooks see the two rows of a record as
two records: the cheaper task, since it need not add them up before the norm.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from opacus import GradSampleModule

from dppm_model.mechanism import gradients as module
from dppm_model.mechanism.grid import Grid
from dppm_model.score.gradient import GradientQuery
from dppm_model.score.model import ScoreModel
from dppm_model.score.residual import ResidualConfig, ResidualNet
from tests.benchmarks.record import record

RECORDS, REPEATS = 256, 5


def main() -> None:
    """Time every way in turn."""
    torch.set_num_threads(1)
    g = torch.Generator().manual_seed(0)
    query = GradientQuery(ScoreModel.initial((1, 28, 28), 10, {"residual": {}}))
    x = torch.rand((RECORDS, 1, 28, 28), generator=g) * 2 - 1
    y = torch.arange(RECORDS) % 10
    drawn = query.draw(x, y, g)
    flat = torch.randn(query.dimension, generator=g) / 10
    target, noisy, base, sigma, onehot = drawn
    rows = (
        noisy.flatten(0, 1),
        base.flatten(0, 1),
        sigma.flatten(),
        onehot.repeat_interleave(noisy.shape[1], dim=0),
    )
    plain = ResidualNet((1, 28, 28), 10, ResidualConfig())
    hooked = GradSampleModule(ResidualNet((1, 28, 28), 10, ResidualConfig()))

    def batch_gradient(net: torch.nn.Module) -> None:
        net.zero_grad()
        ((net(*rows) - target.flatten(0, 1)) ** 2).mean().backward()

    def vmap(chunk: int) -> Callable[[], object]:
        def run() -> object:
            module.CHUNK = chunk
            return [v.sum() for v in query.gradients.per_record(flat, *drawn)]

        return run

    grid = Grid(1.0, 1 << 24)
    ways: dict[str, Callable[[], object]] = {
        "plain batch gradient": lambda: batch_gradient(plain),
        **{f"vmap, chunk {n}": vmap(n) for n in (8, 16, 32, 64)},
        "opacus hooks": lambda: batch_gradient(hooked),
        "ours, whole clipped sum": lambda: query.clipped_sum(x, y, grid, g),
    }
    chunk = module.CHUNK
    times: dict[str, list[float]] = {}
    for _ in range(REPEATS):
        for name, way in ways.items():
            if name.startswith("ours"):
                module.CHUNK = chunk
            begun = time.perf_counter()
            way()
            times.setdefault(name, []).append(time.perf_counter() - begun)
    medians = {name: statistics.median(values[1:]) for name, values in times.items()}
    reference = medians["plain batch gradient"]
    for name, seconds in medians.items():
        print(
            f"{name:26s} {seconds:7.3f} s {RECORDS / seconds:8.0f} records/s "
            f"{seconds / reference:6.2f} x plain"
        )
    record("gradients", {"seconds": medians, "records": RECORDS, "parameters": query.dimension})


if __name__ == "__main__":
    main()
