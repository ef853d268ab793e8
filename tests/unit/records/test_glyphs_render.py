"""Drawing: geometry, fonts that are of no use, and a child that may die."""

import os
import time
from pathlib import Path

import numpy as np
import pytest

from dppm_model.records.glyphs import render
from dppm_model.records.glyphs.build import Painter
from tests.support.fonts import LETTERS, cells, write_font


def extent(mask: np.ndarray) -> tuple[int, int]:
    found = np.flatnonzero(mask)
    return int(found[0]), int(found[-1])


@pytest.mark.parametrize("suffix", ["otf", "ttf"])
@pytest.mark.parametrize("slant", [0.0, 1.5])
def test_a_picture_is_the_letter_white_on_black_208_pixels_centred(tmp_path, suffix, slant) -> None:
    font = write_font(tmp_path / f"a.{suffix}", slant=slant)
    with Painter() as painter:
        pictures = painter.pictures(font, LETTERS)
    assert pictures.shape == (26, 1, 256, 256)
    assert pictures.dtype == np.uint8
    for picture in pictures[:, 0]:
        top, bottom = extent(picture.any(1))
        left, right = extent(picture.any(0))
        height, width = bottom - top + 1, right - left + 1
        assert max(height, width) == 208
        assert (width > height) == (slant > 1)
        assert abs(top - (255 - bottom)) <= 1
        assert abs(left - (255 - right)) <= 1
        assert picture.max() == 255
        assert picture[0, 0] == 0


def test_letters_are_upright_and_in_the_order_asked_for(tmp_path: Path) -> None:
    with Painter() as painter:
        pictures = painter.pictures(write_font(tmp_path / "a.ttf"), "QB")[:, 0]
    side = 208 / 5
    for picture, letter in zip(pictures, "QB", strict=True):
        left = 128 - 2 * side
        seen = {
            (x, y)
            for x in range(4)
            for y in range(5)
            if picture[int(232 - (y + 0.5) * side), int(left + (x + 0.5) * side)] > 128
        }
        assert seen == set(cells(letter))


def test_a_thumb_is_the_picture_made_small(tmp_path: Path) -> None:
    font = write_font(tmp_path / "a.ttf", weight=0.2, slant=0.1)
    with Painter() as painter:
        thumb = painter.thumbs(font).astype(float)
        large = painter.pictures(font, LETTERS)[:, 0].astype(float)
    reduced = large.reshape(26, 32, 8, 32, 8).mean((2, 4))
    errors = [np.sqrt(((reduced - shown) ** 2).mean()) / 255 for shown in (thumb, thumb[::-1])]
    assert errors[0] < 0.2 < errors[1]  # rounding may move a thumb by half a pixel


def dangerous(path: str, letters: str, size: int) -> bytes:
    """A drawing that runs in the child."""
    if path.endswith("kills"):
        os.abort()
    if path.endswith("stalls"):
        time.sleep(60)
    return render.draw(path, letters, size)


def test_a_font_that_kills_or_stalls_the_child_is_lost_and_no_other(tmp_path: Path) -> None:
    good = write_font(tmp_path / "good.ttf")
    begun = time.monotonic()
    with Painter(dangerous, seconds=2) as painter:
        for bad in ("kills", "stalls"):
            assert painter.thumbs(Path(bad)) is None
            assert painter.thumbs(good) is not None
    assert time.monotonic() - begun < 50


def test_the_child_ends_with_its_painter(tmp_path: Path) -> None:
    with Painter() as painter:
        painter.thumbs(write_font(tmp_path / "a.ttf"))
        (child,) = painter._child._processes.values()
        assert child.is_alive()
    assert not child.is_alive()
