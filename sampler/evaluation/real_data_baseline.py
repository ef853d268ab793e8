"""The same classifiers trained on the real images: the baseline, and where features come from.

It is the same for every run on a data set, so it is kept in a file named after the digest of the
data, of the recipe, and of the code that carries it out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch

from dppm_model import files
from dppm_model.errors import DataError
from dppm_model.reading import check_regular, parse_json, reading
from sampler.evaluation import classifier as code
from sampler.evaluation.classifier import (
    Classifier,
    Images,
    Recipe,
    Records,
    Settings,
    build,
    shrink,
)

_OF_CNN = ("mean", "std", "held_out_accuracy")
_OF_BASELINE = ("accuracy", "accuracy_per_class", "accuracy_mlp", "accuracy_mlp_per_class")


@dataclass(frozen=True)
class RealDataBaseline:
    """One seed's CNN trained on real images, and test accuracies of both kinds of classifier."""

    cnn: Classifier
    accuracy: float
    accuracy_per_class: list[float]
    accuracy_mlp: float
    accuracy_mlp_per_class: list[float]


def cache_paths(
    cache: Path,
    train: Records,
    test: Records,
    seeds: Sequence[int],
    recipe: Recipe,
    device: torch.device | str = "cpu",
) -> dict[int, Path]:
    """Name the file of each seed's baseline by SHA-256 of data, recipe, code, PyTorch, device."""
    sha = hashlib.sha256(torch.__version__.encode() + Path(code.__file__).read_bytes())
    sha.update(repr((recipe.cnn, recipe.mlp, torch.device(device).type)).encode())
    for images, labels in (train, test):
        sha.update(repr(images.shape).encode())
        for begin in range(0, len(images), 1000):
            sha.update(images[begin : begin + 1000].tobytes())
        sha.update(labels.astype(np.int64).tobytes())
    return {seed: cache / f"real-{sha.hexdigest()[:32]}-{seed}.safetensors" for seed in seeds}


def save(path: Path, baseline: RealDataBaseline) -> None:
    """Write weights and figures as one safetensors file, atomically."""
    figures = {name: getattr(baseline.cnn, name) for name in _OF_CNN}
    figures |= {name: getattr(baseline, name) for name in _OF_BASELINE}
    weights = {k: v.cpu().contiguous() for k, v in baseline.cnn.network.state_dict().items()}
    files.write_bytes(path, safetensors.torch.save(weights, {"figures": json.dumps(figures)}))


def load(
    path: Path,
    images: Images,
    classes: int,
    settings: Settings,
    device: torch.device | str = "cpu",
) -> RealDataBaseline:
    """Read what `save` wrote of a CNN of these settings, which takes images like ``images``.

    Raises DataError if it is damaged.
    """
    _, channels, height, width = shrink(images[:1], settings.side).shape
    network = build(settings, (channels, height, width), classes, torch.Generator())
    with reading(path, DataError, "Remove it: it is made again."):
        check_regular(path)
        with safetensors.safe_open(path, framework="pt") as file:
            figures = parse_json(file.metadata()["figures"])
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        network.load_state_dict(weights)
        own = (figures[name] for name in _OF_CNN)
        return RealDataBaseline(
            Classifier(network.eval().to(device), settings, *own),
            *(figures[name] for name in _OF_BASELINE),
        )
