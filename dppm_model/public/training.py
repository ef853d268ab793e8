"""Public pre-training: one network for many closed forms, from images that are nobody's secret.

Each step takes one task, draws images, noise levels and noise, and lowers the denoising loss in the
closed form's unit, |D - x|²/s² (Karras et al. 2022; `dppm_model.score.precondition`). Tasks are
replaced as training goes on. All draws are by the seed and the number of the step or task, so that
a stopped training goes on as if it had not been stopped, but for the noise of the closed forms,
which is the system's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dppm_model.errors import ConfigError
from dppm_model.public.tasks import Task, draw_task
from dppm_model.records.shards import Records
from dppm_model.score.pretrained_network import (
    PretrainedNetwork,
    first_weights,
    network_inputs,
)

_BATCH = 48
_POOL, _PERIOD = 40, 100  # tasks that are there, and steps until one is replaced
_RATE, _WARMUP, _LEAST_RATE, _DECAY = 2e-3, 200, 0.02, 1e-4  # AdamW's
_EMA = 0.999
_CENTRE, _SPREAD, _SIGMAS = -1.0, 1.2, (0.02, 8.0)  # ln sigma is normal (Karras et al. 2022)
_TINY = 1e-4  # of an error's square: below it nothing can be seen
_SAVE = 250  # steps


def denoising_loss(
    network: nn.Module, task: Task, count: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the loss of the network, and of the closed form alone, on drawn images of a task."""
    index = torch.randint(len(task.labels), (count,), generator=generator)
    clean = task.images[index].float() / 127.5 - 1
    y = task.labels[index]
    sigma = torch.exp(_CENTRE + _SPREAD * torch.randn(count, generator=generator)).clamp(*_SIGMAS)
    noise = torch.randn(clean.shape, generator=generator)
    noisy = clean + sigma[:, None, None, None] * noise
    with torch.no_grad():
        inputs = network_inputs(noisy, sigma, y, task.mixture, task.maps)
    error = inputs[-1][:, None, None, None]
    weight = error**2 / (error**2 + _TINY)
    target = (clean - inputs[1]) / error
    with torch.autocast("cpu", torch.bfloat16):  # a third faster; weights and sums stay float32
        found = network(*inputs).float()
    return (weight * (found - target) ** 2).mean(), (weight * target**2).mean()


def train_public(
    size: str,
    sets: Sequence[Records],
    steps: int,
    checkpoint: Path,
    seed: int = 0,
    progress: Callable[[int, float, float], None] = lambda _step, _loss, _closed: None,
) -> PretrainedNetwork:
    """Train a network; goes on from the checkpoint if there is one.

    Parameters
    ----------
    size
        See `dppm_model.score.pretrained_network.SIZES`.
    progress
        Called with the step, its loss, and the closed form's.

    Raises
    ------
    ConfigError
        If the checkpoint is of another training.
    """
    asked = {
        "size": size,
        "sets": [records.manifest.digest for records in sets],
        "steps": steps,
        "seed": seed,
    }
    network, average = PretrainedNetwork(size), PretrainedNetwork(size)
    first_weights(network, torch.Generator().manual_seed(seed))
    average.load_state_dict(network.state_dict())
    optimizer = torch.optim.AdamW(network.parameters(), lr=_RATE, weight_decay=_DECAY)
    done = 0
    if checkpoint.is_file():
        state: dict[str, Any] = torch.load(checkpoint, weights_only=True)
        if state["asked"] != asked:
            raise ConfigError(
                f"{checkpoint} was begun with other data, size, steps or seed.",
                "Give the same to go on, choose another name, or delete the file.",
            )
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        done = state["step"]
    tasks = [draw_task(sets, (seed, _number(slot, done))) for slot in range(_POOL)]
    for step in range(done, steps):
        if step and step % _PERIOD == 0:
            slot = step // _PERIOD % _POOL
            tasks[slot] = draw_task(sets, (seed, _number(slot, step)))
        generator = torch.Generator().manual_seed((seed << 32) + step)
        task = tasks[int(torch.randint(_POOL, (), generator=generator))]
        loss, closed = denoising_loss(network, task, _BATCH, generator)
        for group in optimizer.param_groups:
            group["lr"] = _rate(step, steps)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        keep = min(_EMA, (step + 1) / (step + 10))
        with torch.no_grad():
            for a, b in zip(average.parameters(), network.parameters(), strict=True):
                a.lerp_(b, 1 - keep)
        progress(step, loss.item(), closed.item())
        if (step + 1) % _SAVE == 0 or step + 1 == steps:
            state = {"asked": asked, "step": step + 1, "optimizer": optimizer.state_dict()}
            state |= {"network": network.state_dict(), "average": average.state_dict()}
            _save(checkpoint, state)
    return average


def _number(slot: int, step: int) -> int:
    """Return the number of the task in a slot at a step: the k-th new one goes to slot k."""
    last = step // _PERIOD - (step // _PERIOD - slot) % _POOL
    return _POOL + last if last > 0 else slot


def _rate(step: int, steps: int) -> float:
    cosine = (1 + math.cos(math.pi * step / steps)) / 2
    return _RATE * min(1.0, (step + 1) / _WARMUP) * (_LEAST_RATE + (1 - _LEAST_RATE) * cosine)


def _save(path: Path, state: dict[str, Any]) -> None:
    fresh = path.with_suffix(".new")
    torch.save(state, fresh)
    fresh.replace(path)
