"""Tasks of public pre-training: a data set that might be a hospital's, and a closed form of it.

A task is drawn from public images: some classes and some records of a set, at some size, in colours
turned at random, flipped or not; and a closed form that the product's own phases have fitted to
them, with the noise of some epsilon. A network that has met many of them has met whatever a plan
may put under it, bad fits too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from dppm_model.config import Config, check_config, compose_config, initial_model
from dppm_model.errors import DataError, PlanError
from dppm_model.planner import make_plan
from dppm_model.records.shards import Manifest, Records
from dppm_model.score.class_maps import class_maps
from dppm_model.score.closed_form import build_mixture
from dppm_model.score.mixture import Mixture
from dppm_model.training.pretraining import pretrain

_SIDES = (28, 32, 64)  # pixels; a set is never enlarged
_GREY, _TURNED, _TRANSPOSED = 0.3, 0.5, 0.2  # shares of tasks
_RECORDS = (1000, 12_000)
_EPSILONS = (0.7, 30.0)
_MOST_CLASSES = 10
_TRIES, _FEWEST = 100, 200
_KEPT = 2500  # records of a task that training draws from


@dataclass(frozen=True)
class Task:
    """A task.

    Attributes
    ----------
    images, labels
        uint8 (n, C, H, W) and int64 (n,).
    mixture, maps
        The closed form of them, and its `class_maps`.
    text
        Says what it is.
    """

    images: torch.Tensor
    labels: torch.Tensor
    mixture: Mixture
    maps: torch.Tensor
    text: str


def draw_task(sets: Sequence[Records], seed: tuple[int, int]) -> Task:
    """Draw a task from public sets; the same one for the same seed.

    Raises
    ------
    DataError
        If they are too small.
    """
    rng = np.random.default_rng(seed)
    share = np.sqrt([len(records) for records in sets])
    share /= share.sum()
    for _ in range(_TRIES):
        records = sets[int(rng.choice(len(sets), p=share))]
        images, labels = _subset(records, rng)
        if len(images) < _FEWEST:
            continue
        images = _altered(images, rng)
        epsilon = math.exp(rng.uniform(*np.log(_EPSILONS)))
        config = _config(images.shape, int(labels.max()) + 1, epsilon)
        try:
            config.recipe  # noqa: B018
        except PlanError:  # too few records for this epsilon
            continue
        mixture = _fitted(config, images, labels, int(rng.integers(2**31)))
        kept = rng.permutation(len(images))[:_KEPT]
        text = f"{records.manifest.name} {len(images)} x {images.shape[1:]}, epsilon {epsilon:.2g}"
        return Task(
            torch.from_numpy(images[kept]),
            torch.from_numpy(labels[kept]),
            mixture,
            class_maps(mixture),
            text,
        )
    raise _refused(sets)


def _refused(sets: Sequence[Records]) -> DataError:
    names = ", ".join(records.manifest.name for records in sets)
    return DataError(
        f"The public sets {names} have too few images for a task.",
        f"Name sets of at least {_FEWEST} images, better thousands.",
    )


def _subset(
    records: Records, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Choose classes and records: images (n, C, H, W), and labels from 0 without a gap."""
    count = int(math.exp(rng.uniform(*np.log(_RECORDS))))
    classes = rng.permutation(np.unique(records.labels))
    wanted = min(len(classes), int(rng.integers(1, _MOST_CLASSES + 1)))
    # Each class of the set becomes one of the task, or none, unless the set has many small ones.
    group = np.full(int(classes.max()) + 1, -1)
    group[classes] = np.arange(len(classes)) % wanted
    if np.isin(records.labels, classes[:wanted]).sum() >= _RECORDS[0]:
        group[classes[wanted:]] = -1
    found = np.flatnonzero(group[records.labels] >= 0)
    found = np.sort(rng.permutation(found)[:count])
    labels = group[records.labels[found]]
    labels = np.unique(labels, return_inverse=True)[1]
    return records.pixels(found), labels.astype(np.int64)


def _altered(images: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Change size, colours and orientation of all images alike."""
    x = torch.from_numpy(images).float() / 127.5 - 1
    sides = [s for s in _SIDES if s <= min(images.shape[2:])]
    side = int(rng.choice(sides)) if sides else min(images.shape[2:])
    x = functional.interpolate(x, size=(side, side), mode="area")
    if x.shape[1] == 3:
        if rng.random() < _GREY:
            x = x.mean(dim=1, keepdim=True)
        elif rng.random() < _TURNED:
            turn = torch.linalg.qr(torch.from_numpy(rng.normal(size=(3, 3))).float())[0]
            x = torch.einsum("ab,nbhw->nahw", turn, x)
    if rng.random() < _TURNED:
        gain = rng.uniform(0.6, 1.1) * rng.choice([-1.0, 1.0])
        shift = torch.from_numpy(rng.normal(size=(1, x.shape[1], 1, 1)) * 0.2).float()
        x = x * gain + shift
    if rng.random() < 0.5:
        x = x.flip(3)
    if rng.random() < _TRANSPOSED:
        x = x.transpose(2, 3)
    found: NDArray[np.uint8] = ((x + 1) * 127.5).round().clamp(0, 255).byte().contiguous().numpy()
    return found


def _config(shape: tuple[int, ...], classes: int, epsilon: float) -> Config:
    """Return the configuration of a closed form of images (n, C, H, W), with a trusted server."""
    overrides = [
        "data=public",
        "mechanism=gaussian",
        "sites=2",
        "privacy.view=release",
        "privacy.unit=record",
        "privacy.records_per_person=1",
        f"privacy.epsilon={epsilon}",
        f"facts.shape={list(shape[1:])}",
        f"facts.classes={classes}",
        f"facts.records={shape[0]}",
    ]
    return check_config(compose_config(overrides))


def _fitted(
    config: Config, images: NDArray[np.uint8], labels: NDArray[np.int64], seed: int
) -> Mixture:
    """Fit the closed form by its recipe, with an ideal Gaussian's noise."""
    request, phases = config.privacy_request(), config.phase_requests()
    plan = make_plan(request, phases, config.score_model(), run="public")
    manifest = Manifest("public", "train", config.shape, config.class_names, len(images), False, "")
    records = Records(manifest, images, labels, None)
    model = pretrain(initial_model(config), plan.phases, records, seed)
    return build_mixture(model.config.scales, model.arrays)
