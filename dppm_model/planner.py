"""From a target epsilon to a plan: how the budget is split, which R, m and theta spend it best.

Everything here reads the configuration only. The steps are: split mu^2 between the phases, scale
the split until the target is met and not passed, then give each phase the fewest bits with which
randomized response costs at most `MOST_LOSS` more mu than an ideal Gaussian of the same noise.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace

from scipy.special import ndtri

from dppm_model.errors import ConfigError, PlanError
from dppm_model.mechanism.rotation import Rotation
from dppm_model.plan import PhasePlan, Plan, View
from dppm_model.privacy.accountant import RoundCost, calibrate, choose_tau, epsilon

MOST_LOSS = 1.03
# Coordinates of the rotated sum are close to normal; R at 4.5 deviations clamps one in 150,000.
_RANGE_DEVIATIONS = 4.5
_MOST_ANSWERS = 1 << 19  # n m beyond this makes the accountant slow: ask in more rounds


@dataclass(frozen=True)
class PhaseRequest:
    """What a configuration says of a phase.

    Attributes
    ----------
    name, dimension, clip_norm, sampling_rate, rounds
        As in `PhasePlan`.
    share
        Share of the budget mu^2 (shares are normalised to one).
    coherence
        Public guess of |sum of a site's vectors| / (their number · C), between 0 and 1. Too small a
        guess clamps (a bias, never a privacy loss); one is always safe and costs some bits.
    """

    name: str
    dimension: int
    clip_norm: float
    sampling_rate: float
    rounds: int
    share: float
    coherence: float

    def __post_init__(self) -> None:
        where = f"phases.{self.name}"
        if not 0 < self.share <= 1:
            raise ConfigError(f"{where}.share is {self.share}.", "Give a share in (0, 1].")
        if not 0 < self.sampling_rate <= 1:
            raise ConfigError(
                f"{where}.sampling_rate is {self.sampling_rate}.", "Give a rate in (0, 1]."
            )
        if self.rounds < 1:
            raise ConfigError(f"{where}.rounds is {self.rounds}.", "Give at least one round.")
        if not 0 <= self.coherence <= 1:
            raise ConfigError(
                f"{where}.coherence is {self.coherence}.", "Give a number from 0 to 1."
            )


@dataclass(frozen=True)
class PrivacyRequest:
    """What a configuration says of privacy: the target, its view and its assumptions."""

    epsilon: float
    delta: float
    view: View
    sites: int
    records: int
    min_survivors: int
    colluding_sites: int

    def __post_init__(self) -> None:
        if not (math.isfinite(self.epsilon) and self.epsilon > 0):
            raise ConfigError(
                f"privacy.epsilon is {self.epsilon}.", "Give a finite number above zero."
            )
        if not 0 < self.delta < 1:
            raise ConfigError(
                f"privacy.delta is {self.delta}.", "Give a number in (0, 1), below 1/records."
            )
        if self.view not in ("secure_sum", "site"):
            raise ConfigError(f"privacy.view is {self.view!r}.", "Use 'secure_sum' or 'site'.")
        if not 1 <= self.min_survivors <= self.sites:
            raise ConfigError(
                f"privacy.min_survivors is {self.min_survivors} with {self.sites} sites.",
                "Give a number from 1 to the number of sites.",
            )
        if not 0 <= self.colluding_sites < self.min_survivors:
            raise ConfigError(
                f"privacy.colluding_sites is {self.colluding_sites} with min_survivors "
                f"{self.min_survivors}.",
                "At least one surviving site must be honest.",
            )

    @property
    def honest_sites(self) -> int:
        """n: the honest sites that every opened sum is sure to hold."""
        return self.min_survivors - self.colluding_sites


def split(total_mu: float, phases: Sequence[PhaseRequest]) -> list[float]:
    """Give each phase the mu of one unsampled round.

    T rounds at rate q cost about T q^2 mu^2, so mu_i = total · sqrt(share_i) / (q_i sqrt(T_i)).
    """
    shares = sum(p.share for p in phases)
    return [
        total_mu * math.sqrt(p.share / shares) / (p.sampling_rate * math.sqrt(p.rounds))
        for p in phases
    ]


def ideal_costs(mus: Sequence[float], phases: Sequence[PhaseRequest]) -> list[RoundCost]:
    """Costs of ideal Gaussian phases with these mu."""
    return [RoundCost(mu, p.sampling_rate, p.rounds) for mu, p in zip(mus, phases, strict=True)]


def clamp_deviation(request: PhaseRequest, privacy: PrivacyRequest) -> float:
    """Expected standard deviation of a rotated coordinate of one site's sum, in units of a record.

    A sum of B vectors of norm C has norm up to coherence·B·C, plus sqrt(B)·C for what cancels; the
    rotation spreads it over D coordinates.
    """
    batch = request.sampling_rate * privacy.records / privacy.sites
    norm = request.clip_norm * math.hypot(request.coherence * batch, math.sqrt(batch))
    return norm / math.sqrt(Rotation.of(request.dimension).padded)


def expected_loss(answers: float, theta: float, tau: float) -> float:
    """Rule of thumb for mu over the ideal Gaussian's (PROOF, section 4); never used to account."""
    sigma = math.sqrt(answers * (0.25 - theta**2))
    return math.exp(5 * theta * -float(ndtri(tau)) / (3 * sigma)) / math.sqrt(1 - 4 * theta**2)


