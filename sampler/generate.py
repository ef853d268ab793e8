"""Images of every class into a folder: what is there is kept, what is missing is drawn.

Workers draw, this process writes: a cluster needs no shared disk, and a shard is on disk whole or
not at all. Who draws is the business of `sampler.pool`.
"""

from __future__ import annotations

import hashlib
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dppm_model.bounds import Whole
from dppm_model.files import write_bytes
from dppm_model.progress import Progress, silent
from sampler import images
from sampler.draw import Loader, Worker, load_model, read_model
from sampler.images import read_shard, shard_path, shards_of
from sampler.pool import Draws, PoolSettings, on_ray
from sampler.settings import SamplerSettings


@dataclass(frozen=True)
class GenerateResult:
    """What `generate` did."""

    # images in the folder, and how many of them are new
    images: int
    made: int
    seconds: float  # wall time
    # mean acceptance probability over all images and levels; None for Heun's method
    acceptance: float | None
    divergences: int  # trajectories whose energy error was out of all proportion
    # peak memory of a worker in MB (of this process, without Ray); None if nothing was drawn
    memory: float | None = None


def generate(
    model: Path,
    out: Path,
    *,
    per_class: int,
    seed: int,
    settings: SamplerSettings,
    privacy: dict[str, Any],
    pool: PoolSettings | None = None,
    png: bool = False,
    shard_size: int | None = None,
    loader: Loader = load_model,
    progress: Progress = silent,
) -> GenerateResult:
    """Fill ``out`` with ``per_class`` images of every class; what is there and valid is kept.

    Interrupted at any point, the same call goes on where it stopped.

    Parameters
    ----------
    model
        Score model file.
    seed
        In [0, 2^63): the same seed gives the same images, whatever the workers, on one kind of
        device.
    privacy
        What the manifest shall say of the model's privacy.
    pool
        Who draws; None: the defaults.
    png
        Also write PNG files into a folder per class.
    shard_size
        Images of a shard, which are one batch: part of what decides the images' last bits. None:
        `sampler.images.shard_size`.
    loader
        Makes the model from the file's content, in each worker.

    Raises
    ------
    ConfigError
        If ``per_class``, ``seed`` or ``shard_size`` is out of range.
    ModelError
        If the model file cannot be read.
    RunFolderError
        If ``out`` holds images of another model or other settings.
    SamplerError
        If Ray does not start, a worker dies at the same shard again and again, or values are not
        finite.
    """
    begun, pool = time.monotonic(), pool or PoolSettings()
    Whole(1).check("sampler.per_class", per_class)
    Whole(0).check("sampler.seed", seed)
    content = read_model(model)
    denoiser = loader(content)
    size = images.shard_size(denoiser.image_shape) if shard_size is None else shard_size
    Whole(1).check("sampler.shard_size", size)
    wanted = {
        "model": hashlib.sha256(content).hexdigest(),
        "settings": settings.to_dict(),
        "seed": seed,
        "classes": denoiser.classes,
        "shape": list(denoiser.image_shape),
        "shard_size": size,
        "threads": pool.threads,
        "device": pool.device.partition(":")[0],
        "privacy": privacy,
        "per_class": per_class,
    }
    manifest = images.open_output(out, wanted)
    shards = shards_of(denoiser.classes, per_class, size)
    todo = [s for s in shards if read_shard(out, s, manifest["shards"].get(s.name)) is None]
    total = denoiser.classes * per_class
    made = sum(s.count for s in todo)
    done = total - made
    progress(f"{done} of {total} images", done / total)
    memory: list[float] = []
    if todo:
        here = Worker(loader, pool.threads, pool.device)
        if pool.workers == 0:  # as a worker of Ray would: the same kernels and bits
            draws: Draws = ((s, here.draw(content, s, seed, settings)) for s in todo)
        else:
            draws = on_ray((loader, content), todo, seed, settings, pool, memory.append)
        with closing(draws):
            for shard, drawn in draws:
                write_bytes(shard_path(out, shard), drawn)
                done += shard.count
                progress(f"{done} of {total} images", done / total)
        if pool.workers == 0:
            memory.append(here.peak_memory())
    figures = images.figures_of(out, shards)
    images.close_output(out, manifest, figures)
    if png:
        images.export_png(out)
    seconds = time.monotonic() - begun
    return GenerateResult(total, made, seconds, **figures, memory=max(memory, default=None))
