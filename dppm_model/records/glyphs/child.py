"""A child process that draws fonts: a font that kills or stalls it is lost, and nothing else."""

from __future__ import annotations

import json
import os
import selectors
import struct
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from dppm_model.records.glyphs import render

_SECONDS = 60.0  # for one font; it takes hundredths, so a busy machine changes no outcome


class Painter:
    """Draws fonts in a child that is started when needed and again when it died."""

    def __init__(self, script: Path = Path(render.__file__), seconds: float = _SECONDS) -> None:
        # -P keeps the script's folder from hiding modules of the standard library.
        self._command = [sys.executable, "-P", str(script)]
        self._seconds = seconds
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Painter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()

    def thumbs(self, path: Path) -> NDArray[np.uint8] | None:
        """Draw all letters small: uint8 (26, 32, 32), or None if the font is of no use."""
        return _pixels(self._ask(path, None), render.THUMB)

    def pictures(self, path: Path, letters: str) -> NDArray[np.uint8] | None:
        """Draw some letters: uint8 (len(letters), 1, 256, 256), or None if that failed."""
        pixels = _pixels(self._ask(path, letters), render.SIZE)
        return None if pixels is None else pixels[:, None]

    def _ask(self, path: Path, letters: str | None) -> bytes:
        if self._child is None:
            self._child = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # FreeType's remarks on damaged fonts
                bufsize=0,
            )
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        deadline = time.monotonic() + self._seconds
        try:
            self._child.stdin.write(
                json.dumps({"path": str(path), "letters": letters}).encode() + b"\n"
            )
            with selectors.DefaultSelector() as waiting:
                waiting.register(self._child.stdout, selectors.EVENT_READ)
                out = self._child.stdout.fileno()
                (length,) = struct.unpack(">I", _read(out, 4, waiting, deadline))
                return _read(out, length, waiting, deadline)
        except (OSError, EOFError):  # it died, or (TimeoutError) it hangs
            self._end()
            return b""

    def _end(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None


def _read(out: int, length: int, waiting: selectors.BaseSelector, deadline: float) -> bytes:
    """Read exactly ``length`` bytes before the deadline."""
    content = bytearray()
    while len(content) < length:
        if not waiting.select(max(0.0, deadline - time.monotonic())):
            raise TimeoutError
        piece = os.read(out, length - len(content))
        if not piece:
            raise EOFError
        content += piece
    return bytes(content)


def _pixels(answer: bytes, size: int) -> NDArray[np.uint8] | None:
    return np.frombuffer(answer, np.uint8).reshape(-1, size, size) if answer else None
