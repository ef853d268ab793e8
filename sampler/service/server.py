"""The server: workers, scheduler, service, health and reflection at one address.

Calls are coroutines of a thread of their own. Jobs have the scheduler's threads, and one thread
each for slow work.
"""

from __future__ import annotations

import asyncio
import hashlib
import resource
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from dppm_model.errors import ConfigError
from sampler.draw import Loader, load_model, read_model
from sampler.images import shard_size
from sampler.pool import PoolSettings, crew
from sampler.service.access import Access, read_tokens, require_guard, split_address
from sampler.service.interceptor import CallInterceptor
from sampler.service.methods import NAME, handlers_of
from sampler.service.requests import MOST_BYTES, Limits, ModelInfo, request_bounds
from sampler.service.scheduler import JobScheduler
from sampler.service.service import HEALTH, Health, SamplingService
from sampler.settings import SamplerSettings

_GRACE = 2.0  # seconds that calls have to end when the server stops
_SHORT_CALLS = 32
_LOOK_SECONDS = 1.0  # between two looks for streams that stall
_OPTIONS = (
    ("grpc.so_reuseport", 0),  # a second server at the same address is refused
    ("grpc.max_receive_message_length", MOST_BYTES),
    ("grpc.compression_enabled_algorithms_bitset", 1),  # none: a small message stays small
    ("grpc.server_handshake_timeout_ms", 5_000),
    ("grpc.max_connection_idle_ms", 60_000),  # without a call
    ("grpc.keepalive_time_ms", 30_000),  # notices clients that vanished without a word
    ("grpc.keepalive_timeout_ms", 10_000),
)


@dataclass(frozen=True)
class ServerSettings:
    """The address and the clients of a server."""

    address: str = "127.0.0.1:50051"  # ``host:port``; port 0 takes a free one
    # PEM files; both or neither
    tls_cert: Path | None = None
    tls_key: Path | None = None
    # see `sampler.service.access.read_tokens`; None lets in anyone who can connect
    token_file: Path | None = None
    insecure: bool = False  # whether to listen to the network also without TLS or tokens
    pool: PoolSettings = field(default_factory=lambda: PoolSettings(workers=0))  # who draws
    limits: Limits = field(default_factory=Limits)  # how much may be asked for
    shard_size: int | None = None  # see `ModelInfo`; None: that of `sampler.generate`


@dataclass(frozen=True)
class Running:
    """A server that is up.

    ``address`` is ``host:port``, with the true port.
    """

    address: str
    _thread: threading.Thread
    _scheduler: JobScheduler

    def wait(self) -> None:
        """Serve until the process is asked to stop."""
        while self._thread.is_alive():
            self._thread.join(1.0)  # a signal is noticed in between


@contextmanager
def serving(
    model: Path,
    *,
    privacy: Mapping[str, Any],
    sampler: SamplerSettings,
    settings: ServerSettings,
    loader: Loader = load_model,
) -> Iterator[Running]:
    """Serve a model within the ``with`` block; at its end jobs, threads and workers end.

    Parameters
    ----------
    model
        Score model file.
    privacy
        The promise to clients: ``epsilon_release``, ``epsilon_secure_sum``, ``epsilon_site``
        (None: infinite), ``delta``, ``unit``.
    sampler
        Settings of requests that set none.
    settings
        The address and the clients.
    loader
        Makes the model from the file's content, here and in each worker.

    Raises
    ------
    ConfigError
        If the address is open to the network without TLS or tokens, cannot be listened at, or a
        file is unfit.
    ModelError
        If the model file cannot be read.
    SamplerError
        If Ray does not start.
    """
    host, port = split_address(settings.address)
    access, credentials = _guard(host, settings)
    content = read_model(model)
    denoiser = loader(content)
    served = ModelInfo(
        model=hashlib.sha256(content).hexdigest(),
        classes=denoiser.classes,
        shape=denoiser.image_shape,
        privacy=privacy,
        settings=sampler,
        shard_size=settings.shard_size or shard_size(denoiser.image_shape),
        switch_levels=() if denoiser.pyramid is None else denoiser.pyramid.levels,
    )
    limits = settings.limits
    with (
        crew(content, settings.pool, loader=loader) as draws,
        closing(JobScheduler(draws, limits)) as scheduler,  # always ends its threads
        ThreadPoolExecutor(limits.jobs, thread_name_prefix="call") as pool,
    ):
        interceptor = CallInterceptor(access, request_bounds(served.classes))
        service = SamplingService(served, limits, scheduler, pool)
        answering = _Answering(service, interceptor, scheduler, settings, credentials)
        try:
            port = answering.listen()
            yield Running(
                f"{settings.address.rpartition(':')[0]}:{port}", answering.thread, scheduler
            )
        finally:
            answering.stop()  # no new calls from here on
            scheduler.close()
            answering.thread.join()


