"""Many workers, one queue of shards: Ray actors that may die, work that may be repeated.

The only file that knows Ray. A shard is a pure function of (model, settings, seed, name), so a lost
worker, a second attempt or another number of workers changes nothing in the images.

`ray.util.ActorPool` and Ray's own retries would not do: the calls of an actor whose node is gone
fail, one retry after the other, or wait for ever.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from dppm_model.bounds import Whole
from dppm_model.device import device_of
from dppm_model.errors import SamplerError
from sampler.draw import Loader, Worker, load_model
from sampler.images import Shard
from sampler.ray_folder import check_ray_folder
from sampler.settings import SamplerSettings

_RETRIES = 3  # a shard whose worker dies this often again is given up
_PATIENCE = 5.0  # seconds without news, before anybody is thought to be late

Draws = Generator[tuple[Shard, bytes], None, None]
Draw = Callable[[Shard, int, SamplerSettings], bytes]


@dataclass(frozen=True)
class PoolSettings:
    """Who draws.

    Raises ConfigError if a value is out of range, or the device is not there.
    """

    # Ray actors; None takes as many as the cores allow, or one a GPU (of the cluster, if there is
    # one); 0 works in this process without Ray
    workers: int | None = None
    # Cores of each worker. More of them help where one image is much work, and can change its last
    # bits; many workers of one thread draw more images a second.
    threads: int = 1
    # A Ray cluster (`ray://…` or `host:port`) on whose nodes this project is installed; None starts
    # a private one on this machine and ends it again
    address: str | None = None
    # See `dppm_model.device.device_of`. Workers share the GPUs that Ray finds (``cuda``), or all
    # use one of this machine (``cuda:1``).
    device: str = "auto"

    def __post_init__(self) -> None:
        Whole(0).check("pool.workers", 0 if self.workers is None else self.workers)
        Whole(1).check("pool.threads", self.threads)
        if self.address is None or self.device == "auto":  # a cluster's devices are its own
            object.__setattr__(self, "device", str(device_of(self.device)))

    def options(self, resources: dict[str, float]) -> tuple[int, dict[str, Any]]:
        """Return how many workers there are, and what Ray shall set aside for each.

        Raises SamplerError if no worker fits.

        Parameters
        ----------
        resources
            What the cluster has, as Ray says it.
        """
        options: dict[str, Any] = {"num_cpus": self.threads}
        fit = int(resources.get("CPU", 1)) // self.threads
        if self.device == "cuda":
            gpus = int(resources.get("GPU", 0))
            fit = min(fit, gpus)
            each = -(-(self.workers or fit) // max(1, gpus))  # workers on a GPU
            options["num_gpus"] = 1 / max(1, each)
        if not fit and (self.device == "cuda" or not self.workers):
            raise SamplerError(
                f"No worker with pool.threads={self.threads} on {self.device} fits this machine.",
                "Use fewer pool.threads, or another device.",
            )
        return self.workers or fit, options


def on_ray(
    model: tuple[Loader, bytes],
    todo: list[Shard],
    seed: int,
    settings: SamplerSettings,
    pool: PoolSettings,
    note_memory: Callable[[float], None] = lambda _megabytes: None,
) -> Draws:
    """Hand shards to actors as they become free; yield what they drew, in any order.

    At the end ``note_memory`` is called with each living worker's peak memory, in MB.

    An actor whose node is gone may wait for another one for ever. So, once no shard is left to be
    handed out, one that takes far longer than those before is given to a free actor as well; the
    first to come counts (backup tasks; Dean and Ghemawat 2004, section 3.6).
    """
    loader, content = model
    with _ray(pool) as ray:
        count, options = pool.options(ray.cluster_resources())
        actor_class = ray.remote(**options)(Worker)
        start = partial(actor_class.remote, loader, pool.threads, pool.device)
        free = [start() for _ in range(min(count, len(todo)))]
        stored, queue = ray.put(content), todo[::-1]
        left = {shard.name for shard in todo}
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
                drawn = _result(ray, finished[0])
            except ray.exceptions.RayActorError:
                deaths[shard.name] += 1
                if deaths[shard.name] > _RETRIES:
                    raise _given_up(shard) from None
                ray.kill(actor)
                free.insert(0, start())  # after those that live: it may wait for room
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


@contextmanager
def crew(
    content: bytes, pool: PoolSettings, *, loader: Loader = load_model
) -> Iterator[list[Draw]]:
    """Give one function for each worker, which blocks until its shard is drawn: for a service.

    The same workers as those of `generate` (0: one, in this process), hence the same bits.
    """
    if pool.workers == 0:
        yield [partial(Worker(loader, pool.threads, pool.device).draw, content)]
        return
    with _ray(pool) as ray:
        stored = ray.put(content)

        count, options = pool.options(ray.cluster_resources())
        # Ray starts a dead one again, and repeats its call.
        options |= {"max_restarts": -1, "max_task_retries": _RETRIES}
        actor_class = ray.remote(**options)(Worker)

        def draw(actor: Any, shard: Shard, seed: int, settings: SamplerSettings) -> bytes:
            try:
                return _result(ray, actor.draw.remote(stored, shard, seed, settings))
            except ray.exceptions.RayActorError:
                raise _given_up(shard) from None

        actors = [actor_class.remote(loader, pool.threads, pool.device) for _ in range(count)]
        yield [partial(draw, actor) for actor in actors]


def _result(ray: Any, finished: Any) -> bytes:
    """Wait for what an actor drew; its refusals come back in their own words."""
    try:
        drawn: bytes = ray.get(finished)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    return drawn


def _given_up(shard: Shard) -> SamplerError:
    return SamplerError(
        f"The worker died {1 + _RETRIES} times at {shard.name}.",
        "It may lack memory: use fewer pool.workers.",
    )


def _late(running: Iterable[tuple[Any, Shard, float]], seconds: float) -> list[Shard]:
    """Shards that one actor alone has had for longer than ``seconds``."""
    held = Counter(shard for _, shard, _ in running)
    oldest = time.monotonic() - seconds
    return [shard for _, shard, since in running if since < oldest and held[shard] == 1]


@contextmanager
def _ray(pool: PoolSettings) -> Iterator[Any]:
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
        "num_cpus": (pool.workers or 0) * pool.threads or os.cpu_count(),
        "include_dashboard": False,
        "object_store_memory": 128 * 1024**2,
        "_node_ip_address": "127.0.0.1",
    }
    where = private if pool.address is None else {"address": pool.address}
    if pool.address is None:
        check_ray_folder()
    else:
        _knock(pool.address)
    before = signal.getsignal(signal.SIGTERM)
    try:
        try:
            ray.init(**where, log_to_driver=False, logging_level="ERROR")
        except (RuntimeError, ValueError, OSError, ray.exceptions.RayError) as error:
            raise SamplerError(
                f"Ray did not start: {error}", "Check pool.address, or use pool.workers=0."
            ) from None
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, before)  # Ray's own leaves without closing anything
        yield ray
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Refuse at once an address without a listener, which Ray would retry for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except OSError as error:
            raise SamplerError(
                f"No Ray cluster answers at {address} ({error.strerror or error}).",
                "Check pool.address; null starts a private Ray on this machine.",
            ) from None
