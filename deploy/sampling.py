"""`dppm sample` and `dppm diagnose`: images from a trained run, and how they are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deploy.show import console, print_json, progress
from dppm_model.config import compose_config, read_config
from dppm_model.errors import ConfigError, RunFolderError
from dppm_model.run import Run
from dppm_model.score.model import ScoreModel
from sampler.diagnostics import diagnose as chain_diagnostics
from sampler.generate import GenerateResult, generate
from sampler.images import load_images
from sampler.settings import SamplerSettings
from sampler.sheet import contact_sheet
from sampler.stages import base_settings
from sampler.tune import tuned

PROMISED = ("epsilon_secure_sum", "epsilon_site", "delta", "unit")  # what goes with images


def trained(folder: Path | None, verb: str) -> Run:
    """Return a run that has a model; refuse any other folder."""
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
    drawn = draw(run, settings)
    memory = "" if drawn.memory is None else f", at most {drawn.memory:.0f} MB a worker"
    console.print(
        f"{settings['per_class']} images of each class in {run.samples} ({drawn.seconds:.0f} s"
        f"{memory}); look at {run.folder / 'samples.png'}"
    )
    if as_json:
        print_json({"samples": str(run.samples), "sheet": str(run.folder / "samples.png")})


def draw(run: Run, settings: dict[str, Any]) -> GenerateResult:
    """Sample with a bar that counts images, and make the contact sheet.

    Raises
    ------
    RunFolderError
        If another command works in the folder.
    """
    with run.alone():
        return _draw(run, settings)


def _draw(run: Run, settings: dict[str, Any]) -> GenerateResult:
    settings = with_steps(run, settings)
    privacy = run.read_json(run.privacy)
    with progress("sampling") as bar:
        drawn = generate(
            run.model,
            run.samples,
            per_class=settings["per_class"],
            seed=settings["seed"],
            settings=SamplerSettings.from_dict(settings),
            workers=settings["workers"],
            threads=settings["threads"],
            address=settings["address"],
            png=settings["png"],
            privacy={key: privacy[key] for key in PROMISED},
            progress=bar.count,
        )
    images, labels = load_images(run.samples)
    contact_sheet(images, labels, run.folder / "samples.png")
    return drawn


def diagnose(folder: Path | None, overrides: Sequence[str], *, as_json: bool) -> None:
    """`dppm diagnose RUN`: how the sampler accepts, diverges and mixes."""
    run = trained(folder, "diagnose")
    with run.alone():
        found = _diagnose(run, group_of(run, overrides, "sampler"))
    if as_json:
        print_json(found)
        return
    first, last = found["mixing"][0], found["mixing"][-1]
    accepted = [level["acceptance"] for level in found["levels"]]
    console.print(
        f"acceptance {min(accepted):.2f} to {max(accepted):.2f}, {found['divergences']} "
        f"divergences; R-hat {first['r_hat']:.3f} at σ = {first['sigma']:.3g}, {last['r_hat']:.3f} "
        f"at σ = {last['sigma']:.3g}, where each chain keeps its own picture\n"
        f"look at {found['plot']} and {found['film']}"
    )


def _diagnose(run: Run, chosen: dict[str, Any]) -> dict[str, Any]:
    settings = SamplerSettings.from_dict(with_steps(run, chosen))
    if settings.method not in ("hmc", "langevin"):
        raise ConfigError(
            f"sampler.method is {settings.method!r}.", "Only Markov chains have diagnostics: hmc."
        )
    model = ScoreModel.load(run.model)
    with console.status("running chains"):  # of the base, where there is a pyramid
        return chain_diagnostics(model, base_settings(model, settings), run.folder)


def with_steps(run: Run, settings: dict[str, Any]) -> dict[str, Any]:
    """Replace ``step: auto`` by the run's tuned steps."""
    if settings.get("step") != "auto":
        return settings
    with console.status("tuning step sizes"):
        model = ScoreModel.load(run.model)
        return tuned(run.folder / "steps.json", run.model.read_bytes(), model, settings)
