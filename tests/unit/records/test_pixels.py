"""Bytes to floats and back."""

import numpy as np
import pytest
import torch

from dppm_model.errors import DataError
from dppm_model.records.pixels import to_tensor
from sampler.images import to_pixels


def test_every_byte_comes_back() -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(4, 1, 8, 8)
    x = to_tensor(pixels)
    assert x.dtype == torch.float32
    assert (x.min(), x.max()) == (-1.0, 1.0)
    np.testing.assert_array_equal(to_pixels(x), pixels)
    truncated = ((x + 1) * 127.5).to(torch.uint8).numpy()  # the broken twin: cut, not rounded
    assert (truncated != pixels).any()


def test_out_of_range_is_clamped_and_nan_is_refused() -> None:
    x = torch.tensor([-torch.inf, -1.2, -1.0, 0.001, 1.0, 1.3, torch.inf])
    assert to_pixels(x).tolist() == [0, 0, 0, 128, 255, 255, 255]
    with pytest.raises(DataError, match="NaN"):
        to_pixels(torch.tensor([0.0, torch.nan]))


def test_memory_maps_and_gradients_are_no_obstacle(tmp_path) -> None:
    np.save(tmp_path / "a.npy", np.full((1, 1, 2, 2), 255, np.uint8))
    x = to_tensor(np.load(tmp_path / "a.npy", mmap_mode="r")).requires_grad_()
    assert to_pixels(x).tolist() == [[[[255, 255], [255, 255]]]]
