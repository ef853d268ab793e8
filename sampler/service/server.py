"""The server: workers, desk, service, health and reflection behind one address, until it stops."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from dppm_model.errors import ConfigError
from sampler.draw import Loader, load_model, read_model
from sampler.images import shard_size
from sampler.pool import crew
from sampler.service import sampling_pb2_grpc
from sampler.service.access import Access, read_tokens, require_guard, split_address
from sampler.service.desk import Desk
from sampler.service.orders import Limits, Served
from sampler.service.service import NAME, Gate, SamplingService
from sampler.settings import SamplerSettings

_SPARE_THREADS = 8  # for short calls, while every stream holds a thread
_GRACE = 2.0  # seconds that calls have to end when the server stops
_OPTIONS = (
    ("grpc.so_reuseport", 0),  # a second server at the same address is refused
    ("grpc.max_receive_message_length", 1024**2),
    ("grpc.keepalive_time_ms", 30_000),  # notices clients that vanished without a word
    ("grpc.keepalive_timeout_ms", 10_000),
)
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServerSettings:
    """Where and for whom to serve.

    Attributes
    ----------
    address
        ``host:port``; port 0 takes a free one.
    tls_cert, tls_key
        PEM files; both or neither.
    token_file
        See `sampler.service.access.read_tokens`; None lets in whoever can connect.
    insecure
        Whether to listen to the network also without TLS or tokens.
    workers, cluster
        See `sampler.pool.crew`.
    limits
        How much may be asked for.
    shard_size
        See `Served`; None: that of `sampler.generate`.
    """

    address: str = "127.0.0.1:50051"
    tls_cert: Path | None = None
    tls_key: Path | None = None
    token_file: Path | None = None
    insecure: bool = False
    workers: int = 0
    cluster: str | None = None
    limits: Limits = field(default_factory=Limits)
    shard_size: int | None = None


@dataclass(frozen=True)
class Running:
    """A server that is up.

    Attributes
    ----------
    address
        ``host:port``, with the true port.
    """

    address: str
    _server: Any
    _desk: Desk

    def wait(self) -> None:
        """Serve until the process is told to stop, and close stalled streams meanwhile."""
        while self._server.wait_for_termination(timeout=1.0):
            self._desk.cancel_stalled()


@contextmanager
def serving(
    model: Path,
    *,
    privacy: Mapping[str, Any],
    sampler: SamplerSettings,
    settings: ServerSettings,
    loader: Loader = load_model,
) -> Iterator[Running]:
    """Serve a model within the ``with`` block; on the way out jobs end, and threads and workers.

    Parameters
    ----------
    model
        Score model file.
    privacy
        What to tell clients of it: ``epsilon_secure_sum``, ``epsilon_site``, ``delta``, ``unit``.
    sampler
        Settings of requests that set none.
    settings
        Where and for whom.
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
    served = Served(
        model=hashlib.sha256(content).hexdigest(),
        classes=denoiser.classes,
        shape=denoiser.image_shape,
        privacy=privacy,
        settings=sampler,
        shard_size=settings.shard_size or shard_size(denoiser.image_shape),
        octaves=0 if denoiser.octaves is None else denoiser.octaves.config.octaves,
    )
    limits = settings.limits
    threads = limits.jobs + _SPARE_THREADS
    with (
        crew(content, settings.workers, address=settings.cluster, loader=loader) as draws,
        _desk(Desk(draws, limits)) as desk,
        ThreadPoolExecutor(threads, thread_name_prefix="call") as pool,
    ):
        # As many calls as threads: one more is refused at once rather than left to wait.
        server = grpc.server(
            pool, interceptors=(Gate(access),), options=_OPTIONS, maximum_concurrent_rpcs=threads
        )
        checks = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(checks, server)
        sampling_pb2_grpc.add_SamplingServicer_to_server(
            SamplingService(served, limits, access, desk), server
        )
        reflection.enable_server_reflection(
            (NAME, health.SERVICE_NAME, reflection.SERVICE_NAME), server
        )
        port = _bind(server, settings.address, credentials)
        for name in (NAME, ""):
            checks.set(name, health_pb2.HealthCheckResponse.SERVING)
        server.start()
        try:
            yield Running(f"{settings.address.rpartition(':')[0]}:{port}", server, desk)
        finally:
            checks.enter_graceful_shutdown()
            stopped = server.stop(_GRACE)  # no new calls from here on
            desk.close()
            stopped.wait()


@contextmanager
def _desk(desk: Desk) -> Iterator[Desk]:
    """Close the desk also if the server does not start: its threads would outlive the block."""
    try:
        yield desk
    finally:
        desk.close()


def _guard(host: str, settings: ServerSettings) -> tuple[Access, Any]:
    """Return who may call, and TLS credentials or None; refuse an open door."""
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
            f"Nobody can listen at {address} ({error}).",
            "Choose another address, stop who is there, or check certificate and key.",
        ) from None
    return port
