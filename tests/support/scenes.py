"""Small pictures for tests of data: each looks like no other one."""

from io import BytesIO

import numpy as np
from PIL import Image


def scene(number: int, size: int = 12, *, colour: bool = False) -> Image.Image:
    """Return a picture of noise, in mode L or RGB."""
    shape = (size, size, 3) if colour else (size, size)
    rng = np.random.default_rng(number)
    return Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """Return a picture as the bytes of a file."""
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
