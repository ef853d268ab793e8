"""Clipped sums of per-record gradients of the residual network, beside what others do.

    python -m tests.benchmarks.gradients

One thread, the recipe's network, records/s: medians of interleaved repeats, and what each costs in
plain batch gradients (no privacy at all). Ours includes rounding to the integer grid, which Opacus
does not do. Opacus has one row a record, so it is compared at K = 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from opacus import GradSampleModule
from opacus.grad_sample import GradSampleModuleFastGradientClipping
from opacus.utils.fast_gradient_clipping_utils import DPTensorFastGradientClipping

from dppm_model.mechanism import gradients
from dppm_model.mechanism.gradients import Method, clipped_sum
from dppm_model.mechanism.quantize import Grid
from dppm_model.score.gradient import denoising_losses
from dppm_model.score.networks import first_weights
from dppm_model.score.residual import ResidualConfig
from dppm_model.score.weights import set_weights
from tests.benchmarks.runner import benchmark, medians

RECORDS, REPEATS, BATCH = 256, 7, 64
GRID = Grid(1.0, 1 << 24)


def problem(network: str, draws: int) -> tuple[Callable[[], torch.nn.Module], list[torch.Tensor]]:
    """A builder of the network and the inputs of `denoising_losses`."""
    config = ResidualConfig.from_dict({"network": {"kind": network}, "draws": draws})
    band, _ = config.build((1, 28, 28), 10)
    generator = torch.Generator().manual_seed(0)
    size = (RECORDS, draws, *band.small)
    z, base, target = (torch.randn(size, generator=generator) for _ in range(3))
    sigma = torch.rand((RECORDS, draws), generator=generator) + 0.2
    y = torch.randint(10, (RECORDS, 1), generator=generator).expand(RECORDS, draws)

    def build() -> torch.nn.Module:
        net = config.build((1, 28, 28), 10)[1]
        set_weights(net.parameters(), (first_weights(net, 0) + 0.01).numpy())
        return net

    return build, [z, base, sigma, y, target]


def peers(network: str, draws: int) -> dict[str, Callable[[], object]]:
    """Name -> function that goes through all records once."""
    build, inputs = problem(network, draws)
    plain = build()
    batches = list(zip(*(torch.split(x, BATCH) for x in inputs), strict=True))

    def batch_gradient() -> None:
        for batch in batches:
            loss = denoising_losses(plain, *batch).mean()
            torch.autograd.grad(loss, list(plain.parameters()))

    def ours(method: Method, chunk: int) -> Callable[[], object]:
        def run() -> None:
            gradients.CHUNK = chunk
            clipped_sum(plain, denoising_losses, inputs, GRID, method=method)

        return run

    found: dict[str, Callable[[], object]] = {
        "plain batch gradient": batch_gradient,
        "factors, chunks of 16": ours("factors", 16),
        "factors, chunks of 32": ours("factors", 32),
        "factors, chunks of 64": ours("factors", 64),
        "vmap, chunks of 16": ours("vmap", 16),
        "vmap, chunks of 64": ours("vmap", 64),
    }
    if draws > 1:
        return found
    hooked = GradSampleModule(build(), loss_reduction="sum")
    ghost = GradSampleModuleFastGradientClipping(
        build(), loss_reduction="sum", max_grad_norm=1.0, use_ghost_clipping=True
    )
    optimizer = torch.optim.SGD(ghost.parameters(), lr=0.0)

    def opacus_hooks() -> None:
        for batch in batches:
            denoising_losses(hooked, *batch).sum().backward()
            samples = [p.grad_sample for p in hooked.parameters()]
            norm = torch.stack([s.flatten(1).norm(dim=1) for s in samples]).norm(dim=0)
            factor = 1 / norm.clamp(min=1.0)
            for s in samples:
                torch.einsum("n,n...->...", factor, s)
            hooked.zero_grad()

    def opacus_ghost() -> None:
        for batch in batches:
            losses = denoising_losses(ghost, *batch)
            DPTensorFastGradientClipping(ghost, optimizer, losses, "sum").backward()
            optimizer.zero_grad()

    return found | {"opacus hooks": opacus_hooks, "opacus ghost clipping": opacus_ghost}


def measure() -> dict[str, Any]:
    """Time every peer in turn, several times over."""
    torch.set_num_threads(1)
    figures: dict[str, dict[str, float]] = {}
    for network, draws in (("conv", 1), ("conv", 2), ("dct_mlp", 2)):
        seconds = medians(peers(network, draws), REPEATS)
        speed = {name: RECORDS / median for name, median in seconds.items()}
        figures[f"{network}, K = {draws}"] = speed
        print(f"{network}, K = {draws}")
        for name, value in speed.items():
            ratio = speed["plain batch gradient"] / value
            print(f"  {name:24s} {value:8.0f} records/s, {ratio:5.2f} x a plain batch gradient")
    return {"records_per_second": figures, "threads": 1, "batch": BATCH}


if __name__ == "__main__":
    benchmark(measure)
