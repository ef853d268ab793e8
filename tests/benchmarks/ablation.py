"""What each idea gives, and what privacy, randomized response and the federation cost.

    python -m tests.benchmarks.ablation --data fashion-mnist --epsilon 10 --run runs/fashion

Every variant is trained from all records in one place with the noise of an ideal Gaussian for its
plan at the same epsilon (`tests.benchmarks.central`), draws as many images and is judged by the
same recipe. ``no noise`` is the recipe at epsilon infinity, ``central`` the recipe itself in one
place: a federated run beside it (``--run``) shows what federation and randomized response cost.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from deploy.simulate import plan_of, resolve
from dppm_model.run import Run
from sampler.generate import generate
from sampler.images import load_images
from sampler.pool import PoolSettings
from sampler.settings import SamplerSettings
from tests.benchmarks.central import train_centrally
from tests.benchmarks.runner import benchmark, judged, record


class Variant(NamedTuple):
    """What is changed: times the noise, overrides (`~` takes a phase away), a size that is halved.

    The phases that are left share the budget fraction of one that is not.
    """

    noise: float = 1.0
    changes: tuple[str, ...] = ()
    halved: str | None = None


VARIANTS = {
    "central": Variant(),
    "no noise": Variant(0.0),
    "half the band": Variant(halved="band"),
    "half the axes": Variant(halved="axes"),
    "no variances": Variant(changes=("~model.phases.variances",)),
    "cosines for axes": Variant(changes=("~model.phases.pooled_covariance",)),
    "one covariance for all classes": Variant(changes=("~model.phases.covariance",)),
    "one covariance a class": Variant(changes=("~model.phases.component_covariance",)),
    "one Gaussian a class": Variant(changes=("model.mixture.components=1",)),
    "with a residual network": Variant(changes=("model=residual",)),
}


def overrides_of(name: str, data: str, epsilon: float) -> list[str]:
    """Return the overrides of a variant; a size is half of the recipe's."""
    chosen = VARIANTS[name]
    overrides = [f"data={data}", f"privacy.epsilon={epsilon}", *chosen.changes]
    if chosen.halved:
        size = resolve(overrides).recipe.settings[chosen.halved] // 2
        overrides.append(f"model.mixture.{chosen.halved}={size}")
    return overrides


def variant(
    overrides: list[str], noise: float, per_class: int, seeds: Sequence[int], workers: int | None
) -> dict[str, Any]:
    """Train, draw and judge one variant."""
    config = resolve(overrides)
    begun = time.perf_counter()
    model = train_centrally(config, plan_of(config, "ablation"), noise=noise)
    trained = time.perf_counter() - begun
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.safetensors"
        model.save(path)
        generate(
            path,
            Path(scratch) / "samples",
            per_class=per_class,
            seed=0,
            pool=PoolSettings(workers),
            settings=SamplerSettings.from_dict(config.sampler),
            privacy={"epsilon_secure_sum": None},
        )
        found = judged(load_images(Path(scratch) / "samples"), config.data, seeds=seeds)
    return figures_of(found) | {"train_seconds": round(trained)}


def figures_of(found: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of an evaluation that are compared."""
    names = ("accuracy", "accuracy_by_seed", "accuracy_mlp")
    return {name: found[name] for name in names} | {
        "coverage": found["coverage"]["coverage"],
        "frechet": found["distances"]["frechet"],
    }


def measure(
    data: str = "mnist",
    epsilon: float = 10.0,
    per_class: int = 1500,
    seeds: Sequence[int] = (0, 1, 2),
    workers: int | None = None,
    only: Sequence[str] = tuple(VARIANTS),
    run: Path | None = None,
) -> None:
    """Measure variants, beside an evaluated federated run of the recipe; record after each."""
    torch.set_num_threads(1)
    rows: dict[str, Any] = {}
    if run is not None:
        rows["federated"] = figures_of(Run(run).read_json(Run(run).evaluation))
    for name in only:
        overrides = overrides_of(name, data, epsilon)
        rows[name] = variant(overrides, VARIANTS[name].noise, per_class, seeds, workers)
        print(name, rows[name], flush=True)
        record(f"ablation-{data}-eps{epsilon:g}", {"per_class": per_class, "rows": rows})


if __name__ == "__main__":
    benchmark(measure)
