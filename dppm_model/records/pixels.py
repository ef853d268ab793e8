"""Between bytes on disk and floats in the model: x = pixel / 127.5 - 1."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from dppm_model.errors import DataError


def to_tensor(pixels: NDArray[np.uint8]) -> torch.Tensor:
    """Map uint8 (n, C, H, W) to float32 in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pixels).astype(np.float32) / 127.5 - 1)


def to_pixels(x: torch.Tensor) -> NDArray[np.uint8]:
    """Map float (n, C, H, W) to uint8, clamped to [-1, 1] and rounded.

    Raises
    ------
    DataError
        If a value is not a number: clamping keeps NaN, and its byte would be arbitrary.
    """
    if torch.isnan(x).any():
        raise DataError("An image holds NaN.", "Sample again with a smaller step size.")
    scaled = ((x.detach().clamp(-1, 1) + 1) * 127.5).round()
    pixels: NDArray[np.uint8] = scaled.to(torch.uint8).cpu().numpy()
    return pixels
