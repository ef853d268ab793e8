"""Pixels in a file without a name, so that pictures are decoded once; the system frees it."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np
from numpy.typing import NDArray

from dppm_model.errors import DataError
from dppm_model.records.pictures import Picture


def unnamed_file(near: Path) -> IO[bytes]:
    """Open a new file without a name on the disk of ``near``, which need not exist."""
    folder = next(place for place in (near, *near.absolute().parents) if place.is_dir())
    try:
        return tempfile.TemporaryFile(dir=folder)
    except OSError:  # not for this user to write in: the folder will be made below it
        return tempfile.TemporaryFile()


class Spool:
    """Pictures of one height and width, grey or RGB."""

    def __init__(self, near: Path) -> None:
        self._near = near
        self._file = unnamed_file(near)
        self._places: dict[Picture, tuple[int, tuple[int, ...]]] = {}

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def add(self, picture: Picture, pixels: NDArray[np.uint8]) -> None:
        """Append the pixels (C, H, W) of a picture; DataError if the disk is full."""
        self._places[picture] = self._file.tell(), pixels.shape
        try:
            self._file.write(np.ascontiguousarray(pixels).data)
        except OSError as error:
            raise DataError(
                f"{self._near} has no room for the pixels ({error.strerror}).",
                "Free disk space, or set DPPM_DATA to another folder.",
            ) from None

    def take(self, pictures: Sequence[Picture], channels: int) -> NDArray[np.uint8]:
        """Read pictures as (n, channels, H, W); grey ones become RGB if need be."""
        places = [self._places[picture] for picture in pictures]
        height, width = places[0][1][1:]
        found = np.empty((len(places), channels, height, width), dtype=np.uint8)
        for one, (start, shape) in zip(found, places, strict=True):
            self._file.seek(start)
            one[:] = np.frombuffer(self._file.read(math.prod(shape)), np.uint8).reshape(shape)
        return found
