"""Little fonts of block letters, made on the spot: each family has a slant, each font a weight."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.t2CharStringPen import T2CharStringPen
from fontTools.pens.ttGlyphPen import TTGlyphPen

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
EM = 1000
Box = tuple[int, int, int, int]


def cells(letter: str) -> list[tuple[int, int]]:
    """Nine of the 4 x 5 cells, two opposite corners always among them."""
    rng = np.random.default_rng(ord(letter))
    others = [(x, y) for x in range(4) for y in range(5) if (x, y) not in ((0, 0), (3, 4))]
    return [(0, 0), (3, 4), *(others[i] for i in rng.choice(len(others), 7, replace=False))]


def boxes(letter: str, weight: float) -> list[Box]:
    inset = round(70 * weight)
    return [
        (140 * x + inset, 140 * y + inset, 140 * (x + 1) - inset, 140 * (y + 1) - inset)
        for x, y in cells(letter)
    ]


def write_font(
    path: Path,
    *,
    weight: float = 0.0,
    slant: float = 0.0,
    draw: Callable[[str, float], list[Box]] = boxes,
) -> Path:
    """Write an .otf, or a .ttf; ``draw`` gives a letter's boxes (left, bottom, right, top)."""
    names = [".notdef", *LETTERS]
    build = FontBuilder(EM, isTTF=path.suffix != ".otf")
    build.setupGlyphOrder(names)
    build.setupCharacterMap({ord(letter): letter for letter in LETTERS})
    drawn = {}
    for name in names:
        pen = T2CharStringPen(EM, None) if path.suffix == ".otf" else TTGlyphPen(None)
        for left, bottom, right, top in draw(name, weight) if name in LETTERS else []:
            corners = [(left, bottom), (left, top), (right, top), (right, bottom)]
            for i, (x, y) in enumerate(corners):
                (pen.lineTo if i else pen.moveTo)((round(x + slant * y), y))
            pen.closePath()
        drawn[name] = pen.getCharString() if path.suffix == ".otf" else pen.glyph()
    if path.suffix == ".otf":
        build.setupCFF(path.stem, {}, drawn, {})
    else:
        build.setupGlyf(drawn)
    build.setupHorizontalMetrics(dict.fromkeys(names, (700, 0)))
    build.setupHorizontalHeader(ascent=800, descent=-200)
    build.setupNameTable({"familyName": path.parent.name, "styleName": path.stem})
    build.setupOS2()
    build.setupPost()
    path.parent.mkdir(parents=True, exist_ok=True)
    build.save(path)
    return path


def write_families(folder: Path, families: int = 5, fonts: int = 4) -> Path:
    """Write ``fonts`` .ttf into each of the folders f0, f1, ..."""
    for family in range(families):
        for member in range(fonts):
            write_font(
                folder / "type" / f"f{family}" / f"{member}.ttf",
                weight=0.02 + 0.08 * member,
                slant=0.12 * family - 0.3,
            )
    return folder
