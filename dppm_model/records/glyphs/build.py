"""From a folder of fonts to two shard folders; full-size pictures go straight to the disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from dppm_model.errors import DataError
from dppm_model.progress import Progress, part
from dppm_model.records.glyphs import render, rules
from dppm_model.records.writing import write_records

SPLITS = ("train", "test")
_ORDER = (".otf", ".ttf", ".pfb")  # outlines made for screens first: of copies, the first is kept
_PASSED_OVER = {"ipaex-type1", "allrunes"}  # hundreds of pieces of one Japanese font; runes
_FEWEST_FONTS = 20
_SECONDS = 60  # for one font; it takes hundredths, so a busy machine changes no outcome


class Painter:
    """Draws fonts in a child process: a font that kills or stalls it costs only that font."""

    def __init__(
        self, drawing: Callable[..., bytes] = render.draw, seconds: int = _SECONDS
    ) -> None:
        self._drawing, self._seconds = drawing, seconds
        self._child = self._start()

    def _start(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(1, get_context("spawn"), render.prepare)

    def __enter__(self) -> Painter:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.shutdown()

    def thumbs(self, path: Path) -> NDArray[np.uint8] | None:
        """Draw all letters small: uint8 (26, 32, 32), or None if the font is of no use."""
        return self._ask(path, render.LETTERS, render.THUMB)

    def pictures(self, path: Path, letters: str) -> NDArray[np.uint8] | None:
        """Draw some letters: uint8 (len(letters), 1, 256, 256), or None if that failed."""
        pixels = self._ask(path, letters, render.SIZE)
        return None if pixels is None else pixels[:, None]

    def _ask(self, path: Path, letters: str, size: int) -> NDArray[np.uint8] | None:
        job = (self._seconds, self._drawing, str(path), letters, size)
        try:
            answer = self._child.submit(render.attempt, *job).result()
        except BrokenProcessPool:
            self._child = self._start()
            return None
        return np.frombuffer(answer, np.uint8).reshape(-1, size, size) if answer else None


@dataclass(frozen=True)
class _Font:
    """A font that draws letters: where it lies below the folder, and its thumb (26, 32, 32)."""

    path: PurePosixPath
    thumb: NDArray[np.uint8]


@dataclass(frozen=True)
class _Choice:
    """The records: ``new`` (n, 26) of ``fonts`` (n), persons (n,), held_out (n,) for the test."""

    fonts: list[_Font]
    new: NDArray[np.bool_]
    persons: NDArray[np.int64]
    held_out: NDArray[np.bool_]


class _FontLostError(Exception):
    """A font that gave thumbs and then no pictures."""

    def __init__(self, font: _Font) -> None:
        self.font = font


def build(fonts: Path, target: Path, name: str, letters: str, say: Progress) -> None:
    """Render the data set: ``target/train`` and ``target/test``.

    Records are always chosen on all 26 letters, so fewer letters give a subset of the same records.
    They are ordered by font, then letter.

    ``fonts`` is a folder with ``.otf``, ``.ttf`` and ``.pfb`` files, at any depth; ``letters`` are
    the classes in order, the first letters of the alphabet. Raises DataError if the fonts are too
    few, or all of one family, so that no test split can be held out.
    """
    with Painter() as painter:
        found = _draw(fonts, painter, part(say, 0.0, 0.4, f"{name}: "))
        while True:
            try:
                choice = _choose(fonts, found, part(say, 0.4, 0.2, f"{name}: "))
                _write(
                    choice,
                    lambda font, wanted: painter.pictures(fonts / font.path, wanted),
                    target,
                    name,
                    letters,
                    part(say, 0.6, 0.4, f"{name}: "),
                )
            except _FontLostError as lost:
                # Others may have been its copies, so the whole choice is repeated.
                found = [font for font in found if font is not lost.font]
            else:
                return


def list_fonts(folder: Path) -> list[PurePosixPath]:
    """List the font files below a folder, relative to it: otf, ttf, pfb, each by path."""
    files = (PurePosixPath(path.relative_to(folder)) for path in folder.rglob("*"))
    return sorted(
        (
            path
            for path in files
            if path.suffix.lower() in _ORDER and not _PASSED_OVER & set(path.parts[:-1])
        ),
        key=lambda path: (_ORDER.index(path.suffix.lower()), path.as_posix()),
    )


def _draw(folder: Path, painter: Painter, say: Progress) -> list[_Font]:
    paths = list_fonts(folder)
    if not paths:
        raise DataError(f"{folder} has no fonts.", "Name a folder with .otf, .ttf or .pfb files.")
    found = []
    for done, path in enumerate(paths, start=1):
        thumb = painter.thumbs(folder / path)
        if thumb is not None and rules.has_letters(thumb):
            found.append(_Font(path, thumb))
        say(f"{done} of {len(paths)} fonts", done / len(paths))
    return found


def _choose(folder: Path, found: list[_Font], say: Progress) -> _Choice:
    say("choosing legible fonts", 0.0)
    _require_enough(folder, found)
    readable = rules.legible(_thumbs(found), _folders(found))
    found = [font for font, good in zip(found, readable, strict=True) if good]
    _require_enough(folder, found)
    compared = rules.compare(
        _thumbs(found), _folders(found), lambda share: say("dropping copies", 0.5 + 0.5 * share)
    )
    counts = compared.new.sum(1).tolist()
    sizes: Counter[str] = Counter()
    for family, count in zip(compared.families, counts, strict=True):
        sizes[family] += count
    test = rules.held_out(sizes)
    if not test:
        raise DataError(
            f"{folder}: its {len(found)} fonts make {len(sizes)} families, none fit for testing.",
            "Add other fonts, each family in a folder of its own.",
        )
    number = {family: i for i, family in enumerate(sorted(sizes))}
    return _Choice(
        found,
        compared.new,
        np.array([number[family] for family in compared.families]),
        np.array([family in test for family in compared.families]),
    )


def _require_enough(folder: Path, found: list[_Font]) -> None:
    if len(found) < _FEWEST_FONTS:
        raise DataError(
            f"{folder} has {len(found)} fonts that draw legible letters A to Z.",
            f"Name a folder with {_FEWEST_FONTS} or more.",
        )
    if len(set(_folders(found))) < 2:
        raise DataError(
            f"{folder} has fonts in one folder only, so no family can be held out for testing.",
            "Put each family of fonts into a folder of its own.",
        )


def _thumbs(fonts: list[_Font]) -> NDArray[np.uint8]:
    return np.stack([font.thumb for font in fonts])


def _folders(fonts: list[_Font]) -> list[str]:
    return [font.path.parent.name for font in fonts]


def _write(
    choice: _Choice,
    paint: Callable[[_Font, str], NDArray[np.uint8] | None],
    target: Path,
    name: str,
    letters: str,
    say: Progress,
) -> None:
    new = choice.new[:, : len(letters)]
    total = int(new.sum())
    written = 0

    def pictures(rows: list[int]) -> Iterator[NDArray[np.uint8]]:
        nonlocal written
        for row in rows:
            wanted = "".join(letters[letter] for letter in np.flatnonzero(new[row]))
            drawn = paint(choice.fonts[row], wanted)
            if drawn is None:
                raise _FontLostError(choice.fonts[row])
            yield drawn
            written += len(drawn)
            say(f"{written} of {total} pictures", written / total)

    for split, wanted in zip(SPLITS, (~choice.held_out, choice.held_out), strict=True):
        rows = np.flatnonzero(wanted & new.any(1)).tolist()
        write_records(
            target / split,
            pictures(rows),
            np.nonzero(new[rows])[1],
            name=name,
            split=split,
            classes=letters,
            persons=np.repeat(choice.persons[rows], new[rows].sum(1)),
        )
