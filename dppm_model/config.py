"""The configuration: hydra groups inside this package, checked and turned into dataclasses.

Unknown keys are refused by hydra (the tree is closed), values by the dataclasses. A run folder
keeps the resolved tree in ``config.yaml``; everything later reads that file and nothing else.
"""

from __future__ import annotations

import contextlib
import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dppm_model.budget import Budget
from dppm_model.errors import ConfigError, RunFolderError
from dppm_model.phase import View
from dppm_model.reading import read_text, reading
from dppm_model.requests import MechanismRequest, PhaseRequest, PrivacyRequest
from dppm_model.score.model import ScoreModel
from dppm_model.score.model_config import ModelConfig
from dppm_model.score.phases import dimension_of

CONF = Path(__file__).parent / "conf"
SMALL_BUDGET = 4.0  # below this epsilon the recipe `mixture_small` is the default
BACKENDS = ("flower", "inprocess")


@dataclass(frozen=True)
class ServerConfig:
    """How long the server waits.

    Attributes
    ----------
    wait_seconds
        For the sites to connect.
    round_seconds
        Deadline for the answers to one message; a round goes on without later ones.
    max_retries, retry_seconds
        How often the silent sites are asked again if too few have answered, and the pause before.
    """

    wait_seconds: float
    round_seconds: float
    max_retries: int
    retry_seconds: float


@dataclass(frozen=True)
class Config:
    """A resolved and checked configuration; ``tree`` is the plain dictionary it came from.

    ``class_names`` are numbers where nobody said names; ``records`` counts the units of privacy,
    records or persons; ``public`` names a data set that is nobody's, from which the model starts.
    """

    data: str
    sites: int
    seed: int
    backend: str
    shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    records: int
    public: str | None
    partition: dict[str, Any]
    server: ServerConfig
    tree: dict[str, Any]

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)

    def budget(self) -> Budget:
        """Return the server's own limit: the target of the plan."""
        privacy = self.privacy_request()
        return Budget(
            privacy.epsilon if privacy.view == "secure_sum" else math.inf,
            privacy.epsilon if privacy.view == "site" else math.inf,
            privacy.delta,
        )

    def privacy_request(self) -> PrivacyRequest:
        """Return the target and its assumptions."""
        p = self.tree["privacy"]
        survivors = self.sites if p["min_survivors"] is None else p["min_survivors"]
        return PrivacyRequest(
            epsilon=_number("privacy.epsilon", p["epsilon"]),
            delta=_number("privacy.delta", p["delta"]),
            view=_view(p["view"]),
            unit=p["unit"],
            records_per_person=_whole("privacy.records_per_person", p["records_per_person"]),
            sites=self.sites,
            records=self.records,
            min_survivors=_whole("privacy.min_survivors", survivors),
            colluding_sites=_whole("privacy.colluding_sites", p["colluding_sites"], least=0),
            calibrate=p["calibrate"],
            noise_multiplier=None
            if p["noise_multiplier"] is None
            else _number("privacy.noise_multiplier", p["noise_multiplier"]),
            mechanism=_mechanism(self.tree["mechanism"]),
        )

    def model_config(self) -> ModelConfig:
        """Return the public configuration of the model, before public records name themselves."""
        return ModelConfig.of(self.shape, self.classes, self.tree["model"])

    def phase_requests(self) -> list[PhaseRequest]:
        """Return the phases in order, with the dimensions that the model gives them."""
        model = self.model_config()
        requests = []
        for name, p in self.tree["model"]["phases"].items():
            where = f"model.phases.{name}"
            requests.append(
                PhaseRequest(
                    name=name,
                    dimension=dimension_of(name, model),
                    sampling_rate=_number(f"{where}.sampling_rate", p["sampling_rate"]),
                    rounds=_whole(f"{where}.rounds", p["rounds"]),
                    budget_fraction=_number(f"{where}.budget_fraction", p["budget_fraction"]),
                    sum_alignment=_number(f"{where}.sum_alignment", p["sum_alignment"]),
                )
            )
        return requests


def compose_config(overrides: Sequence[str]) -> dict[str, Any]:
    """Compose the tree from the groups in ``conf/`` and overrides such as ``privacy.epsilon=1``.

    Raises
    ------
    ConfigError
        If an override names an unknown key or group, or cannot be parsed.
    """
    try:
        tree = _compose(overrides)
        if not any(o.startswith("model=") for o in overrides):
            budget = tree["privacy"]["epsilon"]
            if isinstance(budget, int | float) and budget < SMALL_BUDGET:
                tree = _compose(["model=mixture_small", *overrides])
    except (HydraException, OmegaConfBaseException, ValueError, RecursionError) as error:
        raise _explain(error, overrides) from None  # the last two: long numbers, deep nesting
    return tree


