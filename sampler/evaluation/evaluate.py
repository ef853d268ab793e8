"""Judge synthetic images: train classifiers on them, test on real images; distances; nearest."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dppm_model.errors import DataError
from dppm_model.progress import Progress
from sampler.evaluation import real_data_baseline as baselines
from sampler.evaluation.classifier import (
    QUICK,
    Classifier,
    EvaluationConfig,
    Images,
    Labels,
    Recipe,
    Records,
    features,
    mean_and_std,
    predict,
    train_classifier,
)
from sampler.evaluation.cohort import copy_figures
from sampler.evaluation.detail import LEAST_SIDE, detail
from sampler.evaluation.metrics import (
    coverage_figures,
    frechet_distance,
    kernel_distance,
    nearest_figures,
    spaced,
    spectrum_figures,
)
from sampler.evaluation.parallel import Job, run_jobs
from sampler.evaluation.public_features import efficientnet_lite0, public_figures, torchscript
from sampler.evaluation.real_data_baseline import RealDataBaseline

FEWEST_PER_CLASS = 10
MOST_FOR_DISTANCES = 5000


def evaluate(
    synthetic: Records,
    train: Records,
    test: Records,
    *,
    dataset: str,
    classes: int,
    recipe: Recipe = QUICK,
    seeds: Sequence[int] = (0,),
    cache: Path | None,
    pictures: Path | None = None,
    public_images: int = 0,
    inception: Path | None = None,
    device: torch.device | str = "cpu",
    progress: Progress,
) -> dict[str, Any]:
    """Measure the quality of synthetic images, beside that of real ones.

    The figures of the real data are not private: share the result only with people who may see the
    data. Nothing here is charged to a budget, and nothing here may choose between private models.

    Parameters
    ----------
    synthetic, train, test
        Each (images, labels): (n, C, H, W) uint8 of one shape and (n,) integers in 0..classes-1.
    recipe
        How classifiers are trained.
    seeds
        Classifier seeds; accuracies, distances in the classifiers' features and coverage are means
        over them, ``_std`` their standard deviation. For all else they draw halves of the images
        (`sampler.evaluation.metrics.with_standard_error`).
    cache
        Folder in which the classifiers trained on the real images, and public features of these,
        are kept; None keeps nothing.
    pictures
        Folder for pictures of large images' detail (`sampler.evaluation.detail`); None looks at no
        detail.
    public_images
        Images of each set that are compared in public features at most; 0 leaves them out, and so
        does a missing package.
    inception
        A TorchScript file of another network for these distances.
    device
        On which the classifiers are trained and features computed.
    progress
        Called with what is being done and how far it is (0 to 1).

    Returns
    -------
    dict
        JSON-able. ``accuracy`` (CNN) and ``accuracy_mlp`` were trained on synthetic images,
        ``..._real`` on the real training images; all are measured on the real test images.
        ``balanced_accuracy...`` are means over the classes. ``..._std`` is the standard deviation
        over seeds (n - 1), None for a single seed. ``public_distances`` and
        ``inception_distances`` are None where they were left out.

    Raises
    ------
    ConfigError
        No seed, or one twice; a TorchScript file that cannot be used.
    DataError
        Images of another shape, labels out of range, a class with too few images.
    """
    begun = time.monotonic()
    seeds = EvaluationConfig.of({"seeds": seeds}, "evaluation").seeds
    shape = train[0].shape[1:]
    check_records("real training", train, shape, classes, FEWEST_PER_CLASS)
    check_records("real test", test, shape, classes, 1)
    check_records("synthetic", synthetic, shape, classes, FEWEST_PER_CLASS)
    networks = {
        "public_distances": efficientnet_lite0(device) if public_images else None,
        "inception_distances": torchscript(inception, device) if inception else None,
    }

    places = (
        {} if cache is None else baselines.cache_paths(cache, train, test, seeds, recipe, device)
    )
    real = {
        seed: baselines.load(path, train[0], classes, recipe.cnn, device)
        for seed, path in places.items()
        if path.exists()
    }
    missing = [seed for seed in seeds if seed not in real]
    options: dict[str, Any] = {"classes": classes, "device": device}
    jobs: dict[tuple[str, str, int], Job] = {
        (source, kind, seed): partial(
            train_classifier, *records, seed=seed, settings=own, **options
        )
        for kind, own in (("cnn", recipe.cnn), ("mlp", recipe.mlp))  # the longest first
        for source, records, chosen in (("real", train, missing), ("synthetic", synthetic, seeds))
        for seed in chosen
    }
    trained = run_jobs(jobs, lambda share: progress("training classifiers", share))

    progress("measuring")
    for seed in missing:
        cnn = trained["real", "cnn", seed]
        cnn_right = predict(cnn, test[0]) == test[1]
        mlp_right = predict(trained["real", "mlp", seed], test[0]) == test[1]
        real[seed] = RealDataBaseline(
            cnn,
            float(cnn_right.mean()),
            per_class(cnn_right, test[1], classes),
            float(mlp_right.mean()),
            per_class(mlp_right, test[1], classes),
        )
        if cache is not None:
            baselines.save(places[seed], real[seed])

    right = {
        kind: np.stack([predict(trained["synthetic", kind, s], test[0]) == test[1] for s in seeds])
        for kind in ("cnn", "mlp")
    }
    judge = real[seeds[0]].cnn
    images = synthetic[0], train[0], test[0]
    public: dict[str, Any] = {"seeds": seeds, "most": public_images, "cache": cache}
    beside: dict[Any, Job] = {
        name: partial(public_figures, network, *images, **public)
        for name, network in networks.items()
        if network is not None
    }
    for s in seeds:
        own = real[s].cnn
        beside["distances", s] = _silent(distance_figures, own, *images)
        beside["coverage", s] = _silent(coverage_figures, own, synthetic, train, test, classes)
    beside["spectrum"] = _silent(spectrum_figures, *images, seeds)
    beside["nearest"] = _silent(nearest_figures, *images)
    measured = run_jobs(beside, lambda share: progress("measuring", share))
    if pictures is not None and min(shape[1:]) >= LEAST_SIDE:
        known = None if cache is None else places[seeds[0]].with_suffix(".detail.json")
        measured["detail"] = detail(
            *(judge, synthetic, train, test, classes, pictures, known),
            progress=lambda share: progress("looking at detail", share),
        )
    recognised = predict(judge, synthetic[0]) == synthetic[1]
    of_classes = {
        kind: [per_class(r, test[1], classes) for r in rights] for kind, rights in right.items()
    }
    accuracies = {
        "accuracy": right["cnn"].mean(1),
        "accuracy_real": [real[s].accuracy for s in seeds],
        "accuracy_mlp": right["mlp"].mean(1),
        "accuracy_mlp_real": [real[s].accuracy_mlp for s in seeds],
        "balanced_accuracy": np.mean(of_classes["cnn"], axis=1),
        "balanced_accuracy_real": [np.mean(real[s].accuracy_per_class) for s in seeds],
        "balanced_accuracy_mlp": np.mean(of_classes["mlp"], axis=1),
        "balanced_accuracy_mlp_real": [np.mean(real[s].accuracy_mlp_per_class) for s in seeds],
    }
    named = {
        "features": f"last hidden layer of the CNN ({recipe.name} recipe) trained on real "
        f"{dataset} images, seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}, divided by "
        "their root mean square over the real test images"
    }
    return {
        "dataset": dataset,
        **{
            k: v for name, found in accuracies.items() for k, v in mean_and_std(name, found).items()
        },
        "synthetic_images": len(synthetic[0]),
        "train_images": len(train[0]),
        "test_images": len(test[0]),
        "recipe": recipe.name,
        "classifier": str(recipe.cnn),
        "classifier_mlp": str(recipe.mlp),
        "seeds": list(seeds),
        **{f"{name}_by_seed": list(map(float, values)) for name, values in accuracies.items()},
        **mean_and_std(
            "accuracy_held_out_synthetic",
            [trained["synthetic", "cnn", s].held_out_accuracy for s in seeds],
        ),
        **mean_and_std("accuracy_per_class", of_classes["cnn"]),
        **mean_and_std("accuracy_real_per_class", [real[s].accuracy_per_class for s in seeds]),
        "images_per_class": np.bincount(synthetic[1], minlength=classes).tolist(),
        "recognised_per_class": per_class(recognised, synthetic[1], classes),
        "distances": over_seeds([measured["distances", s] for s in seeds], ("images",)) | named,
        "coverage": over_seeds(
            [measured["coverage", s] for s in seeds], ("neighbours", "images_per_class")
        )
        | named,
        **{name: measured.get(name) for name in networks},
        "spectrum": measured["spectrum"],
        "nearest": measured["nearest"],
        "copies": copy_figures(synthetic[0], train[0]),
        **({"detail": measured["detail"]} if "detail" in measured else {}),
        "seconds": round(time.monotonic() - begun, 1),
    }


def _silent(function: Callable[..., Any], *arguments: Any) -> Job:
    """A job that does not say how far it is."""
    return lambda _report: function(*arguments)


def check_records(
    name: str, records: Records, shape: tuple[int, ...], classes: int, fewest: int
) -> None:
    """Refuse records for which the evaluation would fail or mean nothing.

    Raises
    ------
    DataError
        Not uint8 images of ``shape`` (C, H, W) with one label in 0..classes-1 each, or fewer than
        ``fewest`` images of a class.
    """
    images, labels = records
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != shape:
        raise DataError(
            f"The {name} images are {images.dtype} {images.shape[1:]}, expected uint8 {shape}.",
            "Evaluate images against the data set that the model was trained on.",
        )
    if len(images) != len(labels):
        raise DataError(
            f"There are {len(images)} {name} images, but {len(labels)} labels.",
            "Give one label for each image.",
        )
    if len(labels) and not (labels.min() >= 0 and labels.max() < classes):
        raise DataError(
            f"The {name} labels go from {labels.min()} to {labels.max()}, "
            f"expected 0 to {classes - 1}.",
            "Evaluate images against the data set that the model was trained on.",
        )
    counts = np.bincount(labels, minlength=classes)
    if counts.min() < fewest:
        raise DataError(
            f"Class {counts.argmin()} has {counts.min()} {name} images, "
            f"at least {fewest} are needed.",
            "Draw or import more images per class.",
        )


def distance_figures(
    judge: Classifier, synthetic: Images, train: Images, test: Images
) -> dict[str, Any]:
    """Distances of synthetic images to real test images; ``_real``: of as many training images.

    The real figure is that of a perfect generator, so read the two together: the Fréchet
    distance is biased by the number of images, and ``judge`` has seen the training images.
    """
    n = min(MOST_FOR_DISTANCES, len(synthetic), len(train))
    reference = features(judge, spaced(test, min(MOST_FOR_DISTANCES, len(test))))
    scale = np.sqrt((reference**2).mean())
    drawn, real = (features(judge, spaced(images, n)) / scale for images in (synthetic, train))
    reference = reference / scale
    return {
        "images": n,
        "frechet": frechet_distance(drawn, reference),
        "frechet_real": frechet_distance(real, reference),
        "kernel": kernel_distance(drawn, reference),
        "kernel_real": kernel_distance(real, reference),
    }


def over_seeds(found: Sequence[Mapping[str, Any]], same: Sequence[str]) -> dict[str, Any]:
    """Mean and standard deviation of the figures of each seed; those of ``same`` are equal."""
    result: dict[str, Any] = {key: found[0][key] for key in same}
    for key in found[0]:
        if key not in same:
            result |= mean_and_std(key, [figures[key] for figures in found])
    return result


def per_class(right: NDArray[Any], labels: Labels, classes: int) -> list[float]:
    """Mean of ``right`` (n,) over the images of each class."""
    return [float(right[labels == c].mean()) for c in range(classes)]
