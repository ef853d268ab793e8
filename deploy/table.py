"""Tables and figures as Markdown, for files and for what people paste elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from deploy.show import plain

MISSING = "–"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Lay out a table; the first ``left`` columns are aligned left, the others right."""
    rule = ["---"] * left + ["---:"] * (len(header) - left)
    return "\n".join(f"| {' | '.join(map(cell, row))} |" for row in (header, rule, *rows))


def cell(text: str) -> str:
    """Make a text safe inside a cell: on one line, and its bars are no borders."""
    return plain(text).replace("\n", " ").replace("|", "\\|")


def figure(value: float | None, digits: int) -> str:
    """Write a number with ``digits`` after the point, or a dash where there is none."""
    return MISSING if value is None else f"{value:.{digits}f}"


def with_spread(mean: float | None, spread: float | None, digits: int = 4) -> str:
    """Write a mean and its standard deviation, where that is known."""
    text = figure(mean, digits)
    return text if mean is None or spread is None else f"{text} ± {spread:.{digits}f}"
