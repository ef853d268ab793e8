"""Many workers, one queue of shards: Ray actors that may die, work that may be repeated.

The only file that knows Ray. Workers draw, this process writes: a cluster needs no shared disk, and
a shard is on disk whole or not at all. A shard is a pure function of (model, settings, seed, name),
so a lost worker, a second attempt or another number of workers changes nothing in the images.
"""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from dppm_model.errors import ConfigError, SamplerError
from dppm_model.files import write_bytes
from dppm_model.score.model import Denoiser
from sampler import images
from sampler.draw import Loader, draw_shard, load_model, one_thread, read_model
from sampler.images import Shard, read_shard, shard_path, shards_of
from sampler.settings import SamplerSettings

SHARD_SIZE = 100
_RETRIES = 3  # a shard whose worker dies this often again is given up


@dataclass(frozen=True)
class GenerateResult:
    """What `generate` did.

    Attributes
    ----------
    images, made
        Images in the folder, and how many of them are new.
    seconds
        Wall time.
    acceptance
        Mean acceptance probability over all images and levels; None for Heun's method.
    divergences
        Trajectories whose energy error was out of all proportion.
    """

    images: int
    made: int
    seconds: float
    acceptance: float | None
    divergences: int


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
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> GenerateResult:
    """Fill ``out`` with ``per_class`` images of every class; what is there and valid is kept.

    Interrupted at any point, the same call goes on where it stopped.

    Parameters
    ----------
    model
        Score model file.
    seed
        In [0, 2^63): the same seed gives the same images, whatever the workers.
    privacy
        What the manifest shall say of the model's privacy.
    workers
        Actors; None takes one per core (of the cluster, if there is one), 0 works in this process
        without Ray.
    address
        A Ray cluster (`ray://…` or `host:port`) on whose nodes this project is installed; None
        starts a private one on this machine and ends it again.
    png
        Also write PNG files into a folder per class.
    shard_size
        Images of a shard, which are one batch: part of what decides the images' last bits.
    loader
        Makes the model from the file's content, in each worker.
    progress
        Called with (images there, images asked for).

    Raises
    ------
    ConfigError
        If ``per_class``, ``seed``, ``workers`` or ``shard_size`` is out of range.
    ModelError
        If the model file cannot be read.
    RunFolderError
        If ``out`` holds images of another model or other settings.
    SamplerError
        If Ray does not start, a worker dies at the same shard again and again, or values are not
        finite.
    """
    begun = time.monotonic()
    _check(per_class=(per_class, 1), seed=(seed, 0), shard_size=(shard_size, 1))
    _check(workers=(0 if workers is None else workers, 0))
    content = read_model(model)
    denoiser = loader(content)
    wanted = {
        "model": hashlib.sha256(content).hexdigest(),
        "settings": settings.to_dict(),
        "seed": seed,
        "classes": denoiser.classes,
        "shape": list(denoiser.shape),
        "shard_size": shard_size,
        "privacy": privacy,
        "per_class": per_class,
    }
    manifest = images.open_output(out, wanted)
    shards = shards_of(denoiser.classes, per_class, shard_size)
    todo = [s for s in shards if read_shard(out, s, manifest["shards"].get(s.name)) is None]
    total = denoiser.classes * per_class
    made = sum(s.count for s in todo)
    done = total - made
    progress(done, total)
    if todo:
        draws = (
            _in_process(denoiser, todo, seed, settings)
            if workers == 0
            else _on_ray((loader, content), todo, seed, settings, workers, address)
        )
        with closing(draws):
            for shard, drawn in draws:
                write_bytes(shard_path(out, shard), drawn)
                done += shard.count
                progress(done, total)
    figures = images.figures_of(out, shards)
    images.close_output(out, manifest, figures)
    if png:
        images.export_png(out)
    return GenerateResult(total, made, time.monotonic() - begun, **figures)


def _check(**values: tuple[object, int]) -> None:
    """Refuse what is not a whole number in [least, 2^63)."""
    for name, (value, least) in values.items():
        if type(value) is not int or not least <= value < 2**63:
            raise ConfigError(
                f"sampler.{name} is {value!r}.", f"Give a whole number, {least} or more."
            )


Draws = Generator[tuple[Shard, bytes], None, None]
Draw = Callable[[Shard, int, SamplerSettings], bytes]


