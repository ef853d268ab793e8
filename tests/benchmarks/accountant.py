"""How long the accountant takes: s* for M answers in the sum, and the composition of a run.

    python -m tests.benchmarks.accountant

The peer of the composition is `dp_accounting`'s own PLDAccountant with its default grid, which
gives a bound of the same kind; beside the seconds stands how much larger its epsilon is.
"""

from __future__ import annotations

from typing import Any

import dp_accounting
from dp_accounting.pld import PLDAccountant

from dppm_model.privacy import composition
from dppm_model.privacy.accountant import RoundCost, epsilon
from dppm_model.privacy.gdp import site_slope, sum_slope
from tests.benchmarks.runner import benchmark, timed

DELTA = 1e-5
RUNS = {"600 sampled rounds": (1.0, 0.068, 600), "12 full rounds": (0.5, 1.0, 12)}


def measure() -> dict[str, Any]:
    """Time the slopes at every size, then two compositions beside their peer."""
    slopes = {}
    for answers in (10**3, 10**4, 10**5, 10**6):
        sum_slope.cache_clear()
        site_slope.cache_clear()
        seconds, found = timed(lambda m=answers: sum_slope(m, 1 / 16, 1e-22))
        alone, _ = timed(lambda m=answers: site_slope(m, 1 / 16))
        loss = found * answers**0.5 / 2
        slopes[answers] = {"sum_seconds": seconds, "site_seconds": alone, "loss": loss}
        print(f"M = {answers:8d}   s* {seconds:7.3f} s   s {alone:7.3f} s   loss {loss:.4f}")
    composed = {}
    for name, (mu, q, rounds) in RUNS.items():
        composition._one_round.cache_clear()
        composition._phase.cache_clear()
        seconds, ours = timed(lambda run=(mu, q, rounds): epsilon([RoundCost(*run)], DELTA))
        peer_seconds, peer = timed(lambda run=(mu, q, rounds): peer_epsilon(*run))
        composed[name] = {
            **{"seconds": seconds, "peer_seconds": peer_seconds},
            **{"epsilon": ours, "peer_epsilon": peer},
        }
        print(
            f"{name:20s} {seconds:7.3f} s, {seconds / peer_seconds:5.2f} x dp_accounting; "
            f"epsilon {ours:.4f}, its {peer:.4f}"
        )
    return {"slopes": slopes, "compositions": composed}


def peer_epsilon(mu: float, q: float, rounds: int) -> float:
    """Return dp_accounting's epsilon of rounds of a (sampled) Gaussian mechanism."""
    event: dp_accounting.DpEvent = dp_accounting.GaussianDpEvent(1 / mu)
    if q < 1:
        event = dp_accounting.PoissonSampledDpEvent(q, event)
    return float(PLDAccountant().compose(event, rounds).get_epsilon(DELTA))


if __name__ == "__main__":
    benchmark(measure)
