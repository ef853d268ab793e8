"""The commands that handle data, plans, training and evaluation."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deploy import simulate as simulation
from deploy.cli import PAGE_ADDRESS
from deploy.configuration import composed
from deploy.cost.scaling import PARAMETERS, SITES, most_sites, scaled_rounds, whole_numbers
from deploy.cost.tables import cost_json, cost_table, cost_text, scaling_notes, scaling_table
from deploy.cost.timing import measure as time_rounds
from deploy.cost.timing import note_seconds
from deploy.cost.workload import workloads
from deploy.data_show import show_counts, show_warnings
from deploy.pages.report import show_summary, write_evaluation_table, write_reports
from deploy.pages.watch import beside
from deploy.sampling import draw, retaken, subject, trained
from deploy.show import console, epsilon_text, plain, plan_table, print_json, progress
from dppm_model.config import Config, compose_config, read_config
from dppm_model.device import device_of
from dppm_model.errors import ConfigError, RunFolderError
from dppm_model.files import write_json
from dppm_model.plan import Plan
from dppm_model.planner import adjacency, epsilon_if_colluding
from dppm_model.records import importers, medmnist, sources
from dppm_model.records.description import describe
from dppm_model.records.listing import Choices
from dppm_model.records.nifti import Slices
from dppm_model.records.window import Window
from dppm_model.run import Run
from sampler.evaluation.classifier import RECIPES, EvaluationConfig
from sampler.evaluation.cohort import cohort_figures
from sampler.evaluation.evaluate import FEWEST_PER_CLASS
from sampler.evaluation.evaluate import evaluate as judge
from sampler.images import load_images

_RUNS = Path("runs")


def fetch(name: str, source: Path | None, *, as_json: bool) -> None:
    """`dppm data fetch NAME`."""
    source = source.expanduser() if source else None
    notes: list[str] = []
    with progress(f"fetching {name}") as bar:
        if name.startswith(medmnist.PREFIX):
            path = medmnist.fetch(name, progress=bar, source=source, say=notes.append)
        else:
            path = sources.fetch(name, progress=bar, source=source)
    console.print(f"{name} is in {path}", markup=False)
    if name.startswith(medmnist.PREFIX):
        console.print(f"As a data set it is called {path.name}.")
    _show_notes(notes)
    if as_json:
        print_json(sources.available())


def import_data(
    source: Path,
    name: str | None,
    size: int | None,
    labels: Path | None,
    test: Path | None,
    test_fraction: float | None,
    axis: str,
    slices: str | None,
    window: str,
    *,
    as_json: bool,
    **choices: Any,
) -> None:
    """`dppm data import PATH`."""
    source = source.expanduser()
    name = name or source.stem
    notes: list[str] = []
    with progress(f"importing {source}") as bar:
        path = importers.import_dataset(
            source,
            name,
            size=size,
            labels=labels.expanduser() if labels else None,
            test=test.expanduser() if test else None,
            test_fraction=test_fraction,
            choices=Choices(slices=Slices.of(axis, slices), window=Window.of(window), **choices),
            progress=bar,
            say=notes.append,
        )
    console.print(f"{name} is in {path}", markup=False)
    _show_notes(notes)
    described = describe(name)
    show_counts(described)
    show_warnings(*described.warnings)
    console.print(f"`dppm data show {name}` shows copies, intensities and pictures.")
    if as_json:
        print_json(sources.available())


def _show_notes(notes: Sequence[str]) -> None:
    for note in notes:
        console.print(f"- {plain(note)}", markup=False, highlight=False)


def list_data(*, as_json: bool) -> None:
    """`dppm data list`."""
    entries = sources.available()
    if as_json:
        print_json(entries)
        return
    for entry in entries:
        damaged = "  [red]damaged: fetch or import it again[/]" if entry["damaged"] else ""
        console.print(f"[bold]{entry['name']}[/]  {entry['shape']}  {entry['counts']}{damaged}")
    if not entries:
        console.print("No data sets yet; `dppm data fetch mnist` gets one.")


def plan(
    overrides: Sequence[str],
    *,
    scale: bool,
    measure: bool,
    at_sites: str | None,
    at_parameters: str | None,
    as_json: bool,
) -> None:
    """`dppm plan`: the costs of a run before it starts, or of a round at larger scales."""
    config = simulation.resolve(overrides)
    if scale:
        _plan_scale(config, at_sites, at_parameters, as_json=as_json)
        return
    if at_sites or at_parameters:
        raise ConfigError(
            "--at-sites and --at-parameters need --scale.",
            "Add --scale, or set sites=… to plan for another number of sites.",
        )
    if measure:
        with progress("timing rounds") as bar:
            time_rounds(config, bar)
    with console.status("planning"):
        made = simulation.plan_of(config, "plan")
        privacy = simulation.privacy_json(made, config)
    if as_json:
        print_json(privacy | {"cost": cost_json(made, config)})
    else:
        show_plan(made, config, privacy)


def _plan_scale(
    config: Config, at_sites: str | None, at_parameters: str | None, *, as_json: bool
) -> None:
    """Show what a gradient round costs with more sites and larger models."""
    sites = whole_numbers("--at-sites", at_sites) or SITES
    parameters = whole_numbers("--at-parameters", at_parameters) or PARAMETERS
    with progress("planning") as bar:
        rows = scaled_rounds(config, sites, parameters, progress=bar)
    last = most_sites(config)
    if as_json:
        print_json({"rows": [row.to_json() for row in rows], "secure_sum_stops": last.to_json()})
        return
    console.print(scaling_table(rows))
    for note in scaling_notes(rows, last):
        console.print(note)


def show_plan(made: Plan, config: Config, privacy: dict[str, Any]) -> None:
    """Print a plan as a table, with its guarantees, assumptions and costs."""
    console.print(plan_table(made, config.privacy_request().view))
    for reason in config.recipe.reasons:
        console.print(f"- {reason}")
    if made.trusts_server:
        console.print(
            f"ε = [bold]{epsilon_text(privacy['epsilon_release'])}[/] against anyone who sees only "
            "what the server releases. The server itself sees exact sums: it must be trusted."
        )
    console.print(
        f"ε = [bold]{epsilon_text(privacy['epsilon_secure_sum'])}[/] against anyone who sees the "
        f"sum over {privacy['honest_sites']} honest sites, {epsilon_text(privacy['epsilon_site'])} "
        f"against anyone who sees a site's own reports; δ = {made.delta:g}, unit: {made.unit}, "
        f"adjacency: {adjacency(made)}."
    )
    for colluding, epsilon in epsilon_if_colluding(made):
        console.print(f"  {colluding} more colluding with the server: ε = {epsilon_text(epsilon)}")
    console.print(
        f"  {2 * made.min_survivors - made.sites} or more colluding with it: "
        f"ε = {epsilon_text(privacy['epsilon_site'])}"
    )
    loads = workloads(made)
    console.print(cost_table(loads, config.backend))
    console.print(
        f"{cost_text(loads, config.backend)} The sum is secure: {made.min_survivors} of "
        f"{made.sites} sites must report, and help to open it."
    )


def simulate(folder: Path | None, overrides: Sequence[str], *, as_json: bool, watch: bool) -> None:
    """`dppm simulate [RUN]`: train or resume a run folder."""
    if folder is None:
        folder = _RUNS / str(compose_config(overrides)["data"])
    run, config, begun = _prepare(folder, overrides)
    if run.model.exists():
        console.print(f"{folder} is trained; nothing to do.", markup=False)
    else:
        if begun:
            console.print(f"Resuming {folder} after round {len(run.rounds())}.", markup=False)
        with beside(run, PAGE_ADDRESS if watch else None):
            train(run, config)
    if as_json:
        print_json(run.read_json(run.privacy))


def _prepare(folder: Path, overrides: Sequence[str]) -> tuple[Run, Config, bool]:
    with progress("planning") as bar:
        run, config, begun = simulation.prepare(folder, overrides, bar)
    if not begun:
        show_plan(run.plan(), config, run.read_json(run.privacy))
    return run, config, begun


def train(run: Run, config: Config) -> None:
    """Train, with a progress bar."""
    with progress(f"training over {config.sites} sites ({config.backend})") as bar:
        simulation.simulate(run, config, progress=bar)
    note_seconds(run, config.backend)


def evaluate(folder: Path | None, overrides: Sequence[str], *, as_json: bool) -> None:
    """`dppm evaluate RUN`: the utility of the synthetic images."""
    run = trained(folder, "evaluate")
    tree = retaken(run, overrides, "evaluation", "device")
    result = measure(run, tree["evaluation"], tree["device"])
    if as_json:
        print_json(result)
    else:
        show_summary(run)


def measure(run: Run, settings: dict[str, Any], device: str) -> dict[str, Any]:
    """Evaluate the run's images, and write ``evaluation.json`` and the table."""
    chosen = EvaluationConfig.of(settings, "evaluation")
    with run.alone(), progress("evaluating") as bar:
        if not run.samples.exists():
            raise RunFolderError(
                f"{run.folder} has no images yet.", f"Run `dppm sample {run.folder}` first."
            )
        config = read_config(run.config)
        train, test = (
            sources.load(config.data, split, digest=config.facts.digest_of(split))
            for split in sources.SPLITS
        )
        recipe = RECIPES[chosen.recipe]
        result = judge(
            load_images(run.samples),
            (train.images, train.labels),
            (test.images, test.labels),
            dataset=config.data,
            classes=config.classes,
            device=device_of(device),
            recipe=recipe.flipped() if chosen.flips else recipe,
            seeds=chosen.seeds,
            public_images=chosen.public_images,
            inception=Path(chosen.inception) if chosen.inception else None,
            cache=sources.data_root() / config.data / "evaluation",
            pictures=run.folder / "private",
            progress=bar,
        )
        result["cohort"] = cohort_figures(train.labels, train.persons, config.classes)
        write_json(run.evaluation, result | {"of": subject(run)})
        write_evaluation_table(run)
    return result


def demo(folder: Path | None, overrides: Sequence[str], *, as_json: bool) -> None:
    """`dppm demo`: everything from the data set to an evaluated run."""
    begun = time.monotonic()
    asked = composed(overrides)  # refuse before anything is spent
    few = asked.sampler["per_class"]
    if few < FEWEST_PER_CLASS:
        raise ConfigError(
            f"sampler.per_class is {few}, too few for the demo to evaluate.",
            f"Give at least {FEWEST_PER_CLASS}, or use `dppm simulate` and `dppm sample`.",
        )
    name = asked.data
    with progress(f"fetching {name}") as bar:
        sources.fetch(name, progress=bar)
    run, config, _ = _prepare(folder or _RUNS / "demo", overrides)
    if not run.model.exists():
        train(run, config)
    draw(run, config.to_dict())
    result = measure(run, config.evaluation, config.device)
    with console.status("writing the report"):
        report, *_ = write_reports(run, public=False)
    show_summary(run, report, (time.monotonic() - begun) / 60)
    if as_json:
        print_json({"privacy": run.read_json(run.privacy), "evaluation": result})
