"""Changes to plans, and the laws of whole rounds by exact enumeration."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.stats import binom, norm

from dppm_model.mechanism.base import View
from dppm_model.mechanism.binomial import BinomialMechanism
from dppm_model.mechanism.registry import MECHANISMS
from dppm_model.mechanism.secure_rng import SecureRNG
from dppm_model.phase import PhasePlan
from dppm_model.plan import Plan
from dppm_model.planner import make_plan
from dppm_model.planning.registry import PLANNERS
from dppm_model.requests import PhaseRequest, PrivacyRequest
from dppm_model.score.mixture_config import MixtureConfig
from dppm_model.score.model_config import ModelConfig

EPSILONS = np.linspace(0, 6, 40)
MODEL = ModelConfig((1, 8, 8), 2, (MixtureConfig(),))  # for plans of which nothing is asked
SUMS = PhaseRequest("sums", 4000, 1.0, 2, 0.5, 0.05)
STEPS = PhaseRequest("steps", 2000, 0.3, 10, 0.5, 0.3)
TOY = PhasePlan(
    name="toy",
    mechanism=BinomialMechanism(range_=0.6, truth_strength=0.2, responses=2),
    clip_norm=1.0,
    sampling_rate=0.5,
    rounds=1,
    dimension=2,
    sites=2,
    honest_sites=2,
    records=4,
    tail=1e-30,
)


def view_of(mechanism: str) -> View:
    """The view that a target is for."""
    return "release" if MECHANISMS[mechanism].trusts_server else "secure_sum"


def asked_privacy(epsilon: float, mechanism: str = "binomial", **changes: Any) -> PrivacyRequest:
    """Ask for a target with three sites of 3000 records."""
    counts = {"sites": 3, "records": 3000, "min_survivors": 3, "colluding_sites": 0}
    asked = {"view": view_of(mechanism), "unit": "record", "records_per_person": 1, **counts}
    return PrivacyRequest(epsilon, 1e-5, **{**asked, "mechanism": PLANNERS[mechanism](), **changes})


def planned(epsilon: float, mechanism: str = "binomial") -> Plan:
    """A plan of some sums and some steps."""
    return make_plan(asked_privacy(epsilon, mechanism), [SUMS, STEPS], MODEL, run="x")


def with_mechanism(phase: PhasePlan, **changes: Any) -> PhasePlan:
    """Change the parameters of a phase's mechanism."""
    return replace(phase, mechanism=replace(phase.mechanism, **changes))


def convolve(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Law of the sum of two independent reports."""
    out = np.zeros(tuple(x + y - 1 for x, y in zip(a.shape, b.shape, strict=True)))
    for index in np.ndindex(a.shape):
        out[tuple(slice(i, i + s) for i, s in zip(index, b.shape, strict=True))] += a[index] * b
    return out


def hockey_stick(p: np.ndarray, r: np.ndarray, epsilons: np.ndarray = EPSILONS) -> np.ndarray:
    """Exact delta at each epsilon between two laws, in one direction."""
    return np.array([np.maximum(p - np.exp(e) * r, 0).sum() for e in epsilons])


def claimed(mu: float, q: float, epsilons: np.ndarray = EPSILONS) -> np.ndarray:
    """Both directions of N(0,1) against (1-q) N(0,1) + q N(mu,1), in closed form."""
    out = []
    for e in epsilons:
        t = (np.log((np.exp(e) - 1 + q) / q) + mu**2 / 2) / mu
        mixture = lambda x: (1 - q) * norm.cdf(x) + q * norm.cdf(x - mu)  # noqa: E731
        remove = (1 - mixture(t)) - np.exp(e) * norm.sf(t)
        add = 0.0
        if np.exp(-e) > 1 - q:
            t = (np.log((np.exp(-e) - 1 + q) / q) + mu**2 / 2) / mu
            add = norm.cdf(t) - np.exp(e) * mixture(t)
        out.append((remove, add))
    return np.array(out).max(1)


class EveryCoin(SecureRNG):
    """Walks through all outcomes of all draws of a run, one run after the other, with weights.

    Draws are those of `SecureRNG`; that their bits have these probabilities is what
    `tests/unit/mechanism/test_secure_rng.py` and `test_binomial.py` show.
    """

    def __init__(self) -> None:
        super().__init__()
        self._tape: list[list[Any]] = []  # chosen option, probabilities
        self._at = 0

    def runs(self, play: Callable[[], np.ndarray]) -> Iterator[tuple[float, np.ndarray]]:
        """Yield (probability, outcome) of every run."""
        while True:
            self._at = 0
            outcome = play()
            yield float(np.prod([p[i] for i, p in self._tape])), outcome
            while self._tape and self._tape[-1][0] + 1 == len(self._tape[-1][1]):
                self._tape.pop()
            if not self._tape:
                return
            self._tape[-1][0] += 1

    def _pick(self, probabilities: Any) -> int:
        if self._at == len(self._tape):
            self._tape.append([0, probabilities])
        self._at += 1
        return int(self._tape[self._at - 1][0])

    def bernoulli(self, numerator: Any, count: int) -> np.ndarray:
        each = np.broadcast_to(np.asarray(numerator, dtype=np.float64), count) / 2.0**32
        return np.array([p == 1 or (p > 0 and self._pick([1 - p, p]) == 1) for p in each], bool)

    def below(self, limit: int, count: int) -> np.ndarray:
        return np.array([self._pick([1 / limit] * limit) for _ in range(count)], dtype=np.int64)

    def seeds(self, count: int) -> np.ndarray:
        return np.zeros(count, dtype=np.int64)

    def fair_binomial(self, n: np.ndarray, _: SecureRNG) -> np.ndarray:
        """Stands for `dppm_model.mechanism.fair_binomial.fair_binomial`."""
        laws = [binom.pmf(range(k + 1), k, 0.5) for k in n]
        return np.array([self._pick(law) if len(law) > 1 else 0 for law in laws], dtype=np.int64)
