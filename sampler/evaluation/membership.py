"""Membership inference on the release: guess the training records.

Two attacks use only the model and its images: the denoising loss of a record (learned records
should denoise better), and its distance to the nearest synthetic image. Their figures bound
nothing; a model whose epsilon holds must leave them near chance.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dppm_model.score.model import ScoreModel
from sampler.evaluation.metrics import nearest

SIGMAS = (0.1, 0.3, 1.0)
_CHUNK = 250


def membership(
    model: ScoreModel,
    synthetic: NDArray[np.uint8],
    members: tuple[NDArray[np.uint8], NDArray[np.int64]],
    others: tuple[NDArray[np.uint8], NDArray[np.int64]],
    seed: int = 0,
) -> dict[str, Any]:
    """Attack records that were trained on, and as many that were not.

    Returns for each attack the area under the ROC curve (1/2 is chance), the true positive rate at
    one per cent false positives, and the standard error of the area.
    """
    attacks: dict[str, Any] = {}
    both = [losses(model, images, labels, seed) for images, labels in (members, others)]
    for i, sigma in enumerate(SIGMAS):
        attacks[f"loss at sigma {sigma}"] = _roc(-both[0][:, i], -both[1][:, i])
    distances = [nearest(images, synthetic)[0] for images, _ in (members, others)]
    attacks["distance to the nearest image"] = _roc(-distances[0], -distances[1])
    return {"records": len(members[0]), "attacks": attacks}


@torch.no_grad()
def losses(
    model: ScoreModel, images: NDArray[np.uint8], labels: NDArray[np.int64], seed: int
) -> NDArray[np.float64]:
    """Mean square error of denoising each record at each of `SIGMAS`, (n, len(SIGMAS))."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for begin in range(0, len(images), _CHUNK):
        x = model.encode(images[begin : begin + _CHUNK])
        y = torch.from_numpy(np.asarray(labels[begin : begin + _CHUNK], dtype=np.int64))
        found = []
        for sigma in SIGMAS:
            noisy = x + sigma * torch.randn(x.shape, generator=generator)
            error = model.denoise(noisy, torch.full((len(x),), sigma), y) - x
            found.append(error.square().flatten(1).mean(1))
        rows.append(torch.stack(found, dim=1))
    return torch.cat(rows).double().numpy()


def _roc(members: NDArray[np.float64], others: NDArray[np.float64]) -> dict[str, float]:
    """Compare scores (higher: guessed a member) of both groups."""
    order = np.sort(others)
    below = np.searchsorted(order, members, "left") + np.searchsorted(order, members, "right")
    area = float(below.mean() / 2 / len(others))
    error = float(np.sqrt((len(members) + len(others) + 1) / (12 * len(members) * len(others))))
    return {
        "area": area,
        "standard_error": error,
        "true_positives_at_1_percent": float((members > np.quantile(others, 0.99)).mean()),
    }