def choose_response(
    request: PhaseRequest, privacy: PrivacyRequest, mu: float, tau: float
) -> PhasePlan:
    """Choose R, then the fewest bits b, with m = floor((2^b - 1)/N), that keep the loss in bounds.

    An ideal Gaussian with the noise of the answers of n sites has mu = 2 sqrt(m/n) theta C/R; ours
    is `loss` times that. Larger m means smaller theta, and both make the loss smaller.

    Raises
    ------
    PlanError
        If not even `_MOST_ANSWERS` answers are enough.
    """
    range_ = _RANGE_DEVIATIONS * clamp_deviation(request, privacy)
    n = privacy.honest_sites if privacy.view == "secure_sum" else 1
    for bits in range(1, _MOST_ANSWERS.bit_length() + 1):
        m = ((1 << bits) - 1) // privacy.sites
        if not 1 <= m <= _MOST_ANSWERS // n:
            continue
        theta, loss = 0.0, 1.0
        for _ in range(6):  # the rule of thumb depends on theta
            theta = mu * range_ / (2 * request.clip_norm * loss) * math.sqrt(n / m)
            if theta > 0.25:
                break
            loss = expected_loss(n * m, theta, tau)
        if theta > 0.25 or loss > MOST_LOSS + 0.01:
            continue
        phase = PhasePlan(
            name=request.name,
            mechanism="binomial",
            clip_norm=request.clip_norm,
            range_=range_,
            truth_strength=theta,
            responses=m,
            sampling_rate=request.sampling_rate,
            rounds=request.rounds,
            dimension=request.dimension,
            sites=privacy.sites,
            honest_sites=privacy.honest_sites,
            records=privacy.records,
            tail=tau,
        )
        phase = _certify(phase, privacy.view, mu)
        if loss_of(phase, privacy.view) <= MOST_LOSS:
            return phase
    raise PlanError(
        f"phase {request.name}: no number of answers up to {_MOST_ANSWERS} in the sum gives the "
        f"noise that epsilon = {privacy.epsilon} needs.",
        "Lower its share or sampling_rate, raise its rounds, or raise privacy.epsilon.",
    )


def _certify(phase: PhasePlan, view: View, mu: float) -> PhasePlan:
    """Adjust theta until the certified mu meets the target from below."""
    for _ in range(20):
        now = mu_of(phase, view)
        if mu * 0.9995 <= now <= mu:
            break
        phase = replace(phase, truth_strength=phase.truth_strength * (mu / now) * (1 - 1e-4))
    return phase


def mu_of(phase: PhasePlan, view: View) -> float:
    """Mu of one unsampled round in the given view."""
    return phase.mu_site if view == "site" else phase.mu_secure_sum


def loss_of(phase: PhasePlan, view: View) -> float:
    """Return certified mu over that of an ideal Gaussian with the same noise (1 is perfect)."""
    n = phase.honest_sites if view == "secure_sum" else 1
    ideal = 2 * math.sqrt(phase.responses / n) * phase.truth_strength
    return mu_of(phase, view) / (ideal * phase.clip_norm / phase.range_)


def make_plan(
    privacy: PrivacyRequest, phases: Sequence[PhaseRequest], *, run: str, seed: str | None = None
) -> Plan:
    """Build the plan that spends `privacy.epsilon` and no more.

    Raises
    ------
    PlanError
        If the target cannot be met.
    """
    total_dimension = sum(Rotation.of(p.dimension).padded * p.rounds for p in phases)
    tau = choose_tau(
        epsilon=privacy.epsilon, delta=privacy.delta, coordinates_times_rounds=total_dimension
    )
    # Ideal phases pay for the tails too, so that the certified plan cannot pass the target.
    eta = 2 * total_dimension * tau

    def costs_at(total_mu: float) -> list[RoundCost]:
        first, *rest = ideal_costs(split(total_mu, phases), phases)
        return [replace(first, total_variation=eta), *rest]

    total_mu = calibrate(
        costs_at, epsilon=privacy.epsilon, delta=privacy.delta, low=1e-4, high=50.0, tol=1e-3
    )
    chosen = tuple(
        choose_response(p, privacy, mu, tau)
        for p, mu in zip(phases, split(total_mu, phases), strict=True)
    )
    return Plan(
        run=run,
        seed=seed or secrets.token_hex(16),
        delta=privacy.delta,
        sites=privacy.sites,
        min_survivors=privacy.min_survivors,
        colluding_sites=privacy.colluding_sites,
        phases=chosen,
    )


def epsilons(plan: Plan, rounds_done: int | None = None) -> tuple[float, float]:
    """Epsilon in the secure-sum view and in the site view, of the first rounds or of all."""
    return (
        epsilon(plan.costs("secure_sum", rounds_done), plan.delta),
        epsilon(plan.costs("site", rounds_done), plan.delta),
    )
