"""All samplers on one checkpoint, at equal evaluations of the network.

    python -m tests.benchmarks.samplers runs/demo runs/eps1
    python -m tests.benchmarks.samplers runs/demo --guidance 1 1.5 2    # HMC by guidance instead

For each budget of evaluations an image every method gets a few settings to choose from, judged by
the Fréchet distance to real *training* images on another seed; what is reported, of the chosen
ones, is measured against real *test* images: Fréchet and kernel distance in the features of the
evaluation network, and the accuracy of a classifier trained on the images. Beside them stand the
same figures of as many real training images.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dppm_model.config import read_config
from dppm_model.records import sources
from dppm_model.records.shards import Records
from dppm_model.run import Run
from dppm_model.score.model import ScoreModel
from sampler.evaluation import real_data_baseline
from sampler.evaluation.classifier import QUICK, Classifier, accuracy, features, train_classifier
from sampler.evaluation.metrics import frechet_distance, kernel_distance, spaced
from sampler.images import to_pixels
from sampler.noise import ImageNoise
from sampler.settings import SamplerSettings
from sampler.stages import draw_images
from tests.benchmarks.runner import benchmark

BATCH = 100
PILOT = 0.3  # share of the images with which settings are chosen


def candidates(evaluations: int) -> Iterator[tuple[str, SamplerSettings]]:
    """Yield (name, settings) with at most so many evaluations, several for each name."""
    for sigma_min in (0.02, 0.3):
        for sigma_max in (20.0, 80.0):
            yield from _solvers((evaluations + 1) // 2, sigma_max, sigma_min)
        yield from _chains(evaluations, sigma_min)


def _solvers(
    levels: int, sigma_max: float, sigma_min: float
) -> Iterator[tuple[str, SamplerSettings]]:
    how = {"num_levels": levels, "sigma_max": sigma_max, "sigma_min": sigma_min}
    yield "heun", SamplerSettings("heun", **how)
    for churn in (0.2 * levels, 0.5 * levels, levels, 4.0 * levels):
        for noise in (1.0, 1.007):
            yield "churn", SamplerSettings("churn", S_churn=churn, S_noise=noise, **how)


def _chains(evaluations: int, sigma_min: float) -> Iterator[tuple[str, SamplerSettings]]:
    for transitions in (1, 4):
        for name, metropolis in (("hmc", True), ("unadjusted hmc", False)):
            levels = evaluations // (1 + 2 * transitions)
            for keep in (0.0, 0.5, 0.9) if levels >= 4 else ():
                how = {
                    "num_levels": levels,
                    "transitions_per_level": transitions,
                    "sigma_min": sigma_min,
                }
                yield (
                    name,
                    SamplerSettings("hmc", momentum_persistence=keep, metropolis=metropolis, **how),
                )
        for name, cost in (("langevin", 1), ("mala", 2)):
            levels = evaluations // (1 + cost * transitions)
            for step in (0.2, 0.45) if levels >= 4 else ():
                how = {
                    "num_levels": levels,
                    "transitions_per_level": transitions,
                    "sigma_min": sigma_min,
                }
                yield name, SamplerSettings("langevin", step_size=step, metropolis=cost == 2, **how)


def draw(
    model: ScoreModel, settings: SamplerSettings, per_class: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels, in batches of one class."""
    images, labels = [], []
    for label in range(model.classes):
        for first in range(0, per_class, BATCH):
            names = [(label, i) for i in range(first, min(first + BATCH, per_class))]
            y = torch.full((len(names),), label)
            with torch.inference_mode():
                x, _ = draw_images(model, y, ImageNoise(seed, names), settings)
            images.append(to_pixels(x.nan_to_num(0.0)))
            labels.append(y.numpy())
    return np.concatenate(images), np.concatenate(labels)


def compare(
    folder: Path, budgets: Sequence[int], guidance: Sequence[float], per_class: int
) -> dict[str, dict[str, object]]:
    """Figures of every method at every budget, or of HMC at every guidance, on one run."""
    run = Run(folder)
    model, config = ScoreModel.load(run.model), read_config(run.config)
    train, test = (sources.load(config.data, split) for split in ("train", "test"))
    real = (train.images, train.labels), (test.images, test.labels)
    cache = sources.data_root() / config.data / "evaluation"
    path = real_data_baseline.cache_paths(cache, *real, (0,), QUICK)[0]
    judge = real_data_baseline.load(path, train.images, model.classes, QUICK.cnn).cnn
    n = per_class * model.classes
    seen, unseen = (features(judge, spaced(r.images, 5000)) for r in (train, test))
    scale = np.sqrt((unseen**2).mean())
    others = features(judge, spaced(train.images[1::2], n)) / scale
    results: dict[str, dict[str, object]] = {
        "real training images": {
            "frechet": frechet_distance(others, unseen / scale),
            "kernel": kernel_distance(others, unseen / scale),
        }
    }
    print(f"{folder}: {n} images a figure; real: {results['real training images']}", flush=True)
    for w in guidance:
        images, labels = draw(model, SamplerSettings(guidance=w), per_class, seed=0)
        figures = compared(judge, images, labels, unseen / scale, scale, model.classes, test)
        results[f"guidance {w}"] = figures
        print(f"  guidance {w}", figures, flush=True)
    for budget in budgets if not guidance else ():
        best: dict[str, tuple[float, SamplerSettings]] = {}
        for name, settings in candidates(budget):
            pilot = draw(model, settings, max(20, int(PILOT * per_class)), seed=1)[0]
            found = frechet_distance(features(judge, pilot) / scale, seen / scale)
            if name not in best or found < best[name][0]:
                best[name] = found, settings
        for name, (_, settings) in best.items():
            begun = time.perf_counter()
            images, labels = draw(model, settings, per_class, seed=0)
            seconds = time.perf_counter() - begun
            figures = compared(judge, images, labels, unseen / scale, scale, model.classes, test)
            results[f"{budget}: {name}"] = {**figures, "seconds": seconds, **changed(settings)}
            print(f"  {budget:5d} {name:15s}", results[f"{budget}: {name}"], flush=True)
    return results


def compared(
    judge: Classifier,
    images: np.ndarray,
    labels: np.ndarray,
    reference: np.ndarray,
    scale: float,
    classes: int,
    test: Records,
) -> dict[str, float]:
    """Distances to real test images, and a classifier's accuracy on them."""
    found = features(judge, images) / scale
    trained = train_classifier(
        images, labels, classes=classes, seed=0, settings=QUICK.cnn, progress=lambda _: None
    )
    return {
        "frechet": round(frechet_distance(found, reference), 4),
        "kernel": round(kernel_distance(found, reference), 5),
        "accuracy": round(accuracy(trained, test.images, test.labels), 4),
    }


def changed(settings: SamplerSettings) -> dict[str, object]:
    """The settings that are not the defaults."""
    plain = SamplerSettings().to_dict()
    return {k: v for k, v in settings.to_dict().items() if v != plain[k]}


def measure(
    runs: Sequence[Path],
    evaluations: Sequence[int] = (20, 50, 100, 250),
    guidance: Sequence[float] = (),
    per_class: int = 200,
) -> dict[str, Any]:
    """Compare on the runs that are named."""
    torch.set_num_threads(1)
    results = {folder.name: compare(folder, evaluations, guidance, per_class) for folder in runs}
    return {"images_per_class": per_class, "results": results}


if __name__ == "__main__":
    benchmark(measure)
