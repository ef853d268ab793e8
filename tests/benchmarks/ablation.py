"""What each idea gives, and what privacy, randomized response and the federation cost.

    python -m tests.benchmarks.ablation --data fashion-mnist --epsilon 10 --run runs/fashion

Every variant is trained from all records in one place with the noise of an ideal Gaussian for its
plan at the same epsilon (`tests.benchmarks.central`), draws as many images and is judged by the
same recipe. ``no noise`` is the recipe at epsilon infinity, ``central`` the recipe itself in one
place: a federated run beside it (``--run``) shows what federation and randomized response cost.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from deploy.simulate import plan_of, resolve
from dppm_model.progress import silent
from dppm_model.records import sources
from dppm_model.run import Run
from sampler.evaluation.evaluate import evaluate
from sampler.generate import generate
from sampler.images import load_images
from sampler.pool import PoolSettings
from sampler.settings import SamplerSettings
from tests.benchmarks.central import train_centrally
from tests.benchmarks.record import record

# Each variant: the noise, and what is changed. `~` takes a phase away; the others share its part.
VARIANTS: dict[str, tuple[float, list[str]]] = {
    "central": (1.0, []),
    "no noise": (0.0, []),
    "one covariance a class": (1.0, ["~model.phases.component_covariance"]),
    "no pooled fine covariance": (1.0, ["~model.phases.fine_covariance"]),
    "neither": (1.0, ["~model.phases.component_covariance", "~model.phases.fine_covariance"]),
    "one Gaussian a class": (1.0, ["model=mixture_small"]),
    "with a residual network": (1.0, ["model=residual"]),
}


def measure(
    overrides: list[str], noise: float, per_class: int, seeds: tuple[int, ...], workers: int | None
) -> dict[str, Any]:
    """Train, draw and judge one variant."""
    config = resolve(overrides)
    begun = time.perf_counter()
    model = train_centrally(config, plan_of(config, "ablation"), noise=noise)
    trained = time.perf_counter() - begun
    train, test = (sources.load(config.data, split) for split in ("train", "test"))
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
        found = evaluate(
            load_images(Path(scratch) / "samples"),
            (train.images, train.labels),
            (test.images, test.labels),
            dataset=config.data,
            classes=config.classes,
            seeds=seeds,
            cache=sources.data_root() / config.data / "evaluation",
            progress=silent,
        )
    return {
        "accuracy": found["accuracy"],
        "accuracy_by_seed": found["accuracy_by_seed"],
        "accuracy_mlp": found["accuracy_mlp"],
        "frechet": found["distances"]["frechet"],
        "train_seconds": round(trained),
    }


def main() -> None:
    """Measure the variants and record them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--epsilon", type=float, default=10.0)
    parser.add_argument("--per-class", type=int, default=1500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--workers", type=int, help="that draw; 0: this process")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--run", type=Path, help="a federated run of the recipe, evaluated")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    base = [f"data={arguments.data}", f"privacy.epsilon={arguments.epsilon}"]
    rows: dict[str, Any] = {}
    if arguments.run is not None:
        judged = Run(arguments.run).read_json(Run(arguments.run).evaluation)
        rows["federated"] = {
            "accuracy": judged["accuracy"],
            "accuracy_by_seed": judged["accuracy_by_seed"],
            "accuracy_mlp": judged["accuracy_mlp"],
            "frechet": judged["distances"]["frechet"],
        }
    name = f"ablation-{arguments.data}-eps{arguments.epsilon:g}"
    for variant in arguments.only:
        noise, changes = VARIANTS[variant]
        rows[variant] = measure(
            [*base, *changes],
            noise,
            arguments.per_class,
            tuple(arguments.seeds),
            arguments.workers,
        )
        print(variant, rows[variant], flush=True)
        record(name, {"per_class": arguments.per_class, "rows": rows})


if __name__ == "__main__":
    main()
