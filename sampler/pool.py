"""Many workers, one queue of shards: Ray actors that may die, work that may be repeated.

The only file that knows Ray. A shard is a pure function of (model, settings, seed, name), so a lost
worker, a second attempt or another number of workers changes nothing in the images.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import torch

from dppm_model.bounds import Whole
from dppm_model.errors import SamplerError
from dppm_model.score.denoiser import ImageModel
from sampler.draw import Loader, draw_shard, load_model, on_threads
from sampler.images import Shard
from sampler.settings import SamplerSettings

_RETRIES = 3  # a shard whose worker dies this often again is given up
_PATIENCE = 5.0  # seconds without news, before anybody is thought to be late


Draws = Generator[tuple[Shard, bytes], None, None]
Draw = Callable[[Shard, int, SamplerSettings], bytes]


def peak_memory() -> float:
    """Return the most memory that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class _Worker:
    """What an actor runs: a model in memory, its own threads, one shard at a time."""

    def __init__(self, loader: Loader, threads: int = 1) -> None:
        torch.set_num_threads(threads)
        self._loader = loader
        self._model: ImageModel | None = None

    def peak_memory(self) -> float:
        """See the function of this name."""
        return peak_memory()

    def draw(self, content: bytes, shard: Shard, seed: int, settings: SamplerSettings) -> bytes:
        """Draw one shard; see `draw_shard`."""
        if self._model is None:  # the first call of this process, which may be a second life
            self._model = self._loader(content)
        return draw_shard(self._model, shard, seed, settings)


