"""`dppm report RUN`: one HTML file that tells a run to who was not there.

``report.html`` shows no record. In simulation, where this machine holds the records anyway,
``private/report.html`` shows the same, and the records nearest to a few synthetic images.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.evaluation import figures
from deploy.pages import charts, report_text
from deploy.pages.peers import peers_of
from deploy.pages.pictures import Picture, from_file, sheets, twins
from deploy.pages.render import Card, render
from deploy.pages.run_summary import RunSummary
from deploy.pages.svg import Chart
from deploy.show import console, epsilon_text, print_json
from deploy.table import figure, with_spread
from dppm_model.errors import ConfigError, DataError, RunFolderError
from dppm_model.files import sweep, write_bytes
from dppm_model.reading import reason
from dppm_model.records.sources import load
from dppm_model.run import Run
from dppm_model.score.model import ScoreModel
from sampler.diagnostics import film_strip, watch
from sampler.images import load_images
from sampler.settings import SamplerSettings

Images = tuple[NDArray[np.uint8], NDArray[np.int64]]


def report(run: Path, *, public: bool, as_json: bool) -> None:
    """Write the report, print where it is.

    Raises
    ------
    RunFolderError
        If the folder is no run, nothing has been trained, or a file of it is damaged.
    """
    with console.status("writing the report"):
        written = write_reports(Run(run), public=public)
    for path in written:
        size = path.stat().st_size / 1e6
        shows = "; SHOWS REAL RECORDS" if path.parent.name == "private" else ""
        console.print(f"{path} ({size:.1f} MB{shows})", soft_wrap=True)
    if as_json:
        print_json([str(path) for path in written])


def write_reports(run: Run, *, public: bool) -> list[Path]:
    """Write ``report.html``, and ``private/report.html`` where this machine holds the records.

    Parameters
    ----------
    public
        Leave out what was measured on real data, and the private page.

    Returns
    -------
    The paths written.
    """
    sweep(run.folder)  # a report may be written while the run is trained: each file is whole
    facts = RunSummary.of(run)
    if not facts.rounds:
        raise RunFolderError(
            f"{run.folder} has no finished round yet.", f"Run `dppm simulate {run.folder}` first."
        )
    images = load_images(run.samples) if facts.images is not None else None
    pages: list[tuple[Path, list[Picture] | None]] = [(run.folder / "report.html", None)]
    if not public and facts.simulated and images is not None:
        try:
            records = load(facts.config.data, "train").images
            private = run.folder / "private" / "report.html"
            pages.append((private, twins(images[0], records)))
        except (ConfigError, DataError):
            console.print(f"{facts.config.data} is not on this machine: no page with records.")
    try:
        found = content(facts, images, public=public)
    except (KeyError, TypeError) as error:  # of figures that another version wrote
        raise RunFolderError(
            f"evaluation.json or audit.json of {run.folder} lacks a figure: {reason(error)}.",
            "Evaluate and audit the run again with this version.",
        ) from None
    for path, pairs in pages:
        write_bytes(path, render("report.html", **found, twins=pairs).encode())
    return [path for path, _ in pages]


def content(facts: RunSummary, images: Images | None, *, public: bool) -> dict[str, Any]:
    """Gather what the template names."""
    result = None if public else facts.evaluation
    audit = None if public else facts.audit
    drawn = {chart.name: chart for chart in charts.run_charts(facts)}
    if result is not None:
        drawn["accuracy"] = accuracy_chart(facts, result)
        drawn["classes"] = charts.classes_chart(facts.config.class_names, result)
    sections = [("what", "What was trained"), ("who", "Who sees what"), ("spent", "What it cost")]
    sections += [("images", "Images")] if images is not None else []
    sections += [("worth", "What the images are worth")] if result is not None else []
    sections += [("attacked", "Attacked")] if audit is not None else []
    sections += [
        *(("federation", "The federation"), ("limits", "What this does not protect")),
        ("again", "How to make it again"),
    ]
    return {
        "name": facts.run.folder.name,
        "folder": str(facts.run.folder),
        "version": version("dppm"),
        "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "data": facts.config.data,
        "plan": facts.plan,
        "state": facts.state,
        "error": facts.error,
        "rounds": len(facts.rounds),
        "sections": sections,
        "headline": headline(facts, result),
        "what": what(facts),
        "sights": report_text.sights(facts),
        "phases": list(report_text.phases(facts)),
        "charts": drawn | {k: None for k in ("noise", "effort") if k not in drawn},
        "sheets": sheets(*images, facts.config.class_names) if images is not None else None,
        "film": film(facts),
        "images_text": images_text(facts),
        "evaluation": result,
        "peers_text": peers_text(facts),
        "worth": figures(result) if result is not None else None,
        "worth_text": worth_text(result) if result is not None else "",
        "audit": audit,
        "games": games(audit) if audit is not None else None,
        "federation": report_text.federation(facts),
        "commands": report_text.commands(facts),
        "digests": report_text.digests(facts),
        "versions": report_text.versions(facts),
        "plan_json": (facts.run.folder / "plan.json").read_text(),
        "config_yaml": facts.run.config.read_text(),
    }


def headline(facts: RunSummary, result: Mapping[str, Any] | None) -> list[Card]:
    """Return the large figures: what was promised, and what came of it."""
    privacy, plan = facts.privacy, facts.plan
    cards = [
        Card(
            "epsilon-secure-sum",
            "ε for whoever sees the sum, the model or the images",
            epsilon_text(privacy["epsilon_secure_sum"]),
            f"δ = {plan.delta:g}, {privacy['honest_sites']} honest sites",
        ),
        Card(
            "epsilon-site",
            "ε for whoever sees a site's own reports",
            epsilon_text(privacy["epsilon_site"]),
            "holds whatever server and other sites do",
        ),
        Card("unit", "protects", f"one {plan.unit}", plan.adjacency),
    ]
    if result is not None:
        cards.append(
            Card(
                "accuracy",
                "accuracy, trained on the images",
                with_spread(result["accuracy"], result["accuracy_std"], 3),
                f"{result['accuracy_real']:.3f} trained on real ones",
            )
        )
    return [
        *cards,
        Card("sites", "sites", str(plan.sites), f"{plan.min_survivors} at least in every sum"),
        Card(
            "minutes",
            "training",
            f"{facts.seconds / 60:.1f} min",
            f"{len(facts.rounds)} of {plan.rounds} rounds",
        ),
    ]


def what(facts: RunSummary) -> list[tuple[str, str]]:
    """Say what was trained, on what, and from what."""
    config, privacy = facts.config, facts.privacy
    shape = " × ".join(map(str, config.shape[1:]))
    public = ", ".join(privacy["public_data"]) or "none: it started from public constants"
    return [
        ("data", f"{config.data}, {config.records} {facts.plan.unit}s (a public number)"),
        ("images", f"{shape} pixels, {('grey', 'RGB')[config.shape[0] == 3]}"),
        ("classes", ", ".join(config.class_names)),
        ("model", " → ".join(p.name for p in facts.plan.phases)),
        ("public data", public),
        ("mechanism", f"randomized response ({facts.plan.phases[0].mechanism}), secure sum"),
        ("run", facts.plan.run),
    ]


def film(facts: RunSummary) -> Picture | None:
    """Return the film strip of the chain: that of `dppm diagnose`, or one drawn now."""
    path = facts.run.folder / "film.png"
    if facts.images is None or not facts.run.model.exists():
        return None
    if not path.is_file():
        model = ScoreModel.load(facts.run.model)
        settings = SamplerSettings.from_dict(facts.config.sampler)
        if settings.method not in ("hmc", "langevin"):
            return None
        _, frames, labels = watch(model, settings, per_class=1)
        film_strip(frames, labels, path)
    return from_file(
        path,
        "One image of each class, from pure noise on the left to the finished image on the right",
        "One image a row, denoised at each noise level: from pure noise to the finished image.",
    )


def images_text(facts: RunSummary) -> str:
    """Say how many images there are, and how they were drawn."""
    if facts.images is None:
        return ""
    settings = facts.images["settings"]
    return (
        f"{facts.images['per_class']} of each of {facts.images['classes']} classes, drawn by "
        f"{settings['method']}, seed {facts.images['seed']}. Below are the first of each class; "
        "nothing was selected. They cost no further privacy, however many are drawn."
    )


def accuracy_chart(facts: RunSummary, result: Mapping[str, Any]) -> Chart:
    """Set the accuracy beside that of real images and of other methods at this epsilon."""
    name = facts.run.folder.name
    rows: list[tuple[str, float, float | None, str]] = [
        ("the real images (ε = ∞)", result["accuracy_real"], result["accuracy_real_std"], "real"),
        (f"this run, federated: {name}", result["accuracy"], result["accuracy_std"], "ours"),
    ]
    for peer in peers_of(result["dataset"], facts.privacy["epsilon_secure_sum"]):
        who = f"{peer.method}, {peer.trust} ({peer.measured_by})"
        rows.append((who, peer.accuracy, None, "peer"))
    summary = (
        f"A classifier trained on these images recognises {100 * result['accuracy']:.1f} % of "
        f"{result['test_images']} real test images; trained on the real images, "
        f"{100 * result['accuracy_real']:.1f} %."
    )
    return charts.dots_chart(
        "accuracy", "Accuracy beside real images and peers", summary, "accuracy", rows
    )


def peers_text(facts: RunSummary) -> str:
    """Say where the peers' figures are from, or that there are none."""
    epsilon = facts.privacy["epsilon_secure_sum"]
    if not peers_of(facts.config.data, epsilon):
        return (
            f"No other method's figures are known here for {facts.config.data} at this ε; "
            "`dppm compare` sets runs side by side."
        )
    return (
        "Peers are at the same ε and without public data, and all of them see the records in one "
        "place. Figures of DPImageBench are published ones, by larger classifiers on 60,000 "
        "images; those of this project come from python -m tests.benchmarks.peers."
    )


def worth_text(result: Mapping[str, Any]) -> str:
    """Say how the figures were measured."""
    seeds = ", ".join(map(str, result["seeds"]))
    return (
        f"{result['recipe']} recipe, classifier seeds {seeds}; tested on {result['test_images']} "
        "real test images. Distances and coverage are in features of a classifier of real images. "
        f"{result['nearest']['exact_copies']} exact copies of training records among "
        f"{result['nearest']['images']} images."
    )


def games(audit: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return what each attack showed."""
    return [
        (
            game["game"],
            game["view"].replace("_", " "),
            figure(game["epsilon"], 2),
            figure(game["claim"], 2),
        )
        for game in audit["games"]
    ]