def _compose(overrides: Sequence[str]) -> dict[str, Any]:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        tree: dict[str, Any] = OmegaConf.to_container(
            compose("config", list(overrides)), resolve=True
        )
        return tree


_LONGEST = 200  # characters of hydra's message that are shown


def _explain(error: Exception, overrides: Sequence[str]) -> ConfigError:
    """Turn hydra's message into one line that names the override, with near matches."""
    text = str(error).strip().partition("\n")[0][:_LONGEST]
    known = _keys(compose_config([])) if overrides else []
    for override in overrides:
        key = override.lstrip("+~").split("=")[0]
        if key not in known and key.split("@")[0] not in ("model", "privacy", "sampler"):
            near = difflib.get_close_matches(key, known, n=3, cutoff=0.5)
            hint = f"Did you mean {' or '.join(near)}?" if near else "See `dppm simulate --help`."
            return ConfigError(f"{key} is not a configuration key.", hint)
    return ConfigError(
        f"The configuration cannot be composed: {text}", "See `dppm simulate --help`."
    )


def _keys(tree: dict[str, Any], prefix: str = "") -> list[str]:
    keys = []
    for name, value in tree.items():
        keys.append(prefix + name)
        if isinstance(value, dict):
            keys += _keys(value, f"{prefix}{name}.")
    return keys


def check_config(tree: dict[str, Any]) -> Config:
    """Check a composed tree whose ``facts`` (shape, classes, records) and unit are filled in.

    Raises
    ------
    ConfigError
        Naming the field, what was wrong with it, and the fix.
    """
    facts = tree["facts"]
    if tree["backend"] not in BACKENDS:
        raise ConfigError(f"backend is {tree['backend']!r}.", f"Use {' or '.join(BACKENDS)}.")
    config = Config(
        data=str(tree["data"]),
        sites=_whole("sites", tree["sites"]),
        seed=_whole("seed", tree["seed"], least=0),
        backend=tree["backend"],
        shape=tuple(facts["shape"]),
        class_names=tuple(map(str, facts["classes"])),
        records=_whole("facts.records", facts["records"]),
        public=None if tree["public"] is None else str(tree["public"]),
        partition=dict(tree["partition"]),
        server=ServerConfig(
            _number("server.wait_seconds", tree["server"]["wait_seconds"]),
            _number("server.round_seconds", tree["server"]["round_seconds"]),
            _whole("server.max_retries", tree["server"]["max_retries"], least=0),
            _number("server.retry_seconds", tree["server"]["retry_seconds"]),
        ),
        tree=tree,
    )
    config.privacy_request()
    if config.public == config.data:
        raise ConfigError(
            f"public is {config.public}, which is the private data.",
            "Name a data set that is nobody's, or leave it out.",
        )
    return config


def read_config(path: Path) -> Config:
    """Read the ``config.yaml`` of a run folder.

    Raises
    ------
    RunFolderError
        If it is missing or damaged.
    """
    with reading(path, RunFolderError, "Name a folder that `dppm simulate` made."):
        return check_config(yaml.safe_load(read_text(path)))


def initial_model(config: Config) -> ScoreModel:
    """Build the model before any phase: public constants only."""
    return ScoreModel.start(config.model_config())


def _mechanism(tree: dict[str, Any]) -> MechanismRequest:
    rest = {
        key: None if value is None else _whole(f"mechanism.{key}", value)
        for key, value in tree.items()
        if key != "name"
    }
    return MechanismRequest(tree["name"], **rest)


def _view(value: Any) -> View:
    if value not in ("secure_sum", "site"):
        raise ConfigError(f"privacy.view is {value!r}.", "Use 'secure_sum' or 'site'.")
    return value  # type: ignore[no-any-return]


def _number(name: str, value: Any) -> float:
    if isinstance(value, float | int) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):  # of a whole number that no float holds
            if math.isfinite(found := float(value)):
                return found
    raise ConfigError(f"{name} is {repr(value)[:40]}.", "Give a finite number.")


def _whole(name: str, value: Any, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 1 << 63:
        raise ConfigError(
            f"{name} is {repr(value)[:40]}.", f"Give a whole number, at least {least}, below 2^63."
        )
    return value
