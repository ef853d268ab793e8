"""A reader who types all that a document says, in a folder of their own.

The folder is a copy of the project, whose `.venv` is the environment that the tests run in; HOME
and the data store are the reader's own. `INSTEAD` is the whole list of what is typed otherwise than
it is written, and why.
"""

from __future__ import annotations

import contextlib
import os
import pty
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import grpc
import numpy as np
from PIL import Image, ImageDraw

from deploy.kit.keys import make_authority, make_certificate
from deploy.processes import start, stop
from dppm_model.records.sources import data_root
from sampler.service import sampling_pb2_grpc
from sampler.service.client import SamplingClient
from tests.support.cli_lint import grpc_request
from tests.support.documents import ROOT, commands, fences


class Instead(NamedTuple):
    """What is typed in place of some words, and why."""

    words: str
    typed: str
    why: str


_FEW = "model.phases.detail.rounds=2 sampler.per_class=10"
INSTEAD: dict[str, list[Instead]] = {
    "README.md": [
        Instead("make test", "make test ARGS=--collect-only", "the tests run beside this one"),
        Instead("sampler.per_class=5000", "sampler.per_class=200", "ten minutes"),
    ],
    "docs/how_it_works.md": [
        Instead("data=scans model=pyramid", f"data=scans model=pyramid {_FEW}", "ten minutes"),
        Instead("make demo-256", f'make demo-256 ARGS="data=shapes {_FEW}"', "half an hour"),
        Instead("data=glyphs-aj", f"data=shapes {_FEW}", "half an hour, and thousands of fonts"),
        Instead("sampler.per_class=150", "", "the same"),
    ],
    "deploy/README.md": [
        Instead(
            "fed.example.org:8443", "localhost:{port} --superlink-port {inner}", "no such host"
        ),
        Instead("fed/runs/first", "fed/runs/first sampler.per_class=2", "half an hour"),
    ],
}
# Commands of one document that the test of another runs, word for word the same.
ELSEWHERE = {"README.md": ("deploy/README.md", ("dppm server ", "dppm site "))}
# Who runs until Ctrl-C or until another takes its place, what it says when it is ready, and the
# exit code that Ctrl-C gives.
LASTING = {
    "dppm serve": ("grpcurl", 0),
    "dppm server run": ("is open to", 130),
    "dppm site run": ("until Ctrl-C", 130),
}
# An operator compares fingerprints, and types yes.
ASKED = ("dppm server enrol", "dppm site init", "dppm site approve")


def plain(line: str) -> str:
    """Return a command without comments, and whichever way its program is named."""
    return shlex.join(shlex.split(line, comments=True)).removeprefix(".venv/bin/")


def instead(document: str, line: str, ports: Mapping[str, int]) -> str:
    """Return what is typed for a command of a document."""
    for words, typed, _ in INSTEAD.get(document, []):
        line = re.sub(rf"(?<!\S){re.escape(words)}(?!\S)", typed.format(**ports), line)
    return line


def is_elsewhere(document: str, line: str) -> bool:
    """Say whether the test of another document runs a command."""
    _, begins = ELSEWHERE.get(document, ("", ()))
    return plain(line).startswith(tuple(begins)) if begins else False


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


def some_scans(
    folder: Path, seed: int = 0, each: int = 200, size: tuple[int, int] = (80, 72)
) -> Path:
    """Draw grey pictures of three kinds, as files in a folder per class."""
    rng = np.random.default_rng(seed)
    for number, kind in enumerate(("ill", "unclear", "well")):
        (folder / kind).mkdir(parents=True)
        for i in range(each):
            picture = Image.fromarray(rng.integers(20, 60, size[::-1]).astype(np.uint8))
            x, y, r = (rng.uniform(0.2, 0.4, 3) * min(size)).tolist()
            shape = (x, y, x + 1.5 * r, y + (1.5 - 0.4 * number) * r)
            ImageDraw.Draw(picture).ellipse(shape, fill=230 - 60 * number)
            picture.save(folder / kind / f"{i:04d}.png")
    return folder


