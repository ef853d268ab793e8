"""Draw the letters of one font file, in a child process that FreeType may crash.

It imports nothing but Pillow, so that a new child is there in a moment and within its memory.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import string
import threading
from collections.abc import Callable
from multiprocessing import parent_process

from PIL import Image, ImageDraw, ImageFont

LETTERS = string.ascii_uppercase
SIZE = 256  # pixels a side of a picture
INK = 208  # pixels of the longer side of its letter
THUMB = 32  # pixels a side of the small picture that the rules compare
_THUMB_POINTS = 130
_POINTS = 600  # most letters are drawn twice as large as needed, and reduced
_LARGEST_EMS = 8  # a larger letter is damaged, and would need gigabytes of pixels
# Edges fainter than a quarter do not count as ink, so that reducing cannot lose one.
_IS_INK = [255 * (level >= 64) for level in range(256)]
_MEMORY = 2**31  # bytes of address space


def draw(path: str, letters: str, size: int) -> bytes:
    """Draw some letters of a font.

    Raises OSError or ValueError if Pillow cannot use the file.

    Returns
    -------
    len(letters) * size * size bytes of grey; none if a letter is blank.
    """
    points = _POINTS if size == SIZE else _THUMB_POINTS
    font = ImageFont.truetype(path, points, layout_engine=ImageFont.Layout.BASIC)
    drawn = []
    for letter in letters:
        if (ink := _ink(font, letter, _LARGEST_EMS * points)) is None:
            return b""
        drawn.append(place(ink, size).tobytes())
    return b"".join(drawn)


def place(letter: Image.Image, size: int) -> Image.Image:
    """Put a letter, cropped to its ink, in the middle of a black square of ``size`` pixels a side.

    Its longer side becomes 208/256 of the square.
    """
    longer = size * INK // SIZE
    width, height = (max(1, round(side * longer / max(letter.size))) for side in letter.size)
    square = Image.new("L", (size, size))
    # BOX averages areas, as FreeType does; sharper filters leave rings around the letter.
    reduced = letter.resize((width, height), Image.Resampling.BOX)
    square.paste(reduced, ((size - width) // 2, (size - height) // 2))
    return square


def _ink(font: ImageFont.FreeTypeFont, letter: str, largest: int) -> Image.Image | None:
    """Draw a letter white on black and crop it; None if there is no ink, or far too much."""
    left, top, right, bottom = (round(edge) for edge in font.getbbox(letter))  # whole already
    width, height = right - left, bottom - top
    if not (0 < width <= largest and 0 < height <= largest):
        return None
    image = Image.new("L", (width, height))
    ImageDraw.Draw(image).text((-left, -top), letter, fill=255, font=font)
    box = image.point(_IS_INK).getbbox()
    return image.crop(box) if box else None


def prepare() -> None:
    """Limit this child process's resources; make it silent, and end it with its parent."""
    for kind, most in ((resource.RLIMIT_AS, _MEMORY), (resource.RLIMIT_CORE, 0)):
        with contextlib.suppress(ValueError, OSError):  # macOS has no limit of address space
            resource.setrlimit(kind, (most, most))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # FreeType's remarks on damaged fonts
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    if parent := parent_process():
        parent.join()
        os._exit(1)


def attempt(seconds: int, drawing: Callable[..., bytes], *job: str | int) -> bytes:
    """Draw a font, or die if that takes longer; no bytes mean a useless font."""
    signal.alarm(seconds)
    try:
        return drawing(*job)
    except Exception:  # damaged fonts make FreeType and Pillow raise anything
        return b""
    finally:
        signal.alarm(0)
