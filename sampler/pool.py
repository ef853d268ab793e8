"""Many workers, one queue of shards: Ray actors that may die, work that may be repeated.

The only file that knows Ray. A shard is made by a pure function of (model, settings, seed, shard),
so a lost actor, a second attempt or another number of workers changes nothing in the images.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from dppm_model.errors import SamplerError
from dppm_model.records.pixels import to_pixels
from dppm_model.score.model import Denoiser, ScoreModel
from sampler.images import Shard, open_output, read_shard, shards_of, write_png, write_shard
from sampler.noise import ImageNoise
from sampler.settings import SamplerSettings
from sampler.solvers import SAMPLERS

Progress = Callable[[int, int], None]
Loader = Callable[[str], Denoiser]
SHARD_SIZE = 100
_ATTEMPTS = 3


def load_model(path: str) -> Denoiser:
    """Load a score model file: the loader that workers use outside tests."""
    return ScoreModel.load(Path(path))


def make_shard(
    model: Denoiser, out: Path, shard: Shard, seed: int, settings: SamplerSettings, png: bool
) -> int:
    """Draw and write one shard; return its number of images."""
    begun = time.monotonic()
    noise = ImageNoise(seed, [(shard.label, shard.first + i) for i in range(shard.count)])
    y = torch.full((shard.count,), shard.label, dtype=torch.int64)
    with torch.inference_mode():
        x, info = SAMPLERS[settings.method](model, y, noise, settings)
    if not torch.isfinite(x).all():
        raise SamplerError(
            f"{shard.name} came out with values that are not finite.", "Lower sampler.step."
        )
    images = to_pixels(x)
    if png:
        write_png(out, shard, images)
    write_shard(out, shard, images, {**info, "seconds": round(time.monotonic() - begun, 3)})
    return shard.count


class Worker:
    """What an actor runs: a model in memory, one thread, one shard at a time."""

    def __init__(self, loader: Loader, model: str, threads: int) -> None:
        torch.set_num_threads(threads)
        self._model = loader(model)

    def pid(self) -> int:
        """Return the process id, so that a test can kill it."""
        return os.getpid()

    def make(self, out: str, shard: Shard, seed: int, settings: SamplerSettings, png: bool) -> int:
        """Make one shard; see `make_shard`."""
        return make_shard(self._model, Path(out), shard, seed, settings, png)


def generate(
    model: Path,
    out: Path,
    *,
    per_class: int,
    seed: int,
    settings: SamplerSettings,
    privacy: dict[str, Any],
    workers: int | None = None,
    address: str | None = None,
    png: bool = False,
    shard_size: int = SHARD_SIZE,
    loader: Loader = load_model,
    progress: Progress = lambda _done, _total: None,
) -> None:
    """Fill ``out`` with ``per_class`` images of every class; what is there and valid is kept.

    Parameters
    ----------
    model
        Score model file.
    privacy
        What the manifest says of the model's privacy.
    workers
        Actors; None takes one per core, 0 works in this process without Ray (same images).
    address
        A Ray cluster (`ray://…` or `host:port`); None starts a local one and ends it again.

    Raises
    ------
    RunFolderError
        If ``out`` holds images of another model or other settings.
    SamplerError
        If Ray does not start, or a shard fails again and again.
    """
    denoiser = loader(str(model))
    content = model.read_bytes() if model.is_file() else str(model).encode()
    open_output(
        out,
        {
            "model": hashlib.sha256(content).hexdigest(),
            "settings": settings.to_dict(),
            "seed": seed,
            "classes": denoiser.classes,
            "shape": list(denoiser.shape),
            "shard_size": shard_size,
            "privacy": privacy,
            "per_class": per_class,
        },
    )
    shards = shards_of(denoiser.classes, per_class, shard_size)
    todo = [shard for shard in shards if read_shard(out, shard) is None]
    total = sum(s.count for s in shards)
    done = total - sum(s.count for s in todo)
    progress(done, total)
    if not todo:
        return
    if workers == 0:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as in an actor: the same kernels, the same bits
        try:
            for shard in todo:
                done += make_shard(denoiser, out, shard, seed, settings, png)
                progress(done, total)
        finally:
            torch.set_num_threads(threads)
        return
    arguments = (str(out.resolve()), seed, settings, png)
    count = min(workers or os.cpu_count() or 1, len(todo))
    for made in _on_ray(todo, arguments, count, address, loader, str(model.resolve())):
        done += made
        progress(done, total)


@contextmanager
def _ray(address: str | None, cpus: int) -> Iterator[Any]:
    """Connect to a cluster, or start a private one on the loopback address and end it."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    try:
        if address is None:
            ray.init(
                address="local",
                num_cpus=cpus,
                include_dashboard=False,
                object_store_memory=128 * 1024**2,
                log_to_driver=False,
                logging_level="ERROR",
                _node_ip_address="127.0.0.1",
            )
        else:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise SamplerError(
            f"Ray did not start: {error}", "Check sampler.address, or use sampler.workers=0."
        ) from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _on_ray(
    todo: list[Shard],
    arguments: tuple[str, int, SamplerSettings, bool],
    count: int,
    address: str | None,
    loader: Loader,
    model: str,
) -> Iterator[int]:
    """Hand shards to actors as they become free; yield the number of images of each."""
    out, seed, settings, png = arguments
    with _ray(address, count) as ray:
        remote = ray.remote(num_cpus=1, max_restarts=-1)(Worker)
        actors = [remote.remote(loader, model, 1) for _ in range(count)]
        queue = list(reversed(todo))
        attempts: dict[Shard, int] = {}
        running: dict[Any, tuple[Any, Shard]] = {}

        def hand_out(actor: Any) -> None:
            if queue:
                shard = queue.pop()
                running[actor.make.remote(out, shard, seed, settings, png)] = (actor, shard)

        for actor in actors:
            hand_out(actor)
        while running:
            (finished,), _ = ray.wait(list(running), num_returns=1)
            actor, shard = running.pop(finished)
            try:
                yield ray.get(finished)
            except ray.exceptions.RayActorError:  # the worker died; the shard is made again
                attempts[shard] = attempts.get(shard, 0) + 1
                if attempts[shard] >= _ATTEMPTS:
                    raise SamplerError(
                        f"The worker died {_ATTEMPTS} times at {shard.name}.",
                        "It may lack memory: use fewer sampler.workers.",
                    ) from None
                queue.append(shard)
            except ray.exceptions.RayTaskError as error:
                raise error.as_instanceof_cause() from None
            hand_out(actor)
