"""`dppm report RUN`: one self-contained HTML file for readers who did not run it.

``report.html`` shows no record. In simulation, where this machine holds the records anyway,
``private/report.html`` shows the same, and the records nearest to a few synthetic images.
"""

from __future__ import annotations

import hashlib
import platform
import shlex
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.markup import escape

from deploy.cost.workload import workloads
from deploy.pages.charts import accuracy_chart, classes_chart, run_charts
from deploy.pages.peers import peers_of
from deploy.pages.pictures import Picture, film, pairs, sheets
from deploy.pages.render import render
from deploy.pages.run_summary import RunSummary
from deploy.show import console, print_json
from dppm_model.errors import ConfigError, DataError, RunFolderError
from dppm_model.files import sweep, write_bytes
from dppm_model.reading import reason
from dppm_model.records.sources import load
from dppm_model.run import Run
from dppm_model.score.phases import kind_of
from sampler.images import load_images

Images = tuple[NDArray[np.uint8], NDArray[np.int64]]


def report(run: Path, *, public: bool, as_json: bool) -> None:
    """Write the report, and print its path."""
    with console.status("writing the report"):
        written = write_reports(Run(run), public=public)
    for path in written:
        size = path.stat().st_size / 1e6
        shows = "; SHOWS REAL RECORDS" if path.parent.name == "private" else ""
        console.print(f"{path} ({size:.1f} MB{shows})", soft_wrap=True, markup=False)
    if as_json:
        print_json([str(path) for path in written])


def write_reports(run: Run, *, public: bool) -> list[Path]:
    """Write ``report.html``, and ``private/report.html`` if this machine holds the records.

    ``public`` leaves out all that was measured on real data, and the private page. Raises
    `RunFolderError` if no round was finished, or a file of the run is damaged.
    """
    sweep(run.folder)  # a report may be written while the run is trained: each file is whole
    summary = RunSummary.of(run)
    if not summary.rounds:
        raise RunFolderError(
            f"{run.folder} has no finished round yet.", f"Run `dppm simulate {run.folder}` first."
        )
    images = load_images(run.samples) if summary.images is not None else None
    pages: list[tuple[Path, list[Picture] | None]] = [(run.folder / "report.html", None)]
    if not public and summary.simulated and images is not None:
        try:
            config = summary.config
            records = load(config.data, "train", digest=config.facts.digest).images
            pages.append((run.folder / "private" / "report.html", pairs(images[0], records)))
        except (ConfigError, DataError) as error:
            console.print(f"No page with records: {error.message}", markup=False)
    try:
        found = content(summary, images, public=public)
    except (KeyError, TypeError) as error:
        raise RunFolderError(
            f"audit.json or evaluation.json of {run.folder} lacks a figure: {reason(error)}.",
            "Evaluate and audit the run again with this version.",
        ) from None
    for path, records_beside in pages:
        write_bytes(path, render("report.html", **found, pairs=records_beside).encode())
    return [path for path, _ in pages]


def content(summary: RunSummary, images: Images | None, *, public: bool) -> dict[str, Any]:
    """Return the values that the template of the report needs."""
    run, config, privacy = summary.run, summary.config, summary.privacy
    evaluation = None if public else summary.evaluation
    charts: dict[str, Any] = {"noise": None, "effort": None} | run_charts(summary)
    peers = peers_of(config.data, privacy["epsilon_release"])
    if evaluation is not None:
        charts["accuracy"] = accuracy_chart(run.folder.name, evaluation, peers)
        charts["classes"] = classes_chart(evaluation)
    files = {"model": run.model, "ledger": run.ledger, "configuration": run.config}
    digests = [
        (name, hashlib.sha256(path.read_bytes()).hexdigest())
        for name, path in files.items()
        if path.is_file()
    ]
    return {
        "summary": summary,
        "version": version("dppm"),
        "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "charts": charts,
        "sheets": sheets(*images, config.class_names) if images is not None else None,
        "film": film(summary),
        "evaluation": evaluation,
        "peers": peers,
        "audit": None if public else summary.audit,
        "loads": workloads(summary.plan),
        "kind_of": kind_of,
        "overrides": shlex.join(run.read_json(run.overrides)["overrides"]),
        "digests": [("plan", summary.plan.digest), *digests],
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("dppm", "torch", "numpy", "flwr", "ray")},
        },
        "plan_json": (run.folder / "plan.json").read_text(),
        "config_yaml": run.config.read_text(),
    }


def write_evaluation_table(run: Run) -> None:
    """Write ``evaluation.md`` of an evaluated run."""
    summary = RunSummary.of(run)
    evaluation = summary.evaluation
    assert evaluation is not None
    columns = [evaluation.per_class[kind] for kind in ("accuracy", "coverage", "density")]
    by_class = [
        (scores[0].name, *(cell for score in scores for cell in (score.text, score.real_text)))
        for scores in zip(*columns, strict=True)
    ]
    page = render(
        "evaluation.md",
        name=run.folder.name,
        evaluation=evaluation,
        privacy=summary.privacy,
        trusted=summary.plan.trusts_server,
        by_class=by_class,
    )
    write_bytes(run.folder / "evaluation.md", page.lstrip().encode())


def show_summary(run: Run, report: Path | None = None, minutes: float | None = None) -> None:
    """Print a few lines on the run's utility, its cost, its report, and the command's minutes."""
    summary = RunSummary.of(run)
    evaluation = summary.evaluation
    assert evaluation is not None
    console.rule(escape(str(run.folder)))
    shown = render(
        "summary.txt",
        privacy=summary.privacy,
        trusted=summary.plan.trusts_server,
        scores=evaluation.scores,
        raw=evaluation.raw,
        folder=run.folder,
        report=report or f"dppm report {run.folder}",
        minutes=minutes,
    )
    console.print(shown.rstrip(), markup=False)
