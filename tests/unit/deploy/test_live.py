"""The live page under attack: connections, tokens, and the training beside it."""

import base64
import resource
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import pytest

from deploy.pages import connection_limits, live_server, live_state
from deploy.pages.connection_limits import RateLimit, network_of
from deploy.pages.live_server import live_page
from deploy.pages.live_state import LiveState
from deploy.pages.run_summary import RunSummary
from dppm_model.run import Run
from tests.support.mutations import nothing, twin
from tests.support.tls import certificate

TOKEN = "a-token-that-is-long-enough"
TIB = 1 << 40
RIGHT = f"Authorization: Bearer {TOKEN}\r\n"


class Wire:
    """The page of a run with tokens, and raw requests to it."""

    def __init__(self, address: str, tls: bool) -> None:
        self.port = int(address.rstrip("/").rpartition(":")[2])
        self._tls = tls

    def connect(self) -> socket.socket:
        plain = socket.create_connection(("127.0.0.1", self.port), 5)
        if not self._tls:
            return plain
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context.wrap_socket(plain)

    def ask(
        self, path: str, more: str = "", *, method: str = "GET", host: str = "127.0.0.1"
    ) -> tuple[int, str]:
        """Status and the rest of an answer; 0 where there is none."""
        head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{more}\r\n"
        with closing(self.connect()) as s:
            s.sendall(head.encode())
            answer = b""
            while got := s.recv(1 << 16):
                answer += got
        first, _, rest = answer.decode(errors="replace").partition("\r\n")
        return int(first.split()[1]), rest


@contextmanager
def shown(run: Run, folder: Path, *, tls: bool = False, rest: float = 4.0) -> Iterator[Wire]:
    files = certificate(folder)[:2] if tls else None
    with live_page(
        LiveState(run, rest=rest), "127.0.0.1:0", tokens={"ward": TOKEN}, tls=files
    ) as address:
        yield Wire(address, tls)


@pytest.fixture
def wire(finished: Path, tmp_path: Path) -> Iterator[Wire]:
    with shown(Run(finished), tmp_path) as one:
        yield one


@twin(
    "the live page is shown without a token",
    "deploy.pages.live_server:PageApp._knows",
    lambda _: lambda self, token, host: True,
)
@twin(
    "the live page takes any Host for its own",
    "deploy.pages.live_server:PageApp._is_ours",
    lambda _: lambda self, names: True,
)
def test_no_host_or_path_gets_past_the_token(wire: Wire, finished: Path, tmp_path: Path) -> None:
    """Frameworks have put Host and path together into an address, and taken the path from that."""
    paths = ["/", "/state.json", "/metrics", "/live.js"]
    spellings = [
        "//live.js",
        "/live.js/",
        "/LIVE.JS",
        "/%6cive.js",
        "/live.js%2f..%2fstate.json",
        "/./live.js",
        "/live.js/../state.json",
        "/state.json?/live.js",
        "/state.json;/live.js",
        "/live.js?x=/../",
        "http://127.0.0.1/live.js/../state.json",
        "http://live.js/state.json",
        "/%2flive.js",
    ]
    for path in (*paths, *spellings):
        for method in ("GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE", "PROPFIND"):
            status, text = wire.ask(path, method=method)
            assert status == 401
            assert "epsilon" not in text
    assert wire.ask("/state.json", RIGHT)[0] == 200
    assert wire.ask("/state.json/", RIGHT)[0] == 404
    status, text = wire.ask("/state.json", RIGHT, method="HEAD")
    assert (status, text.partition("\r\n\r\n")[2]) == (200, "")
    assert wire.ask("/state.json", RIGHT, method="POST")[0] == 405
    bad = "x/live.js? 127.0.0.1/x? 127.0.0.1/x# 127.0.0.1:1/x# /x? 127.0.0.1@x [::1 [::1]x"
    for host in ("", *bad.split(), "127.0.0.1:x", "evil.example"):
        assert wire.ask("/state.json", RIGHT, host=host)[0] == 400
    assert wire.ask("/state.json", f"Host: x\r\n{RIGHT}")[0] == 400
    for host in ("localhost", "127.0.0.1:80", "[::1]", "[::1]:80"):
        assert wire.ask("/state.json", RIGHT, host=host)[0] == 200


