"""Seconds of rounds that this machine has run; nothing is said of what it has not.

`dppm simulate` and `dppm plan --measure` note the median round of each kind of phase beside the
data sets, and how many numbers it computed. A planned round of that kind then takes the noted
seconds, times the ratio of the numbers: a rough figure, better the more alike the two plans are.
"""

from __future__ import annotations

import platform
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from deploy import simulate as simulation
from deploy.cost.workload import Workload, workloads
from dppm_model.config import Config
from dppm_model.files import write_json
from dppm_model.progress import Progress, silent
from dppm_model.reading import read_json
from dppm_model.records.sources import data_root
from dppm_model.run import Run


def note_seconds(run: Run, backend: str) -> None:
    """Note how long the finished rounds of a simulation took."""
    seconds = defaultdict[str, list[float]](list)
    for line in run.rounds():
        seconds[line["phase"]].append(float(line["seconds"]))
    noted = _noted()
    for load in workloads(run.plan()):
        if times := seconds[load.phase.name]:
            noted[_key(load, backend)] = [statistics.median(times), load.numbers]
    with suppress(OSError):  # a store that is read-only: only the estimate is missed
        write_json(_path(), noted)


def round_seconds(load: Workload, backend: str) -> float | None:
    """Return about how long a round takes here, or None if none of its kind was timed."""
    match _noted().get(_key(load, backend)):
        case [float() | int() as seconds, float() | int() as numbers] if numbers > 0:
            return seconds * load.numbers / numbers
    return None


def run_seconds(loads: Sequence[Workload], backend: str) -> float | None:
    """Return about how long all rounds take here, or None if a kind of phase was never timed."""
    each = [round_seconds(load, backend) for load in loads]
    known = [s * load.phase.rounds for s, load in zip(each, loads, strict=True) if s is not None]
    return sum(known) if len(known) == len(loads) else None


def measure(config: Config, say: Progress = silent) -> None:
    """Time one round of each phase: a simulation whose answers are thrown away.

    Raises
    ------
    DppmError
        What stopped it.
    """
    with tempfile.TemporaryDirectory(prefix="dppm-") as folder:
        run = Run(Path(folder) / "run")
        plan = simulation.plan_of(config, "measure")
        once = replace(plan, phases=tuple(replace(p, rounds=1) for p in plan.phases))
        simulation.write_run(run, config, once, [], say)
        say("timing a round of each phase")
        simulation.simulate(run, config)
        note_seconds(run, config.backend)


def _path() -> Path:
    return data_root() / ".round-seconds.json"


def _key(load: Workload, backend: str) -> str:
    return f"{platform.node()} {backend} {load.kind}"


def _noted() -> dict[str, object]:
    """Read what was noted; a file that cannot be read counts as none."""
    try:
        found = read_json(_path())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
