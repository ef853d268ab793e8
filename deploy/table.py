"""Tables and figures as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from deploy.show import plain

MISSING = "–"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Lay out a table; the first ``left`` columns are aligned left, the others right."""
    rule = ["---"] * left + ["---:"] * (len(header) - left)
    return "\n".join(f"| {' | '.join(map(cell, row))} |" for row in (header, rule, *rows))


def cell(text: str) -> str:
    """Escape a text for a cell: one line, with escaped bars."""
    return plain(text).replace("\n", " ").replace("|", "\\|")


def figure(value: float | None, digits: int) -> str:
    """Format a number with ``digits`` decimals, or a dash for None."""
    return MISSING if value is None else f"{value:.{digits}f}"


def with_spread(mean: float | None, spread: float | None, digits: int = 4) -> str:
    """Format a mean, with its standard deviation if known."""
    text = figure(mean, digits)
    return text if mean is None or spread is None else f"{text} ± {spread:.{digits}f}"