def test_any_host_is_as_good_where_the_page_is_for_the_network(finished: Path) -> None:
    from starlette.testclient import TestClient

    app = live_server.PageApp(LiveState(Run(finished)), ["*"], live_server.Access({"ward": TOKEN}))
    page = TestClient(app)  # type: ignore[arg-type]
    for host, status in (("x/y?", 400), ("x/y#", 400), ("/y?", 400), ("x:80", 401)):
        assert page.get("/state.json", headers={"host": host}).status_code == status


def basic(text: str) -> str:
    return f"Basic {base64.b64encode(text.encode()).decode()}"


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (f"Bearer {TOKEN}", 200),
        (basic(f"anyone:{TOKEN}"), 200),
        (TOKEN, 401),
        (f"bearer {TOKEN}", 401),
        (f"Bearer  {TOKEN}", 401),
        (f"Basic {TOKEN}", 401),
        (basic(TOKEN), 401),
        (basic(f"{TOKEN}:"), 401),
        ("Bearer", 401),
        ("Bearer ", 401),
        (f"Bearer {TOKEN}\r\nAuthorization: Bearer {TOKEN}", 401),
    ],
)
def test_a_token_is_sent_in_one_of_two_ways(wire: Wire, header: str, status: int) -> None:
    found, text = wire.ask("/state.json", f"Authorization: {header}\r\n")
    assert found == status
    assert ("www-authenticate: Basic realm" in text) == (status == 401)


@twin(
    "tokens of the live page may be guessed without limit",
    "deploy.pages.connection_limits:RateLimit.left",
    lambda _: lambda self, host: True,
)
def test_guesses_are_few(wire: Wire) -> None:
    def guess(header: str) -> int:
        return wire.ask("/metrics", f"Authorization: {header}\r\n")[0]

    found = [guess((f"Bearer guess-{i}", basic(f"a:guess-{i}"))[i % 2]) for i in range(30)]
    assert found == [401] * 20 + [429] * 10
    assert wire.ask("/metrics", RIGHT)[0] == 429  # also a right one
    assert wire.ask("/metrics")[0] == 401  # without a guess, the answer is what is needed


