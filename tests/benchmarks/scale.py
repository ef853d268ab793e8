"""The cost model against simulations: predicted and measured, side by side.

    python -m tests.benchmarks.scale FOLDER [SITES,SITES,...] [OVERRIDE]...

Unit costs are measured by small benchmarks, then for 10, 30, 100 and 300 sites a whole training is
played, and nothing is fitted to it. By Flower, its seconds are those of the wall clock, and the
machine should do nothing else; with ``backend=inprocess`` they are seconds of the processor, since
there the matrix products of one process take all cores. What FOLDER has is not played again.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest.mock import patch

import numpy as np

from deploy import simulate as simulation
from deploy.cost.memory import simulation_memory
from deploy.cost.run import RunCost
from deploy.cost.seconds import Terms, whole
from deploy.cost.units import Kind, Units
from dppm_model.config import Config
from dppm_model.run import Run
from server import rounds
from tests.benchmarks.record import record
from tests.benchmarks.unit_costs.calibrate import calibrate

SITES = (10, 30, 100, 300)
LOOK = 1.0  # seconds between two looks at the memory of processes


class Peaks:
    """The largest resident memory of this process's descendants, by what they are."""

    marks: ClassVar = {"ClientAppActor": "site", "flwr-simulation": "server"}

    def __init__(self) -> None:
        self.bytes = dict.fromkeys(self.marks.values(), 0)
        self._last = 0.0

    def look(self) -> None:
        """Read what the kernel has noted, at most once a second."""
        if time.monotonic() - self._last < LOOK:
            return
        self._last = time.monotonic()
        parents, sizes = dict[int, int](), dict[int, tuple[str, int]]()
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError, ValueError):
                command = (path / "cmdline").read_text()
                lines = (path / "status").read_text().splitlines()
                status = dict(line.split(":", 1) for line in lines)
                parents[int(path.name)] = int(status["PPid"])
                for mark, name in self.marks.items():
                    if mark in command and "VmHWM" in status:
                        size = 1024 * int(status["VmHWM"].split()[0])
                        sizes[int(path.name)] = (name, size)
        for process, (name, size) in sizes.items():
            while process not in (0, os.getpid()):
                process = parents.get(process, 0)
            if process:
                self.bytes[name] = max(self.bytes[name], size)


def units_of(path: Path, run: Run, config: Config) -> Units:
    """Read the unit costs that were measured for the first of the runs, or measure them."""
    if not path.exists():
        units = calibrate(run.plan(), config, flower=config.backend == "flower")
        path.write_text(json.dumps(asdict(units), indent=2))
    raw = json.loads(path.read_text())
    kinds = {name: Kind(*kind) for name, kind in raw.pop("kinds").items()}
    return Units(kinds=kinds, **raw)


def play(folder: Path, sites: int, overrides: list[str]) -> dict[str, Any]:
    """Predict one training, play it, and return both."""
    figures = folder / f"{sites}.json"
    if figures.exists():
        return json.loads(figures.read_text())  # type: ignore[no-any-return]
    home = folder / f"run-{sites}"
    shutil.rmtree(home, ignore_errors=True)  # a run that was interrupted has no time of its own
    run, config, _ = simulation.prepare(home, [f"sites={sites}", *overrides])
    cost = RunCost.of(run.plan(), config, units_of(folder / "units.json", run, config))
    peaks = Peaks()
    clock = time.process_time if config.backend == "inprocess" else time.perf_counter
    begun = clock()
    with patch.object(rounds, "time", SimpleNamespace(monotonic=clock)):
        simulation.simulate(run, config, tick=peaks.look)
    seconds = clock() - begun
    found = {"predicted": predicted(cost), "measured": measured(run, seconds, peaks)}
    found["units"] = asdict(cost.bills[0].units)
    figures.write_text(json.dumps(found, indent=2))
    shutil.rmtree(home / "sites")
    return found


def predicted(cost: RunCost) -> dict[str, Any]:
    """Return what the model says."""
    traffic, units = cost.traffic(), cost.bills[0].units
    return {
        "seconds": cost.simulated,
        "begin": cost.begin,
        "rounds": {b.load.phase.name: b.simulated for b in cost.bills},
        "up": sum(t.up for t in traffic),
        "down": sum(t.down for t in traffic),
        "site_memory": most(b.site_memory for b in cost.bills) + units.actor_bytes,
        "server_memory": most(simulation_memory(b.load, units) for b in cost.bills),
        "terms": {
            b.load.phase.name: {"site": b.site, "server": b.server, "messages": b.messages}
            for b in cost.bills
        },
    }


def most(all_: Iterable[Terms]) -> float:
    """Return the largest of some sums of terms."""
    return max(whole(terms) for terms in all_)


def measured(run: Run, seconds: float, peaks: Peaks) -> dict[str, Any]:
    """Return what happened; much of what the model calls ``begin`` is in the first round."""
    lines, times = run.rounds(), defaultdict[str, list[float]](list)
    for line in lines:
        times[line["phase"]].append(line["seconds"])
    sites = run.plan().sites
    return {
        "seconds": seconds,
        "rounds": {phase: float(np.median(t)) for phase, t in times.items()},
        "up": sum(line["uplink_bytes"] for line in lines) / sites,
        "down": sum(line["downlink_bytes"] for line in lines) / sites,
        "site_memory": peaks.bytes["site"],
        "server_memory": peaks.bytes["server"],
    }


def show(sites: int, found: dict[str, Any]) -> None:
    """Print one number of sites."""
    said, was = found["predicted"], found["measured"]
    rows = {name: (said[name], was[name]) for name in was if name != "rounds"}
    rows |= {f"  {name}": (said["rounds"][name], was["rounds"][name]) for name in said["rounds"]}
    for name, (one, two) in rows.items():
        ratio = f"{one / two:.2f}" if two else "–"
        print(f"N = {sites:3d}  {name:18s} {one:14.4g} predicted {two:14.4g} measured  {ratio}")


def main() -> None:
    """Play all, print, record."""
    folder, *rest = sys.argv[1:]
    sites = [s for s in rest if "=" not in s]
    overrides = ["data=mnist", *(s for s in rest if "=" in s)]
    Path(folder).mkdir(parents=True, exist_ok=True)
    figures = {}
    for n in map(int, sites[0].split(",")) if sites else SITES:
        figures[n] = play(Path(folder), n, overrides)
        show(n, figures[n])
        name = "-".join(["scale", *(s.split("=")[1] for s in overrides[1:])])
        record(name, {"overrides": overrides, "sites": figures})
    for n, found in figures.items():
        one, two = found["predicted"]["seconds"], found["measured"]["seconds"]
        print(f"{n:5d} sites: {one:7.1f} s predicted, {two:7.1f} s measured, ratio {one / two:.2f}")


if __name__ == "__main__":
    main()
