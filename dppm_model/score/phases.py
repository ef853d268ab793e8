"""The table of phases: from a phase's kind to the site's query and the server's learner.

A kind may be asked more than once, as phases named ``kind`` or ``kind-anything``: each starts from
what the model holds and replaces it. So a small ``means-first`` makes the sums of ``means`` nearly
cancel, which lets their range, and with it the size of a report, be small.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from dppm_model.errors import ConfigError
from dppm_model.score.components import ComponentsLearner, ComponentsQuery
from dppm_model.score.covariance import CovarianceLearner, CovarianceQuery
from dppm_model.score.detail import DetailQuery
from dppm_model.score.gradient import GradientLearner
from dppm_model.score.means import MeansLearner, MeansQuery
from dppm_model.score.model import ScoreModel
from dppm_model.score.pooled import PooledLearner, PooledQuery
from dppm_model.score.query import Learner, Query
from dppm_model.score.residual import ResidualQuery
from dppm_model.score.spread import SpreadLearner, SpreadQuery


class _Kind(NamedTuple):
    """The two halves of a kind of phase; a learner is made from the model and a public seed."""

    query: Callable[[ScoreModel], Query]
    learner: Callable[[ScoreModel, int], Learner]


PHASES = {
    "means": _Kind(MeansQuery, lambda model, _seed: MeansLearner(model)),
    "covariance": _Kind(CovarianceQuery, lambda model, _seed: CovarianceLearner(model)),
    "components": _Kind(ComponentsQuery, ComponentsLearner),
    "spread": _Kind(SpreadQuery, lambda model, _seed: SpreadLearner(model)),
    "pooled": _Kind(PooledQuery, lambda model, _seed: PooledLearner(model)),
    "score": _Kind(ResidualQuery, partial(GradientLearner, ResidualQuery)),
    "detail": _Kind(DetailQuery, partial(GradientLearner, DetailQuery)),
}


def kind_of(phase: str) -> str:
    """Return the kind of a phase from its name: what stands before the first dash."""
    return phase.partition("-")[0]


def build_query(phase: str, model: ScoreModel) -> Query:
    """Build what a record answers, from what the server sends: the phase's name and the model.

    Raises
    ------
    ConfigError
        If there is no such phase.
    """
    return _kind(phase).query(model)


def build_learner(phase: str, model: ScoreModel, seed: int) -> Learner:
    """Build the server's learner of a phase that starts from ``model``.

    Parameters
    ----------
    phase
        Its name, ``kind`` or ``kind-anything`` with a kind of ``PHASES``.
    model
        All that was released before; its ``meta`` holds the configurations.
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
