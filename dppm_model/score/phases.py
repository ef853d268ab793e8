"""The kinds of phases: what each asks, and what learns from the answers.

This table is the only place that lists them. A kind may be asked more than once, as phases named
``kind`` or ``kind-anything``: each starts from what the model holds and replaces it. So a small
``means-first`` makes the sums of ``means`` nearly cancel, which lets their range, and with it the
size of a report, be small.
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
        What its phases are called, before the first dash.
    question
        What a record answers.
    learner
        The server's half, ``module:class``: imported there, and not at a site.
    text
        What it asks every record or person for, in words.
    releases
        Arrays that it adds to a model, beside those that are always there.
    public_data
        What its training starts from that is nobody's, if anything.
    """

    name: str
    question: type[Query]
    learner: str
    text: str
    releases: frozenset[str] = frozenset()
    public_data: str | None = None


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
        "detail",
        DetailQuery,
        "dppm_model.training.gradient:DetailLearner",
        "its clipped gradient of the upsampler's denoising loss",
        public_data="drawn shapes",
    ),
)
PHASES = {kind.name: kind for kind in _KINDS}


def kind_of(phase: str) -> PhaseKind:
    """Return the kind of a phase, which is what stands in its name before the first dash.

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
    """Build what a record answers, from the phase's name and the model.

    Raises
    ------
    ConfigError
        If there is no such phase.
    ModelError
        If the model lacks what the question asks by.
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
    """Return what a site is sent to ask by: the private arrays of one question, and no more."""
    return model.only(sent_arrays(phase, model.config)).arrays_to_bytes()


def sent_arrays(phase: str, config: ModelConfig) -> frozenset[str]:
    """Return the names of what a site may be sent for a question: of its arrays, the private ones.

    Public ones the site has itself, as the plan's digests say; derived ones are nobody's question.
    """
    question, specs = kind_of(phase).question, array_specs(config)
    asked = specs.keys() & (question.needed | question.optional)
    return frozenset(name for name in asked if specs[name].role == "private")


def read_question(phase: str, config: ModelConfig, content: bytes) -> Query:
    """Build what a record answers from the plan's configuration and the arrays that were sent.

    The first half of Lemma 14 (PRIVACY.md).
    Nothing else of what was sent is looked at: it has no say in sizes, settings or code. Public
    arrays are this installation's own copies.

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
