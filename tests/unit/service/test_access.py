"""Access: tokens, TLS, and no open door to the network."""

import threading
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from dppm_model.errors import BadToken, ConfigError, ServerBusy, UnknownJob
from sampler.service.access import Access, is_loopback, read_tokens, require_guard, split_address
from sampler.service.client import SamplingClient
from tests.support.tls import certificate
from tests.unit.service.toys import ALICE, BOB, our_threads, server, token_file


@pytest.mark.parametrize("address", ["", "host", ":1", "[]:1", "host:", "host:x", "host:65536"])
def test_addresses(address: str) -> None:
    assert split_address("127.0.0.1:0") == ("127.0.0.1", 0)
    assert split_address("[::1]:50051") == ("::1", 50051)
    with pytest.raises(ConfigError, match="address"):
        split_address(address)


def test_the_network_needs_tls_and_tokens() -> None:
    assert [h for h in ("127.0.0.1", "127.1.2.3", "::1", "localhost") if not is_loopback(h)] == []
    for host in ("0.0.0.0", "::", "10.0.0.1", "example.org", "localhost.example.org"):
        require_guard(host, tls=True, tokens=True, insecure=False)
        require_guard(host, tls=False, tokens=False, insecure=True)
        for tls, tokens, says in (
            (False, False, "no TLS and no tokens"),
            (True, False, "no tokens"),
            (False, True, "no TLS"),
        ):
            with pytest.raises(ConfigError, match=says):
                require_guard(host, tls=tls, tokens=tokens, insecure=False)
    require_guard("::1", tls=False, tokens=False, insecure=False)


def test_an_open_door_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Other machines"), server(tmp_path, address="0.0.0.0:0"):
        pass
    with pytest.raises(ConfigError, match="Only one"), server(tmp_path, tls_cert=tmp_path):
        pass
    absent = {"tls_cert": tmp_path / "no.pem", "tls_key": tmp_path / "no.pem"}
    with pytest.raises(ConfigError, match=r"no\.pem"), server(tmp_path, **absent):
        pass
    (tmp_path / "no.pem").write_text("nonsense")
    with pytest.raises(ConfigError, match="certificate"), server(tmp_path, **absent):
        pass
    assert not our_threads()


def test_an_address_in_use_is_refused(tmp_path: Path) -> None:
    with (
        server(tmp_path) as first,
        pytest.raises(ConfigError, match="Cannot listen"),
        server(tmp_path, address=first.address),
    ):
        pass


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has no tokens"),
        ("alice short", "line 1"),
        (f"alice\n{ALICE}", "line 1"),
        (f"alice {ALICE}\nalice {BOB}", "line 2: a repeated name or token"),
        (f"alice {ALICE}\nbob {ALICE}", "line 2: a repeated name or token"),
        (f"alice {ALICE} {BOB}", "line 1"),
    ],
)
def test_token_files_refuse_and_quote_no_token(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "tokens.txt").write_text(text)
    with pytest.raises(ConfigError, match=says) as refusal:
        read_tokens(tmp_path / "tokens.txt")
    assert ALICE not in str(refusal.value)
    with pytest.raises(ConfigError, match="absent"):
        read_tokens(tmp_path / "absent")


def test_tokens_name_clients(tmp_path: Path) -> None:
    access = Access(read_tokens(token_file(tmp_path)))
    assert access.client([("authorization", f"Bearer {BOB}")], "ipv4:1.2.3.4:5") == "bob"
    for wrong in (
        [],
        [("authorization", BOB)],
        [("authorization", "Bearer ")],
        [("authorization", f"Bearer {BOB[:-1]}")],
        [("authorization", f"Bearer {BOB}b")],
        [("authorization", f"Bearer {BOB}"), ("authorization", f"Bearer {ALICE}")],
    ):
        with pytest.raises(BadToken):
            access.client(wrong, "ipv4:1.2.3.4:5")


def test_without_tokens_hosts_are_clients() -> None:
    access = Access(None)
    peers = ("ipv4:127.0.0.1:50000", "ipv4:127.0.0.1:50001", "ipv6:[::1]:50000")
    assert [access.client([], p) for p in peers] == ["ipv4:127.0.0.1"] * 2 + ["ipv6:[::1]"]


def test_every_call_but_health_needs_the_token(tmp_path: Path) -> None:
    """A call whose message never comes is refused too, rather than waited for."""
    never = threading.Event()
    with server(tmp_path, token_file=token_file(tmp_path)) as running:
        for token in (None, "c" * 32):
            with SamplingClient(running.address, token=token) as client:
                for call in (
                    client.describe,
                    lambda c=client: c.sample({0: 1}),
                    lambda c=client: c.status("x"),
                    lambda c=client: c.cancel("x"),
                ):
                    with pytest.raises(BadToken):
                        call()
        with grpc.insecure_channel(running.address) as channel:
            health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
            assert health.status == health_pb2.HealthCheckResponse.SERVING
            stub = reflection_pb2_grpc.ServerReflectionStub(channel)
            asked = reflection_pb2.ServerReflectionRequest(list_services="")
            silent = channel.stream_unary("/dppm.sampling.v1.Sampling/Sample")
            for ask in (
                lambda: list(stub.ServerReflectionInfo(iter([asked]))),
                lambda: silent(iter(never.wait, None), timeout=5),
            ):
                with pytest.raises(grpc.RpcError) as refusal:
                    ask()
                assert refusal.value.code() is grpc.StatusCode.UNAUTHENTICATED
        never.set()


def test_jobs_and_quotas_belong_to_the_token(tmp_path: Path) -> None:
    limits = {"images_per_hour": 40}
    with (
        server(tmp_path, token_file=token_file(tmp_path), limits=limits) as running,
        SamplingClient(running.address, token=ALICE) as alice,
        SamplingClient(running.address, token=BOB) as bob,
    ):
        stream = alice.sample({0: 40})
        job = stream.header.job
        assert len(list(stream)) == 40
        assert alice.status(job).images_sent == 40
        for call in (bob.status, bob.cancel):
            with pytest.raises(UnknownJob):
                call(job)
        assert alice.describe().images_left < 5
        assert bob.describe().images_left == 40


def test_tls(tmp_path: Path) -> None:
    cert, key, ca = certificate(tmp_path)
    with server(tmp_path, tls_cert=cert, tls_key=key, token_file=token_file(tmp_path)) as running:
        with SamplingClient(running.address, token=ALICE, ca=ca) as client:
            assert len(list(client.sample({0: 3}))) == 3
        with (
            SamplingClient(running.address, token=ALICE, timeout=2) as plain,
            pytest.raises(ServerBusy),  # "unavailable": no TLS, no answer
        ):
            plain.describe()


def test_a_token_never_travels_in_the_clear() -> None:
    with pytest.raises(ConfigError, match="unencrypted"):
        SamplingClient("example.org:1", token=ALICE)
    with pytest.raises(ConfigError, match="absent"):
        SamplingClient("example.org:1", token=ALICE, ca=Path("absent"))
