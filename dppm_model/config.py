"""The configuration: hydra composes the groups of ``conf/``, the classes here say what each key is.

A run folder keeps all of it in ``config.yaml``; everything later reads that file and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BeforeValidator, ConfigDict, Field

from dppm_model.budget import Budget
from dppm_model.errors import ConfigError, RunFolderError
from dppm_model.mechanism.base import View
from dppm_model.planning.fine_tuning import FineTuning, choose_fine_tuning
from dppm_model.planning.recipe import Recipe, choose_recipe
from dppm_model.planning.registry import AnyPlanner
from dppm_model.reading import read_text, reading
from dppm_model.records.units import Unit
from dppm_model.requests import Calibration, PhaseRequest, PrivacyRequest
from dppm_model.score.gradient import GradientQuery
from dppm_model.score.model import ScoreModel
from dppm_model.score.model_config import ModelConfig
from dppm_model.score.phases import dimension_of, kind_of
from dppm_model.settings import AsTuple, Fraction, Natural, Positive, Settings, Whole, near

CONF = Path(__file__).parent / "conf"
_RECORDS_PER_PERSON = 8  # they are averaged: more of them cost time, and teach little more

T = TypeVar("T")


def _classes(value: Any) -> Any:
    if isinstance(value, list | tuple) and value:
        return tuple(map(str, value))
    if value is not None and (type(value) is not int or value < 1):
        raise ValueError("names of the classes, or their number")
    return value


class FactsConfig(Settings):
    """What is public about the data of all sites together; null: read from the data set at hand."""

    shape: Annotated[tuple[Whole, Whole, Whole], AsTuple] | None = None
    """Channels, height and width of an image."""
    classes: Annotated[tuple[str, ...] | int | None, BeforeValidator(_classes)] = None
    """The names of the classes in their order, or how many there are."""
    records: Whole | None = None
    """How many records there are, or persons where they are the unit."""
    digest: str | None = None
    """SHA-256 of the training records, if they were at hand."""
    test_digest: str | None = None
    """SHA-256 of the test records, if there were any at hand."""

    def digest_of(self, split: str) -> str | None:
        """Return the digest of a split, if it is known."""
        return self.digest if split == "train" else self.test_digest


class PartitionConfig(Settings):
    """How `dppm simulate` deals the records to the sites."""

    scheme: Literal["even", "dirichlet", "sizes", "exclusive"]
    """``dirichlet``: each class by a Dirichlet draw; ``exclusive``: a class at one site only."""
    alpha: Positive
    """Concentration of ``dirichlet``: small is uneven."""
    sizes: list[Positive] | None
    """For ``sizes``: one relative size per site."""


class ServerConfig(Settings):
    """How long the server waits."""

    wait_seconds: Positive
    """For the sites to connect."""
    round_seconds: Positive
    """For the answers to one message; a round goes on without later ones."""
    max_retries: Natural
    """How often silent sites are asked again, for the same report, if too few have answered."""
    retry_seconds: Positive
    """Pause before that."""


class PoolConfig(Settings):
    """Who draws the images."""

    workers: Natural | None
    """Ray actors; null: as many as fit; 0: this process, without Ray."""
    threads: Whole
    """Cores of each worker."""
    address: str | None
    """A Ray cluster; null: a private local one."""


class PrivacyConfig(Settings):
    """The target of the whole run, all phases together, and the assumptions of its accounting."""

    epsilon: Positive
    """What the run spends at most."""
    delta: Annotated[float, Field(gt=0, lt=1)]
    """The delta of this epsilon, below one over the number of records or persons."""
    large_delta: bool = False
    """Insist on a delta above one over the number of records or persons."""
    view: View
    """The view that epsilon holds in: the sum, one site's reports (site), or the release."""
    min_survivors: Whole | None
    """Fewest sites in a sum that is opened; null: all, or four fifths in a deployment."""
    colluding_sites: Natural
    """Sites that would give the server their own report."""
    calibrate: Calibration
    """What is searched for: the noise of all phases, or rounds or rate of the longest one."""
    noise_multiplier: Positive | None
    """For ``rounds`` and ``rate``: 1/mu of a round of the longest phase."""
    unit: Unit | None
    """What is protected; null: person where the data name persons, else record."""
    records_per_person: Whole | None
    """Persons only: most records of one in a round; null: 8."""

    def of_unit(self, unit: Unit) -> PrivacyConfig:
        """Protect this unit, if none was named, and fill in the records of a person."""
        unit = self.unit or unit
        most = self.records_per_person or (_RECORDS_PER_PERSON if unit == "person" else 1)
        return self.replace(unit=unit, records_per_person=most)