@contextmanager
def _ray(address: str | None, cores: int | None) -> Iterator[Any]:
    """Give Ray: the caller's if it is up, else a cluster's, else a private one on loopback."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray would put its workers behind everything else on the machine: beside one busy program
    # they would get a thirtieth of the time. Of a cluster, whoever starts it decides.
    os.environ.setdefault("RAY_worker_niceness", "0")
    import ray

    if ray.is_initialized():
        yield ray
        return
    private = {
        "address": "local",
        "num_cpus": cores or os.cpu_count(),
        "include_dashboard": False,
        "object_store_memory": 128 * 1024**2,
        "_node_ip_address": "127.0.0.1",
    }
    where = private if address is None else {"address": address}
    if address is not None:
        _knock(address)
    try:
        try:
            with _same_sigterm():
                ray.init(**where, log_to_driver=False, logging_level="ERROR")
        except (RuntimeError, ValueError, OSError, ray.exceptions.RayError) as error:
            raise SamplerError(
                f"Ray did not start: {error}", "Check pool.address, or use pool.workers=0."
            ) from None
        yield ray
    finally:
        ray.shutdown()


@contextmanager
def _same_sigterm() -> Iterator[None]:
    """Keep the caller's SIGTERM handler: Ray puts one that leaves without closing anything."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _knock(address: str) -> None:
    """Refuse at once what Ray would try for minutes: an address at which nobody listens."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except OSError as error:
            raise SamplerError(
                f"No Ray cluster answers at {address} ({error.strerror or error}).",
                "Check pool.address; null starts a private Ray on this machine.",
            ) from None


def on_ray(
    model: tuple[Loader, bytes],
    todo: list[Shard],
    seed: int,
    settings: SamplerSettings,
    workers: int | None,
    address: str | None,
    threads: int,
    note_memory: Callable[[float], None] = lambda _megabytes: None,
) -> Draws:
    """Hand shards to actors as they become free; yield what they drew, in any order.

    At the end ``note_memory`` is called with each living worker's peak memory, in MB.

    An actor whose node is gone may wait for another one for ever. So, once no shard is left to be
    handed out, one that takes far longer than those before is given to a free actor as well; the
    first to come counts (backup tasks; Dean and Ghemawat 2004, section 3.6).
    """
    loader, content = model
    with _ray(address, workers and workers * threads) as ray:
        fit = int(ray.cluster_resources().get("CPU", 1)) // threads
        if not workers and not fit:
            raise SamplerError(
                f"No worker with pool.threads={threads} fits on these cores.",
                "Use fewer pool.threads.",
            )
        count = min(workers or fit, len(todo))
        stored = ray.put(content)
        free = _actors(ray, loader, count, threads, retries=0)
        queue, left = list(reversed(todo)), {shard.name for shard in todo}
        running: dict[Any, tuple[Any, Shard, float]] = {}  # since when
        slowest, deaths = _PATIENCE, Counter[str]()
        while left:
            while free and queue:
                actor, shard = free.pop(), queue.pop()
                ref = actor.draw.remote(stored, shard, seed, settings)
                running[ref] = (actor, shard, time.monotonic())
            finished, _ = ray.wait(list(running), timeout=_PATIENCE)
            if not finished:
                if free:  # hence the queue is empty: a second copy of what is late, no third
                    queue = _late(running.values(), 3 * slowest)
                continue
            actor, shard, since = running.pop(finished[0])
            if shard.name not in left:  # the other copy was faster
                free.append(actor)
                continue
            try:
                drawn = _result(ray, finished[0], shard)
            except _WorkerDied as error:
                deaths[shard.name] += 1
                if deaths[shard.name] > _RETRIES:
                    raise error.refusal(1 + _RETRIES) from None
                ray.kill(actor)
                # A new one may wait for room: it comes after those that live.
                free[:0] = _actors(ray, loader, 1, threads, retries=0)
                queue.append(shard)
                continue
            slowest = max(slowest, time.monotonic() - since)
            free.append(actor)
            left.remove(shard.name)
            yield shard, drawn
        for actor, _, _ in running.values():
            ray.kill(actor)
        asked = [actor.peak_memory.remote() for actor in free]
        answered, _ = ray.wait(asked, num_returns=len(asked), timeout=_PATIENCE)
        for ref in answered:
            with suppress(ray.exceptions.RayError):  # it died meanwhile; its images are there
                note_memory(ray.get(ref))


def _late(running: Iterable[tuple[Any, Shard, float]], seconds: float) -> list[Shard]:
    """Shards that one actor alone has had for longer than ``seconds``."""
    held = Counter(shard for _, shard, _ in running)
    oldest = time.monotonic() - seconds
    return [shard for _, shard, since in running if since < oldest and held[shard] == 1]


class _WorkerDied(Exception):
    """The process of a worker, or its node, is gone."""

    def __init__(self, shard: Shard) -> None:
        super().__init__(shard.name)
        self._shard = shard

    def refusal(self, times: int) -> SamplerError:
        """What to tell a person after so many deaths."""
        return SamplerError(
            f"The worker died {times} times at {self._shard.name}.",
            "It may lack memory: use fewer pool.workers.",
        )


def _actors(ray: Any, loader: Loader, count: int, threads: int, *, retries: int) -> list[Any]:
    """Start workers; with ``retries`` Ray starts a dead one anew and repeats its call."""
    restarts = -1 if retries else 0
    options = {"num_cpus": threads, "max_restarts": restarts, "max_task_retries": retries}
    actor_class = ray.remote(**options)(_Worker)
    return [actor_class.remote(loader, threads) for _ in range(count)]


def _result(ray: Any, finished: Any, shard: Shard) -> bytes:
    """Wait for what an actor drew; its refusals come back in their own words."""
    try:
        drawn: bytes = ray.get(finished)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayActorError:
        raise _WorkerDied(shard) from None
    return drawn


@contextmanager
def crew(
    content: bytes, workers: int, *, address: str | None = None, loader: Loader = load_model
) -> Iterator[list[Draw]]:
    """Give one function for each worker, which blocks until its shard is drawn: for a service.

    The same workers as those of `generate` (0: one, in this process), hence the same bits.
    """
    Whole(0).check("pool.workers", workers)
    if workers == 0:
        with on_threads(1):
            yield [partial(_Worker(loader).draw, content)]
        return
    with _ray(address, workers) as ray:
        stored = ray.put(content)

        def draw(actor: Any, shard: Shard, seed: int, settings: SamplerSettings) -> bytes:
            try:
                return _result(ray, actor.draw.remote(stored, shard, seed, settings), shard)
            except _WorkerDied as error:
                raise error.refusal(1 + _RETRIES) from None

        yield [partial(draw, a) for a in _actors(ray, loader, workers, 1, retries=_RETRIES)]
