"""One shard, from its name to the content of its file: a pure function, the same bits anywhere.

"The same bits" holds on machines whose CPUs choose the same matrix kernels, or on GPUs of one kind.
Across kinds a pixel may now and then differ by one grey level, a Metropolis test by its outcome.
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from dppm_model.device import device_of
from dppm_model.errors import ModelError, SamplerError
from dppm_model.reading import read_bytes, reading
from dppm_model.score.denoiser import ImageModel
from dppm_model.score.model import ScoreModel
from sampler.images import Shard, encode_shard, to_pixels
from sampler.noise import ImageNoise
from sampler.settings import SamplerSettings
from sampler.stages import draw_images

Loader = Callable[[bytes], Any]  # from the content of a model file to an `ImageModel`


def load_model(content: bytes) -> ScoreModel:
    """Read a score model: the loader of everything but tests."""
    return ScoreModel.from_bytes(content)


def read_model(path: Path) -> bytes:
    """Return the content of a model file, for a `Loader`.

    Raises ModelError if it cannot be read.
    """
    with reading(path, ModelError, "Name the model.safetensors of a run folder."):
        return read_bytes(path)


@contextmanager
def on_threads(count: int) -> Iterator[None]:
    """Use a number of threads for a block, as every worker does: the same kernels and bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _keep_memory() -> None:
    """Have the C library keep freed memory instead of returning it to the kernel.

    Of blocks of megabytes, which every step of a sampler frees, glibc returns the most, and takes
    them back page by page: nearly half of the time. It stops once a larger block has been freed;
    32 MB is the largest that counts. Any other library sees one block come and go.
    """
    torch.empty(31 << 20, dtype=torch.uint8)


class Worker:
    """A model in memory, on a device, that draws one shard at a time.

    Parameters
    ----------
    loader
        Makes the model from a model file's content, at the first shard.
    threads
        Cores to compute on.
    device
        See `dppm_model.device.device_of`.
    """

    def __init__(self, loader: Loader, threads: int = 1, device: str = "cpu") -> None:
        _keep_memory()
        self._loader, self._threads, self._device = loader, threads, device
        self._model: ImageModel | None = None

    def draw(self, content: bytes, shard: Shard, seed: int, settings: SamplerSettings) -> bytes:
        """Return the content of a shard's file.

        Image ``first + i`` of class ``label`` takes its noise from (seed, label, first + i) alone.

        Raises SamplerError if a value is not finite.

        Parameters
        ----------
        content
            Of the model file, the same in each call.
        """
        device = device_of(self._device)
        names = [(shard.label, shard.first + i) for i in range(shard.count)]
        y = torch.full((shard.count,), shard.label, dtype=torch.int64, device=device)
        with on_threads(self._threads), torch.inference_mode():
            if self._model is None:
                model = self._loader(content)
                self._model = model if device.type == "cpu" else model.to(device)
            x, info = draw_images(self._model, y, ImageNoise(seed, names, device), settings)
        if not torch.isfinite(x).all():
            raise SamplerError(
                f"{shard.name}: the sampler produced values that are not finite.",
                "Lower sampler.step_size, or check the model.",
            )
        return encode_shard(shard, to_pixels(x), asdict(info))

    def peak_memory(self) -> float:
        """Return the most memory that this process has had, in MB."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