class PhaseConfig(Settings):
    """A phase of training: rounds that ask the records the same question."""

    budget_fraction: Fraction | None
    """Its fraction of mu^2; those of all phases are normalised to one. Null: the recipe's."""
    rounds: Annotated[int, Field(ge=1, le=10**6)] | None
    """How often it asks. Null: the recipe's."""
    sampling_rate: Fraction | None
    """Probability that a record, or a person, takes part in a round. Null: the recipe's."""
    sum_alignment: Annotated[float, Field(ge=0, le=1)] | None
    """Guess of |sum of a site's vectors| / (their number * clip norm); too small a guess clamps.
    Null: the recipe's."""


class ModelGroup(Settings):
    """The model's groups of constants, which `ModelConfig` checks, and the phases."""

    model_config = ConfigDict(extra="allow")

    phases: dict[str, PhaseConfig] = Field(min_length=1)
    """What is asked of the records, in order."""


class Config(Settings):
    """The whole configuration of a run; other packages check ``sampler`` and ``evaluation``."""

    data: str
    """A name from `dppm data list`."""
    public: str | None
    """A public data set with the same classes, on which the model is pre-trained."""
    sites: Whole
    """Virtual sites (simulation) or SuperNodes (deployment)."""
    seed: Natural
    """Of public randomness only: split over sites, first weights, sampling."""
    backend: Literal["flower", "inprocess"]
    """Flower's SuperLink and Ray, or the same apps in this process."""
    device: str
    """Of sites, learners, sampling and evaluation: cpu, cuda, cuda:1; auto is a GPU if any."""
    facts: FactsConfig
    pool: PoolConfig
    partition: PartitionConfig
    server: ServerConfig
    privacy: PrivacyConfig
    mechanism: AnyPlanner
    model: ModelGroup
    sampler: dict[str, Any]
    evaluation: dict[str, Any]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        return _known("facts.shape", self.facts.shape)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes: numbers, where none were given."""
        classes = self.facts.classes
        if isinstance(classes, int):
            return tuple(map(str, range(classes)))
        return _known("facts.classes", classes)

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)

    @property
    def records(self) -> int:
        """How many units of privacy there are, records or persons."""
        return _known("facts.records", self.facts.records)

    def to_dict(self) -> dict[str, Any]:
        """Return the tree that `check_config` reads back; groups keep the keys they were given."""
        return self.model_dump(mode="json", exclude_unset=True)

    def budget(self) -> Budget:
        """Return the server's own limit: the target of the plan."""
        epsilon = self.privacy.epsilon
        return Budget(
            math.inf if self.privacy.view == "site" else epsilon,
            epsilon if self.privacy.view == "site" else math.inf,
            self.privacy.delta,
            epsilon if self.privacy.view == "release" else 0.0,
        )

    def privacy_request(self) -> PrivacyRequest:
        """Return the target and its assumptions.

        Raises ConfigError if they do not fit each other, or the unit is not known yet.
        """
        own = dict(self.privacy)
        own |= {
            name: _known(f"privacy.{name}", own[name]) for name in ("unit", "records_per_person")
        }
        own["min_survivors"] = self.privacy.min_survivors or self.sites
        return PrivacyRequest(
            **own, sites=self.sites, records=self.records, mechanism=self.mechanism
        )

    @cached_property
    def recipe(self) -> Recipe:
        """What the closed form's settings are that were left to be chosen, its phases, and why.

        It is empty for a model without a closed form. Raises PlanError if there are too few units
        for anything; ConfigError if facts are unknown.
        """
        groups = self._groups
        if "mixture" not in groups:
            return Recipe({}, {}, ())
        given = groups["mixture"]
        model = ModelConfig.of(self.shape, self.classes, groups)
        privacy = self.privacy_request()
        units, mu, others = privacy.records, privacy.total_mu, 0.0
        tuning: dict[str, FineTuning] = {}
        for name, phase in self.model.phases.items():
            if issubclass(kind_of(name).question, GradientQuery):
                fraction = phase.budget_fraction
                if fraction is None:
                    found = choose_fine_tuning(units, mu, dimension_of(name, model))
                    tuning[name], fraction = found, found.phase.get("budget_fraction", 0.0)
                others += fraction
        own_mu = mu / math.sqrt(1 + others)
        closed = choose_recipe(model.base_shape, self.classes, units, own_mu, given)
        return Recipe(
            closed.settings,
            closed.phases | {name: t.phase for name, t in tuning.items() if t.phase},
            (*closed.reasons, *(t.reason for t in tuning.values())),
        )

    def score_model(self) -> ModelConfig:
        """Return the public configuration of the model, before public records name themselves."""
        groups = dict(self._groups)
        if "mixture" in groups:
            groups["mixture"] = {**groups["mixture"], **self.recipe.settings}
        rounds = self.recipe.phases.get("fine_tuning", {}).get("rounds")
        if rounds is not None:
            groups["pretrained"] = {"rounds": rounds, **groups["pretrained"]}
        return ModelConfig.of(self.shape, self.classes, groups)

    def phase_requests(self) -> list[PhaseRequest]:
        """Return the phases in order, with the dimensions that the model gives them.

        One that the recipe leaves out and the configuration says nothing of is not asked. Raises
        ConfigError if neither says enough.
        """
        model, requests = self.score_model(), []
        for name, phase in self.model.phases.items():
            chosen = self.recipe.phases.get(name, {})
            given = {key: value for key, value in dict(phase).items() if value is not None}
            if not chosen and not given.keys() & set(_CHOSEN):
                continue
            asked: dict[str, Any] = {**chosen, **given}
            unknown = [key for key in (*_CHOSEN, "sampling_rate") if key not in asked]
            if unknown:
                raise ConfigError(
                    f"model.phases.{name}.{unknown[0]} is not given, and the recipe leaves the "
                    "phase out.",
                    "Give budget_fraction, rounds, sum_alignment and sampling_rate, or leave the "
                    "choice of all to the recipe.",
                )
            requests.append(PhaseRequest(name=name, dimension=dimension_of(name, model), **asked))
        return requests

    @property
    def _groups(self) -> dict[str, dict[str, Any]]:
        """Settings that were given; what is null is left to its default, or to be chosen."""
        return {
            name: {key: value for key, value in group.items() if value is not None}
            for name, group in (self.model.model_extra or {}).items()
        }


