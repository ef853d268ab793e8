"""What a record costs in each phase of a plan, and what the server does with a round's estimate."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from deploy.cost.load import GRADIENT_CHUNK, GRADIENTS, MOMENTS_CHUNK
from deploy.cost.units import Kind
from dppm_model.config import Config, initial_model
from dppm_model.mechanism.gradients import clipped_sum
from dppm_model.mechanism.quantize import Grid
from dppm_model.mechanism.secure_rng import SecureRNG
from dppm_model.phase import GRID_STEPS
from dppm_model.plan import Plan
from dppm_model.records.shards import open_records
from dppm_model.records.sources import data_root, load
from dppm_model.records.units import Units
from dppm_model.score.model import ScoreModel
from dppm_model.score.phases import build_learner, kind_of, read_question, write_question
from dppm_model.score.query import Query
from dppm_model.score.unit_batches import UnitBatches
from tests.benchmarks.unit_costs.clock import once, seconds

_CHUNKS = 8  # beside one, to tell the question from the records
_WIDTH = 1024  # of the square matrix whose gradient is timed
_RECKON = (
    "import sys, time, json; from pathlib import Path\n"
    "from dppm_model.plan import Plan; from dppm_model.planner import epsilons\n"
    "import client.app\n"
    "plan = Plan.from_json(Path(sys.argv[1]).read_text()); begun = time.process_time()\n"
    "epsilons(plan); first = time.process_time() - begun; times = []\n"
    "for done in range(1, plan.rounds + 1):\n"
    "    begun = time.process_time(); epsilons(plan, done)\n"
    "    times.append(time.process_time() - begun)\n"
    "print(json.dumps([first, times]))\n"
)
_RESIDENT = """
import sys; from pathlib import Path
import numpy as np, torch
import {module}
from dppm_model.mechanism.secure_rng import SecureRNG
from dppm_model.plan import Plan
from dppm_model.planner import epsilons
from dppm_model.records.shards import open_records
from dppm_model.records.units import Units
from dppm_model.score.unit_batches import UnitBatches
from dppm_model.score.model import ScoreModel
from dppm_model.score.phases import build_learner, build_query
torch.set_num_threads(1)
folder, shards = map(Path, sys.argv[1:])
plan, model = Plan.from_json((folder / "plan.json").read_text()), ScoreModel.load(folder / "model")
epsilons(plan)
for p in plan.phases:
    {work}
from tests.benchmarks.unit_costs.echo.memory import peak
print(peak())
"""
_ASK = """units = Units.of(open_records(shards), plan.unit, plan.records_per_person)
    own = np.arange(len(units) // plan.sites)
    seeds = SecureRNG().seeds(len(own))
    UnitBatches(units, build_query(p.name, model), p.grid, own, seeds).total()"""
_LEARN = """learner = build_learner(p.name, model, 0)
    learner.step(np.zeros(p.dimension), 1e-3)
    learner.result().to_bytes()"""


def kinds(plan: Plan, config: Config) -> tuple[dict[str, Kind], ScoreModel]:
    """Walk through the plan's phases, one round each, with a few records and no noise.

    Returns
    -------
    Unit costs of the kinds, and the model that they end in.
    """
    records = load(config.data, "train")
    model, found, coins = initial_model(config), dict[str, list[Kind]](), SecureRNG()
    units = Units.of(records, plan.unit, plan.records_per_person)
    for p in plan.phases:
        kind = kind_of(p.name)
        chunk = GRADIENT_CHUNK if kind in GRADIENTS else MOMENTS_CHUNK
        learner = build_learner(p.name, model, config.seed)
        content = write_question(p.name, learner.result())

        def question(p=p, content=content) -> Query:  # type: ignore[no-untyped-def]
            return read_question(p.name, plan.model, content)

        read = question()

        def ask(count: int, p=p, query=read) -> np.ndarray:  # type: ignore[no-untyped-def]
            sampled = np.sort(np.random.default_rng(count).permutation(len(units))[:count])
            return UnitBatches(units, query, p.grid, sampled, coins.seeds(count)).total()

        few, many = (seconds(lambda n=n: ask(n), 3) for n in (chunk, _CHUNKS * chunk))  # type: ignore[misc]
        anew = seconds(lambda: ask(chunk, query=question()), 2)  # noqa: B023
        record = (many - few) / ((_CHUNKS - 1) * chunk)
        estimate = p.grid.to_float(ask(_CHUNKS * chunk)) / (_CHUNKS * chunk)

        def learn(p=p, learner=learner, estimate=estimate) -> None:  # type: ignore[no-untyped-def]
            learner.step(estimate, 1e-3)
            learner.result().to_bytes()

        step = once(learn)
        found.setdefault(kind, []).append(
            Kind(max(anew - few, 0.0), max(few - chunk * record, 0.0), record, step / p.dimension)
        )
        model = learner.result()
    medians = {
        kind: Kind(*(statistics.median(column) for column in zip(*all_, strict=True)))
        for kind, all_ in found.items()
    }
    return medians, model


def resident(plan: Plan, config: Config, model: ScoreModel, folder: Path) -> dict[str, float]:
    """Peak bytes of a process that asks a site's records by each phase, and of one that learns."""
    (folder / "plan.json").write_text(plan.to_json())
    model.save(folder / "model")
    shards = str(data_root() / config.data / "train")

    def peak(module: str, work: str) -> float:
        program = _RESIDENT.format(module=module, work=work)
        done = subprocess.run(
            [sys.executable, "-c", program, str(folder), shards],
            capture_output=True,
            text=True,
            check=True,
        )
        return float(done.stdout)

    return {
        "site_bytes": peak("client.app", _ASK),
        "server_bytes": peak("server.app", _LEARN),
    }


def gradient() -> float:
    """Seconds of a record's clipped gradient, per parameter of one matrix product."""
    network = nn.Linear(_WIDTH, _WIDTH, bias=False)
    x = torch.randn(4 * GRADIENT_CHUNK, _WIDTH)

    def losses(net: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
        return net(inputs).square().sum(1)  # type: ignore[no-any-return]

    grid = Grid(1.0, GRID_STEPS)
    return seconds(lambda: clipped_sum(network, losses, [x], grid), 3) / len(x) / _WIDTH**2


def row() -> float:
    """Seconds to average a record's vector with others of a person, per coordinate."""
    vector, total = torch.randn(1 << 20), torch.zeros(1 << 20, dtype=torch.float64)
    return seconds(lambda: total.add_(vector)) / (1 << 20)


def listing(plan: Plan, config: Config) -> tuple[float, float]:
    """Seconds per unit that a site lists and samples in a round, and to open the records."""
    path = data_root() / config.data / "train"
    opened = 3 * seconds(lambda: open_records(path))
    records, coins = load(config.data, "train"), SecureRNG()
    own = records.select(np.arange(0, len(records), config.sites))

    def one() -> None:
        for _ in range(3):
            units = Units.of(own, plan.unit, 1)
        coins.bernoulli(1 << 31, len(units)), coins.seeds(len(units))

    return seconds(one) / (len(records) / config.sites), opened


def reckoning(plan: Plan, folder: Path) -> tuple[float, float]:
    """Processor seconds to certify a phase in a new process, and of a round's epsilon later."""
    path = folder / "plan.json"
    path.write_text(plan.to_json())
    done = subprocess.run(
        [sys.executable, "-c", _RECKON, str(path)], capture_output=True, text=True, check=True
    )
    first, times = json.loads(done.stdout)
    return first / len(plan.phases), statistics.mean(times)
