"""Nobody takes the service from another: calls that never end, and too many of them."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from dppm_model.errors import JobCancelled, QuotaExceeded
from sampler.service import interceptor
from sampler.service.access import bearer
from sampler.service.client import SamplingClient
from sampler.service.interceptor import OpenCalls
from tests.support.mutations import nothing, twin
from tests.unit.service.toys import (
    ALICE,
    BOB,
    LARGE,
    QUICK,
    eventually,
    our_threads,
    server,
    token_file,
)

SAMPLE, CHECK = "/dppm.sampling.v1.Sampling/Sample", "/grpc.health.v1.Health/Check"
CALLS, EACH = 200, 25  # of an attack, and of a connection: more than there ever were threads


class Attacker:
    """Opens calls and connections and keeps them, until it is closed."""

    def __init__(self, address: str, token: str | None, stack: ExitStack) -> None:
        self.address, self._stack = address, stack
        self.metadata = [] if token is None else [bearer(token)]
        self._never = threading.Event()
        stack.callback(self._never.set)
        self.kept: list[Any] = []

    def channel(self, *options: tuple[str, Any]) -> Any:
        own = ("grpc.use_local_subchannel_pool", 1)
        return self._stack.enter_context(
            grpc.insecure_channel(self.address, options=[own, *options])
        )

    def silence(self) -> Iterator[bytes]:
        self._never.wait()
        yield from ()

    def half_open(self, method: str, metadata: Any, first: bytes | None = None) -> None:
        def requests() -> Iterator[bytes]:
            yield from () if first is None else (first,)
            yield from self.silence()

        for _ in range(CALLS // EACH):
            call = self.channel().stream_stream(method)
            self.kept += [call(requests(), metadata=metadata) for _ in range(EACH)]


def health_watched(a: Attacker) -> None:
    for _ in range(CALLS // EACH):
        stub = health_pb2_grpc.HealthStub(a.channel())
        names = map(str, range(EACH))
        a.kept += [stub.Watch(health_pb2.HealthCheckRequest(service=n)) for n in names]
    next(a.kept[-1])


def reflection_held_open(a: Attacker) -> None:
    asked = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
    method = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    a.half_open(method, a.metadata, asked)


def streams_that_nobody_reads(a: Attacker) -> None:
    token = a.metadata[0][1].removeprefix("Bearer ") if a.metadata else None
    for label in range(2):
        client = a._stack.enter_context(SamplingClient(a.address, token=token))
        a.kept += [client.sample({label: 100}) for _ in range(2)]


def connections_that_say_nothing(a: Attacker) -> None:
    host, _, port = a.address.rpartition(":")
    for _ in range(CALLS):
        a.kept.append(a._stack.enter_context(socket.create_connection((host, int(port)))))


def too_much_metadata(a: Attacker) -> None:
    call = a.channel(("grpc.max_metadata_size", 10**7)).unary_unary(CHECK)
    for size in (10**5, 10**6):
        with pytest.raises(grpc.RpcError) as refusal:
            call(b"", metadata=[("x", "y" * size)], timeout=5)
        assert refusal.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def too_large_messages(a: Attacker) -> None:
    call = a.channel(("grpc.max_send_message_length", -1)).unary_unary(CHECK)
    with pytest.raises(grpc.RpcError) as refusal:
        call(b"\0" * 10**6, timeout=5)
    assert refusal.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    with pytest.raises(grpc.RpcError) as refusal:  # 50 kB that would be 50 MB
        call(b"\0" * (50 * 10**6), timeout=5, compression=grpc.Compression.Gzip)
    assert refusal.value.code() is grpc.StatusCode.UNIMPLEMENTED


ATTACKS: dict[str, Callable[[Attacker], None]] = {
    "health checks without a message": lambda a: a.half_open(CHECK, None),
    "health watched": health_watched,
    "samples without a message": lambda a: a.half_open(SAMPLE, a.metadata),
    "samples without a token": lambda a: a.half_open(SAMPLE, None),
    "an unknown method": lambda a: a.half_open("/dppm.sampling.v1.Sampling/Steal", a.metadata),
    "no method": lambda a: a.half_open("/", None),
    "reflection held open": reflection_held_open,
    "streams that nobody reads": streams_that_nobody_reads,
    "connections that say nothing": connections_that_say_nothing,
    "too much metadata": too_much_metadata,
    "too large messages": too_large_messages,
}


def check_answered(address: str, token: str | None) -> None:
    """A health check and three calls of a client are answered within two seconds."""
    begun = time.monotonic()
    with grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        answer = health.Check(health_pb2.HealthCheckRequest(), timeout=2)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    with SamplingClient(address, token=token, timeout=2) as client:
        described = client.describe()
        assert described.classes == 3
        stream = client.sample({2: 1}, deadline=2)
        assert len(list(stream)) == 1
        assert client.status(stream.header.job).images_sent == 1
    assert time.monotonic() - begun < 2


@contextmanager
def serving(folder: Path, *, tokens: bool) -> Iterator[str]:
    limits = {"images_per_hour": 10_000}
    more = {"token_file": token_file(folder)} if tokens else {}
    with server(folder, LARGE, sampler=QUICK, limits=limits, **more) as running:
        yield running.address


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("tokens", [True, False], ids=["tokens", "open"])
def test_others_are_answered_at_once_during(tmp_path: Path, attack: str, tokens: bool) -> None:
    """Another client, and the very one whose calls are held open; without tokens they are one."""
    before = our_threads()
    with serving(tmp_path, tokens=tokens) as address, ExitStack() as stack:
        ATTACKS[attack](Attacker(address, BOB if tokens else None, stack))
        for token in (ALICE, BOB) if tokens else (None,):
            check_answered(address, token)
    assert our_threads() == before


def codes_of(calls: list[Any]) -> set[grpc.StatusCode]:
    return {call.code() for call in calls if call.done()}


async def _waits_for_ever(self: Any, handler: Any, method: str, call: Any, context: Any) -> Any:
    while (content := await context.read()) is not grpc.aio.EOF:
        yield self._read(handler, method, content)


@twin(
    "a call whose message never comes is waited for",
    "sampler.service.interceptor:CallInterceptor._requests",
    lambda _: _waits_for_ever,
)
def test_a_message_must_come_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interceptor, "MESSAGE_SECONDS", 0.2)
    with serving(tmp_path, tokens=True) as address, ExitStack() as stack:
        a = Attacker(address, BOB, stack)
        for method in (SAMPLE, CHECK, "/dppm.sampling.v1.Sampling/Status"):
            a.kept.append(a.channel().stream_stream(method)(a.silence(), metadata=a.metadata))
        assert eventually(lambda: all(call.done() for call in a.kept))
        assert codes_of(a.kept) == {grpc.StatusCode.DEADLINE_EXCEEDED}
        assert "Fix: " in a.kept[0].details()


@twin("open calls are unbounded", "sampler.service.interceptor:OpenCalls._end_one_of", nothing)
def test_one_call_too_many_ends_the_oldest_of_its_client(tmp_path: Path) -> None:
    with serving(tmp_path, tokens=True) as address, ExitStack() as stack:
        a, b = Attacker(address, BOB, stack), Attacker(address, ALICE, stack)
        of_alice = b.channel().stream_stream(SAMPLE)(b.silence(), metadata=b.metadata)
        channels = [a.channel() for _ in range(2)]
        for i in range(interceptor.PER_CLIENT + 3):
            call = channels[i % 2].stream_stream(SAMPLE)
            a.kept.append(call(a.silence(), metadata=a.metadata))
        assert eventually(lambda: sum(call.done() for call in a.kept) == 3)
        assert codes_of(a.kept) == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert not of_alice.done()


class Guest:
    """A call that notes its end."""

    def __init__(self, client: str, calls: OpenCalls) -> None:
        self.client, self.ended, self._calls = client, False, calls

    def end(self, code: grpc.StatusCode, text: str) -> None:
        self.ended = True
        self._calls.leave(self)  # type: ignore[arg-type]


@twin(
    "of too many calls the oldest is ended, whoever made it",
    "sampler.service.interceptor:OpenCalls._end_one_of",
    lambda old: lambda self, client: old(self, next(iter(self._calls)).client),
)
def test_of_too_many_calls_one_of_the_busiest_client_is_ended() -> None:
    calls = OpenCalls(per_client=8, in_all=10)
    greedy = [Guest("greedy", calls) for _ in range(6)]
    few = [Guest(name, calls) for name in "abcd"]
    for guest in (*few, *greedy):
        calls.enter(guest)  # type: ignore[arg-type]
    late = [Guest(name, calls) for name in "efg"]
    for guest in late:
        calls.enter(guest)  # type: ignore[arg-type]
    assert [guest.ended for guest in greedy] == [True] * 3 + [False] * 3
    assert not any(guest.ended for guest in (*few, *late))
    for guest in (*few, *greedy, *late):
        calls.leave(guest)  # type: ignore[arg-type]
    assert not calls._calls and not calls._of


@twin(
    "an unread stream no longer counts once its job has ended",
    "sampler.service.scheduler:JobScheduler.finish",
    lambda old: lambda self, job: (old(self, job), self.leave(job)),
)
def test_an_unread_stream_keeps_its_clients_place_and_no_others(tmp_path: Path) -> None:
    """Its job ends, and others have its room; its own client must leave it, or read on."""
    limits = {"jobs": 2, "jobs_per_client": 2, "stall_seconds": 1}
    tokens = token_file(tmp_path)
    with (
        server(tmp_path, LARGE, sampler=QUICK, limits=limits, token_file=tokens) as running,
        SamplingClient(running.address, token=ALICE) as alice,
        SamplingClient(running.address, token=BOB) as bob,
    ):
        held = [bob.sample({k: 100}) for k in range(2)]
        cancelled = [s.header.job for s in held]
        assert eventually(lambda: {bob.status(j).error for j in cancelled} == {""}, 1)
        assert eventually(lambda: all(bob.status(j).state == 3 for j in cancelled), 10)
        assert len(list(alice.sample({0: 1}))) == 1
        with pytest.raises(QuotaExceeded, match="2 jobs of this client"):
            bob.sample({0: 1})
        with pytest.raises(JobCancelled):
            list(held[0])
        assert eventually(lambda: bob.describe().jobs_running == 1)
        assert len(list(bob.sample({0: 1}))) == 1


def test_an_unexpected_failure_tells_callers_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a secret of the implementation")

    monkeypatch.setattr("sampler.service.service.read_request", broken)
    with serving(tmp_path, tokens=False) as address, grpc.insecure_channel(address) as channel:
        with pytest.raises(grpc.RpcError) as refusal:
            list(channel.unary_stream(SAMPLE)(b"\x0a\x02\x18\x01"))
        assert refusal.value.code() is grpc.StatusCode.INTERNAL
        assert "secret" not in refusal.value.details()
        assert "a secret of the implementation" in caplog.text
