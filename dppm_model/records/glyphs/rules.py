"""Which fonts are letters, which records are new, which families are held out.

All of it is decided on thumbs, uint8 (26, 32, 32): the letters A to Z of a font. A folder is the
name of the font file's own folder, which by custom holds one family of fonts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_LETTERS = 26
_DISTINCT = 24  # least number of distinct letters of a font
_LEGIBLE = 0.4  # share of its letters that are recognised
_FEATURES = 1500
_LENGTH = 8.0  # of the kernel that the features approximate, in the norm of a 16x16 picture
_RIDGE = 1.0
_FOLDS = 5
_ROWS = 4096
_BLOCK = 512
_SAME = 0.03  # root of the mean square difference below which a record is a copy, of full white
_ALIKE = 0.04  # below which two fonts agree on a letter
_AGREE = 6  # letters on which fonts of one family agree
_HELD_OUT = 0.12  # share of records
_LARGEST_HELD_OUT = 1500  # records of a family; larger ones are for training

Thumbs = NDArray[np.uint8]


def _reduced(thumbs: Thumbs) -> NDArray[np.float64]:
    """Bring (n, 26, 32, 32) to (n, 26, 256), 16x16 pixels from 0 to 255."""
    halves = thumbs.reshape(len(thumbs), _LETTERS, 16, 2, 16, 2).astype(np.float64)
    mean: NDArray[np.float64] = halves.mean((3, 5)).reshape(len(thumbs), _LETTERS, 256)
    return mean


def has_letters(thumb: Thumbs) -> bool:
    """Whether at least 24 letters differ at 16x16 pixels and 16 levels.

    A font without letters shows its box for missing ones again and again.
    """
    coarse = (_reduced(thumb[None])[0] // 16).astype(np.uint8)
    return len(np.unique(coarse, axis=0)) >= _DISTINCT


def legible(thumbs: Thumbs, folders: Sequence[str]) -> NDArray[np.bool_]:
    """Say which fonts are legible to a linear classifier that never saw their folder.

    Ridge regression on random cosine features, in five folds of whole folders: symbols and
    ornaments in the places of letters are not recognised.

    ``thumbs`` are (n, 26, 32, 32), of two folders or more. Returns (n,) whether at least 40 % of a
    font's letters were recognised.
    """
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(256, _FEATURES)) / _LENGTH
    phases = rng.uniform(0, 2 * np.pi, _FEATURES)

    def features(part: Thumbs) -> NDArray[np.float64]:
        x = _reduced(part).reshape(-1, 256) / 255
        cosines: NDArray[np.float64] = np.cos(x @ directions + phases)
        return cosines

    number = {folder: i for i, folder in enumerate(sorted(set(folders)))}
    folds = np.array([number[folder] % _FOLDS for folder in folders])
    parts = [
        [index[i : i + step] for i in range(0, len(index), step)]
        for index, step in ((np.flatnonzero(folds == k), _ROWS // _LETTERS) for k in range(_FOLDS))
    ]
    gram = np.zeros((_FOLDS, _FEATURES, _FEATURES))
    moment = np.zeros((_FOLDS, _FEATURES, _LETTERS))
    for k, fold in enumerate(parts):
        for index in fold:
            phi = features(thumbs[index])
            gram[k] += phi.T @ phi
            moment[k] += phi.reshape(-1, _LETTERS, _FEATURES).sum(0).T
    ridge = _RIDGE * np.eye(_FEATURES)
    read = np.zeros(len(thumbs))
    for k, fold in enumerate(parts):
        weights = np.linalg.solve(gram.sum(0) - gram[k] + ridge, moment.sum(0) - moment[k])
        for index in fold:
            guess = (features(thumbs[index]) @ weights).argmax(1).reshape(-1, _LETTERS)
            read[index] = (guess == np.arange(_LETTERS)).mean(1)
    return read >= _LEGIBLE


@dataclass(frozen=True)
class Comparison:
    """The copies and families among fonts.

    ``new`` (n, 26) says whether a letter is no copy of an earlier one; ``families`` names the
    family of each font by the first of its folders.
    """

    new: NDArray[np.bool_]
    families: list[str]


def compare(
    thumbs: Thumbs, folders: Sequence[str], tick: Callable[[float], None] = lambda _: None
) -> Comparison:
    """Find copies and families.

    Two folders are one family if a font of each agrees on six letters, and so are folders linked
    through others: the same design often comes under several names.

    ``thumbs`` are (n, 26, 32, 32) in the order of preference: of copies, the first is kept.
    ``tick`` gets the share done.
    """
    new = np.zeros((len(thumbs), _LETTERS), dtype=bool)
    names = sorted(set(folders))
    number = {folder: i for i, folder in enumerate(names)}
    folder_of = np.array([number[folder] for folder in folders])
    root = np.arange(len(names))
    for start in range(0, len(thumbs), _BLOCK):
        stop = min(start + _BLOCK, len(thumbs))
        agree = np.zeros((stop - start, stop), dtype=np.uint8)
        for letter in range(_LETTERS):
            distance = _distances(thumbs[start:stop, letter], thumbs[:stop, letter])
            agree += distance < _ALIKE
            copies = distance < _SAME
            for i in range(start, stop):
                new[i, letter] = not (copies[i - start, :i] & new[:i, letter]).any()
        rows, columns = np.nonzero(agree >= _AGREE)
        pairs = np.stack([folder_of[rows + start], folder_of[columns]], axis=1)
        for a, b in np.unique(pairs, axis=0):
            ends = sorted((root[a], root[b]))
            root[root == ends[1]] = ends[0]
        tick(stop / len(thumbs))
    return Comparison(new, [names[root[i]] for i in folder_of])


def _distances(a: Thumbs, b: Thumbs) -> NDArray[np.float64]:
    """Root mean square differences (n, m) of full white; sums of whole numbers, hence exact."""
    x, y = (side.reshape(len(side), -1).astype(np.float64) for side in (a, b))
    squares = (x * x).sum(1)[:, None] + (y * y).sum(1) - 2 * (x @ y.T)
    root: NDArray[np.float64] = np.sqrt(squares / x.shape[1]) / 255
    return root


def held_out(sizes: dict[str, int]) -> set[str]:
    """Choose the test families: by the SHA-256 of their names, until 12 % of the records.

    Families of 1,500 records or more, and any that would take the test split beyond one half,
    are passed over.

    ``sizes`` are the numbers of records of each family.
    """
    total = sum(sizes.values())
    chosen: set[str] = set()
    taken = 0
    for name in sorted(sizes, key=lambda family: hashlib.sha256(family.encode()).digest()):
        if taken >= _HELD_OUT * total:
            break
        if sizes[name] < _LARGEST_HELD_OUT and taken + sizes[name] <= total / 2:
            chosen.add(name)
            taken += sizes[name]
    return chosen
