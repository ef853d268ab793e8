"""Quality that shows only in large images: accuracy at several sizes, crops, and the spectrum.

Accuracy at 64 pixels says whether an image has the right content; it says nothing about edges. The
Fréchet distance of random crops sees detail only, and the power spectrum shows soft edges, grain
and the seams of a pyramid.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dppm_model.errors import DataError
from dppm_model.files import write_bytes, write_json
from dppm_model.folders import there
from dppm_model.reading import read_json, reading
from sampler.evaluation.classifier import (
    Classifier,
    Images,
    Records,
    accuracy,
    features,
    train_classifier,
)
from sampler.evaluation.metrics import frechet_distance, nearest, radial_power, spaced
from sampler.evaluation.parallel import Job, run_jobs
from sampler.sheet import contact_sheet

LEAST_SIDE = 128  # images with a shorter side have no detail that the other figures miss
CROP = 64
SIDES = (32, 128)  # beside the 64 of the main figure
_MOST_IMAGES = 2000
_PAIRS = 16  # of an image and its nearest record, in the picture


def detail(
    judge: Classifier,
    synthetic: Records,
    train: Records,
    test: Records,
    classes: int,
    folder: Path,
    known: Path | None = None,
    progress: Callable[[float], None] = lambda _share: None,
) -> dict[str, Any]:
    """Judge large images, and write ``spectrum.png`` and ``nearest.png`` into ``folder``.

    The second shows real records: only people who may see those should see ``folder``.

    Parameters
    ----------
    judge
        The recipe's CNN at 64 pixels, trained on real images; the same recipe is used at the other
        sizes, with one seed.
    synthetic, train, test
        Each (images, labels), as for `sampler.evaluation.evaluate.evaluate`.
    known
        A file for the figures of the real images, the same for every run on them; None keeps none.
    progress
        Called with the share of the trainings done.

    Returns
    -------
    ``accuracy_32``, ``accuracy_128`` and the same of real training images; ``frechet_crops`` and
    ``frechet_crops_real``; ``spectrum``: radial frequency in cycles a pixel, and power of synthetic
    over real in dB, with the largest deviation up to a quarter of the sampling rate; the pictures'
    paths.
    """

    def job(records: Records, side: int) -> Job:
        settings = replace(judge.settings, side=side)
        options: dict[str, Any] = {"classes": classes, "settings": settings, "device": judge.device}
        return lambda report: accuracy(
            train_classifier(*records, progress=report, seed=0, **options), *test
        )

    kinds = {"": synthetic, "_real": train}
    stored: dict[str, float] = {}
    if known and there(known):
        with reading(known, DataError, "Remove it: it is made again."):
            stored = {key: float(value) for key, value in read_json(known).items()}
    jobs = {
        name: job(records, side)
        for side in SIDES
        for kind, records in kinds.items()
        if (name := f"accuracy_{side}{kind}") not in stored
    }
    result: dict[str, Any] = stored | run_jobs(jobs, progress)
    if known and not stored:
        write_json(known, {f"accuracy_{s}_real": result[f"accuracy_{s}_real"] for s in SIDES})
    n = min(_MOST_IMAGES, len(synthetic[0]), len(train[0]), len(test[0]))
    cut = {name: spaced(images[0], n) for name, images in (("", synthetic), ("_real", train))}
    unseen = spaced(test[0], n)
    reference = features(judge, random_crops(unseen))
    scale = np.sqrt((reference**2).mean())
    for name, images in cut.items():
        found = features(judge, random_crops(images)) / scale
        result[f"frechet_crops{name}"] = frechet_distance(found, reference / scale)
    frequency, powers = radial_power(cut[""])
    ours, real = powers.mean(0), radial_power(unseen)[1].mean(0)
    decibel = 10 * np.log10(ours / real)
    quarter = frequency <= 0.25
    result["spectrum"] = {
        "cycles_a_pixel": frequency.tolist(),
        "synthetic_over_real_db": decibel.tolist(),
        "largest_db_below_a_quarter": float(np.abs(decibel[quarter]).max()),
    }
    result["spectrum_picture"] = str(folder / "spectrum.png")
    result["nearest_picture"] = str(folder / "nearest.png")
    plot_spectrum(frequency, {"synthetic": ours, "real": real}, folder / "spectrum.png")
    show_nearest(synthetic[0], train[0], folder / "nearest.png")
    return result


def random_crops(images: Images) -> Images:
    """Cut one `CROP`-pixel square out of each image (n, C, H, W), at a random place."""
    rng = np.random.default_rng(0)
    n, _, height, width = images.shape
    tops, lefts = rng.integers(0, height - CROP + 1, n), rng.integers(0, width - CROP + 1, n)
    return np.stack(
        [
            image[:, top : top + CROP, left : left + CROP]
            for image, top, left in zip(images, tops, lefts, strict=True)
        ]
    )


def plot_spectrum(
    frequency: NDArray[np.float64], powers: dict[str, NDArray[np.float64]], path: Path
) -> None:
    """Draw power against frequency, and the ratio of the first to the second in dB."""
    from matplotlib.figure import Figure  # slow to import, and only needed here

    figure = Figure(figsize=(8, 6), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    for (name, power), style in zip(powers.items(), ("-", "--"), strict=True):
        top.plot(frequency, power, style, label=name)
    top.set(yscale="log", ylabel="power")
    top.legend()
    first, second = powers.values()
    bottom.plot(frequency, 10 * np.log10(first / second))
    bottom.axhspan(-1, 1, alpha=0.2, color="grey")
    bottom.axvline(0.25, color="grey", linewidth=0.8)
    bottom.set(xscale="log", xlabel="cycles a pixel", ylabel="difference (dB)")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    write_bytes(path, buffer.getvalue())


def show_nearest(synthetic: Images, train: Images, path: Path) -> None:
    """Write synthetic images (first row) above their nearest real training records."""
    few = spaced(synthetic, min(_PAIRS, len(synthetic)))
    _, index = nearest(few, train)
    both = np.concatenate([few, np.stack([train[i] for i in index])])
    rows = np.repeat([0, 1], len(few))
    contact_sheet(both, rows, path, columns=len(few))
