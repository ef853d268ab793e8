"""A PNG file that says in text chunks that it is synthetic, and where it is from."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.PngImagePlugin import PngInfo

from deploy.export.synthetic import NOTE
from sampler.images import to_image


def marked_png(pixels: NDArray[np.uint8], facts: Mapping[str, Any]) -> bytes:
    """Encode an image (C, H, W), grey or RGB, with a text chunk for each of its facts."""
    info = PngInfo()
    info.add_text("Description", NOTE)
    info.add_text("Software", facts["software"])
    for key, value in facts.items():
        if key != "software":
            info.add_itxt(key, "true" if value is True else str(value))  # Unicode: class names
    buffer = io.BytesIO()
    to_image(pixels).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()
