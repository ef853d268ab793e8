"""Terminal output: progress bars, tables and refusals; or JSON for scripts."""

from __future__ import annotations

import errno
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from decimal import ROUND_CEILING, Decimal
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table

from dppm_model.errors import DppmError, StorageError
from dppm_model.phase import PhasePlan
from dppm_model.plan import Plan
from dppm_model.planning.base import noise_ratio
from dppm_model.progress import Progress
from dppm_model.reading import reason
from dppm_model.score.model_config import ModelConfig

console = Console(stderr=True)


def plain(text: str) -> str:
    """Make foreign text safe to print, without characters that control a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


_HINTS = {  # for errors of the operating system
    errno.ENOSPC: "Free space on that disk, then run the same command again to resume.",
    errno.EDQUOT: "Free space in that quota, then run the same command again to resume.",
    errno.EFBIG: "Raise the file size limit (ulimit -f), then run the command again to resume.",
    errno.EACCES: "Let this user read and write there, or work as the folder's owner.",
    errno.EPERM: "Let this user read and write there, or work as the folder's owner.",
    errno.EROFS: "Mount that disk for writing, or choose another folder.",
    errno.ENAMETOOLONG: "Take a shorter name, or a folder nearer the root.",
    errno.ENOTDIR: "Something on this path is a file: check the path.",
    errno.EIO: "The disk fails: check it, then run the command again to resume.",
    errno.EMFILE: "Raise the limit of open files (ulimit -n), then rerun the command to resume.",
    errno.ENFILE: "Close other programs: the machine has run out of open files.",
    errno.ENOENT: "Check the name, or run the command that creates it.",
}


def show_refusal(error: DppmError | OSError) -> int:
    """Print an error and its hint, one line each, and return the exit code."""
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        hint = _HINTS.get(error.errno or 0, "Check the disk and its permissions, then try again.")
        error = StorageError(f"{where}{reason(error)}.", hint)
    console.print(f"[bold red]{type(error).__name__}[/]: {escape(plain(error.message))}")
    console.print(f"[bold]Fix[/]: {escape(plain(error.hint))}")
    return error.exit_code


def print_json(value: Any) -> None:
    """Print JSON on standard output; messages for people go to standard error."""
    print(json.dumps(value, indent=2))


@contextmanager
def progress(description: str) -> Iterator[Progress]:
    """Show a bar with elapsed time and time left on a terminal; one line elsewhere."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(description, total=None)
        if not console.is_terminal:
            console.print(f"{description} …", markup=False)

        def show(text: str, share: float | None = None, /) -> None:
            total = None if share is None else 1.0
            bar.update(task, description=text, completed=share or 0.0, total=total)

        yield show


def empty_table(title: str, texts: Sequence[str], numbers: Sequence[str]) -> Table:
    """Make an empty table: columns of text, which may wrap, then of numbers, which do not."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in texts:
        table.add_column(column)
    for column in numbers:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def epsilon_text(value: float | None) -> str:
    """Format an epsilon, rounded up; None is infinite."""
    if value is None or math.isinf(value):
        return "∞ (no protection)"
    return f"{round_up(value, 3):.3f}"


def round_up(value: float, digits: int) -> float:
    """Round so that the printed digits are never below the value; infinity stays."""
    if math.isinf(value):
        return value
    return float(Decimal(value).quantize(Decimal(1).scaleb(-digits), rounding=ROUND_CEILING))


# A mechanism's parameters in the plan's table: the heading and the format.
_COLUMNS = {
    "directions": ("K", "d"),
    "range": ("R/C", ".3g"),  # C is 1
    "truth_strength": ("θ", ".3f"),
    "responses": ("m", "d"),
    "noise_multiplier": ("z", ".4g"),
}


def mechanism_columns(phase: PhasePlan) -> dict[str, str]:
    """Return the D numbers of a report, and the parameters of a phase's mechanism, by heading."""
    found = {"D": str(phase.report_length)} if phase.mechanism.adds_up else {}
    for key, value in phase.mechanism.to_dict().items():
        heading, form = _COLUMNS.get(key, (key, ""))
        found[heading] = format(value, form)
    return found


def plan_table(plan: Plan, view: Any) -> Table:
    """Draw the phases of a plan.

    T rounds at Poisson rate q; the mechanism's own parameters; loss in mu
    against an ideal Gaussian; bits of a number of the sum; mu of a round in the planned view.
    """
    mechanism = plan.phases[0].mechanism
    own = mechanism_columns(plan.phases[0])
    title = f"Plan of {plan.sites} sites: {mechanism.title}"
    table = empty_table(title, ["phase"], ["T", "q", *own, "loss", "bits", "µ"])
    for p in plan.phases:
        loss = noise_ratio(p.mechanism, p, view)
        table.add_row(
            p.name,
            str(p.rounds),
            f"{p.sampling_rate:.3g}",
            *mechanism_columns(p).values(),
            f"{100 * (loss - 1):.1f}%" if loss < 2 else f"{loss:.0f}×",
            str(p.bits),
            f"{p.cost(view, 1).mu:.3f}",
        )
    return table


def model_text(model: ModelConfig) -> str:
    """Describe the model that a plan's questions come from."""
    settings = {part.group: part.to_dict() for part in model.parts}
    if model.public is not None:
        settings["public"] = asdict(model.public)
    images = f"images {'×'.join(map(str, model.shape))} of {model.classes} classes"
    parts = [
        f"  {part}: {', '.join(f'{key} {value}' for key, value in settings[part].items())}"
        for part in settings
    ]
    head = f"Asks only with a model of {images}; digest {model.digest[:16]}:"
    return "\n".join([head, *parts])
