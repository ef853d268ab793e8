"""`dppm sample` and `dppm diagnose`: images of a trained run, and checks of the sampler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deploy.show import console, print_json, progress
from dppm_model.config import compose_config, read_config
from dppm_model.device import device_of
from dppm_model.errors import ConfigError, RunFolderError
from dppm_model.mechanism.base import VIEWS
from dppm_model.run import Run
from dppm_model.score.model import ScoreModel
from sampler.diagnostics import diagnose as chain_diagnostics
from sampler.generate import GenerateResult, generate
from sampler.images import digest_of, load_images, manifest_of
from sampler.pool import PoolSettings
from sampler.settings import SamplerSettings
from sampler.sheet import contact_sheet
from sampler.tune import tuned

PROMISED = (*(f"epsilon_{view}" for view in VIEWS), "delta", "unit")  # saved with the images


def trained(folder: Path | None, verb: str) -> Run:
    """Return a trained run; refuse any other folder."""
    if folder is None:
        raise ConfigError(f"{verb} needs a run folder.", f"For example: dppm {verb} runs/demo")
    run = Run(folder)
    run.plan()
    if not run.model.exists():
        raise RunFolderError(
            f"{folder} has no trained model yet.", f"Run `dppm simulate {folder}` first."
        )
    return run


def subject(run: Run) -> dict[str, str | None]:
    """Return the digests of a run's model and images, which tell what a figure was measured on."""
    images = digest_of(manifest_of(run.samples)) if run.samples.exists() else None
    return {"model": run.model_digest, "images": images}


def retaken(run: Run, overrides: Sequence[str], *allowed: str) -> dict[str, Any]:
    """Return the run's configuration, with overrides of the allowed groups and keys only."""
    tree: dict[str, Any] = read_config(run.config).to_dict()
    fresh = compose_config(overrides)
    for override in overrides:
        key, _, rest = override.split("=")[0].partition(".")
        if key not in allowed:
            raise ConfigError(
                f"{override} cannot be changed after training.",
                f"Only {', '.join(allowed)} can be set here.",
            )
        if rest:
            name = rest.split(".")[0]
            tree[key] = tree[key] | {name: fresh[key][name]}
        else:
            tree[key] = fresh[key]
    return tree


def sample(folder: Path | None, overrides: Sequence[str], *, as_json: bool) -> None:
    """`dppm sample RUN`: images of every class, and a contact sheet."""
    run = trained(folder, "sample")
    tree = retaken(run, overrides, "sampler", "pool", "device")
    drawn = draw(run, tree)
    memory = "" if drawn.memory is None else f", at most {drawn.memory:.0f} MB a worker"
    console.print(
        f"{tree['sampler']['per_class']} images of each class in {run.samples} "
        f"({drawn.seconds:.0f} s{memory}); look at {run.folder / 'samples.png'}",
        markup=False,
    )
    if as_json:
        print_json({"samples": str(run.samples), "sheet": str(run.folder / "samples.png")})


def draw(run: Run, tree: Mapping[str, Any]) -> GenerateResult:
    """Sample by a run's configuration, with a progress bar, and make the contact sheet."""
    with run.alone():
        group, privacy = tree["sampler"], run.read_json(run.privacy)
        settings = SamplerSettings.from_dict(with_steps(run, group, tree["device"]))
        with progress("sampling") as bar:
            drawn = generate(
                run.model,
                run.samples,
                per_class=group["per_class"],
                seed=group["seed"],
                settings=settings,
                png=group["png"],
                privacy={key: privacy[key] for key in PROMISED},
                progress=bar,
                pool=PoolSettings(**tree["pool"], device=tree["device"]),
            )
        images, labels = load_images(run.samples)
        contact_sheet(images, labels, run.folder / "samples.png")
    return drawn


def diagnose(folder: Path | None, overrides: Sequence[str], *, as_json: bool) -> None:
    """`dppm diagnose RUN`: acceptance, divergences and mixing of the sampler."""
    run = trained(folder, "diagnose")
    with run.alone():
        tree = retaken(run, overrides, "sampler", "device")
        settings = SamplerSettings.from_dict(with_steps(run, tree["sampler"], tree["device"]))
        if settings.method not in ("hmc", "langevin"):
            raise ConfigError(
                f"sampler.method is {settings.method!r}.",
                "Only sampler.method=hmc and langevin have diagnostics.",
            )
        where = device_of(tree["device"])
        model = ScoreModel.load(run.model).to(where)
        with console.status("running chains"):  # of a pyramid, only the base
            found = chain_diagnostics(model, settings, run.folder, where)
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


def with_steps(run: Run, settings: dict[str, Any], device: str) -> dict[str, Any]:
    """Replace ``step_size: auto`` by the run's tuned steps, found on ``device``."""
    if settings.get("step_size") != "auto":
        return settings
    with console.status("tuning step sizes"):
        where = device_of(device)
        model = ScoreModel.load(run.model).to(where)
        return tuned(run.folder / "steps.json", run.model.read_bytes(), model, settings, where)
