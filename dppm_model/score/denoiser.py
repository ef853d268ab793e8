"""The interface between a model and a sampler, and the base class of denoisers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import chain
from typing import Protocol

import torch
from torch import nn


class Denoiser(Protocol):
    """EDM's D(x; sigma) of images of one shape, on one device.

    A score model's base is one, and so is each stage of a pyramid, conditioned on given images.
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
        """The device of x, sigma and y."""
        ...

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return E[clean image | x]; x (n, C, H, W), sigma (n,), y (n,). Score: (D - x)/sigma²."""
        ...

    def class_shift(self, x: torch.Tensor, sigma: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return sigma² grad log p(y | x; sigma): the class's contribution to the denoised x."""
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
    """A `Denoiser` of the residual that one stage adds to the images it is conditioned on."""

    def finish(self, residual: torch.Tensor) -> torch.Tensor:
        """Return the larger images from the drawn residual: both (n, C, H, W)."""
        ...


class Upsampling(Protocol):
    """The stages from the base image to the image, lowest first."""

    @property
    def levels(self) -> tuple[float, ...]:
        """Noise level at which each stage takes over from the one below."""
        ...

    def stage(self, index: int, low_res: torch.Tensor) -> ConditionalDenoiser:
        """Condition a stage (from 0) on images (n, C, h, w) that carry its level of noise."""
        ...


class ImageModel(Denoiser, Protocol):
    """A model as samplers see it: a `Denoiser` of base images, and its way to finished images."""

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
        """The stages above the base, or None."""
        ...

    def decode(self, x: torch.Tensor) -> torch.Tensor:
        """Return images in [-1, 1] from samples, which may lie in another space."""
        ...


class BaseDenoiser(nn.Module, ABC):
    """A `Denoiser` of base images, made of modules and buffers, so that ``to`` moves all of it.

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
