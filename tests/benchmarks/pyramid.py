"""A pyramid run beside its twin without privacy: what the noise costs, phase by phase.

    python -m tests.benchmarks.pyramid runs/demo-256 --per-class 200

The twin is trained on the same records by the same phases and rounds, with the same clipping, from
exact sums. Beside accuracy and pictures of both (``RUN/exact``) stand the loss of each phase on
*test* records: the base's denoising error, and the upsampler's loss at each stage, from the
drawn shapes' weights, with privacy, and without. Never show the twin to anybody but the data's
owner: nothing protects what it learned.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dppm_model.config import read_config
from dppm_model.mechanism.gradients import trainable
from dppm_model.records import sources
from dppm_model.run import Run
from dppm_model.score.model import ScoreModel
from dppm_model.score.pyramid import PyramidConfig, build_upsampler, start_weights
from dppm_model.score.pyramid_query import crop_records, questions
from dppm_model.score.weights import set_weights
from sampler.generate import generate
from sampler.images import load_images
from sampler.settings import SamplerSettings
from sampler.sheet import contact_sheet
from tests.benchmarks.central import train_centrally
from tests.benchmarks.runner import benchmark, judged

_TEST_RECORDS = 512
_SIGMAS = (0.3, 1.0, 3.0)


@torch.no_grad()
def losses(model: ScoreModel, images: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Mean square denoising error of the base at `_SIGMAS`, and the detail loss of each stage."""
    base, y = model.encode(images), torch.from_numpy(labels)
    generator, found = torch.Generator().manual_seed(0), {}
    for sigma in _SIGMAS:
        noisy = base + sigma * torch.randn(base.shape, generator=generator)
        error = model.denoise(noisy, torch.full((len(y),), sigma), y) - base
        found[f"base, sigma {sigma}"] = float(error.square().mean())
    return found | upsampling_losses(model.arrays, model, images)


@torch.no_grad()
def upsampling_losses(
    arrays: Mapping[str, np.ndarray], model: ScoreModel, images: np.ndarray
) -> dict[str, float]:
    """Return the loss of the upsampler of these arrays at each stage."""
    network = build_upsampler(model.shape[0], arrays)
    if "detail.ema" in arrays:
        set_weights(trainable(network).values(), arrays["detail.ema"])
    seeds = torch.arange(len(images))
    config = model.config.part(PyramidConfig)
    crops = crop_records(images, seeds, config).crops
    *inputs, target = questions(crops, seeds, config)
    side = model.shape[1]
    return {
        f"stage {side << o} to {side << (o + 1)}": float(
            (network(*(t[:, o] for t in inputs)) - target[:, o]).square().mean()
        )
        for o in range(config.stages)
    }


def measure(run: Path, per_class: int = 200) -> dict[str, Any]:
    """Compare a run with its twin."""
    private = Run(run)
    config, folder = read_config(private.config), run / "exact"
    path = folder / "model.safetensors"
    torch.set_num_threads(1)  # small products: waiting for a second core costs more than it gives
    if not path.exists():
        folder.mkdir(exist_ok=True)
        train_centrally(config, private.plan(), noise=0.0).save(path)
    test = sources.load(config.data, "test")
    few = np.linspace(0, len(test) - 1, _TEST_RECORDS).astype(np.int64)
    images, labels = test.pixels(few), test.labels[few]
    models = {"with privacy": ScoreModel.load(private.model), "without": ScoreModel.load(path)}
    figures = {name: losses(model, images, labels) for name, model in models.items()}
    start = {"detail.start": start_weights(models["without"].shape[0])}
    figures["drawn shapes"] = upsampling_losses(start, models["without"], images)
    print(json.dumps(figures, indent=2), flush=True)
    settings = SamplerSettings.from_dict(config.sampler)
    drawn = generate(
        path,
        folder / "samples",
        per_class=per_class,
        seed=0,
        settings=settings,
        privacy={"epsilon_secure_sum": None},
        progress=lambda text, _share=None: print(f"\r{text}", end="", flush=True),
    )
    synthetic = load_images(folder / "samples")
    contact_sheet(*synthetic, folder / "samples.png")
    result = judged(synthetic, config.data, pictures=folder)
    known = private.read_json(private.evaluation) if private.evaluation.exists() else {}
    for name, found in (("without privacy", result), ("with privacy", known)):
        print(name, found.get("accuracy"), found.get("detail", {}).get("frechet_crops"))
    sizes = {"images": drawn.images, "seconds": drawn.seconds}
    return {"losses": figures, "without": result, "with": known, "sampling": sizes}


if __name__ == "__main__":
    benchmark(measure)