class Reader:
    """Types commands in one folder.

    Parameters
    ----------
    document
        Its path, for `INSTEAD`.
    tree
        The copy of the project whose code is run.
    folder
        Where commands are typed.
    home
        What HOME is; the data store is in it.
    ports
        Free ones, by their names in `INSTEAD`.
    """

    def __init__(
        self, document: str, tree: Path, folder: Path, home: Path, ports: Mapping[str, int]
    ) -> None:
        self.document, self.folder, self.ports = document, folder, ports
        self.lasting: dict[str, tuple[subprocess.Popen[bytes], Path]] = {}
        self._environment = {
            **{
                k: v
                for k, v in os.environ.items()
                if not k.startswith(("PYTEST_", "DPPM_", "XDG_"))
            },
            "HOME": str(home),
            "DPPM_DATA": str(home / "store"),
            "PATH": f"{tree / '.venv' / 'bin'}:{os.environ['PATH']}",  # as `activate` would
            "PYTHONPATH": str(tree),
        }

    def read(self, text: str) -> None:
        """Type every fence, top to bottom."""
        for fence in fences(text):
            if fence.language == "python":
                self._run([sys.executable, "-"], "Python", fence.text.encode())
            for line in commands(fence) if fence.language == "bash" else ():
                if not is_elsewhere(self.document, line):
                    self.type(line)

    def type(self, line: str) -> None:
        """Type one command; what runs until Ctrl-C goes on in the background."""
        name, line = plain(line), instead(self.document, line, self.ports)
        if name.split()[0] == "grpcurl":
            return _call(line)
        for begin in LASTING:
            if f"{name} ".startswith(f"{begin} "):
                return self._start(begin, line)
        asked = b"yes\n" * 4 if name.startswith(ASKED) else None
        return self._run(["bash", "-c", line], line, asked, terminal=asked is not None)

    def _run(
        self, command: Sequence[str], line: str, said: bytes | None, *, terminal: bool = False
    ) -> None:
        begun = time.monotonic()
        ours, theirs = pty.openpty() if terminal else os.pipe()[::-1]
        os.write(ours, said or b"")
        if not terminal:
            os.close(ours)
        with tempfile.TemporaryFile() as output:
            process = start(command, self.folder, self._environment, output, theirs)
            try:
                process.wait()
            finally:
                stop(process)  # and all that it has started, should this test be interrupted
                os.close(theirs)
                if terminal:
                    os.close(ours)
            output.seek(0)
            printed = output.read().decode(errors="replace")
        print(f"{time.monotonic() - begun:6.1f} s  {line}\n{printed}", flush=True)
        failed = f"{self.document}: {line}: {process.returncode}\n{printed[-4000:]}"
        assert process.returncode == 0, failed

    def _start(self, begin: str, line: str) -> None:
        self.interrupt(begin)  # its port is free again
        log = self.folder / f"{begin.replace(' ', '-')}.log"
        # A shell lets its background jobs ignore SIGINT, and they their children.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with log.open("wb") as output:
            command = ["bash", "-c", f"exec {line}"]
            process = start(command, self.folder, self._environment, output)
        self.lasting[begin] = process, log
        deadline = time.monotonic() + 120
        while LASTING[begin][0] not in log.read_text(errors="replace"):
            assert process.poll() is None, f"{line} ended:\n{log.read_text()[-4000:]}"
            assert time.monotonic() < deadline, f"{line} is not ready:\n{log.read_text()[-4000:]}"
            time.sleep(0.2)
        print(f"  ready  {line}", flush=True)
        if "--token-file tokens.txt" in line:
            address = f"127.0.0.1:{re.findall(r'--address [0-9.]+:([0-9]+)', line)[0]}"
            with SamplingClient(address, token=_TOKEN, ca=self.folder / "ca.pem") as client:
                assert len(list(client.sample({0: 2}))) == 2

    def ended(self, begin: str, seconds: float) -> None:
        """Wait for what ends by itself, and expect success."""
        process, log = self.lasting.pop(begin)
        assert process.wait(seconds) == 0, log.read_text(errors="replace")[-4000:]
        print(log.read_text(errors="replace"))

    def interrupt(self, begin: str) -> None:
        """Press Ctrl-C, and expect the exit code that is promised."""
        if begin in self.lasting:
            process, log = self.lasting.pop(begin)
            process.send_signal(signal.SIGINT)
            try:
                code = process.wait(60)
            finally:
                process.kill()
            assert code == LASTING[begin][1], f"{code}\n{log.read_text(errors='replace')[-4000:]}"

    def leave(self) -> None:
        for process, _ in self.lasting.values():
            process.send_signal(signal.SIGTERM)
            process.wait(60)
        self.lasting.clear()


_TOKEN = "t" * 32


def bring(folder: Path) -> None:
    """Lay down what is served with: a certificate, its key, and a client's token."""
    authority, key = folder / "ca.pem", folder / "ca.key"
    make_authority("readers", authority, key)
    own = (folder / "cert.pem", folder / "key.pem")
    make_certificate(["127.0.0.1", "localhost"], authority, key, *own)
    (folder / "tokens.txt").write_text(f"reader {_TOKEN}\n")


def _call(line: str) -> None:
    """Do what grpcurl would, which is not installed everywhere: the same method and request."""
    address, method, request = grpc_request(shlex.split(line, comments=True))
    with grpc.insecure_channel(address) as channel:
        stub = sampling_pb2_grpc.SamplingStub(channel)
        replies = list(getattr(stub, method.rpartition("/")[2])(request, timeout=120))
    asked = sum(batch.count for batch in request.batches)
    assert sum(reply.HasField("image") for reply in replies) == asked


@contextlib.contextmanager
def reader(document: str, tree: Path, folder: Path) -> Iterator[Reader]:
    """Give a reader what readers bring, and see them off."""
    home = folder / "home"
    for name in ("mnist", "fashion-mnist"):
        for split in ("train", "test"):
            if (data_root() / name / split).is_dir():  # else the reader fetches it
                (home / "store" / name).mkdir(parents=True, exist_ok=True)
                (home / "store" / name / split).symlink_to(data_root() / name / split)
    some_scans(home / "scans")
    bring(tree)
    someone = Reader(document, tree, tree, home, {})
    try:
        yield someone
        for begin in list(someone.lasting):
            someone.interrupt(begin)
    finally:
        someone.leave()
