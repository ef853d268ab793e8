"""The Gaussian mechanism at the server: exact sums from the sites, and real noise on their sum.

**It protects only against those who see the server's release, not against the server.** A report is
a site's exact clipped integer sum, so anyone who sees it, or the opened sum of all reports, sees
sums of records without noise. The site and secure-sum views are therefore not private (mu is
infinite), and a site answers only if its policy trusts the server. It serves such sites, and as the
ideal that randomized response is compared with.

The noise is a normal variable, rounded to the grid of the sum. Since the sum is a whole number, the
release is (sum + normal), rounded: a function of the real Gaussian mechanism's output. So mu is
exactly C over the deviation, and Poisson-sampled rounds cost as much as those of DP-SGD. Call
`release` once for a sum: `server.state.Release` stores its result before it is used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import mpmath
import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from dppm_model.bounds import Between, check_settings
from dppm_model.errors import PlanError
from dppm_model.mechanism.base import Mechanism, RoundSpec, Vectors, View
from dppm_model.mechanism.quantize import GRID_STEPS
from dppm_model.mechanism.secure_rng import SecureRNG
from dppm_model.privacy.accountant import RoundCost

_DOUBT = 1e-12  # relative error of float64 quantiles, with a margin of a thousand
_BITS = 63  # of a first uniform, which lies in [0, 1/2)


def rounded_normal(deviation: float, count: int, coins: SecureRNG) -> NDArray[np.int64]:
    """Draw normal variables, rounded to whole numbers, exactly (Theorem 6).

    By inversion of 64 uniform bits, a sign and U in [0, 1/2). The quantiles of both ends of U's
    interval nearly always round to the same number, float64 errors included; otherwise more bits of
    U are drawn and compared with the distribution function in long arithmetic.
    """
    words = coins.words(count)
    sign = np.where(words & np.uint64(1), -1, 1)
    first = words >> np.uint64(1)
    u = first.astype(np.float64)
    with np.errstate(divide="ignore"):
        high = -ndtri(u * 2.0**-64) * deviation
        low = -ndtri((u + 1) * 2.0**-64) * deviation
    doubt = _DOUBT * (deviation + np.where(np.isfinite(high), high, 0.0))
    least = np.floor(np.maximum(low - doubt, 0.0) + 0.5)
    most = np.floor(high + doubt + 0.5)
    found = least.astype(np.int64)
    for i in np.flatnonzero(least != most):
        found[i] = _resolved(int(first[i]), int(found[i]), deviation, coins)
    return sign * found


def _resolved(first: int, least: int, deviation: float, coins: SecureRNG) -> int:
    """Return the k >= least with Phi(-(k + 1/2)/s) <= U < Phi(-(k - 1/2)/s), drawing more of U."""
    u, bits, k = first, _BITS, least
    while True:
        with mpmath.workprec(bits + 128):
            edge = mpmath.ncdf(-(mpmath.mpf(k) + 0.5) / mpmath.mpf(deviation))
            whole = mpmath.ldexp(edge, bits + 1)
            if u >= whole:  # all of U's interval is above the edge
                return k
            if u + 1 <= whole:
                k += 1
                continue
        u, bits = (u << 64) | int(coins.words(1)[0]), bits + 64


@dataclass(frozen=True)
class GaussianMechanism(Mechanism):
    """The public parameter of one round's noise; the module says what it does not protect.

    ``noise_multiplier`` is z, the deviation of the noise in a coordinate of the sum, over C; mu is
    1/z.
    """

    noise_multiplier: Annotated[float, Between(1e-3, 1e6)]

    name: ClassVar[str] = "gaussian"
    title: ClassVar[str] = "Gaussian noise added by the server, which sees exact sums"
    trusts_server: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_settings(self, kind=PlanError)

    def _offset(self, spec: RoundSpec) -> int:
        """Return the largest |coordinate| of a site's sum, which a report counts from."""
        return spec.records * GRID_STEPS

    def report_length(self, spec: RoundSpec) -> int:
        """Return d: nothing is rotated."""
        return spec.dimension

    def max_count(self, spec: RoundSpec) -> int:
        """Return twice the largest |coordinate|."""
        return 2 * self._offset(spec)

    def encode(
        self, vectors: Vectors, spec: RoundSpec, seed: bytes, coins: SecureRNG
    ) -> NDArray[np.int64]:
        """Return the exact sum, clamped (which moves no unit further) and counted from zero."""
        del seed, coins
        offset = self._offset(spec)
        return np.clip(vectors.total(), -offset, offset) + offset

    def release(
        self, total: NDArray[np.int64], spec: RoundSpec, coins: SecureRNG
    ) -> NDArray[np.int64]:
        """Add the noise, the only protection here."""
        del spec
        return total + rounded_normal(self.noise_multiplier * GRID_STEPS, len(total), coins)

    def decode(
        self, total: NDArray[np.int64], sites: int, spec: RoundSpec, seed: bytes
    ) -> NDArray[np.float64]:
        """Return the released sum in units of the vectors."""
        del seed
        return spec.grid.to_float(total - sites * self._offset(spec))

    def variance(self, sites: int, spec: RoundSpec) -> float:
        """Return (z C)^2, however many sites there are."""
        del sites
        return (self.noise_multiplier * spec.clip_norm) ** 2

    def cost(self, view: View, spec: RoundSpec) -> RoundCost:
        """Mu = 1/z for anyone who sees only the release, none in another view (Theorem 6)."""
        mu = (1 + 2.0**-50) / self.noise_multiplier if view == "release" else math.inf
        return RoundCost(mu, spec.sampling_rate, 1)
