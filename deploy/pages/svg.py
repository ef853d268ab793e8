"""Charts as inline SVG that follow the page: its colours by day and by night, its print.

Matplotlib writes fixed colours. A chart is therefore drawn in a few marked ones, and these are
replaced by the page's CSS variables. The two series differ in shape and dash besides, so that no
chart is read by colour alone (Okabe and Ito's palette, which keeps apart for all colour vision).
Beside each chart stand its summary in words and its figures as a table, for who cannot see it.
"""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Stand for the page's variables, see `_MARKED`; nothing else is drawn in.
INK, SOFT, GRID, FIRST, SECOND, THIRD = (
    *("#010203", "#020304", "#030405"),
    *("#040506", "#050607", "#060708"),
)
_MARKED = {
    INK: "currentColor",
    SOFT: "var(--soft)",
    GRID: "var(--grid)",
    FIRST: "var(--first)",
    SECOND: "var(--second)",
    THIRD: "var(--third)",
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: it can be read aloud, searched and copied
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
}
_ONE = threading.Lock()  # Matplotlib's settings are the whole process's


@dataclass(frozen=True)
class Chart:
    """A picture of figures, and the same figures for who cannot see it.

    Attributes
    ----------
    name
        Unique on a page; letters and dashes.
    title, summary
        What it shows, and what is to be seen there, in words.
    svg
        The drawing, for inline use.
    header, rows
        The figures as a table.
    """

    name: str
    title: str
    summary: str
    svg: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def svg_of(
    name: str,
    size: tuple[float, float],
    paint: Callable[[Figure], None],
) -> str:
    """Draw a figure as SVG.

    Parameters
    ----------
    name
        Put before every id inside, so that several drawings can share a page.
    size
        Width and height in inches; the page scales it.
    paint
        Draws into the empty figure, in the colours of this module.
    """
    import matplotlib as mpl  # slow to import, and only needed here
    from matplotlib.figure import Figure

    with _ONE, mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=size, layout="constrained")
        paint(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    for colour, variable in _MARKED.items():
        text = text.replace(colour, variable)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    text = re.sub(r'xlink:href="#', f'xlink:href="#{name}-', text)
    # The size is the page's to choose; the drawing is described by the text beside it.
    return re.sub(
        r'<svg (.*?)width="[^"]*"', r'<svg aria-hidden="true" focusable="false" \1', text, count=1
    ).replace('height="', 'data-height="', 1)


def round_axis(axes: Axes, rounds: int, *, least: float = 0.5) -> None:
    """Make the axis below one of rounds: whole numbers, from ``least`` to the last."""
    from matplotlib.ticker import MaxNLocator

    axes.set(xlabel="round", xlim=(least, rounds + max(0.5, 0.02 * rounds)))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))


def plain_numbers(axes: Axes) -> None:
    """Write the left axis's numbers as 0.01, not as mathematics: its text stays text."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def band_phases(axes: Axes, names: Sequence[str], *, labels: bool) -> None:
    """Mark where phases begin, on an axis of rounds 1..T, and write their names above.

    Parameters
    ----------
    names
        The phase of each round.
    """
    starts = [i for i, name in enumerate(names) if i == 0 or names[i - 1] != name]
    for i in starts[1:]:
        axes.axvline(i + 0.5, color=SOFT, linewidth=0.8, linestyle=(0, (1, 3)))
    if labels:
        ends = [*starts[1:], len(names)]
        for level, (start, end) in enumerate(zip(starts, ends, strict=True)):
            axes.annotate(
                names[start],
                ((start + end) / 2 + 0.5, 1),
                xycoords=("data", "axes fraction"),
                xytext=(0, 3 + 11 * (level % 3)),  # short phases lie close together
                textcoords="offset points",
                ha="center",
                fontsize=8,
                color=SOFT,
            )
