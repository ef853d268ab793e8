"""What a site's message costs before its answer begins: a new process as Flower's, or our fork.

    python -m tests.benchmarks.message SITE

SITE is a simulated or real site's folder with an approved plan. Flower starts a Python for every
message, which imports the bundle and, in our case, reckons the plan's costs. The worker of
`deploy.kit.worker` has done both when a message comes, and forks.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import flwr.supernode.runtime.run_clientapp  # noqa: F401 - as the worker has it

import client.app
from tests.benchmarks.record import record

TURNS = 5
FRESH = (
    "import sys, time; begun = time.perf_counter()\n"
    "import flwr.supernode.runtime.run_clientapp, client.app\n"
    "imported = time.perf_counter()\n"
    "from pathlib import Path; client.app.preload(Path(sys.argv[1]))\n"
    "print(imported - begun, time.perf_counter() - imported)\n"
)


def fresh(site: Path) -> tuple[float, float, float]:
    """Seconds of a whole new process, and of its imports and its reckoning."""
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", FRESH, str(site)], capture_output=True, text=True, check=True
    )
    whole = time.perf_counter() - begun
    imports, reckoning = map(float, done.stdout.split())
    return whole, imports, reckoning


def forked(site: Path) -> float:
    """Seconds of a fork that reckons what its parent has reckoned."""
    begun = time.perf_counter()
    child = os.fork()
    if not child:
        client.app.preload(site)
        os._exit(0)
    os.waitpid(child, 0)
    return time.perf_counter() - begun


def main() -> None:
    """Take turns, and print medians."""
    site = Path(sys.argv[1]).resolve()
    client.app.preload(site)
    turns = [(*fresh(site), forked(site)) for _ in range(TURNS)]
    whole, imports, reckoning, fork = (
        statistics.median(column) for column in zip(*turns, strict=True)
    )
    print(f"a new process {whole:.2f} s (imports {imports:.2f}, costs {reckoning:.2f})")
    print(f"a fork of the worker {fork:.3f} s, {whole / fork:.0f} times less")
    figures = {"process": whole, "imports": imports, "costs": reckoning, "fork": fork}
    record("message", {**figures, "ratio": whole / fork})


if __name__ == "__main__":
    main()
