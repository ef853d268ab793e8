"""What a sampler needs of a model, and nothing else of it."""

from __future__ import annotations

from typing import Protocol

import torch

from dppm_model.score.pyramid import Pyramid


class Denoiser(Protocol):
    """What a sampler needs of a model: EDM's D(x; sigma), in pixel space [-1, 1]."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        ...

    @property
    def classes(self) -> int:
        """Number of classes."""
        ...

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return E[clean image | x]; x (n, C, H, W), sigma (n,), y (n,). Score: (D - x)/sigma²."""
        ...

    def class_shift(self, x: torch.Tensor, sigma: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return sigma² grad log p(y | x; sigma): what knowing the class adds to the denoised x."""
        ...


class ImageModel(Denoiser, Protocol):
    """What draws images: the `Denoiser` of the base image, and the stages above it."""

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of a finished image."""
        ...

    @property
    def pyramid(self) -> Pyramid | None:
        """The stages, if the base is not the image yet."""
        ...
