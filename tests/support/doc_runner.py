"""A reader who types all that a document says, in a folder of their own.

The folder is a copy of the project, whose `.venv` is the environment that the tests run in; HOME
and the data store are the reader's own.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import grpc
import numpy as np
from PIL import Image

from deploy.kit.keys import make_authority, make_certificate
from dppm_model.records.sources import data_root
from sampler.service.client import SamplingClient
from sampler.service.methods import SamplingStub
from tests.support.cli_lint import grpc_request
from tests.support.documents import ROOT, commands, fences

_FEW = "model.phases.detail.rounds=2 sampler.per_class=10"
# What is typed in place of some words: the whole list. All but the host's name save time.
INSTEAD: dict[str, dict[str, str]] = {
    "README.md": {
        "make test": "make test ARGS=--collect-only",
        "sampler.per_class=5000": "sampler.per_class=200",
    },
    "docs/how_it_works.md": {
        "data=scans model=pyramid": "data=scans model=pyramid sampler.per_class=10",
        "make demo-256": f'make demo-256 ARGS="data=shapes {_FEW}"',
        "make demo-photos": "make demo-photos PHOTOS=shapes ARGS=sampler.per_class=20",
        "data=glyphs-aj": f"data=shapes {_FEW}",
        "sampler.per_class=150": "",
    },
    "deploy/README.md": {
        "fed.example.org:8443": "localhost:{port} --superlink-port {inner}",
        "fed/runs/first": "fed/runs/first sampler.per_class=2",
    },
}
# Commands of one document that the test of another runs, word for word the same.
ELSEWHERE = {"README.md": ("deploy/README.md", ("dppm server ", "dppm site "))}
# What runs until Ctrl-C or until another takes its place, what it says when it is ready, and the
# exit code that Ctrl-C gives.
LASTING = {
    "dppm serve": ("grpcurl", 0),
    "dppm server run": ("is open to", 130),
    "dppm site run": ("until Ctrl-C", 130),
}
# An operator at a terminal compares fingerprints, and types yes.
ASKED = ("dppm server enrol", "dppm site init", "dppm site approve")
_TOKEN = "t" * 32


def plain(line: str) -> str:
    """Return a command without comments, and whichever way its program is named."""
    return shlex.join(shlex.split(line, comments=True)).removeprefix(".venv/bin/")


def instead(document: str, line: str, ports: Mapping[str, int]) -> str:
    """Return what is typed for a command of a document."""
    for words, typed in INSTEAD.get(document, {}).items():
        line = re.sub(rf"(?<!\S){re.escape(words)}(?!\S)", typed.format(**ports), line)
    return line


def is_elsewhere(document: str, line: str) -> bool:
    """Say whether the test of another document runs a command."""
    _, begins = ELSEWHERE.get(document, ("", ("\n",)))
    return plain(line).startswith(begins)


def copy_of_the_project(folder: Path) -> Path:
    """Copy what a clone would have, with this environment as `.venv`, ready for make."""
    skipped = (".git", ".venv", "__pycache__", ".*_cache", ".hypothesis", "runs", "*.egg-info")
    tree = folder / "dppm"
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(*skipped))
    (tree / ".venv").mkdir()
    for path in Path(sys.prefix).iterdir():
        if path.name != ".ready":
            (tree / ".venv" / path.name).symlink_to(path)
    (tree / ".venv" / ".ready").touch()  # newer than pyproject.toml: make installs nothing
    return tree


def some_scans(folder: Path, seed: int = 0, each: int = 200) -> Path:
    """Draw grey pictures of three kinds, each brighter, as files in a folder per class."""
    rng = np.random.default_rng(seed)
    for number, kind in enumerate(("ill", "unclear", "well")):
        (folder / kind).mkdir(parents=True)
        for i in range(each):
            pixels = rng.integers(60 * number, 60 * number + 80, (72, 80)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / kind / f"{i:04d}.png")
    return folder


class Reader:
    """Types commands in ``folder``, by the code of ``tree``, with a HOME and store of their own."""

    def __init__(
        self, document: str, tree: Path, folder: Path, home: Path, ports: Mapping[str, int]
    ) -> None:
        self.document, self.folder, self.ports = document, folder, ports
        self.lasting: dict[str, tuple[subprocess.Popen[bytes], Path]] = {}
        ours = ("PYTEST_", "DPPM_", "XDG_")
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(ours)},
            "HOME": str(home),
            "DPPM_DATA": str(home / "store"),
            "PATH": f"{tree / '.venv' / 'bin'}:{os.environ['PATH']}",  # as `activate` would
            "PYTHONPATH": str(tree),
        }

    def read(self, text: str) -> None:
        for fence in fences(text):
            if fence.language == "python":
                self._run([sys.executable, "-c", fence.text])
            for line in commands(fence) if fence.language == "bash" else ():
                if not is_elsewhere(self.document, line):
                    self.type(line)

    def type(self, line: str) -> None:
        """Type one command; what runs until Ctrl-C goes on in the background."""
        name, line = plain(line), instead(self.document, line, self.ports)
        lasting = [begin for begin in LASTING if f"{name} ".startswith(f"{begin} ")]
        if name.split()[0] == "grpcurl":
            _call(line)
        elif lasting:
            self._start(lasting[0], line)
        elif name.startswith(ASKED):
            self._run(["script", "-qec", line, "/dev/null"], b"yes\n" * 4)  # gives it a terminal
        else:
            self._run(["bash", "-c", line])

    def _run(self, command: Sequence[str], typed: bytes = b"") -> None:
        begun = time.monotonic()
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self._environment,
            input=typed,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        printed = done.stdout.decode(errors="replace")
        print(f"{time.monotonic() - begun:6.1f} s  {command[2]}\n{printed}", flush=True)
        assert done.returncode == 0, f"{self.document}: {command}: {printed[-4000:]}"

    def _start(self, begin: str, line: str) -> None:
        self.interrupt(begin)  # its port is free again
        log = self.folder / f"{begin.replace(' ', '-')}.log"
        # A shell lets its background jobs ignore SIGINT, and they their children.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {line}"],
                cwd=self.folder,
                env=self._environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.lasting[begin] = process, log
        deadline = time.monotonic() + 120
        while LASTING[begin][0] not in (said := log.read_text(errors="replace")):
            waits = process.poll() is None and time.monotonic() < deadline
            assert waits, f"{line} is not ready:\n{said[-4000:]}"
            time.sleep(0.2)
        if "--token-file tokens.txt" in line:
            address = f"127.0.0.1:{re.findall(r'--address [0-9.]+:([0-9]+)', line)[0]}"
            with SamplingClient(address, token=_TOKEN, ca=self.folder / "ca.pem") as client:
                assert len(list(client.sample({0: 2}))) == 2

    def ended(self, begin: str, seconds: float, code: int = 0) -> None:
        """Wait for the end of what goes on in the background, and expect its exit code."""
        process, log = self.lasting.pop(begin)
        try:
            found = process.wait(seconds)
        finally:
            process.kill()
        assert found == code, f"{found}\n{log.read_text(errors='replace')[-4000:]}"

    def interrupt(self, begin: str) -> None:
        """Press Ctrl-C, and expect the exit code that is promised."""
        if begin in self.lasting:
            self.lasting[begin][0].send_signal(signal.SIGINT)
            self.ended(begin, 60, LASTING[begin][1])

    def leave(self) -> None:
        for process, _ in self.lasting.values():
            process.terminate()
            process.wait(60)
        self.lasting.clear()


def _call(line: str) -> None:
    """Do what grpcurl would, which is not installed everywhere: the same method and request."""
    address, method, request = grpc_request(shlex.split(line, comments=True))
    with grpc.insecure_channel(address) as channel:
        stub = SamplingStub(channel)
        replies = list(getattr(stub, method.rpartition("/")[2])(request, timeout=120))
    asked = sum(batch.count for batch in request.batches)
    assert sum(reply.HasField("image") for reply in replies) == asked


@contextlib.contextmanager
def reader(document: str, tree: Path, folder: Path) -> Iterator[Reader]:
    """Give a reader what readers bring (data, scans, a certificate), and see them off."""
    home = folder / "home"
    for name in ("mnist", "fashion-mnist"):
        for split in ("train", "test"):
            if (data_root() / name / split).is_dir():  # else the reader fetches it
                (home / "store" / name).mkdir(parents=True, exist_ok=True)
                (home / "store" / name / split).symlink_to(data_root() / name / split)
    some_scans(home / "scans")
    authority = (tree / "ca.pem", tree / "ca.key")
    make_authority("readers", *authority)
    own = (tree / "cert.pem", tree / "key.pem")
    make_certificate(["127.0.0.1", "localhost"], *authority, *own)
    (tree / "tokens.txt").write_text(f"reader {_TOKEN}\n")
    someone = Reader(document, tree, tree, home, {})
    try:
        yield someone
        for begin in list(someone.lasting):
            someone.interrupt(begin)
    finally:
        someone.leave()
