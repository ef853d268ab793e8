"""One page of pictures: what was drawn of each class, and what it is worth beside real images."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dppm_model.files import write_bytes
from sampler.evaluation.ceiling import Records
from sampler.evaluation.classifier import Images, Labels, shrink
from sampler.sheet import GAP, grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DOTS = 200  # an inch
_TILE = 112  # pixels an image is enlarged to, at least
_LEAST_SIDE, _MOST_SIDE, _MOST_ROWS = 128, 256, 2600  # pixels: larger images are shrunk
_PICTURES = 7.2  # inches for a row of images, at most; all that follow are inches, too
_PANEL, _NUMBERS, _SPACE = 1.9, 1.05, 0.3
_ABOVE, _BELOW = 1.5, 0.55
# Okabe and Ito's blue and vermilion: apart for every kind of colour vision, and in grey too;
# the shapes differ besides.
_SYNTHETIC, _REAL = "#0072B2", "#D55E00"
_LONGEST_NAME = 18


def write_page(
    path: Path,
    result: Mapping[str, Any],
    names: Sequence[str],
    synthetic: Records,
    *,
    title: str,
    lines: Sequence[str],
    real: Records | None = None,
) -> None:
    """Write a PNG with a row for each class: its first images, accuracy and coverage.

    Parameters
    ----------
    path
        Where the PNG goes; written atomically.
    result
        What `sampler.evaluation.evaluate.evaluate` returned.
    names
        One a class.
    synthetic, real
        (images, labels), as for `evaluate`; the first of each class are shown, nothing is selected
        by its look. With ``real``, records stand beside the synthetic images: ``path`` is then for
        those only who may see them.
    title, lines
        What stands above.
    """
    from matplotlib.figure import Figure  # slow to import, and only needed here

    shown = [("synthetic images, the first of each class", synthetic)]
    if real is not None:
        shown.append(("REAL test images", real))
    strips = [_strip(*records, len(names), _PICTURES / len(shown)) for _, records in shown]
    labels = [_label(row, name) for row, name in enumerate(names)]
    margin = 0.35 + 0.085 * max(map(len, labels))
    wide = margin + sum(s.shape[1] / _DOTS + _SPACE for s in strips) + 2 * (_PANEL + _NUMBERS) + 0.2
    tall = strips[0].shape[0] / _DOTS
    height = _ABOVE + tall + _BELOW
    page = Figure(figsize=(wide, height), dpi=_DOTS, facecolor="white")

    def axes(left: float, width: float) -> Axes:
        return page.add_axes((left / wide, _BELOW / height, width / wide, tall / height))

    left = margin
    for (heading, _), strip in zip(shown, strips, strict=True):
        width = strip.shape[1] / _DOTS
        _show(axes(left, width), strip, len(names), heading)
        left += width + _SPACE
    _name_rows(page.axes[0], labels)
    _compare(
        axes(left, _PANEL),
        "accuracy on real test images",
        result["accuracy_per_class"],
        result["accuracy_real_per_class"],
        (result["accuracy_per_class_std"], result["accuracy_real_per_class_std"]),
    )
    coverage = result["coverage"]
    _compare(
        axes(left + _PANEL + _NUMBERS, _PANEL),
        "coverage of real test images",
        coverage["coverage_per_class"],
        coverage["coverage_real_per_class"],
    )
    _write_texts(page, title, lines, shows_records=real is not None)
    note = "Measured on real images and not covered by ε: for those who may see the data."
    if result["accuracy_per_class_std"] is not None:
        note = f"Whiskers: one standard deviation over classifier seeds. {note}"
    _write(page, 0.15, height - 0.25, note, fontsize=8, color="0.35")
    buffer = io.BytesIO()
    page.savefig(buffer, format="png")
    write_bytes(path, buffer.getvalue())


def _label(row: int, name: str) -> str:
    text = name if name == str(row) else f"{row}  {name}"
    return text if len(text) <= _LONGEST_NAME else f"{text[: _LONGEST_NAME - 1]}…"


def _strip(images: Images, labels: Labels, classes: int, inches: float) -> NDArray[np.uint8]:
    """Pixels (rows, columns, 3) of the first images of every class, one class below another."""
    side = max(_LEAST_SIDE, min(_MOST_SIDE, _MOST_ROWS // classes))
    height, width = shrink(images[:1], side).shape[2:]
    pitch = (width * max(1, -(-_TILE // height)) + GAP) / _DOTS
    columns = max(1, int(inches / pitch))
    few = np.concatenate([np.flatnonzero(labels == c)[:columns] for c in range(classes)])
    pixels = grid(
        *(shrink(images[few], side).numpy(), labels[few], np.arange(classes), columns),
        tile=_TILE,
    )
    return np.moveaxis(np.broadcast_to(pixels, (3, *pixels.shape[1:])), 0, -1)


def _show(axes: Axes, strip: NDArray[np.uint8], classes: int, heading: str) -> None:
    edge = GAP / 2 * classes / (strip.shape[0] - GAP)  # rows are centred at 0, 1, 2 …
    extent = (0, 1, classes - 0.5 + edge, -0.5 - edge)
    axes.imshow(strip, extent=extent, aspect="auto", interpolation="nearest")
    axes.set_axis_off()
    _head(axes, heading)


def _head(axes: Axes, heading: str) -> None:
    axes.annotate(
        *(heading, (0, 1)),
        xycoords="axes fraction",
        xytext=(0, 5),
        textcoords="offset points",
        fontsize=9,
    )


def _name_rows(axes: Axes, labels: Sequence[str]) -> None:
    for row, label in enumerate(labels):
        axes.annotate(
            *(label, (0, row)),
            xytext=(-6, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=9,
            parse_math=False,
        )


def _compare(
    axes: Axes,
    heading: str,
    synthetic: Sequence[float | None],
    real: Sequence[float | None],
    spreads: tuple[Sequence[float] | None, Sequence[float] | None] = (None, None),
) -> None:
    """Draw two dots a class, and write their values beside them; None is a class not measured."""
    rows = np.arange(len(synthetic))
    kinds = (
        (np.array(synthetic, dtype=float), _SYNTHETIC, "o", spreads[0], 0.36),
        (np.array(real, dtype=float), _REAL, "D", spreads[1], 0.86),
    )
    axes.hlines(rows, kinds[0][0], kinds[1][0], color="0.6", linewidth=1.2, zorder=1)
    for values, colour, marker, spread, where in kinds:
        filled = colour if marker == "o" else "white"
        axes.errorbar(
            *(values, rows),
            xerr=spread,
            fmt=marker,
            color=colour,
            markerfacecolor=filled,
            markersize=6,
            capsize=2.5,
            elinewidth=1.2,
        )
        for row, value in enumerate(values):
            axes.annotate(
                "–" if np.isnan(value) else f"{value:.3f}",
                (1, row),
                xycoords=("axes fraction", "data"),
                xytext=(_NUMBERS * where * 72, 0),
                textcoords="offset points",
                ha="right",
                va="center",
                fontsize=8.5,
                color=colour,
            )
    known = np.concatenate([kinds[0][0], kinds[1][0]])
    least = float(np.nanmin(known, initial=0.9))
    axes.set(xlim=(max(0.0, least - 0.06), 1.02), ylim=(len(rows) - 0.5, -0.5), yticks=[])
    axes.tick_params(axis="x", labelsize=8, length=2)
    axes.grid(axis="x", color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    _head(axes, heading)


def _write_texts(page: Figure, title: str, lines: Sequence[str], *, shows_records: bool) -> None:
    wide, _ = page.get_size_inches()
    _write(page, 0.15, 0.18, title, fontsize=14, weight="bold")
    _write(page, 0.15, 0.5, "\n".join(lines), fontsize=9.5, linespacing=1.45)
    right = wide - 3.5
    _write(page, right, 0.5, "● synthetic, or trained on synthetic images", color=_SYNTHETIC)
    _write(page, right, 0.72, "◇ real, or trained on real images", color=_REAL)
    if shows_records:
        _write(page, right, 0.18, "SHOWS REAL RECORDS", fontsize=14, weight="bold", color=_REAL)


def _write(page: Figure, left: float, down: float, text: str, **style: Any) -> None:
    """Write so many inches from the left and from the top."""
    wide, height = page.get_size_inches()
    page.text(
        left / wide,
        1 - down / height,
        text,
        va="top",
        parse_math=False,
        **({"fontsize": 9.5} | style),
    )
