"""Started programs end with their starter."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deploy import processes
from deploy.processes import Supervised, end_leftovers, free_port, listens, remember, start, stop
from dppm_model.errors import FederationError

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


def gone(pid: int, seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z"):
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def test_leftovers_of_a_killed_starter_are_ended_and_nobody_else(tmp_path: Path) -> None:
    ours, others = tmp_path / "ours", tmp_path / "others"
    ours.mkdir(), others.mkdir()
    with (tmp_path / "log").open("ab") as log:
        left = start(SLEEP, ours, dict(os.environ), log)
        elsewhere = start(SLEEP, others, dict(os.environ), log)  # its number was used again
        unknown = start(SLEEP, ours, dict(os.environ), log)  # somebody's shell in the folder
    try:
        for process in (left, elsewhere):
            remember(tmp_path / "sessions", process)
        end_leftovers(tmp_path / "sessions", ours)
        assert gone(left.pid) and elsewhere.poll() is None and unknown.poll() is None
        assert not (tmp_path / "sessions").exists()
        end_leftovers(tmp_path / "sessions", ours)  # nothing is known: nothing is ended
        assert unknown.poll() is None
    finally:
        for process in (left, elsewhere, unknown):
            stop(process)


@pytest.mark.skipif(sys.platform != "linux", reason="prctl")
def test_a_program_dies_with_its_starter() -> None:
    script = (
        "import os, sys, time\nfrom pathlib import Path\nfrom deploy.processes import start\n"
        f"log = open(os.devnull, 'ab')\np = start({SLEEP!r}, Path('.'), dict(os.environ), log)\n"
        "print(p.pid, flush=True)\ntime.sleep(600)\n"
    )
    starter = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert starter.stdout
    child = int(starter.stdout.readline())
    os.kill(starter.pid, signal.SIGKILL)
    starter.wait()
    assert gone(child)


def test_a_program_that_does_not_listen_is_an_error(tmp_path: Path) -> None:
    port = free_port()
    assert not listens(port)
    with (tmp_path / "log").open("ab") as log:
        quick = [sys.executable, "-c", ""]
        it = Supervised("it", quick, tmp_path, dict(os.environ), log, ("127.0.0.1", port))
        with pytest.raises(FederationError, match="it did not start"), it:
            pass
    assert it.process.poll() is not None


def test_a_program_that_died_is_started_again_and_ends_with_the_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes.time, "sleep", lambda _: None)
    noted = tmp_path / "sessions"
    with (tmp_path / "log").open("ab") as log:
        environment = dict(os.environ)
        with Supervised("it", SLEEP, tmp_path, environment, log, sessions=noted) as it:
            first = it.process.pid
            assert not it.revive()
            os.kill(first, signal.SIGKILL)
            it.process.wait()
            assert it.revive() and it.deaths == 1
            second = it.process.pid
            assert it.process.poll() is None and second != first
    assert it.process.poll() is not None
    assert noted.read_text().split() == [str(first), str(second)]
