"""`dppm data show NAME`: a data set in tables and two pictures, which stay at the site."""

from __future__ import annotations

import io
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.markup import escape
from rich.table import Table

from deploy.show import console, empty_table, plain, print_json, progress
from dppm_model.files import write_bytes
from dppm_model.records.description import BINS, Contents, Description, describe, examine, opened
from dppm_model.records.sources import data_root
from sampler.evaluation.classifier import shrink
from sampler.sheet import contact_sheet

STAYS = "Not differentially private: what this shows, and both pictures, must stay at the site."
_COLUMNS, _SIDE = 10, 96  # of the contact sheet; larger images are shrunk to this many pixels
_EXAMPLES = 3
_CHANNELS = (("tab:red", "-"), ("tab:green", "--"), ("tab:blue", ":"))


def show(name: str, out: Path | None, *, as_json: bool) -> None:
    """`dppm data show NAME`."""
    described = describe(name)
    with progress(f"reading {name}") as bar:
        contents = examine(name, progress=bar)
    folder = out.expanduser() if out else data_root() / name / "show"
    pictures = [folder / "contact_sheet.png", folder / "histograms.png"]
    _sheet(described, pictures[0])
    _histograms(described, contents, pictures[1])
    if as_json:
        print_json(_json(described, contents, pictures))
        return
    show_counts(described)
    intake = described.intake
    if intake is not None:
        _line(f"source: {intake.source}")
        (w, h), (wide, high) = intake.smallest, intake.largest
        _line(f"source images: {w}x{h}" + (f" to {wide}x{high}" if (w, h) != (wide, high) else ""))
        for one in intake.skipped:
            more = ", …" if one.count > _EXAMPLES else ""
            _line(f"skipped, {one.reason}: {one.count} ({', '.join(one.names[:_EXAMPLES])}{more})")
        for note in intake.notes:
            _line(f"said at import: {note}")
    for what, pairs in (("exact copies", contents.copies), ("near-copies", contents.alike)):
        shown = ", ".join(f"{copy} of {original}" for copy, original in pairs[:_EXAMPLES])
        _line(f"{what}: {len(pairs)}" + (f" (such as {shown})" if pairs else ""))
    show_warnings(*described.warnings, *contents.warnings)
    for picture in pictures:
        _line(f"wrote {picture}")
    console.print(STAYS)


def show_counts(described: Description) -> None:
    """Print records and persons by class and split, and how the test records were chosen."""
    channels, height, width = described.shape
    colour = {1: "grey", 3: "RGB"}.get(channels, f"{channels} channels")
    _line(f"{described.name}: {width}x{height} {colour}, {described.depth} bits a channel")
    console.print(_counts(described))
    for one in described.splits:
        if one.records_per_person is not None:
            least, median, most = one.records_per_person
            _line(f"records of a person in {one.split}: {least} to {most}, median {median:g}")
    if described.intake is not None:
        _line(f"held out: {described.intake.hold_out}")


def show_warnings(*warnings: str) -> None:
    """Print warnings, a line each."""
    for warning in warnings:
        console.print(f"[yellow]warning[/]: {escape(plain(warning))}", highlight=False)


def _line(text: str) -> None:
    console.print(plain(text), markup=False, highlight=False, soft_wrap=True)


def _counts(described: Description) -> Table:
    """Draw a row per class: its number, name, and records of each split (persons)."""
    table = empty_table("", ["class", "name"], [one.split for one in described.splits])

    def count(records: int, persons: int | None) -> str:
        return str(records) if persons is None else f"{records} of {persons} persons"

    for label, name in enumerate(described.classes):
        row = [
            count(one.records[label], None if one.persons is None else one.persons[label])
            for one in described.splits
        ]
        table.add_row(str(label), escape(plain(name)), *row)
    table.add_row("", "all", *(count(one.total, one.total_persons) for one in described.splits))
    return table


def _json(described: Description, contents: Contents, pictures: list[Path]) -> dict[str, Any]:
    found = asdict(described) | asdict(contents)
    found["warnings"] = [*described.warnings, *contents.warnings]
    found["histograms"] = contents.histograms.round(6).tolist()
    return found | {"pictures": [*map(str, pictures)], "differentially_private": False}


def _sheet(described: Description, path: Path) -> None:
    """Write some images of each class, evenly spaced over its training records."""
    records = next(iter(opened(described.name).values()))
    chosen = [
        own[np.unique(np.linspace(0, len(own) - 1, min(_COLUMNS, len(own))).round().astype(int))]
        for label in range(len(described.classes))
        if (own := np.flatnonzero(records.labels == label)).size
    ]
    index = np.concatenate(chosen)
    images = records.pixels(index)
    coarse = (images >> (described.depth - 8)).astype(np.uint8)
    small = shrink(coarse, _SIDE).numpy()
    contact_sheet(small, records.labels[index], path, columns=_COLUMNS, names=described.classes)


def _histograms(described: Description, contents: Contents, path: Path) -> None:
    """Draw the shares of each channel's values, a panel for each class, as a PNG."""
    from matplotlib.figure import Figure  # slow to import, and only needed here

    columns = min(4, len(described.classes))
    rows = math.ceil(len(described.classes) / columns)
    figure = Figure(figsize=(3 * columns, 2 * rows + 0.4), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    edges = np.linspace(0, 1, BINS + 1)
    styles = _CHANNELS if described.shape[0] == len(_CHANNELS) else (("black", "-"),)
    for panel, name, channels in zip(panels, described.classes, contents.histograms, strict=False):
        for shares, (colour, line) in zip(channels, styles, strict=True):
            panel.stairs(shares, edges, color=colour, linestyle=line)
        panel.set_title(plain(name)[:28], fontsize=9, parse_math=False)
    for panel in panels[len(described.classes) :]:
        panel.set_axis_off()
    figure.supxlabel("intensity, dark to bright", fontsize=9)
    figure.supylabel("share of training pixels", fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    write_bytes(path, buffer.getvalue())