class _Answering:
    """The thread of calls: gRPC's event loop, and a regular search for stalled streams."""

    def __init__(
        self,
        service: SamplingService,
        interceptor: CallInterceptor,
        scheduler: JobScheduler,
        settings: ServerSettings,
        credentials: Any,
    ) -> None:
        self.thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="calls")
        self._service, self._interceptor, self._scheduler = service, interceptor, scheduler
        self._address, self._limits = settings.address, settings.limits
        self._credentials = credentials
        self._port: Future[int] = Future()
        self._end: Callable[[], object] = lambda: None

    def listen(self) -> int:
        """Begin, and return the port; see `serving` for what is raised."""
        self.thread.start()
        return self._port.result()

    def stop(self) -> None:
        """End the calls, jobs excepted, and then the thread."""
        self._end()

    async def _serve(self) -> None:
        server = grpc.aio.server(interceptors=(self._interceptor,), options=_options(self._limits))
        health_pb2_grpc.add_HealthServicer_to_server(Health((NAME,)), server)
        server.add_generic_rpc_handlers((handlers_of(self._service),))
        reflection.enable_server_reflection((NAME, HEALTH, reflection.SERVICE_NAME), server)
        stopping = asyncio.Event()
        try:
            port = _bind(server, self._address, self._credentials)
            await server.start()
        except BaseException as error:
            self._port.set_exception(error)
            return
        self._end = partial(asyncio.get_running_loop().call_soon_threadsafe, stopping.set)
        self._port.set_result(port)
        while not stopping.is_set():
            self._scheduler.cancel_stalled()
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), _LOOK_SECONDS)
        self._interceptor.close()
        await server.stop(_GRACE)


def _options(limits: Limits) -> tuple[tuple[str, int], ...]:
    """Return gRPC's options; connections get half of the files that the process may open."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return (
        *_OPTIONS,
        ("grpc.max_allowed_incoming_connections", min(files // 2, 2**31 - 2)),
        # Of one connection: its jobs, and short calls beside them. More wait at the client.
        ("grpc.max_concurrent_streams", limits.jobs_per_client + _SHORT_CALLS),
    )


def _guard(host: str, settings: ServerSettings) -> tuple[Access, Any]:
    """Return the access check, and TLS credentials or None; refuse an open door."""
    files = (settings.tls_cert, settings.tls_key)
    if (files[0] is None) != (files[1] is None):
        raise ConfigError(
            "Only one of TLS certificate and key is given.", "Give --tls-cert and --tls-key."
        )
    tls = files[0] is not None
    tokens = settings.token_file is not None
    require_guard(host, tls=tls, tokens=tokens, insecure=settings.insecure)
    access = Access(read_tokens(settings.token_file) if settings.token_file else None)
    if not tls:
        return access, None
    try:
        cert, key = (path.read_bytes() for path in files if path is not None)
    except OSError as error:
        raise ConfigError(
            f"{error.filename}: {error.strerror}.", "Name PEM files with certificate and key."
        ) from None
    return access, grpc.ssl_server_credentials([(key, cert)])


def _bind(server: Any, address: str, credentials: Any) -> int:
    try:
        port: int = (
            server.add_insecure_port(address)
            if credentials is None
            else server.add_secure_port(address, credentials)
        )
    except RuntimeError as error:
        raise ConfigError(
            f"Cannot listen at {address} ({error}).",
            "Choose another address, stop the program that uses it, or check certificate and key.",
        ) from None
    return port
