"""`dppm simulate`: federated rounds with virtual sites on this machine."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from client.app import app as client_app
from client.approvals import Approval
from client.policy import Policy
from deploy.configuration import composed
from deploy.flower import run_flower, stage_app
from deploy.inprocess import InProcessGrid
from deploy.making import making_run
from dppm_model import errors
from dppm_model.config import Config, FactsConfig, initial_model, leaves, read_config
from dppm_model.device import device_of
from dppm_model.errors import ConfigError, DataError, DppmError, RunFolderError
from dppm_model.files import sweep, write_bytes, write_json
from dppm_model.plan import Plan
from dppm_model.planner import epsilon_fields, make_plan, summary
from dppm_model.progress import Progress, silent
from dppm_model.records.partition import partition
from dppm_model.records.shards import Records
from dppm_model.records.sources import data_root, load
from dppm_model.records.units import Units
from dppm_model.run import Run
from dppm_model.score.model import ScoreModel
from dppm_model.score.model_config import PublicData
from dppm_model.securesum.keys import Identity
from dppm_model.training.pretraining import public_start
from server.app import app as server_app


def resolve(overrides: Sequence[str]) -> Config:
    """Compose a configuration, and fill in the facts of its data set; see `fill_in`."""
    config = fill_in(composed(overrides))
    config.privacy_request()
    return config


def fill_in(config: Config) -> Config:
    """Fill in the unit, and the public facts of a data set in this machine's store.

    If the data name persons, the unit is the person unless the configuration says record. Raises
    `ConfigError` if facts were given, or the unit is the person and the data name none; `DataError`
    if the data are not in the store.
    """
    if config.facts != FactsConfig():
        raise ConfigError(
            f"facts.* were given, but {config.data} is on this machine.",
            "Leave them out: they are for `dppm server announce`, where the data are elsewhere.",
        )
    records = load(config.data, "train")
    manifest = records.manifest
    counts = np.bincount(records.labels, minlength=len(manifest.classes))
    if empty := [manifest.classes[i] for i in np.flatnonzero(counts == 0)]:
        raise DataError(
            f"{manifest.name} has no training image of class {empty[0]!r}.",
            "Import it again without that class, or with images of it.",
        )
    privacy = config.privacy.of_unit("person" if manifest.persons else "record")
    by_person = privacy.unit == "person"
    if by_person and not manifest.persons:
        raise ConfigError(
            f"privacy.unit is 'person', and {manifest.name} names no persons.",
            "Import it from a CSV with a column `person`, or use privacy.unit=record.",
        )
    facts = FactsConfig(
        shape=manifest.shape,
        classes=tuple(manifest.classes),
        records=len(Units.of(records, "person", 1)) if by_person else manifest.count,
        digest=manifest.digest,
        test_digest=_test_digest(config.data),
    )
    return config.replace(facts=facts, privacy=privacy)


def _test_digest(name: str) -> str | None:
    """Return the digest of a data set's test records, if it has any."""
    has_any = (data_root() / name / "test").is_dir()
    return load(name, "test").manifest.digest if has_any else None


def plan_of(config: Config, run: str) -> Plan:
    """Make the plan of a configuration; raises as `start_model`."""
    model = config.score_model()
    if config.public is not None:
        manifest = _public_records(config).manifest
        model = replace(model, public=PublicData(manifest.name, manifest.digest))
    return make_plan(config.privacy_request(), config.phase_requests(), model, run=run)


def privacy_json(plan: Plan, config: Config) -> dict[str, Any]:
    """Return the content of `privacy.json` and of `dppm plan --json`."""
    return {
        **summary(plan),
        **epsilon_fields(plan),
        "public_data": [
            *([] if config.public is None else [config.public]),
            *(name for part in plan.model.parts for name in part.public_data),
        ],
        "data": config.data,
    }


def prepare(
    folder: Path, overrides: Sequence[str], say: Progress = silent
) -> tuple[Run, Config, bool]:
    """Make a run folder ready to train; return the run, its configuration, and whether it existed.

    ``say`` reports slow steps. Raises `RunFolderError` if the folder was made with another
    configuration, is something else, or is being prepared by another process. If its preparation
    was killed, it is prepared again.
    """
    run = Run(folder)
    with making_run(run) as new:
        if new:
            config = resolve(overrides)
            write_run(run, config, plan_of(config, run_name(folder.name)), overrides, say)
            return run, config, False
    sweep(folder)
    config = read_config(run.config)
    asked = resolve(overrides) if overrides else config
    was, now = dict(leaves(config.to_dict())), dict(leaves(asked.to_dict()))
    if changed := [key for key in sorted({*was, *now}) if was.get(key) != now.get(key)]:
        found = ", ".join(f"{key} was {was.get(key)}, now {now.get(key)}" for key in changed)
        raise RunFolderError(
            f"{folder} was made with other settings: {found}.",
            "Leave the settings out to continue it, or name another folder.",
        )
    run.plan()
    return run, config, True