def _in_process(model: Denoiser, todo: list[Shard], seed: int, settings: SamplerSettings) -> Draws:
    """Draw one shard after the other, on one thread as a worker does: the same kernels and bits."""
    with one_thread():
        for shard in todo:
            yield shard, draw_shard(model, shard, seed, settings)


class _Worker:
    """What an actor runs: a model in memory, one thread, one shard at a time."""

    def __init__(self, loader: Loader) -> None:
        torch.set_num_threads(1)
        self._loader = loader
        self._model: Denoiser | None = None

    def draw(self, content: bytes, shard: Shard, seed: int, settings: SamplerSettings) -> bytes:
        """Draw one shard; see `draw_shard`."""
        if self._model is None:  # the first call of this process, which may be a second life
            self._model = self._loader(content)
        return draw_shard(self._model, shard, seed, settings)


@contextmanager
def _ray(address: str | None, workers: int | None) -> Iterator[Any]:
    """Give Ray: the caller's if it is up, else a cluster's, else a private one on loopback."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    if ray.is_initialized():
        yield ray
        return
    private = {
        "address": "local",
        "num_cpus": workers or os.cpu_count(),
        "include_dashboard": False,
        "object_store_memory": 128 * 1024**2,
        "_node_ip_address": "127.0.0.1",
    }
    where = private if address is None else {"address": address}
    if address is not None:
        _knock(address)
    try:
        try:
            ray.init(**where, log_to_driver=False, logging_level="ERROR")
        except (RuntimeError, ValueError, OSError, ray.exceptions.RayError) as error:
            raise SamplerError(
                f"Ray did not start: {error}", "Check sampler.address, or use sampler.workers=0."
            ) from None
        yield ray
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Refuse at once what Ray would try for minutes: an address at which nobody listens."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except OSError as error:
            raise SamplerError(
                f"No Ray cluster answers at {address} ({error.strerror or error}).",
                "Check sampler.address; null starts a private Ray on this machine.",
            ) from None


def _on_ray(
    model: tuple[Loader, bytes],
    todo: list[Shard],
    seed: int,
    settings: SamplerSettings,
    workers: int | None,
    address: str | None,
) -> Draws:
    """Hand shards to actors as they become free; yield what they drew, in any order."""
    loader, content = model
    with _ray(address, workers) as ray:
        count = min(workers or int(ray.cluster_resources().get("CPU", 1)), len(todo))
        stored = ray.put(content)
        free = _actors(ray, loader, count)
        queue = list(reversed(todo))
        running: dict[Any, tuple[Any, Shard]] = {}
        while queue or running:
            while queue and free:
                actor, shard = free.pop(), queue.pop()
                running[actor.draw.remote(stored, shard, seed, settings)] = (actor, shard)
            (finished,), _ = ray.wait(list(running))
            actor, shard = running.pop(finished)
            drawn = _result(ray, finished, shard)
            free.append(actor)
            yield shard, drawn


def _actors(ray: Any, loader: Loader, count: int) -> list[Any]:
    """Start workers. Ray starts a dead one anew and repeats its call: drawing twice is no harm."""
    actor_class = ray.remote(num_cpus=1, max_restarts=-1, max_task_retries=_RETRIES)(_Worker)
    return [actor_class.remote(loader) for _ in range(count)]


def _result(ray: Any, finished: Any, shard: Shard) -> bytes:
    """Wait for what an actor drew; its refusals come back in their own words."""
    try:
        drawn: bytes = ray.get(finished)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayActorError:
        raise SamplerError(
            f"The worker died {1 + _RETRIES} times at {shard.name}.",
            "It may lack memory: use fewer sampler.workers.",
        ) from None
    return drawn


@contextmanager
def crew(
    content: bytes, workers: int, *, address: str | None = None, loader: Loader = load_model
) -> Iterator[list[Draw]]:
    """Give one function for each worker, which blocks until its shard is drawn: for a service.

    The same workers as those of `generate` (0: one, in this process), hence the same bits.
    """
    _check(workers=(workers, 0))
    if workers == 0:
        with one_thread():
            yield [partial(_Worker(loader).draw, content)]
        return
    with _ray(address, workers) as ray:
        stored = ray.put(content)

        def draw(actor: Any, shard: Shard, seed: int, settings: SamplerSettings) -> bytes:
            return _result(ray, actor.draw.remote(stored, shard, seed, settings), shard)

        yield [partial(draw, actor) for actor in _actors(ray, loader, workers)]
