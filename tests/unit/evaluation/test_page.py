"""The page of pictures: synthetic images on the one, real ones on the private one alone."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sampler.evaluation.page import write_page

MAGENTA, GREEN = (255, 0, 255), (0, 255, 0)


def plain(colour: tuple[int, int, int], side: int) -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(12) % 3
    images = np.zeros((12, 3, side, side), dtype=np.uint8)
    images[:] = np.array(colour, dtype=np.uint8)[:, None, None]
    return images, labels


def result(spread: float | None) -> dict:
    stds = None if spread is None else [spread] * 3
    return {
        "accuracy_per_class": [0.9, 0.2, 1.0],
        "accuracy_real_per_class": [1.0, 0.9, 1.0],
        "accuracy_per_class_std": stds,
        "accuracy_real_per_class_std": stds,
        "coverage": {
            "coverage_per_class": [0.5, None, 0.0],
            "coverage_real_per_class": [1.0, None, 0.9],
        },
    }


def pixels_of(path: Path, colour: tuple[int, int, int]) -> int:
    return int((np.asarray(Image.open(path).convert("RGB")) == colour).all(2).sum())


@pytest.mark.parametrize("spread", [None, 0.01])
@pytest.mark.parametrize("side", [8, 300])
def test_real_images_are_shown_on_request_alone(
    tmp_path: Path, side: int, spread: float | None
) -> None:
    synthetic, real = plain(GREEN, side), plain(MAGENTA, side)
    names = ["0", "a name of far too many letters", "$100_{a}"]
    for name, records in (("public.png", None), ("private.png", real)):
        write_page(
            tmp_path / name,
            result(spread),
            names,
            synthetic,
            title="a_title $x$",
            lines=["ε = 1", "two"],
            real=records,
        )
    least = 3 * 100**2  # at least one image a class, of a hundred pixels a side
    assert pixels_of(tmp_path / "public.png", GREEN) > least
    assert pixels_of(tmp_path / "public.png", MAGENTA) == 0
    assert pixels_of(tmp_path / "private.png", GREEN) > least
    assert pixels_of(tmp_path / "private.png", MAGENTA) > least


def test_grey_images(tmp_path: Path) -> None:
    images, labels = plain(GREEN, 28)
    write_page(
        *(tmp_path / "page.png", result(None), list("abc"), (images[:, 1:2], labels)),
        title="grey",
        lines=[],
    )
    white = pixels_of(tmp_path / "page.png", (255, 255, 255))
    assert white > 3 * 4 * 112**2