def write_run(
    run: Run, config: Config, plan: Plan, overrides: Sequence[str], say: Progress
) -> None:
    """Write a run folder that is ready to train, including the virtual sites' folders."""
    made = {f"site-{number:04d}": Identity.generate() for number in range(config.sites)}
    if config.public is not None:
        say(f"pre-training on the public records of {config.public}")
    peers = {name: identity.public for name, identity in made.items()}
    write_public(run, config, plan, overrides, peers)
    say(f"distributing records to {config.sites} sites")
    _deal(run, config, plan, made)
    run.write_plan(plan)


def write_public(
    run: Run, config: Config, plan: Plan, overrides: Sequence[str], peers: Mapping[str, bytes]
) -> None:
    """Write a run's public files, except its plan: a folder with a plan is ready."""
    write_bytes(run.config, yaml.safe_dump(config.to_dict(), sort_keys=False).encode())
    write_json(run.overrides, {"overrides": list(overrides)})
    run.write_peers(peers)
    start_model(config).save(run.initial)
    write_json(run.privacy, privacy_json(plan, config))


def start_model(config: Config) -> ScoreModel:
    """Return the initial model: public constants, or pre-trained on public records.

    Raises `DataError` if the public data set is not in the store; `ConfigError` if its images have
    another shape, or other classes.
    """
    model = initial_model(config)
    if config.public is None:
        return model
    model = model.to(device_of(config.device))
    return public_start(model, config.phase_requests(), _public_records(config), config.seed)


def _public_records(config: Config) -> Records:
    records = load(str(config.public), "train")
    manifest = records.manifest
    if (manifest.shape, len(manifest.classes)) != (config.shape, config.classes):
        raise ConfigError(
            f"public is {config.public}: {len(manifest.classes)} classes of {manifest.shape}, but "
            f"the data have {config.classes} of {config.shape}.",
            "Import public images of the same size and classes (`dppm data import`).",
        )
    return records


def run_name(name: str) -> str:
    """Name a run after its folder, with a random suffix since sites remember names."""
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in name)
    return f"{safe[:40]}-{secrets.token_hex(4)}"


def _deal(run: Run, config: Config, plan: Plan, made: Mapping[str, Identity]) -> None:
    """Distribute the training records to the virtual sites, and write each site's files."""
    records = load(config.data, "train")
    peers = {name: identity.public for name, identity in made.items()}
    labels, how = np.asarray(records.labels), dict(config.partition)
    parts = partition(labels, config.sites, seed=config.seed, persons=records.persons, **how)
    shards = data_root() / config.data / "train"
    for number, part in enumerate(parts):
        if part.size == 0:
            raise DataError(
                f"site {number} would get no records.", "Use fewer sites or another partition."
            )
        folder = run.sites / f"{number:04d}"
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "index.npy", part)
        made[f"site-{number:04d}"].write(folder / "identity.key")
        # The virtual sites allow exactly what the plan was made for, at any hour. They answer at
        # once: all run on this machine, so timing reveals nothing.
        Policy(
            records=str(shards.resolve()),
            index="index.npy",
            **asdict(config.budget()),
            unit=plan.unit,
            max_records_per_person=plan.records_per_person,
            min_records=1,
            mechanisms=tuple({p.mechanism.name for p in plan.phases}),
            min_survivors=plan.min_survivors,
            colluding_sites=plan.colluding_sites,
            device=config.device,
        ).write(folder / "site.toml")
        Approval(plan, peers, bundle="", note="simulated").write(folder)


def show_rounds(run: Run, total: int, progress: Progress) -> None:
    """Report the number of finished rounds."""
    done = len(run.rounds())
    progress(f"round {done} of {total}", done / total)


def simulate(run: Run, config: Config, *, progress: Progress = silent) -> None:
    """Train a prepared run folder with the configured backend.

    Raises the error that stopped training, even if it occurred in Flower's processes,
    `RunFolderError` if another command uses the folder, and `DataError` if the data set is no
    longer the one that the run was made with.
    """
    tick = partial(show_rounds, run, run.plan().rounds, progress)
    with run.alone():
        if not run.model.exists():
            load(config.data, "train", digest=config.facts.digest)
            _simulate(run, config, tick)
        tick()


def _simulate(run: Run, config: Config, tick: Callable[[], None]) -> None:
    run_config = {"run": str(run.folder.resolve()), "sites": str(run.sites.resolve())}
    if config.backend == "inprocess":
        InProcessGrid(client_app, config.sites, run_config).play(server_app)
        return
    staging, log = run.folder / "state" / "app", run.folder / "flower.log"
    shutil.rmtree(staging, ignore_errors=True)  # the bundle must hold only current code
    run.status.unlink(missing_ok=True)
    try:
        run_flower(
            stage_app(staging),
            nodes=config.sites,
            run_config=run_config,
            log=log,
            device=device_of(config.device),
            tick=tick,
        )
    finally:
        raise_reported(run)
    if not run.model.exists():
        raise errors.FederationError("The run ended without a model.", f"Read {log}.")


def raise_reported(run: Run) -> None:
    """Raise the error that the ServerApp reported, if any, with its class."""
    status = run.read_json(run.status) if run.status.exists() else {"state": ""}
    if status["state"] == "failed":
        kind = getattr(errors, status["error"], DppmError)
        kind = kind if issubclass(kind, DppmError) else DppmError
        raise kind(status["message"], status["hint"])
