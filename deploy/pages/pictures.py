"""Pictures inside a page: a sheet for each class, the film strip, images beside real records.

They are PNG in ``data:`` addresses, so that a page is one file and requests nothing.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from deploy.pages.run_summary import RunSummary
from dppm_model.score.model import ScoreModel
from sampler.diagnostics import film_strip, watch
from sampler.evaluation.classifier import shrink
from sampler.evaluation.metrics import nearest
from sampler.images import to_pixels
from sampler.noise import ImageNoise
from sampler.settings import SamplerSettings
from sampler.sheet import encoded_grid
from sampler.stages import draw_base
from server.state import Snapshot

_COLUMNS, _SIDE = 20, 96  # of a sheet; larger images are shrunk to this many pixels
_MOST_PIXELS = 1 << 17  # of a sheet: a page of a hundred classes stays a few MB
_PREVIEW, _PREVIEW_LEVELS = 8, 12  # images of a class, noise levels


@dataclass(frozen=True)
class Picture:
    """An image of a page: ``address`` is its content, ``text`` describes it in words."""

    address: str
    text: str
    caption: str = ""


def sheets(
    images: NDArray[np.uint8], labels: NDArray[np.int64], names: Sequence[str]
) -> list[Picture]:
    """Return a picture of the first images (n, C, H, W) of each class, not selected in any way."""
    side = min(_SIDE, max(images.shape[2:]))
    columns = max(4, min(_COLUMNS, _MOST_PIXELS // side**2))
    rows = ((images[labels == label][:columns], name) for label, name in enumerate(names))
    return [
        Picture(_row(few, side), f"The first {len(few)} synthetic images of {name}", name)
        for few, name in rows
        if len(few)
    ]


def pairs(
    synthetic: NDArray[np.uint8], records: NDArray[np.uint8], count: int = 16
) -> list[Picture]:
    """Return synthetic images, evenly spaced, and the real record nearest to each.

    Both rows have the same order: the second shows *private* records.
    """
    few = synthetic[np.linspace(0, len(synthetic) - 1, count).round().astype(int)]
    _, index = nearest(few, records)
    side = min(_SIDE, max(synthetic.shape[2:]))
    real = f"The real record nearest to each of the {count}"
    return [
        Picture(_row(few, side), f"{count} synthetic images", "synthetic"),
        Picture(_row(records[index], side), real, "real"),
    ]


def film(summary: RunSummary) -> Picture | None:
    """Return the film strip of the chain: that of `dppm diagnose`, or one drawn now."""
    path = summary.run.folder / "film.png"
    if summary.images is None or not summary.run.model.exists():
        return None
    if not path.is_file():
        model = ScoreModel.load(summary.run.model)
        settings = SamplerSettings.from_dict(summary.config.sampler)
        if settings.method not in ("hmc", "langevin"):
            return None
        _, frames, labels = watch(model, settings, per_class=1)
        film_strip(frames, labels, path)
    return Picture(
        _address(path.read_bytes()),
        "One image of each class, from pure noise on the left to the finished image on the right",
        "One image per row, denoised at each noise level: from pure noise to the finished image.",
    )


class Preview:
    """A few images of the model so far: finished phases released it, so they cost no privacy."""

    def __init__(self) -> None:
        self._digest = ""
        self._sheets: list[Picture] = []

    def sheets(self, summary: RunSummary) -> list[Picture]:
        """Return a picture for each class, of the model after the last finished phase.

        They are drawn again only when the model has changed. Of a pyramid they show only the base,
        because the stages take long.
        """
        content = _released(summary)
        if content is None:
            return []
        digest = hashlib.sha256(content).hexdigest()
        if digest != self._digest:
            model, names = ScoreModel.from_bytes(content), summary.config.class_names
            self._digest, self._sheets = digest, _preview(model, names)
        return self._sheets


def _released(summary: RunSummary) -> bytes | None:
    run = summary.run
    if run.model.exists():
        return run.model.read_bytes()
    snapshot = Snapshot.read(run.snapshot, summary.plan.digest)
    return None if snapshot is None or snapshot.phase == 0 else snapshot.model


def _preview(model: ScoreModel, names: Sequence[str]) -> list[Picture]:
    y = torch.arange(len(names)).repeat_interleave(_PREVIEW)
    noise = ImageNoise(0, [(int(c), i % _PREVIEW) for i, c in enumerate(y)])
    with torch.inference_mode():
        x = draw_base(model, y, noise, SamplerSettings("heun", num_levels=_PREVIEW_LEVELS))
    return sheets(to_pixels(x), y.numpy(), names)


def _row(images: NDArray[np.uint8], side: int) -> str:
    small = shrink(images, side).numpy() if max(images.shape[2:]) > side else images
    labels = np.zeros(len(small), dtype=np.int64)
    return _address(encoded_grid(small, labels, np.arange(1), len(small), tile=1))


def _address(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
