"""What each verb of the command line does, top to bottom."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deploy import simulate as simulation
from deploy.estimate import round_seconds
from deploy.show import (
    console,
    epsilon_text,
    plan_table,
    print_json,
    progress,
    uplink_bytes,
)
from dppm_model.config import Config, compose_config, read_config
from dppm_model.errors import ConfigError, RunFolderError
from dppm_model.plan import ADJACENCY, UNIT, Plan
from dppm_model.records import importers, sources
from dppm_model.run import Run
from dppm_model.score.model import ScoreModel
from sampler.evaluation.evaluate import evaluate as judge
from sampler.evaluation.evaluate import write_evaluation
from sampler.images import load_images
from sampler.pool import generate
from sampler.settings import SamplerSettings
from sampler.sheet import contact_sheet
from sampler.tune import tuned

_RUNS = Path("runs")
PROMISED = ("epsilon_secure_sum", "epsilon_site", "delta", "unit")  # what goes with images


def data(arguments: argparse.Namespace) -> None:
    """`dppm data fetch|import|list`."""
    if arguments.action != "list" and not arguments.what:
        raise ConfigError(
            f"data {arguments.action} needs a name or a path.", "See `dppm data --help`."
        )
    if arguments.action == "fetch":
        with progress(f"fetching {arguments.what}", counts=False) as bar:
            path = sources.fetch(arguments.what, progress=bar.say)
        console.print(f"{arguments.what} is in {path}")
    elif arguments.action == "import":
        source = Path(arguments.what).expanduser()
        with progress(f"importing {source}", counts=False) as bar:
            path = importers.import_dataset(
                source,
                arguments.name or source.stem,
                size=arguments.size,
                test_fraction=arguments.test_fraction,
                seed=0,
                progress=bar.say,
            )
        console.print(f"{arguments.name or source.stem} is in {path}")
    entries = sources.available()
    if arguments.json:
        print_json(entries)
    elif arguments.action == "list":
        for entry in entries:
            damaged = "  [red]damaged: fetch or import it again[/]" if entry["damaged"] else ""
            console.print(f"[bold]{entry['name']}[/]  {entry['shape']}  {entry['counts']}{damaged}")
        if not entries:
            console.print("No data sets yet; `dppm data fetch mnist` gets one.")


def plan(overrides: Sequence[str], *, as_json: bool) -> None:
    """`dppm plan`: the costs of a run, before anything is spent."""
    config = simulation.resolve(overrides)
    with console.status("planning"):
        made = simulation.plan_of(config, "plan")
        privacy = simulation.privacy_json(made, config)
    if as_json:
        print_json(privacy)
    else:
        show_plan(made, config, privacy)


def show_plan(made: Plan, config: Config, privacy: dict[str, Any]) -> None:
    """Print the plan as a table, what it promises, and what it assumes."""
    console.print(plan_table(made, config.privacy_request().view))
    console.print(
        f"ε = [bold]{epsilon_text(privacy['epsilon_secure_sum'])}[/] for whoever sees the sum over "
        f"{privacy['honest_sites']} honest sites, {epsilon_text(privacy['epsilon_site'])} for "
        f"whoever sees a site's own reports; δ = {made.delta:g}, unit: {UNIT}, "
        f"adjacency: {ADJACENCY}."
    )
    for colluding, epsilon in simulation.epsilon_if_colluding(made):
        console.print(
            f"  if {colluding} more sites collude with the server: ε = {epsilon_text(epsilon)}"
        )
    console.print(
        f"  if {2 * made.min_survivors - made.sites} or more do: "
        f"ε = {epsilon_text(privacy['epsilon_site'])}"
    )
    rounds = made.rounds
    size = sum(uplink_bytes(p) * p.rounds for p in made.phases)
    coordinates = sum(p.cells * p.rounds for p in made.phases)
    minutes = sum(round_seconds(p) * p.rounds for p in made.phases) / 60
    console.print(
        f"{rounds} rounds, {size / 1e6:.1f} MB up per site in all ({size / coordinates:.2f} bytes "
        f"a coordinate), about {minutes:.0f} min on two cores of a laptop. The sum is secure: "
        f"{made.min_survivors} of {made.sites} sites must report, and help to open it."
    )


def simulate(folder: Path | None, overrides: Sequence[str], *, as_json: bool) -> None:
    """`dppm simulate [RUN]`: train, or continue, a run folder."""
    if folder is None:
        folder = _RUNS / str(compose_config(overrides)["data"])
    run, config, begun = _prepare(folder, overrides)
    if run.model.exists():
        console.print(f"{folder} is trained; nothing to do.")
    else:
        if begun:
            console.print(f"{folder} goes on after round {len(run.rounds())}.")
        train(run, config)
    if as_json:
        print_json(run.read_json(run.privacy))


def _prepare(folder: Path, overrides: Sequence[str]) -> tuple[Run, Config, bool]:
    with console.status("planning"):
        run, config, begun = simulation.prepare(folder, overrides)
    if not begun:
        show_plan(run.plan(), config, run.read_json(run.privacy))
    return run, config, begun


def train(run: Run, config: Config) -> None:
    """Train with a bar that counts rounds."""
    total = run.plan().rounds
    with progress(f"training over {config.sites} sites ({config.backend})") as bar:
        simulation.simulate(run, config, tick=lambda: bar.count(len(run.rounds()), total))
        bar.count(total, total)


def trained(folder: Path | None, verb: str) -> Run:
    """Return the run that a verb needs, or refuse one that has no model."""
    if folder is None:
        raise ConfigError(f"{verb} needs a run folder.", f"For example: dppm {verb} runs/demo")
    run = Run(folder)
    run.plan()
    if not run.model.exists():
        raise RunFolderError(
            f"{folder} has no trained model yet.", f"Run `dppm simulate {folder}` first."
        )
    return run


def group_of(run: Run, overrides: Sequence[str], group: str) -> dict[str, Any]:
    """Return a group of the run's configuration, with overrides of that group alone."""
    settings: dict[str, Any] = dict(read_config(run.config).tree[group])
    if wrong := [o for o in overrides if not o.startswith((f"{group}.", f"{group}="))]:
        raise ConfigError(
            f"{wrong[0]} cannot be changed after training.", f"Here only {group}.… can be set."
        )
    fresh: dict[str, Any] = compose_config(overrides)[group]
    if any(o.startswith(f"{group}=") for o in overrides):
        return fresh
    changed = {o.split("=")[0].removeprefix(f"{group}.").split(".")[0] for o in overrides}
    return settings | {key: fresh[key] for key in changed}


