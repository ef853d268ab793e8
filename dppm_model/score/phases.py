"""The table of phases: from a phase's kind to the site's query and the server's learner.

A kind may be asked more than once, as phases named ``kind`` or ``kind-anything``: each starts from
what the model holds and replaces it. So a small ``means-first`` makes the sums of ``means`` nearly
cancel, which lets their range, and with it the size of a report, be small.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from dppm_model.errors import ConfigError, ModelError
from dppm_model.score.arrays import array_specs
from dppm_model.score.component_covariance import (
    ComponentCovarianceLearner,
    ComponentCovarianceQuery,
)
from dppm_model.score.components import ComponentsLearner, ComponentsQuery
from dppm_model.score.covariance import CovarianceLearner, CovarianceQuery
from dppm_model.score.fine_covariance import FineCovarianceLearner, FineCovarianceQuery
from dppm_model.score.gradient import GradientLearner
from dppm_model.score.means import MeansLearner, MeansQuery
from dppm_model.score.model import ScoreModel
from dppm_model.score.model_config import ModelConfig
from dppm_model.score.pyramid_query import DetailQuery
from dppm_model.score.query import Learner, Query
from dppm_model.score.residual_query import ResidualQuery
from dppm_model.score.tensors import read_tensors

_HEADER = 1 << 16  # bytes of a question beside its arrays


class _Kind(NamedTuple):
    """The two halves of a kind of phase; a learner is made from the model and a public seed."""

    query: type[Query]
    learner: Callable[[ScoreModel, int], Learner]


PHASES = {
    "means": _Kind(MeansQuery, lambda model, _seed: MeansLearner(model)),
    "covariance": _Kind(CovarianceQuery, lambda model, _seed: CovarianceLearner(model)),
    "components": _Kind(ComponentsQuery, ComponentsLearner),
    "component_covariance": _Kind(
        ComponentCovarianceQuery, lambda model, _seed: ComponentCovarianceLearner(model)
    ),
    "fine_covariance": _Kind(
        FineCovarianceQuery, lambda model, _seed: FineCovarianceLearner(model)
    ),
    "score": _Kind(ResidualQuery, partial(GradientLearner, ResidualQuery)),
    "detail": _Kind(DetailQuery, partial(GradientLearner, DetailQuery)),
}


def kind_of(phase: str) -> str:
    """Return the kind of a phase from its name: what stands before the first dash."""
    return phase.partition("-")[0]


def query_of(phase: str) -> type[Query]:
    """Return the question of a phase, before any model.

    Raises
    ------
    ConfigError
        If there is no such phase.
    """
    return _kind(phase).query


def build_query(phase: str, model: ScoreModel) -> Query:
    """Build what a record answers, from the phase's name and the model.

    Raises
    ------
    ConfigError
        If there is no such phase.
    ModelError
        If the model lacks what the question asks by.
    """
    return query_of(phase)(model)


def dimension_of(phase: str, config: ModelConfig) -> int:
    """Return the coordinates d of a record's answer, which the public configuration decides.

    Raises
    ------
    ConfigError
        If there is no such phase, or the configuration has nothing to ask in it.
    """
    return query_of(phase).dimension_of(config)


def write_question(phase: str, model: ScoreModel) -> bytes:
    """Return what a site is sent to ask by: the arrays of one question, and no more."""
    kind = query_of(phase)
    return model.only(kind.needed | kind.optional).arrays_to_bytes()


def read_question(phase: str, config: ModelConfig, content: bytes) -> Query:
    """Build what a record answers from the plan's configuration and the arrays that were sent.

    The first half of Lemma 14 (PRIVACY.md).
    Nothing else of what was sent is looked at: it has no say in sizes, settings or code.

    Raises
    ------
    ConfigError
        If there is no such phase.
    ModelError
        If the arrays are not exactly those of the question, each as `dppm_model.score.arrays`
        says.
    """
    kind = query_of(phase)
    asked = kind.needed | kind.optional
    specs = array_specs(config)
    most = _HEADER + sum(specs[n].nbytes for n in asked if n in specs)
    if len(content) > most:
        raise ModelError(
            f"The question has {len(content)} bytes, more than its arrays ({most}).",
            "Ask with the model of the phase's round.",
        )
    model = ScoreModel(config, read_tensors(content)[1])
    if others := sorted(model.arrays.keys() - asked):
        raise ModelError(
            f"The question brings {others[0]!r}, which phase {phase} does not ask by.",
            "Server and site differ in version.",
        )
    return build_query(phase, model)


def build_learner(phase: str, model: ScoreModel, seed: int) -> Learner:
    """Build the server's learner of a phase that starts from ``model``.

    Parameters
    ----------
    phase
        Its name, ``kind`` or ``kind-anything`` with a kind of ``PHASES``.
    model
        All that was released before.
    seed
        Seed of the learner's public randomness (first component centres, first weights).

    Raises
    ------
    ConfigError
        If there is no such phase.
    """
    return _kind(phase).learner(model, seed)


def _kind(phase: str) -> _Kind:
    if (kind := kind_of(phase)) not in PHASES:
        raise ConfigError(f"phases[].name is {phase!r}.", f"Use one of: {', '.join(PHASES)}.")
    return PHASES[kind]
