"""What a sampler needs of a model, and nothing else of it; and how parts of models provide it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import chain
from typing import Protocol

import torch
from torch import nn


class Denoiser(Protocol):
    """EDM's D(x; sigma) of one kind of images, on one device.

    A score model's base is one, and so is each stage of a pyramid, set upon images that are there.
    """

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        ...

    @property
    def classes(self) -> int:
        """Number of classes."""
        ...

    @property
    def device(self) -> torch.device:
        """Where x, sigma and y must be."""
        ...

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return E[clean image | x]; x (n, C, H, W), sigma (n,), y (n,). Score: (D - x)/sigma²."""
        ...

    def class_shift(self, x: torch.Tensor, sigma: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return sigma² grad log p(y | x; sigma): what knowing the class adds to the denoised x."""
        ...


class Coordinates(Denoiser, Protocol):
    """A `Denoiser` of the same images in orthonormal coordinates, in which it costs least.

    White noise is white noise there, and Hamiltonian dynamics are the same: a sampler may run in
    either. ``shape`` is that of the coordinates.
    """

    def image(self, x: torch.Tensor) -> torch.Tensor:
        """Return the images (n, C, H, W) of coordinates (n, *shape)."""
        ...


class ConditionalDenoiser(Denoiser, Protocol):
    """A `Denoiser` of what one stage adds to the images that it was set upon."""

    def finish(self, residual: torch.Tensor) -> torch.Tensor:
        """Return the larger images, from what was drawn: both (n, C, H, W)."""
        ...


class Upsampling(Protocol):
    """The stages from the base image to the image, lowest first."""

    @property
    def levels(self) -> tuple[float, ...]:
        """Noise level at which each stage takes over from what is below it."""
        ...

    def stage(self, index: int, low_res: torch.Tensor) -> ConditionalDenoiser:
        """Set a stage (from 0) upon images (n, C, h, w) that carry its level of noise."""
        ...


class ImageModel(Denoiser, Protocol):
    """What draws images: the `Denoiser` of the base image, and what makes it an image."""

    @property
    def coordinates(self) -> Coordinates:
        """The base image's density, in the coordinates in which samplers run."""
        ...

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of a finished image."""
        ...

    @property
    def pyramid(self) -> Upsampling | None:
        """The stages above, if the base is not the image yet."""
        ...

    def decode(self, x: torch.Tensor) -> torch.Tensor:
        """Return the images in [-1, 1] of what was drawn, which may be of another space."""
        ...


class BaseDenoiser(nn.Module, ABC):
    """A `Denoiser` of base images, made of modules and buffers: ``to`` takes all of it elsewhere.

    Attributes
    ----------
    shape, classes
        See `Denoiser`.
    """

    shape: tuple[int, int, int]
    classes: int

    @property
    def device(self) -> torch.device:
        """See `Denoiser`."""
        return next(chain(self.buffers(), self.parameters())).device

    @property
    def coordinates(self) -> Coordinates:
        """The same density in the coordinates in which it costs least; pixels, unless known."""
        return self

    def image(self, x: torch.Tensor) -> torch.Tensor:
        """See `Coordinates`."""
        return x

    @abstractmethod
    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """See `Denoiser`."""

    @abstractmethod
    def class_shift(self, x: torch.Tensor, sigma: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """See `Denoiser`."""

    @abstractmethod
    def error_std(self, sigma: torch.Tensor) -> torch.Tensor:
        """Return the typical error of a denoised pixel, (n, 1, 1, 1), for sigma (n,).

        EDM's c_out: a network above learns the error in this unit.
        """
