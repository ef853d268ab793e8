"""What a number of records can pay for: the sizes, phases and budget fractions of the closed form.

Everything follows from public facts: units, classes, shape, epsilon, delta. Each statistic that is
asked for comes back with noise of a known size, and photographs have spectra of a known kind, so
that it can be said beforehand how much of a statistic will stand out of its noise:

- a covariance of n coordinates over N units has an edge of noise, the largest eigenvalue that noise
  alone would give it. Over the mean eigenvalue it is about 2.4 n^(3/2)/(mu N). The band d is the
  largest whose edge is `_BAND_EDGE`: a photograph's leading axes lie far above their mean, all of
  noise below. The axes r likewise, over the units of a class, with `_AXES_EDGE`;
- a class mean of N units has noise of norm 1.4 sqrt(n)/(mu N) in n half-whitened coordinates, where
  images of the class have norm 1. It gets what makes mu N = `_MEANS`, within limits; the first
  look, around which it is clipped, and the variances, which only set scales, get less;
- components share the units of a class, and pay where each still has hundreds. Where they begin,
  they get what the class has beyond that: band and axes keep their budgets, and do not shrink.

The constants were set once, on handwritten digits, blood cells and small photographs in colour, and
hold at every epsilon; see docs/results.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dppm_model.errors import PlanError

_BAND_EDGE, _AXES_EDGE = 1.5, 0.5
_COVARIANCE = 2.4  # of 2 sqrt(n) times noise of 1.3² n/sqrt(2) off the diagonal
_FIRST = _MEANS = 300.0  # mu N of a class
_VARIANCES = 20.0  # mu N over the root of twice the coefficients
# Limits of their budget fractions; and those of the rest, beside each other.
_FIRST_LIMITS, _VARIANCES_LIMITS, _MEANS_LIMITS = (0.001, 0.03), (0.001, 0.03), (0.07, 0.4)
_ONE_GAUSSIAN = {"pooled_covariance": 0.25, "covariance": 0.6}
_MANY = {
    "pooled_covariance": 0.1,
    "covariance": 0.25,
    "components": 0.2,
    "component_covariance": 0.4,
}
_MOST_BAND = 800  # its pooled covariance has the square of it, in one message
_MOST_AXES, _LEAST_AXES = 160, 8
_MOST_COMPONENTS, _COMPONENT_AXES = 20, 64
_PER_CLASS = 5000.0  # mu N of a class from which components pay
_PER_COMPONENT = 500.0  # the same of one of them
# Two rounds take half the mu each: the fewer coordinates, the more answers a round needs of each.
_IN_ONE_ROUND = {"pooled_covariance", "covariance", "component_covariance"}
_LEAST_PER_CLASS = 15.0  # mu N of a class below which not even its mean can be seen


@dataclass(frozen=True)
class Recipe:
    """A choice, and why it was made.

    Attributes
    ----------
    settings
        Of ``model.mixture``: band, axes, components, principal_axes.
    phases
        budget_fraction, rounds and sum_alignment of each phase that pays; others are left out.
    reasons
        Sentences for people.
    """

    settings: dict[str, int]
    phases: dict[str, dict[str, float]]
    reasons: tuple[str, ...]


def choose_recipe(
    shape: tuple[int, int, int],
    classes: int,
    units: int,
    mu: float,
    given: Mapping[str, Any],
) -> Recipe:
    """Choose the closed form of base images (C, h, w).

    Parameters
    ----------
    mu
        Of the whole run: the Gaussian mechanism that epsilon and delta allow.
    given
        Settings that are not to be chosen.

    Raises
    ------
    PlanError
        If there are too few units for anything, saying how many would be enough.
    """
    each = mu * units / classes
    if each < _LEAST_PER_CLASS:
        enough = math.ceil(_LEAST_PER_CLASS * classes / mu)
        raise PlanError(
            f"{units} units of {classes} classes are too few for this epsilon: the mean image of a "
            "class would be noise.",
            f"Plan for {enough} units or more, a larger privacy.epsilon or fewer classes.",
        )
    size = math.prod(shape)
    fractions = {
        "means-first": _fraction(_FIRST / each, _FIRST_LIMITS),
        "variances": _fraction(_VARIANCES * math.sqrt(2 * size) / mu / units, _VARIANCES_LIMITS),
        "means": _fraction(_MEANS / each, _MEANS_LIMITS),
    }
    components, shares = _components(each, given.get("components"))
    principal = given.get("principal_axes")
    if principal == 0:
        shares.pop("component_covariance", None)
    rest = (1 - sum(fractions.values())) / sum(shares.values())
    fractions |= {name: rest * share for name, share in shares.items()}
    pooled = math.sqrt(fractions["pooled_covariance"]) * mu * units
    band = int(given.get("band") or min(_MOST_BAND, _across(pooled, _BAND_EDGE)))
    own = math.sqrt(fractions["covariance"]) * each
    axes = int(given.get("axes") or min(_MOST_AXES, max(_LEAST_AXES, _across(own, _AXES_EDGE))))
    band = min(band, size)
    axes = min(axes, band)
    if principal is None:
        principal = min(axes, _COMPONENT_AXES) if components > 1 else 0
    settings = {
        "band": band,
        "axes": axes,
        "components": components,
        "principal_axes": int(principal),
    }
    alignment = _alignments(classes, settings)
    phases = {
        name: {
            "budget_fraction": fraction,
            "rounds": 1 if name in _IN_ONE_ROUND else 2,
            "sum_alignment": alignment[name],
        }
        for name, fraction in fractions.items()
    }
    return Recipe(settings, phases, _reasons(classes, units, size, mu, settings, phases))


def _components(each: float, given: int | None) -> tuple[int, dict[str, float]]:
    """Return the number of components of a class, and shares of the rest of the budget.

    Beyond `_PER_CLASS` the two covariances keep the mu N that they have there, until their shares
    are those of `_MANY`. What is left over buys components, as many as have `_PER_COMPONENT` each.
    """
    one, many = _of_one(_ONE_GAUSSIAN), _of_one(_MANY)
    if given:
        return given, many if given > 1 else one
    kept = min(1.0, (_PER_CLASS / each) ** 2)
    shares = {name: max(share * kept, many[name]) for name, share in one.items()}
    left = 1 - sum(shares.values())
    whole = 1 - sum(many[name] for name in one)
    components = round(each / _PER_COMPONENT * math.sqrt(left / whole)) if kept < 1 else 1
    if components < 2:
        return 1, one
    shares |= {name: many[name] * left / whole for name in many.keys() - one.keys()}
    return min(_MOST_COMPONENTS, components), {name: shares[name] for name in many}


def _of_one(shares: Mapping[str, float]) -> dict[str, float]:
    total = sum(shares.values())
    return {name: share / total for name, share in shares.items()}


def _fraction(mu: float, limits: tuple[float, float]) -> float:
    """Return the budget fraction that gives a phase this share of mu, within limits."""
    return min(max(mu**2, limits[0]), limits[1])


def _across(mu_units: float, edge: float) -> int:
    """Return the coordinates of the covariance whose noise has this edge."""
    return max(1, int((edge * mu_units / _COVARIANCE) ** (2 / 3)))


def _alignments(classes: int, settings: Mapping[str, int]) -> dict[str, float]:
    """Guess |sum of a site's vectors| / (their number · C), on the safe side.

    A site's sum is a vector of class blocks: that of a site with one class is sqrt(classes) longer
    than that of a site with all; the guesses are for sites whose images differ in brightness.
    """
    blocks, axes = math.sqrt(classes), math.sqrt(settings["axes"])
    slots = blocks * math.sqrt(settings["components"])
    return {
        "means-first": 0.05 + 0.75 / blocks,
        "variances": 0.35,
        "means": 0.05 + 0.1 / blocks,
        "pooled_covariance": 0.15,
        "covariance": 0.02 + 0.4 / blocks / math.sqrt(axes),
        "components": 0.02 + 0.3 / slots,
        "component_covariance": 0.02 + 0.3 / slots,
    }


def _reasons(
    classes: int,
    units: int,
    size: int,
    mu: float,
    settings: Mapping[str, int],
    phases: Mapping[str, Mapping[str, float]],
) -> tuple[str, ...]:
    share = {name: phase["budget_fraction"] for name, phase in phases.items()}
    pooled = _edge(settings["band"], math.sqrt(share["pooled_covariance"]) * mu * units)
    own = _edge(settings["axes"], math.sqrt(share["covariance"]) * mu * units / classes)
    found = [
        f"{settings['band']} of {size} coefficients get class means and a covariance: the noise of "
        f"{units:,} units reaches {pooled:.2g} times their mean variance.",
        f"{settings['axes']} axes get a covariance for each class: its noise reaches {own:.2g} "
        f"times their mean variance with {units / classes:,.0f} units a class.",
        f"Class means get {share['means']:.0%} of the budget.",
    ]
    if settings["components"] > 1:
        found.append(f"Each class has {settings['components']} components, as units allow.")
    else:
        found.append("Components would have too few units each: a class is one Gaussian.")
    return tuple(found)


def _edge(coordinates: int, mu_units: float) -> float:
    return float(_COVARIANCE * coordinates**1.5 / mu_units)
