"""``ScoreModel``: everything released so far, and the score it gives.

The model is two things: its public configuration, which the plan fixes, and ``arrays`` (named NumPy
arrays), which rounds teach. The server sends a question's private arrays to the sites each round;
it saves all of them, and the sampler loads them. The parts of the configuration name the arrays and
build denoisers from them (`dppm_model.score.part`).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load
from safetensors.numpy import save as save_tensors

from dppm_model import files
from dppm_model.errors import ConfigError, ModelError
from dppm_model.reading import parse_json, read_bytes, reading
from dppm_model.records.pixels import to_tensor
from dppm_model.score.arrays import Arrays, array_specs, check_arrays, require
from dppm_model.score.denoiser import BaseDenoiser, Coordinates, Upsampling
from dppm_model.score.mixture_config import Scales
from dppm_model.score.model_config import ModelConfig

_CHUNK = 64  # records whose full-size images are in memory as floats at a time


class ScoreModel:
    """Everything released so far; before any phase, a public prior.

    It is an `ImageModel`. Without a pyramid, the base image is the image itself. ``shape`` is the
    base's, ``image_shape`` the image's.

    Parameters
    ----------
    config
        Its public configuration.
    arrays
        Released and public arrays by name, treated as read-only; `dppm_model.score.arrays` checks
        them. A question takes only those that it needs (`dppm_model.score.phases`).
    known
        Arrays that were checked before; see `check_arrays`.
    device
        The device on which it is evaluated.

    Raises
    ------
    ModelError
        If an array does not belong to this configuration, or is out of its range.
    """

    def __init__(
        self,
        config: ModelConfig,
        arrays: Arrays,
        known: Arrays | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        check_arrays(config, arrays, known)
        self.config = config
        self.arrays = dict(arrays)
        self.device = torch.device(device)
        self.image_shape, self.shape = config.shape, config.base_shape
        self.classes = config.classes

    @classmethod
    def initial(
        cls, shape: tuple[int, int, int], classes: int, settings: Mapping[str, Any]
    ) -> ScoreModel:
        """Build the model before any phase, from public constants.

        Parameters
        ----------
        shape, classes
            (C, H, W) of an image, and the number of classes.
        settings
            See `ModelConfig.of`.

        Raises
        ------
        ConfigError
            If a setting is unknown or out of range, or the parts do not fit the shape.
        """
        return cls.start(ModelConfig.of(shape, classes, settings))

    @classmethod
    def start(cls, config: ModelConfig) -> ScoreModel:
        """Build the model before any phase, from public constants.

        Raises
        ------
        ModelError
            If the configuration names public arrays that this installation does not have.
        """
        arrays = dict(config.public_arrays)
        for part in config.parts:
            arrays |= part.start(config)
        return cls(config, arrays)

    @property
    def scales(self) -> Scales:
        """The closed form's public scales."""
        return self.config.scales

    def require(self, names: Collection[str]) -> None:
        """Refuse to continue if any of these arrays is missing.

        Raises
        ------
        ModelError
            If one is missing.
        """
        require(self.arrays, names)

    def tensor(self, name: str) -> torch.Tensor:
        """Return an array as a tensor of its own, in memory that PyTorch has aligned."""
        return torch.tensor(self.arrays[name])

    def replace(self, arrays: Arrays) -> ScoreModel:
        """Return a model with some arrays replaced or added.

        Raises
        ------
        ModelError
            If one of them is out of its range.
        """
        return ScoreModel(self.config, {**self.arrays, **arrays}, self.arrays, self.device)

    def released(self, arrays: Mapping[str, torch.Tensor | NDArray[Any]]) -> ScoreModel:
        """Return a model with arrays that a learner computed from the sites' answers.

        Noise may have carried numbers out of their public range, or made a covariance indefinite:
        each moves to the nearest valid one (post-processing), so that no draw ends a run.
        """
        specs = array_specs(self.config)
        return self.replace({n: specs[n].nearest(np.asarray(a)) for n, a in arrays.items()})

    def only(self, names: Collection[str]) -> ScoreModel:
        """Return a model with only the named arrays, those of them that it has."""
        kept = {name: array for name, array in self.arrays.items() if name in names}
        return ScoreModel(self.config, kept, self.arrays, self.device)

    def without(self, *names: str) -> ScoreModel:
        """Return a model without the named arrays."""
        return self.only(self.arrays.keys() - set(names))

    def to(self, device: torch.device | str) -> ScoreModel:
        """Return the model, for evaluation on a device."""
        return ScoreModel(self.config, self.arrays, self.arrays, device)

    @cached_property
    def denoiser(self) -> BaseDenoiser:
        """The denoiser of the base image, on the device; the parts build it on first use.

        Raises
        ------
        ModelError
            If an array that it needs is missing.
        """
        built: BaseDenoiser | None = None
        for part in self.config.parts:
            built = part.denoiser(self.config, self.arrays, built)
        if built is None:
            raise ModelError("The model has no denoising part.", "Use another model=….")
        return built.to(self.device)

    @cached_property
    def pyramid(self) -> Upsampling | None:
        """The stages above the base, on the device, or None; see `ImageModel`.

        Raises
        ------
        ModelError
            If an array that they need is missing.
        """
        every = (
            part.upsampling(self.config, self.arrays, self.device) for part in self.config.parts
        )
        return next((found for found in every if found is not None), None)

    def encode(self, pixels: NDArray[np.uint8]) -> torch.Tensor:
        """Return the base images of records (n, C, H, W): float32 (n, *shape).

        Pixels lie in [-1, 1], averaged if there is a pyramid. Only a question about a stage sees
        more of a record. Each row is a function of its record alone.
        """
        seen = [torch.empty(0, *self.shape)]
        for i in range(0, len(pixels), _CHUNK):
            x = to_tensor(pixels[i : i + _CHUNK])
            for part in reversed(self.config.parts):
                x = part.encode(x, self.arrays)
            seen.append(x)
        return torch.cat(seen)

    def decode(self, x: torch.Tensor) -> torch.Tensor:
        """Return images in [-1, 1] from samples of the base and its stages."""
        for part in self.config.parts:
            x = part.decode(x, self.arrays)
        return x

    @property
    def coordinates(self) -> Coordinates:
        """The base's density in the coordinates in which samplers run; see `ImageModel`."""
        return self.denoiser.coordinates

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return D(x; sigma, y) of base images (n, C, h, w); see `Denoiser`."""
        return self.denoiser.denoise(x, sigma, y)

    def class_shift(self, x: torch.Tensor, sigma: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the base's D(x; sigma, y) - D(x; sigma); see `Denoiser`."""
        return self.denoiser.class_shift(x, sigma, y)

    def arrays_to_bytes(self) -> bytes:
        """Return the arrays alone, as safetensors, for sending to a site."""
        content: bytes = save_tensors(self._contiguous())
        return content

    def to_bytes(self) -> bytes:
        """Return the model as safetensors; its configuration is JSON in the header."""
        meta = json.dumps(self.config.to_dict(), sort_keys=True, allow_nan=False)
        content: bytes = save_tensors(self._contiguous(), {"dppm": meta})
        return content

    def _contiguous(self) -> dict[str, NDArray[Any]]:
        return {name: np.ascontiguousarray(array) for name, array in self.arrays.items()}

    @classmethod
    def from_bytes(cls, content: bytes) -> ScoreModel:
        """Read a whole model that `to_bytes` wrote.

        Raises
        ------
        ModelError
            If the content is damaged, not a model of this project, or incomplete.
        """
        meta, arrays = read_tensors(content)
        try:
            with _reading_model():
                config = ModelConfig.from_dict(parse_json(meta["dppm"]))
        except ConfigError as error:
            raise ModelError(f"The model's configuration: {error.message}", error.hint) from None
        model = cls(config, arrays)
        for part in config.parts:
            model.require(part.whole)
        return model

    def save(self, path: Path) -> None:
        """Write the model to ``path`` (safetensors), atomically."""
        files.write_bytes(path, self.to_bytes())

    @classmethod
    def load(cls, path: Path) -> ScoreModel:
        """Read a model file.

        Raises
        ------
        ModelError
            If it is missing, damaged, or not a model of this project.
        """
        with reading(path, ModelError, "Name the model.safetensors of a run folder."):
            return cls.from_bytes(read_bytes(path))


def read_tensors(content: bytes) -> tuple[dict[str, str], dict[str, NDArray[Any]]]:
    """Read untrusted metadata and arrays.

    Raises
    ------
    ModelError
        If the content is not safetensors.
    """
    with _reading_model():
        arrays = load(content)
        size = int.from_bytes(content[:8], "little")
        return parse_json(content[8 : 8 + size]).get("__metadata__", {}), arrays


def _reading_model() -> AbstractContextManager[None]:
    """Turn any failure in a block that reads a model into a `ModelError`."""
    return reading("The model", ModelError, "Copy it again from the run folder.")
