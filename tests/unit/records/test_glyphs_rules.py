"""The rules, each with the case that is just not enough."""

import hashlib

import numpy as np
import pytest

from dppm_model.records.glyphs import rules

RNG = np.random.default_rng(0)


def noise(fonts: int) -> np.ndarray:
    return RNG.integers(0, 256, (fonts, 26, 32, 32), dtype=np.uint8)


@pytest.mark.parametrize("distinct", [26, 24, 23, 1])
def test_a_font_has_24_different_letters(distinct: int) -> None:
    thumb = noise(1)[0]
    thumb[distinct:] = thumb[0]
    thumb[-1, 0, 0] ^= 1  # too little to see at 16 levels
    assert rules.has_letters(thumb) == (distinct >= 24)


def test_fonts_that_share_letters_are_legible_and_symbols_are_not() -> None:
    letters = np.repeat(noise(1), 14, axis=0)
    near = np.clip(letters + RNG.normal(0, 20, letters.shape), 0, 255).astype(np.uint8)
    folders = [f"f{i % 6}" for i in range(12)]
    symbols = noise(3)
    near, mixed = near[:12], near[12:]  # of 26 letters, 10 are too few and 11 enough
    mixed[0, 10:] = np.roll(mixed[0, 10:], 1, axis=0)  # read as their neighbours
    mixed[1, 11:] = np.roll(mixed[1, 11:], 1, axis=0)
    thumbs = np.concatenate([near, symbols, mixed])
    found = rules.legible(thumbs, [*folders, "s", "s", "t", "u", "v"])
    assert found.tolist() == [True] * 12 + [False] * 3 + [False, True]


def test_a_classifier_never_saw_the_folder_it_judges() -> None:
    """Two symbol fonts that are alike would read one another; in one folder they may not."""
    letters = np.repeat(noise(1), 8, axis=0)
    symbols = np.repeat(noise(1), 2, axis=0)
    thumbs = np.concatenate([letters, symbols])
    folders = [f"f{i}" for i in range(8)]
    assert not rules.legible(thumbs, [*folders, "s", "s"])[8:].any()
    assert rules.legible(thumbs, [*folders, "s", "t"])[8:].all()


def shifted(thumb: np.ndarray, rms: float, letters: int = 26) -> np.ndarray:
    """Move every pixel of some letters so that the difference has this root mean square."""
    moved = thumb.astype(int)
    step = int(rms * 255)
    moved[:letters] += np.where(moved[:letters] < 128, step, -step)
    return moved.astype(np.uint8)


def test_of_copies_the_first_is_kept_letter_by_letter() -> None:
    first = noise(1)[0]
    near = shifted(first, 0.0299)  # 7 levels of 255
    far = shifted(first, 0.0315)  # 8
    some = shifted(far, 0.04)
    some[:5] = first[:5]
    found = rules.compare(np.stack([first, near, far, some]), list("abcd"))
    assert found.new.sum(1).tolist() == [26, 0, 26, 21]
    assert not found.new[3, :5].any()
    flat = np.full((26, 32, 32), 100, np.uint8)  # a copy of a dropped copy is new
    found = rules.compare(np.stack([flat, flat + 7, flat + 14]), list("aba"))
    assert found.new.sum(1).tolist() == [26, 0, 26]


def test_the_copies_do_not_depend_on_the_block(monkeypatch) -> None:
    thumbs = noise(7)
    thumbs[5] = thumbs[1]
    thumbs[6, 3] = thumbs[2, 3]
    whole = rules.compare(thumbs, list("abcdefg"))
    monkeypatch.setattr(rules, "_BLOCK", 2)
    parts = rules.compare(thumbs, list("abcdefg"))
    np.testing.assert_array_equal(whole.new, parts.new)
    assert whole.families == parts.families == list("abcdebg")
    assert whole.new.sum() == 7 * 26 - 27


def test_six_like_letters_make_a_family_and_five_do_not() -> None:
    a, b, c, d = noise(4)
    b[:6] = shifted(a, 0.036)[:6]
    c[6:12] = b[6:12]
    d[20:25] = c[20:25]
    found = rules.compare(np.stack([d, c, b, a]), ["z", "m", "k", "n"])
    assert found.families == ["z", "k", "k", "k"]
    b[:6] = shifted(a, 0.0435)[:6]
    assert rules.compare(np.stack([b, a]), ["k", "n"]).families == ["k", "n"]


def by_hash(names: list[str]) -> list[str]:
    return sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())


def test_families_are_held_out_by_hash_until_12_percent() -> None:
    names = by_hash([f"f{i}" for i in range(100)])
    assert rules.held_out(dict.fromkeys(names, 10)) == set(names[:12])
    sizes = dict.fromkeys(names, 10) | {names[0]: 1500, names[2]: 1499}
    assert rules.held_out(sizes) == {names[1], names[2]}


def test_no_more_than_half_is_held_out() -> None:
    first, second = by_hash(["a", "b"])
    assert rules.held_out({first: 900, second: 100}) == {second}
    assert rules.held_out({first: 100, second: 100}) == {first}
    assert rules.held_out({"a": 100}) == set()