def sample(folder: Path | None, overrides: Sequence[str], *, as_json: bool) -> None:
    """`dppm sample RUN`: images of every class, and a contact sheet."""
    run = trained(folder, "sample")
    settings = group_of(run, overrides, "sampler")
    seconds = draw(run, settings)
    console.print(
        f"{settings['per_class']} images of each class in {run.samples} ({seconds:.0f} s); "
        f"look at {run.folder / 'samples.png'}"
    )
    if as_json:
        print_json({"samples": str(run.samples), "sheet": str(run.folder / "samples.png")})


def with_steps(run: Run, settings: dict[str, Any]) -> dict[str, Any]:
    """Put the step sizes of a pilot run into the sampler's settings, if they ask for it."""
    if settings.get("step") != "auto":
        return settings
    with console.status("tuning step sizes"):
        model = ScoreModel.load(run.model)
        return tuned(run.folder / "steps.json", run.model.read_bytes(), model, settings)


def draw(run: Run, settings: dict[str, Any]) -> float:
    """Sample with a bar that counts images; return the seconds it took."""
    begun = time.monotonic()
    settings = with_steps(run, settings)
    privacy = run.read_json(run.privacy)
    with progress("sampling") as bar:
        generate(
            run.model,
            run.samples,
            per_class=settings["per_class"],
            seed=settings["seed"],
            settings=SamplerSettings.from_dict(settings),
            workers=settings["workers"],
            address=settings["address"],
            png=settings["png"],
            privacy={key: privacy[key] for key in PROMISED},
            progress=bar.count,
        )
    images, labels = load_images(run.samples)
    contact_sheet(images, labels, run.folder / "samples.png")
    return time.monotonic() - begun


def evaluate(folder: Path | None, overrides: Sequence[str], *, as_json: bool) -> None:
    """`dppm evaluate RUN`: what the synthetic images are worth."""
    run = trained(folder, "evaluate")
    result = measure(run, group_of(run, overrides, "evaluation"))
    if as_json:
        print_json(result)
    else:
        summary(run, result)


def measure(run: Run, settings: dict[str, Any]) -> dict[str, Any]:
    """Judge the run's images and write ``evaluation.json``."""
    config = read_config(run.config)
    if not run.samples.exists():
        raise RunFolderError(
            f"{run.folder} has no images yet.", f"Run `dppm sample {run.folder}` first."
        )
    train_records = sources.load(config.data, "train")
    test_records = sources.load(config.data, "test")
    with progress("evaluating", counts=False) as bar:
        result = judge(
            load_images(run.samples),
            (train_records.images, train_records.labels),
            (test_records.images, test_records.labels),
            dataset=config.data,
            classes=config.classes,
            seeds=tuple(settings["seeds"]),
            cache=sources.data_root() / config.data / "evaluation",
            progress=bar.say,
        )
    write_evaluation(run.evaluation, result)
    return result


def summary(run: Run, result: dict[str, Any], minutes: float | None = None) -> None:
    """Print what a run achieved and what it cost, in the fewest lines."""
    privacy = run.read_json(run.privacy)
    console.rule(f"{run.folder}")
    console.print(
        f"privacy    ε = [bold]{epsilon_text(privacy['epsilon_secure_sum'])}[/] (secure sum, "
        f"{privacy['honest_sites']} honest sites), {epsilon_text(privacy['epsilon_site'])} "
        f"(a site's own reports)\n           δ = {privacy['delta']:g}, unit: {privacy['unit']}, "
        f"adjacency: {privacy['adjacency']}"
    )
    console.print(
        f"utility    accuracy [bold]{result['accuracy']:.4f}[/] trained on "
        f"{result['synthetic_images']} synthetic images, {result['accuracy_real']:.4f} trained on "
        "real ones; both tested on real"
    )
    console.print(f"pictures   {run.folder / 'samples.png'}")
    if minutes is not None:
        console.print(f"time       {minutes:.1f} minutes")


def demo(folder: Path | None, overrides: Sequence[str], *, as_json: bool) -> None:
    """`dppm demo`: the main job from nothing to a score."""
    begun = time.monotonic()
    name = str(compose_config(overrides)["data"])
    with progress(f"fetching {name}", counts=False) as bar:
        sources.fetch(name, progress=bar.say)
    run, config, _ = _prepare(folder or _RUNS / "demo", overrides)
    if not run.model.exists():
        train(run, config)
    draw(run, dict(config.tree["sampler"]))
    result = measure(run, dict(config.tree["evaluation"]))
    summary(run, result, (time.monotonic() - begun) / 60)
    if as_json:
        print_json({"privacy": run.read_json(run.privacy), "evaluation": result})