_CHOSEN = ("budget_fraction", "rounds", "sum_alignment")  # of a phase, if they are null


def _known(key: str, value: T | None) -> T:
    if value is None:
        raise ConfigError(f"{key} is not known.", f"Name a data set in the store, or set {key}=….")
    return value


def compose_config(overrides: Sequence[str]) -> dict[str, Any]:
    """Compose the tree from the groups in ``conf/`` and overrides such as ``privacy.epsilon=1``.

    Raises ConfigError if an override names an unknown key or group, or cannot be parsed.
    """
    try:
        return _compose(overrides)
    except (HydraException, OmegaConfBaseException, ValueError, RecursionError) as error:
        raise _explain(error, overrides) from None  # the last two: long numbers, deep nesting


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
    known = dict(leaves(compose_config([]), groups=True)) if overrides else {}
    for override in overrides:
        key = override.lstrip("+~").split("=")[0]
        if key not in known and key.split("@")[0] not in ("model", "privacy", "sampler"):
            return ConfigError(f"{key} is not a configuration key.", near(key, known))
    return ConfigError(
        f"The configuration cannot be composed: {text}", "`dppm config` lists all keys."
    )


def leaves(
    tree: Mapping[str, Any], prefix: str = "", *, groups: bool = False
) -> Iterator[tuple[str, Any]]:
    """Yield dotted keys and their values; those of whole groups, too, if wanted."""
    for name, value in tree.items():
        inner = isinstance(value, Mapping) and value
        if groups or not inner:
            yield prefix + name, value
        if inner:
            yield from leaves(value, f"{prefix}{name}.", groups=groups)


def check_config(tree: Mapping[str, Any]) -> Config:
    """Check a composed tree.

    Raises ConfigError naming the key, what was wrong with it, and the fix.
    """
    config = Config.of(tree)
    if config.public == config.data:
        raise ConfigError(
            f"public is {config.public}, which is also the private data.",
            "Name a public data set, or leave it out.",
        )
    return config


def read_config(path: Path) -> Config:
    """Read the ``config.yaml`` of a run folder.

    Raises RunFolderError if it is missing or damaged.
    """
    with reading(path, RunFolderError, "Name a folder that `dppm simulate` made."):
        config = check_config(yaml.safe_load(read_text(path)))
        config.privacy_request()
        return config


def initial_model(config: Config) -> ScoreModel:
    """Build the model before any phase: public constants only."""
    return ScoreModel.start(config.score_model())
