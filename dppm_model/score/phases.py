"""The kinds of phases: each with its question and its learner.

This table is the only place that lists them. A kind may be asked more than once, as phases named
``kind`` or ``kind-anything``: each starts from the model's present arrays and replaces them. After
a cheap ``means-first``, the sums of ``means`` nearly cancel, so their range and reports are small.
"""

from __future__ import annotations

from dataclasses import dataclass

from dppm_model.errors import ConfigError, ModelError
from dppm_model.score.arrays import array_specs, check_arrays
from dppm_model.score.model import ScoreModel, read_tensors
from dppm_model.score.model_config import ModelConfig
from dppm_model.score.moments import (
    ComponentCovarianceQuery,
    ComponentsQuery,
    CovarianceQuery,
    MeansQuery,
    PooledCovarianceQuery,
    VariancesQuery,
)
from dppm_model.score.pretrained_query import FineTuningQuery
from dppm_model.score.pyramid_query import DetailQuery
from dppm_model.score.query import Query
from dppm_model.score.residual_query import ResidualQuery

_HEADER = 1 << 16  # bytes of a question beside its arrays


@dataclass(frozen=True)
class PhaseKind:
    """A kind of phase.

    Attributes
    ----------
    name
        The name of its phases, up to the first dash.
    question
        The site's half: the answer of a record.
    learner
        The server's half, ``module:class``; a site does not import it.
    text
        The question to every record or person, in words.
    releases
        Arrays that it adds to those that every model has.
    """

    name: str
    question: type[Query]
    learner: str
    text: str
    releases: frozenset[str] = frozenset()


_KINDS = (
    PhaseKind(
        "means",
        MeansQuery,
        "dppm_model.training.moments:MeansLearner",
        "its class, and its image: counts and means of the classes",
    ),
    PhaseKind(
        "variances",
        VariancesQuery,
        "dppm_model.training.moments:VariancesLearner",
        "squares of its coefficients: their variances over all classes",
    ),
    PhaseKind(
        "pooled_covariance",
        PooledCovarianceQuery,
        "dppm_model.training.moments:PooledCovarianceLearner",
        "products of its low coefficients: their covariance over all classes, which gives the axes",
    ),
    PhaseKind(
        "covariance",
        CovarianceQuery,
        "dppm_model.training.moments:CovarianceLearner",
        "products of its coordinates in the axes: covariances of the classes",
    ),
    PhaseKind(
        "components",
        ComponentsQuery,
        "dppm_model.training.components:ComponentsLearner",
        "its share in each component, and where it lies: the components' centres",
    ),
    PhaseKind(
        "component_covariance",
        ComponentCovarianceQuery,
        "dppm_model.training.moments:ComponentCovarianceLearner",
        "products of its coefficients within a component: the components' own covariances",
        releases=frozenset({"mixture.principal_axes", "mixture.component_covariance"}),
    ),
    PhaseKind(
        "score",
        ResidualQuery,
        "dppm_model.training.gradient:ResidualLearner",
        "its clipped gradient of the denoising loss",
    ),
    PhaseKind(
        "fine_tuning",
        FineTuningQuery,
        "dppm_model.training.gradient:FineTuningLearner",
        "its clipped gradient of the pretrained network's denoising loss",
    ),
    PhaseKind(
        "detail",
        DetailQuery,
        "dppm_model.training.gradient:DetailLearner",
        "its clipped gradient of the upsampler's denoising loss",
    ),
)
PHASES = {kind.name: kind for kind in _KINDS}


def kind_of(phase: str) -> PhaseKind:
    """Return the kind of a phase: its name up to the first dash.

    Raises
    ------
    ConfigError
        If there is no such kind.
    """
    name = phase.partition("-")[0]
    if name not in PHASES:
        raise ConfigError(f"phases[].name is {phase!r}.", f"Use one of: {', '.join(PHASES)}.")
    return PHASES[name]


def build_query(phase: str, model: ScoreModel) -> Query:
    """Build the question of a phase from the model.

    Raises
    ------
    ConfigError
        If there is no such phase.
    ModelError
        If the model lacks an array that the question needs.
    """
    return kind_of(phase).question(model)


def dimension_of(phase: str, config: ModelConfig) -> int:
    """Return the coordinates d of a record's answer, which the public configuration decides.

    Raises
    ------
    ConfigError
        If there is no such phase, or the configuration has nothing to ask in it.
    """
    return kind_of(phase).question.dimension_of(config)


def write_question(phase: str, model: ScoreModel) -> bytes:
    """Return the private arrays of one question, and no others, for sending to a site."""
    return model.only(sent_arrays(phase, model.config)).arrays_to_bytes()


def sent_arrays(phase: str, config: ModelConfig) -> frozenset[str]:
    """Return the names of the arrays that a site may be sent for a question: the private ones.

    A site has the public ones, and checks their digests; no question needs a derived one.
    """
    question, specs = kind_of(phase).question, array_specs(config)
    asked = specs.keys() & (question.needed | question.optional)
    return frozenset(name for name in asked if specs[name].role == "private")


def read_question(phase: str, config: ModelConfig, content: bytes) -> Query:
    """Build a question from the plan's configuration and the arrays that a server sent.

    The first half of Lemma 14 (PRIVACY.md).
    Nothing else in the message is read: it decides no size, setting or code. Public arrays are this
    installation's own copies.

    Raises
    ------
    ConfigError
        If there is no such phase.
    ModelError
        If the arrays are not exactly those of the question, each as `dppm_model.score.arrays`
        says; or if the plan names other public arrays than this installation has.
    """
    asked, specs = sent_arrays(phase, config), array_specs(config)
    most = _HEADER + sum(specs[n].nbytes for n in asked)
    if len(content) > most:
        raise ModelError(
            f"The question has {len(content)} bytes, more than its arrays ({most}).",
            "Send the arrays of the phase's round.",
        )
    sent = read_tensors(content)[1]
    check_arrays(config, sent)
    if others := sorted(sent.keys() - asked):
        raise ModelError(
            f"The question has {others[0]!r}, which phase {phase} does not use.",
            "Run the same version at server and site.",
        )
    return build_query(phase, ScoreModel(config, {**config.public_arrays, **sent}, known=sent))
