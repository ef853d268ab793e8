"""Who may call: tokens, TLS, and no open door to the network."""

import datetime
import ipaddress
import threading
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from dppm_model.errors import BadToken, ConfigError, ServerBusy, UnknownJob
from sampler.service.access import Access, is_loopback, read_tokens, require_guard, split_address
from sampler.service.client import SamplingClient
from tests.unit.service.toys import our_threads, server

ALICE, BOB = "a" * 32, "b" * 32


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    path = tmp_path / "tokens.txt"
    path.write_text(f"# clients\n\nalice {ALICE}\nbob   {BOB}\n")
    return path


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Certificate and key of 127.0.0.1, signed by itself."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "dppm test")])
    now = datetime.datetime.now(datetime.UTC)
    host = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(host, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "cert.pem").write_bytes(certificate.public_bytes(pem))
    (folder / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "cert.pem", folder / "key.pem"


@pytest.mark.parametrize(
    ("address", "parts"),
    [("127.0.0.1:0", ("127.0.0.1", 0)), ("[::1]:50051", ("::1", 50051)), ("h:1", ("h", 1))],
)
def test_addresses(address: str, parts: tuple[str, int]) -> None:
    assert split_address(address) == parts


@pytest.mark.parametrize("address", ["", "host", ":1", "[]:1", "host:", "host:x", "host:65536"])
def test_addresses_refuse(address: str) -> None:
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


def test_tokens_name_clients(tokens: Path) -> None:
    access = Access(read_tokens(tokens))
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


def test_every_call_but_health_needs_the_token(tmp_path: Path, tokens: Path) -> None:
    with server(tmp_path, token_file=tokens) as running:
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
            with pytest.raises(grpc.RpcError) as refusal:
                list(stub.ServerReflectionInfo(iter([asked])))
            assert refusal.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_who_has_no_token_holds_no_thread(tmp_path: Path, tokens: Path) -> None:
    """A call whose message never comes is refused all the same, rather than waited for."""
    never = threading.Event()
    with server(tmp_path, token_file=tokens) as running:
        with grpc.insecure_channel(running.address) as channel:
            call = channel.stream_unary("/dppm.sampling.v1.Sampling/Sample")
            with pytest.raises(grpc.RpcError) as refusal:
                call(iter(never.wait, None), timeout=5)
            assert refusal.value.code() is grpc.StatusCode.UNAUTHENTICATED
        never.set()


def test_jobs_and_quotas_belong_to_the_token(tmp_path: Path, tokens: Path) -> None:
    with (
        server(tmp_path, token_file=tokens, limits={"images_per_hour": 40}) as running,
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


def test_tls(tmp_path: Path, tokens: Path, tls: tuple[Path, Path]) -> None:
    cert, key = tls
    with server(tmp_path, tls_cert=cert, tls_key=key, token_file=tokens) as running:
        with SamplingClient(running.address, token=ALICE, ca=cert) as client:
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