def open_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def memory() -> float:
    """MB that this process has in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


@pytest.mark.parametrize(
    ("head", "chunk"),
    [
        (
            "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
            f"{2**20:x}\r\n{'a' * 2**20}\r\n",
        ),
        (f"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {TIB}\r\n\r\n", "a" * 2**20),
        ("GET / HTTP/1.1\r\nHost: localhost\r\n", "a" * 2**20),
        ("GET / HTTP/1.1\r\nHost: localhost\r\n", "a: a\r\n" * 2**18),
    ],
    ids=["chunks", "length", "endless header", "endless headers"],
)
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_what_has_no_end_is_cut_off(
    finished: Path, tmp_path: Path, head: str, chunk: str, tls: bool
) -> None:
    with shown(Run(finished), tmp_path, tls=tls) as wire, closing(wire.connect()) as s:
        before, sent = memory(), 0
        with pytest.raises(OSError):  # the connection was closed
            s.sendall(head.encode())
            while sent < 300:
                s.sendall(chunk.encode())
                sent += 1
        assert sent < 100
        assert memory() - before < 50
        assert wire.ask("/state.json", RIGHT)[0] == 200


@twin(
    "the live page takes any number of connections",
    "deploy.pages.connection_limits:BoundedListener._end_one_of",
    nothing,
    only="[plain]",
)
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_connections_are_bounded_and_the_next_one_is_served(
    finished: Path, tmp_path: Path, tls: bool
) -> None:
    with shown(Run(finished), tmp_path, tls=tls) as wire, ExitStack() as stack:
        wire.ask("/state.json", RIGHT)
        files, threads = open_files(), threading.active_count()
        for _ in range(300):  # which say nothing, not even of TLS
            s = socket.create_connection(("127.0.0.1", wire.port))
            stack.callback(s.close)
        begun = time.monotonic()
        assert wire.ask("/state.json", RIGHT)[0] == 200
        assert time.monotonic() - begun < 2
        assert open_files() - files <= 300 + connection_limits.OF_A_HOST + 2
        assert threading.active_count() <= threads + 1


@pytest.mark.parametrize("said", ["", "GET / HTTP/1.1\r\nHost: localhost\r\n"])
def test_a_head_must_come_in_time(wire: Wire, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    monkeypatch.setattr(connection_limits, "HEAD_SECONDS", 0.4)
    for before in ("", f"GET /live.js HTTP/1.1\r\nHost: localhost\r\n{RIGHT}\r\n"):  # and the next
        with closing(wire.connect()) as s:
            s.sendall((before + said).encode())
            begun = time.monotonic()
            with suppress(ConnectionResetError):
                while s.recv(1 << 16):
                    pass
            assert 0.3 < time.monotonic() - begun < 3


@twin(
    "each request reads the run's folder",
    "deploy.pages.live_state:LiveState.content",
    lambda old: lambda self: (setattr(self, "_next", 0.0), old(self))[1],
)
def test_many_requests_do_not_make_it_look_each_time(
    finished: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    looks: list[Run] = []
    right = RunSummary.of

    def counted(run: Run) -> RunSummary:
        looks.append(run)
        run.status.write_text(run.status.read_text() + " ")  # it changes all the time
        return right(run)

    monkeypatch.setattr(live_state.RunSummary, "of", counted)
    with shown(Run(finished), tmp_path, rest=1000.0) as wire:
        for path in ("/", "/state.json", "/metrics", "/live.js") * 5:
            assert wire.ask(path, RIGHT)[0] == 200
    assert len(looks) == 2  # when it began, and when the first asked


def test_each_look_is_followed_by_a_rest(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that looking takes a fifth of the time at most, however long it takes."""
    live = LiveState(Run(finished))
    monkeypatch.setattr(LiveState, "refresh", lambda _: time.sleep(0.4))
    begun = time.monotonic()
    live.content()
    assert live._next - begun >= 0.4 * 5
    monkeypatch.setattr(LiveState, "refresh", lambda _: None)
    live._next = 0.0
    begun = time.monotonic()
    live.content()
    assert live._next - begun >= 1


def test_a_damaged_file_is_not_read_at_every_request(finished: Path) -> None:
    live = LiveState(Run(finished))
    live.content()
    live._next = 0.0
    Run(finished).status.write_text("{")
    refusals = set()
    for _ in range(3):
        with pytest.raises(live_server.DppmError) as refusal:
            live.content()
        refusals.add(id(refusal.value))
    assert len(refusals) == 1


def test_requests_of_a_host_are_bounded(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_server, "_REQUESTS", (20, 100.0))
    with shown(Run(finished), tmp_path) as wire:
        found = [wire.ask("/live.js", RIGHT)[0] for _ in range(30)]
    assert found == [200] * 20 + [429] * 10


def test_a_rate_limit_fills_up_again_and_forgets_silent_hosts() -> None:
    now = 0.0
    limit = RateLimit(2, 10.0, lambda: now)
    for _ in range(2):
        assert limit.left("a")
        limit.take("a")
    assert not limit.left("a")
    assert limit.left("b")
    now = 10.0
    assert limit.left("a")
    assert not limit._uses


def test_a_network_of_ipv6_is_one_host() -> None:
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff:2") != network_of("2001:db9::1")
    assert network_of("10.0.0.1") != network_of("10.0.0.2")
    assert network_of("fe80::1%eth0") == network_of("fe80::2")
    assert network_of("::ffff:10.0.0.1") != network_of("::ffff:10.0.0.2")
    assert network_of("testclient") == "testclient"


def test_stopping_waits_for_nobody(finished: Path, tmp_path: Path) -> None:
    with ExitStack() as stack:
        with shown(Run(finished), tmp_path) as wire:
            for _ in range(5):
                stack.enter_context(closing(wire.connect()))
            begun = time.monotonic()
        assert time.monotonic() - begun < 3


def test_a_port_of_loopback_that_is_taken_gives_way(finished: Path) -> None:
    run = Run(finished)
    with live_page(LiveState(run), "127.0.0.1:0") as first:
        taken = first.removeprefix("http://").rstrip("/")
        with live_page(LiveState(run), taken) as second:
            assert second != first
