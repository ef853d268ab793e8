"""One shard, from its name to the content of its file: a pure function, the same bits anywhere.

"The same bits" holds on machines whose CPUs choose the same matrix kernels; across CPU families a
pixel may now and then differ by one grey level, and a Metropolis test by its outcome.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch

from dppm_model.errors import ModelError, SamplerError
from dppm_model.reading import read_bytes, reading
from dppm_model.records.pixels import to_pixels
from dppm_model.score.denoiser import ImageModel
from dppm_model.score.model import ScoreModel
from sampler.images import Shard, encode_shard
from sampler.noise import ImageNoise
from sampler.settings import SamplerSettings
from sampler.stages import draw_images

Loader = Callable[[bytes], ImageModel]  # from the content of a model file


def load_model(content: bytes) -> ImageModel:
    """Read a score model: the loader of everything but tests."""
    return ScoreModel.from_bytes(content)


def read_model(path: Path) -> bytes:
    """Return the content of a model file, for a `Loader`.

    Raises
    ------
    ModelError
        If it cannot be read.
    """
    with reading(path, ModelError, "Name the model.safetensors of a run folder."):
        return read_bytes(path)


@contextmanager
def on_threads(count: int) -> Iterator[None]:
    """Compute on so many threads for a while, as every worker does: the same kernels and bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def draw_shard(model: ImageModel, shard: Shard, seed: int, settings: SamplerSettings) -> bytes:
    """Return the content of a shard's file.

    Image ``first + i`` of class ``label`` takes its noise from (seed, label, first + i) alone.

    Raises
    ------
    SamplerError
        If a value is not finite.
    """
    noise = ImageNoise(seed, [(shard.label, shard.first + i) for i in range(shard.count)])
    y = torch.full((shard.count,), shard.label, dtype=torch.int64)
    with torch.inference_mode():
        x, info = draw_images(model, y, noise, settings)
    if not torch.isfinite(x).all():
        raise SamplerError(
            f"{shard.name}: the sampler ran into values that are not finite.",
            "Lower sampler.step_size, or check the model.",
        )
    return encode_shard(shard, to_pixels(x), asdict(info))
