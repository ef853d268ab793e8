"""The road to scale: what a gradient round would cost with more sites and larger models.

Each site holds as many records as in the configuration, and the federation samples as many in a
round: more sites mean a lower rate, so that rounds learn alike and privacy is amplified. A record's
gradient is that of a network of matrix products.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from deploy.cost.load import GRADIENTS, Load, arrays_size
from deploy.cost.run import Bill
from deploy.cost.seconds import largest, whole
from deploy.cost.traffic import report
from deploy.cost.units import LAPTOP, Kind, Units
from dppm_model.config import Config, compose_config
from dppm_model.errors import ConfigError, PlanError
from dppm_model.mechanism.binomial import BinomialResponse
from dppm_model.phase import PhasePlan
from dppm_model.planner import loss_of, make_plan
from dppm_model.privacy.accountant import epsilon
from dppm_model.requests import PhaseRequest, PrivacyRequest, phase_plan
from dppm_model.score.model import CLOSED_FORM

SITES = (10, 1_000, 100_000)
PARAMETERS = (10**6, 10**7, 10**8, 10**9)
MOST = 10**12
MOST_MESSAGE = 2**31 - 1  # bytes: gRPC and protobuf take no longer message
MOST_SITE_MEMORY = 16 * 2**30  # bytes of a workstation
MOST_SERVER_MEMORY = 256 * 2**30
_TAIL = 1e-26  # of a phase that is not accounted
_PLAN_BYTES = 700  # of a plan of one phase


@dataclass(frozen=True)
class Row:
    """One federation and model.

    Attributes
    ----------
    bill
        What a round costs.
    epsilon
        Of the whole run in the secure-sum view; None if there is no plan.
    loss
        Of mu against an ideal Gaussian of the same noise (1 is perfect).
    noise
        Norm of the noise in a round's mean gradient, in clip norms.
    refused
        Why the planner refused; costs are then of one answer a coordinate.
    most_seconds
        How long a server waits for the answers to a message.
    """

    bill: Bill
    epsilon: float | None
    loss: float | None
    noise: float
    refused: str
    most_seconds: float

    @property
    def limits(self) -> dict[str, str]:
        """What is not affordable, and the term that dominates it."""
        bill, load = self.bill, self.bill.load
        message = {"model": float(report(load).down), "report": float(report(load).up)}
        checks = {
            "site time": (bill.site, self.most_seconds),
            "server time": (bill.server, self.most_seconds),
            "site memory": (bill.site_memory, MOST_SITE_MEMORY),
            "server memory": (bill.server_memory, MOST_SERVER_MEMORY),
        }
        passed = {what: terms for what, (terms, most) in checks.items() if whole(terms) > most}
        if max(message.values()) > MOST_MESSAGE:
            passed["message"] = message
        return {what: largest(terms) for what, terms in passed.items()}

    def to_json(self) -> dict[str, Any]:
        """Return all of it for scripts."""
        phase = self.bill.load.phase
        return {
            "sites": phase.sites,
            "parameters": phase.dimension,
            "epsilon_secure_sum": self.epsilon,
            "loss": self.loss,
            "noise_over_clip_norm": self.noise,
            "responses": self.bill.load.answers,
            "bits": phase.bits,
            "refused": self.refused,
            "not_affordable": self.limits,
            **self.bill.to_json(),
        }


def whole_numbers(option: str, text: str | None) -> tuple[int, ...]:
    """Read numbers such as ``10,1e6``; none if nothing was given.

    Raises
    ------
    ConfigError
        If one is not a whole number above zero, or too large to reckon with.
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


def road(
    config: Config,
    sites: Sequence[int] = SITES,
    parameters: Sequence[int] = PARAMETERS,
    units: Units = LAPTOP,
    tick: Callable[[int, int], None] = lambda *_: None,
) -> list[Row]:
    """Reckon a round for each number of sites and of parameters; certificates take a while.

    Parameters
    ----------
    tick
        Is told (done, total).
    """
    rows = list[Row]()
    for n in sites:
        for d in parameters:
            rows.append(_row(config, n, d, units))
            tick(len(rows), len(sites) * len(parameters))
    return rows


def most_sites(config: Config, units: Units = LAPTOP, parameters: int = PARAMETERS[0]) -> Row:
    """Find the largest federation whose sites all keep keys with all others and can afford it.

    Answers are as few as there can be, one a coordinate: what is left is the secure sum.
    """
    low, high = config.sites, max(SITES)
    while high - low > max(1, low // 100):
        middle = (low + high) // 2
        if _bare(config, middle, parameters, units).limits:
            high = middle
        else:
            low = middle
    return _bare(config, high, parameters, units)


def _row(config: Config, sites: int, parameters: int, units: Units) -> Row:
    privacy, request = _privacy(config, sites), _request(config, sites, parameters)
    try:
        plan = make_plan(privacy, [request], config.model_config(), run="road", seed="00")
    except PlanError as error:
        return replace(_bare(config, sites, parameters, units), refused=error.message)
    row = _priced(config, plan.phases[0], plan.min_survivors, len(plan.to_json()), units)
    loss = loss_of(plan.phases[0], privacy.view)
    return replace(row, epsilon=epsilon(plan.costs("secure_sum"), plan.delta), loss=loss)


def _bare(config: Config, sites: int, parameters: int, units: Units) -> Row:
    """A row without a plan: one answer a coordinate."""
    privacy = _privacy(config, sites)
    response = BinomialResponse(1.0, 0.25, 1)
    phase = phase_plan(_request(config, sites, parameters), privacy, response, _TAIL)
    return _priced(config, phase, privacy.min_survivors, _PLAN_BYTES, units)


def _priced(config: Config, phase: PhasePlan, threshold: int, plan: int, units: Units) -> Row:
    d = phase.dimension
    asked = arrays_size(config.model_config(), CLOSED_FORM) + 4 * d  # and the weights
    load = Load(phase, threshold, 1, plan, asked, phase.rounds)
    of_its_size = Kind(0.0, 0.0, units.gradient * d, units.kinds[load.kind].coordinate)
    own = replace(units, kinds={**units.kinds, load.kind: of_its_size})
    noise = phase.noise_std(phase.sites) * math.sqrt(d) / phase.clip_norm
    bill = Bill(load, own, config.backend)
    return Row(bill, None, None, noise, "", config.server.round_seconds)


def _request(config: Config, sites: int, parameters: int) -> PhaseRequest:
    """The configuration's gradient phase, or that of ``model=residual``, at the rate of a site."""
    phases = config.tree["model"]["phases"]
    if not (names := [name for name in phases if name in GRADIENTS]):
        phases, names = compose_config(["model=residual"])["model"]["phases"], [GRADIENTS[0]]
    own = phases[names[0]]
    return PhaseRequest(
        name=names[0],
        dimension=parameters,
        sampling_rate=min(1.0, own["sampling_rate"] * config.sites / sites),
        rounds=own["rounds"],
        budget_fraction=1.0,
        sum_alignment=own["sum_alignment"],
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
    )
