"""A U-Net on the closed form, from the YAML to private rounds that make it denoise better."""

from pathlib import Path

import numpy as np
import pytest
import torch

from deploy import simulate as simulation
from dppm_model.batch_invariance import check_batch_invariance
from dppm_model.records.writing import write_records
from dppm_model.score.model import ScoreModel
from tests.support.flaky_grid import play

UNET = [
    "data=bars",
    "sites=2",
    "backend=inprocess",
    "model=unet",
    "privacy.epsilon=20",
    "model.mixture.components=1",
    "model.mixture.band=16",
    "model.mixture.texture=9",
    "model.mixture.principal_axes=0",
    "model.mixture.fine_band=0",
    "model.residual.band=8",
    "model.residual.network.channels=8",
    "model.residual.draws=2",
    "model.residual.warmup=3",
    "model.phases.score.rounds=20",
    "model.phases.score.sampling_rate=0.3",
    "model.phases.score.budget_fraction=1.0",
    "~model.phases.component_covariance",
    "~model.phases.components",
    "~model.phases.fine_covariance",
]


def bars(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A bright or dark bar at one of eight places: far from Gaussian."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    images = np.full((n, 1, 8, 8), 64.0)
    images[np.arange(n), 0, rng.integers(0, 8, n)] = 255
    images[labels == 1] = 255 - images[labels == 1]
    return images.astype(np.uint8), labels


def loss(model: ScoreModel) -> float:
    """Mean square error of denoising other records, at a noise level where bars are guessed."""
    images, labels = bars(300, seed=5)
    x, y = model.encode(images), torch.from_numpy(labels)
    noise = 0.5 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    return float((model.denoise(x + noise, torch.full((300,), 0.5), y) - x).square().mean())


def test_private_rounds_of_a_unet_lower_the_denoising_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DPPM_DATA", str(tmp_path / "store"))
    for split, n in (("train", 3000), ("test", 100)):
        path = tmp_path / "store" / "bars" / split
        write_records(path, *bars(n, seed=n), name="bars", split=split, classes=("a", "b"))
    run, _, _ = simulation.prepare(tmp_path / "run", UNET)
    check_batch_invariance("score", run.plan().model)
    play(run)
    model = ScoreModel.load(run.model)
    assert loss(model) < 0.95 * loss(model.without("residual.ema"))
