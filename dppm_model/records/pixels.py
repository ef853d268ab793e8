"""Between bytes on disk and floats in the model: x = pixel / 127.5 - 1."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray


def to_tensor(pixels: NDArray[np.uint8]) -> torch.Tensor:
    """Map uint8 (n, C, H, W) to float32 in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pixels).astype(np.float32) / 127.5 - 1)
