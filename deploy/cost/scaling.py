"""A gradient round with more sites and larger models than any that was run: `dppm plan --scale`.

Each site holds as many records as in the configuration, and the federation samples as many in a
round: more sites mean a lower rate, so that rounds learn alike and privacy is amplified.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from deploy.cost.workload import GRADIENTS, Workload, arrays_size
from dppm_model.config import Config, check_config, compose_config
from dppm_model.errors import ConfigError, PlanError
from dppm_model.mechanism.binomial import BinomialMechanism
from dppm_model.phase import PhasePlan
from dppm_model.planner import make_plan
from dppm_model.planning.base import noise_ratio
from dppm_model.privacy.accountant import epsilon
from dppm_model.progress import Progress, silent
from dppm_model.requests import PhaseRequest, PrivacyRequest
from dppm_model.score.closed_form import CLOSED_FORM

SITES = (10, 1_000, 100_000)
PARAMETERS = (10**6, 10**7, 10**8, 10**9)
MOST = 10**12
MOST_MESSAGE = 2**31 - 1  # bytes: the limit of gRPC and protobuf
MOST_SITE_MEMORY = 16 * 2**30  # bytes of a workstation
MOST_SERVER_MEMORY = 256 * 2**30
_TAIL = 1e-26  # of a phase that is not accounted
_PLAN_BYTES = 700  # of a plan of one phase


@dataclass(frozen=True)
class ScaledRound:
    """A round of one federation and model.

    Attributes
    ----------
    load
        Its counts, bytes and memory.
    epsilon
        Of the whole run in the secure-sum view; None without a plan.
    loss
        Of mu against an ideal Gaussian of the same noise (1 is perfect).
    noise
        Norm of the noise in a round's mean gradient, in clip norms.
    refused
        Why the planner refused; costs are then those of one answer a coordinate.
    """

    load: Workload
    epsilon: float | None
    loss: float | None
    noise: float
    refused: str = ""

    @property
    def limits(self) -> dict[str, str]:
        """What is not affordable, each with the term that dominates it."""
        report = self.load.report
        checks: dict[str, tuple[dict[str, float], int]] = {
            "site memory": (self.load.site_memory, MOST_SITE_MEMORY),
            "server memory": (self.load.server_memory, MOST_SERVER_MEMORY),
        }
        passed = {
            what: terms for what, (terms, most) in checks.items() if sum(terms.values()) > most
        }
        if max(report.up, report.down) > MOST_MESSAGE:
            passed["message"] = {"model": report.down, "report": report.up}
        return {what: max(terms, key=lambda k: terms[k]) for what, terms in passed.items()}

    def to_json(self) -> dict[str, Any]:
        """Return all of it for scripts."""
        phase = self.load.phase
        return {
            "sites": phase.sites,
            "parameters": phase.dimension,
            "epsilon_secure_sum": self.epsilon,
            "loss": self.loss,
            "noise_over_clip_norm": self.noise,
            "bits": phase.bits,
            "refused": self.refused,
            "not_affordable": self.limits,
            **self.load.to_json(),
        }


def whole_numbers(option: str, text: str | None) -> tuple[int, ...]:
    """Read numbers such as ``10,1e6``; none if nothing was given.

    Raises
    ------
    ConfigError
        If one is not a whole number above zero.
    """
    found = []
    for part in text.split(",") if text else ():
        try:
            value = float(part)
        except ValueError:
            value = math.nan
        if not (1 <= value <= MOST and value.is_integer()):
            raise ConfigError(
                f"{option} is {text!r}.",
                f"Give whole numbers from 1 to {MOST:.0e}, such as 10,1000 or 1e6.",
            )
        found.append(int(value))
    return tuple(found)


def scaled_rounds(
    config: Config,
    sites: Sequence[int] = SITES,
    parameters: Sequence[int] = PARAMETERS,
    progress: Progress = silent,
) -> list[ScaledRound]:
    """Plan a round for each number of sites and of parameters; certificates take a while."""
    rows = list[ScaledRound]()
    for n in sites:
        for d in parameters:
            rows.append(_planned(config, n, d))
            progress(f"{d:.0e} parameters at {n} sites", len(rows) / len(sites) / len(parameters))
    return rows


def most_sites(config: Config, parameters: int = PARAMETERS[0]) -> ScaledRound:
    """Find the largest federation whose sites all keep keys with all others and can afford it.

    Answers are as few as there can be, one a coordinate: what is left is the secure sum.
    """
    low, high = config.sites, max(SITES)
    while high - low > max(1, low // 100):
        middle = (low + high) // 2
        if _unplanned(config, middle, parameters).limits:
            high = middle
        else:
            low = middle
    return _unplanned(config, high, parameters)


def _planned(config: Config, sites: int, parameters: int) -> ScaledRound:
    privacy, request = _privacy(config, sites), _request(config, sites, parameters)
    try:
        plan = make_plan(privacy, [request], config.score_model(), run="scale", seed="00")
    except PlanError as error:
        return replace(_unplanned(config, sites, parameters), refused=error.message)
    return replace(
        _round(config, plan.phases[0], len(plan.to_json())),
        epsilon=epsilon(plan.costs("secure_sum"), plan.delta),
        loss=noise_ratio(plan.phases[0].mechanism, plan.phases[0], privacy.view),
    )


def _unplanned(config: Config, sites: int, parameters: int) -> ScaledRound:
    """A round without a plan: one answer a coordinate."""
    request = _request(config, sites, parameters)
    phase = PhasePlan.of(
        _privacy(config, sites).spec(request, _TAIL),
        name=request.name,
        mechanism=BinomialMechanism(1.0, 0.25, 1),
        rounds=request.rounds,
    )
    return _round(config, phase, _PLAN_BYTES)


def _round(config: Config, phase: PhasePlan, plan_bytes: int) -> ScaledRound:
    d = phase.dimension
    sent = arrays_size(config.score_model(), CLOSED_FORM) + 4 * d  # and the weights
    noise = phase.noise_std(phase.sites) * math.sqrt(d) / phase.clip_norm
    return ScaledRound(Workload(phase, 1, plan_bytes, sent, phase.rounds), None, None, noise)


def _request(config: Config, sites: int, parameters: int) -> PhaseRequest:
    """The configuration's gradient phase, or that of ``model=residual``, at the rate of a site."""
    if not any(name in GRADIENTS for name in config.model.phases):
        config = config.replace(model=check_config(compose_config(["model=residual"])).model)
    own = next(r for r in config.phase_requests() if r.name in GRADIENTS)
    return replace(
        own,
        dimension=parameters,
        sampling_rate=min(1.0, own.sampling_rate * config.sites / sites),
        budget_fraction=1.0,
    )


def _privacy(config: Config, sites: int) -> PrivacyRequest:
    """The configuration's request, with shares of the sites instead of their numbers."""
    asked = config.privacy_request()
    share = sites / config.sites
    return replace(
        asked,
        sites=sites,
        records=max(1, round(asked.records * share)),
        min_survivors=min(sites, math.ceil(asked.min_survivors * share)),
        colluding_sites=math.floor(asked.colluding_sites * share),
        unit="record",
        records_per_person=1,
        large_delta=True,  # only costs are shown, and delta moves them little
    )
