"""Pre-training of the upsampler on drawn shapes, without data.

    python -m dppm_model.training.synthetic_pretraining    # rebuilds shapes.safetensors

`dppm_model/score/shapes.safetensors` holds the result, so every run starts from the same weights.
They cost no privacy, and a run says in its ``privacy.json`` that it used them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file

from dppm_model.score.gradient import denoising_losses
from dppm_model.score.networks import first_weights
from dppm_model.score.public_weights import SHIPPED
from dppm_model.score.pyramid import KINDS, PyramidConfig, build_upsampler
from dppm_model.score.pyramid_query import questions
from dppm_model.training.shapes import shape_crops

STEPS = {1: 10_000, 3: 6_000}  # by the number of channels
_BATCH, _CROPS = 16, 4  # records of a step, and crops of each
_RATE, _WARMUP, _LEAST_RATE = 4e-3, 100, 0.01  # of Adam; the last is a share, reached at the end
_MOST_GRADIENT = 1.0
_SEED = 0


def train_on_shapes(
    colours: int,
    steps: int,
    progress: Callable[[int, float], None] = lambda _step, _loss: None,
) -> NDArray[np.float32]:
    """Train on batches of drawn shapes; return the same weights (d,) each time.

    Parameters
    ----------
    progress
        Called with the step and its loss.
    """
    config = PyramidConfig(stages=_CROPS)
    generator = torch.Generator().manual_seed(_SEED)
    network = build_upsampler(colours, {}).requires_grad_(True)
    with torch.no_grad():
        torch.nn.utils.vector_to_parameters(first_weights(network, _SEED), network.parameters())
    optimizer = torch.optim.Adam(network.parameters(), lr=1.0, betas=(0.9, 0.99))

    def rate(step: int) -> float:
        share = (1 + math.cos(math.pi * step / steps)) / 2
        height = _RATE * min(1, (step + 1) / _WARMUP)
        return height * (_LEAST_RATE + (1 - _LEAST_RATE) * share)

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    for step in range(steps):
        crops = shape_crops(_BATCH, _CROPS, colours, generator)
        seeds = torch.randint(2**63 - 1, (_BATCH,), generator=generator)
        loss = denoising_losses(network, *questions(crops, seeds, config)).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), _MOST_GRADIENT)
        optimizer.step()
        schedule.step()
        progress(step, loss.item())
    weights: NDArray[np.float32] = (
        torch.nn.utils.parameters_to_vector(network.parameters()).detach().numpy()
    )
    return weights


def main() -> None:
    """Train for grey and for RGB images, and write the file."""
    torch.set_num_threads(1)  # more threads are hardly faster on small products, and change bits

    def say(step: int, loss: float) -> None:
        if step % 500 == 499:
            print(f"step {step + 1}: loss {loss:.3f}", flush=True)

    weights = {
        name: train_on_shapes(colours, STEPS[colours], progress=say).astype(np.float16)
        for colours, name in KINDS.items()
    }
    save_file(weights, SHIPPED / "shapes.safetensors")


if __name__ == "__main__":
    main()
