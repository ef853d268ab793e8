"""Games against the mechanism, through the code that really answers.

- `canary_vectors`: one run of the whole plan, with thousands of worst-case vectors in or out.
- `canary_images`: the same with images, through the phases' own questions.
- `two_worlds`: one round many times over, with and without one unit.

A canary is a unit of the plan: a record, or a person.

``randomized=False`` puts expected answers in the place of random ones: an auditor that does not
find a large epsilon then is no auditor.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from dppm_model.audit.bounds import Guesses, guessed_epsilon, told_apart
from dppm_model.mechanism.binomial import PROBABILITY_BITS, BinomialResponse
from dppm_model.mechanism.directions import DirectionsResponse
from dppm_model.mechanism.secure_rng import SecureRNG
from dppm_model.mechanism.units import clipped_units
from dppm_model.phase import GRID_STEPS, PhasePlan, View
from dppm_model.plan import Plan
from dppm_model.score.model import ScoreModel
from dppm_model.score.phases import build_query

_COORDINATES = 8  # that the one unit of `two_worlds` moves, all alike
_NAMES = 2_000_000  # random names drawn at once
_ALMOST_NO_NOISE = 1e-2  # rounding is left, and clamped coordinates


def sites_seen(phase: PhasePlan, view: View) -> int:
    """How many reports are in what the auditor sees."""
    return 1 if view == "site" else phase.honest_sites


def released(
    phase: PhasePlan,
    view: View,
    total: NDArray[np.int64],
    seed: bytes,
    coins: SecureRNG,
    *,
    randomized: bool,
) -> NDArray[np.float64]:
    """What the auditor makes of one round: the decoded sum, (dimension,).

    ``total`` is the clipped sum at the site in question; the other sites' units are known to the
    auditor, so theirs are zero here.
    """
    response = phase.response
    assert isinstance(response, BinomialResponse)
    z = phase.rotation.rotate(total, seed)
    sites = sites_seen(phase, view)
    if randomized:
        tallies = response.encode(z, phase.step, coins)
        for _ in range(sites - 1):
            tallies = tallies + response.encode(np.zeros_like(z), phase.step, coins)
        decoded = response.decode(tallies, sites)
    else:
        yes = response.numerators(z, phase.step) / 2.0**PROBABILITY_BITS
        decoded = response.decode(yes * response.responses, 1)
    return phase.rotation.unrotate(decoded, seed)


def named(
    phase: PhasePlan, view: View, names: NDArray[np.int64], coins: SecureRNG, *, randomized: bool
) -> NDArray[np.float64]:
    """What the auditor sees of one round of directions: how often each was named, (K,)."""
    response = phase.response
    assert isinstance(response, DirectionsResponse)
    if not randomized:
        return np.bincount(names, minlength=response.directions).astype(np.float64)
    total = response.encode(names, np.ones(len(names)), coins)
    nobody = np.zeros(0, dtype=np.int64)
    for _ in range(sites_seen(phase, view) - 1):
        total = total + response.encode(nobody, np.zeros(0), coins)
    return total.astype(np.float64)


def canary_vectors(
    plan: Plan,
    view: View,
    canaries: int,
    delta: float,
    coins: SecureRNG,
    *,
    randomized: bool = True,
    seed: int = 0,
) -> Guesses:
    """Play the one-run game through every round of a plan, with vectors of norm C.

    In each round a canary that is in, and sampled, moves one coordinate by C (several share one
    where there are fewer coordinates), or names one direction.

    Parameters
    ----------
    delta
        At which epsilon is bounded; some tens of canaries times delta are the least p-value.
    seed
        Of the auditor's choices: who is in, and where. The answers are drawn from ``coins``.
    """
    rng = np.random.default_rng(seed)
    slots = [p.response.slots for p in plan.phases if isinstance(p.response, DirectionsResponse)]
    canaries = min([canaries, *slots])
    included = rng.random(canaries) < 0.5
    scores = np.zeros(canaries)
    for index, phase in enumerate(plan.phases):
        directions = isinstance(phase.response, DirectionsResponse)
        cells = phase.cells if directions else phase.dimension
        place = rng.permutation(canaries) % cells
        sign = np.ones(canaries, np.int64) if directions else rng.choice([-1, 1], canaries)
        crowd = (np.bincount(place, minlength=cells)[place] - 1) / 4
        for round_ in range(phase.rounds):
            answering = included & coins.bernoulli(phase.sampling_numerator, canaries)
            if directions:
                seen = named(phase, view, place[answering], coins, randomized=randomized)
                scores += seen[place]
                continue
            total = np.zeros(cells, dtype=np.int64)
            np.add.at(total, place[answering], sign[answering] * GRID_STEPS)
            seen = released(
                phase, view, total, plan.signs_seed(index, round_), coins, randomized=randomized
            )
            noise = (phase.noise_std(sites_seen(phase, view)) * phase.divisor) ** 2
            variance = noise * randomized + phase.clip_norm**2 * (crowd + 1e-3)
            scores += phase.clip_norm * phase.sampling_rate / variance * seen[place] * sign
    return guessed_epsilon(included, scores, delta)


def canary_images(
    plan: Plan,
    model: ScoreModel,
    view: View,
    canaries: int,
    delta: float,
    coins: SecureRNG,
    *,
    randomized: bool = True,
    seed: int = 0,
) -> Guesses:
    """Play the one-run game with images of random pixels, each in or out of one site's shard.

    Noise is as far from real records, and from one another, as images can be. Where persons are
    protected, a canary is a person with two copies of an image: their mean is the image's own
    vector, their sum would be twice that. The questions are those of the plan's phases, asked with
    the final (public) model. The auditor knows every canary's clipped vector and takes the best
    linear guess of who is in: with the vectors V (n, d), noise variance s^2 and prior variance 1/4,
    (q^2 V V'/s^2 + 4)^-1 q V (sum - expected)/s^2, over all rounds. For phases of yes/no answers
    only.
    """
    rng = np.random.default_rng(seed)
    included = rng.random(canaries) < 0.5
    precision, evidence = 4 * np.eye(canaries), np.zeros(canaries)
    pixels = rng.integers(0, 256, (canaries, *model.image_shape), dtype=np.uint8)
    y = torch.from_numpy(rng.integers(0, model.classes, canaries))
    each = min(2, plan.records_per_person)
    pixels, y = np.repeat(pixels, each, axis=0), y.repeat_interleave(each)
    for index, phase in enumerate(plan.phases):
        query, q = build_query(phase.name, model), phase.sampling_rate
        noise = phase.noise_std(sites_seen(phase, view)) * phase.divisor
        noise *= 1.0 if randomized else _ALMOST_NO_NOISE
        for round_ in range(phase.rounds):
            seeds = torch.from_numpy(coins.seeds(len(y)))
            answers = query.rows(query.view(pixels, seeds), y, seeds)
            clipped = clipped_units(answers, [each] * canaries, phase.grid)
            rows = np.concatenate([vector.to(torch.int64).numpy() for vector in clipped])
            answering = included & coins.bernoulli(phase.sampling_numerator, canaries)
            total = rows[answering].sum(axis=0)
            vectors = phase.grid.to_float(rows)
            signs = plan.signs_seed(index, round_)
            seen = released(phase, view, total, signs, coins, randomized=randomized)
            precision += q**2 * (vectors @ vectors.T) / noise**2
            evidence += q * (vectors @ (seen - q / 2 * vectors.sum(axis=0))) / noise**2
    guesses: NDArray[np.float64] = np.linalg.solve(precision, evidence).astype(np.float64)
    return guessed_epsilon(included, guesses, delta)


def two_worlds(
    phase: PhasePlan,
    view: View,
    trials: int,
    delta: float,
    coins: SecureRNG,
    *,
    randomized: bool = True,
) -> Guesses:
    """Play one unsampled round ``trials`` times in each world: with one unit, and without.

    Its vector has norm C and moves eight coordinates by the same amount, or names one direction.
    A round of directions is played with its sampling, which is part of its mu.
    """
    if isinstance(phase.response, DirectionsResponse):
        trials = max(200, min(trials, _NAMES // phase.response.slots))
        who = np.zeros(1, dtype=np.int64)
        counts = np.zeros((2, trials))
        for t, there in enumerate(coins.bernoulli(phase.sampling_numerator, trials)):
            for world, names in enumerate((who[:0], who[: int(there)])):
                counts[world, t] = named(phase, view, names, coins, randomized=randomized)[0]
        return told_apart(counts[0], counts[1], delta)
    shift = round(GRID_STEPS / math.sqrt(_COORDINATES) * math.sqrt(phase.rotation.block))
    worlds = []
    for z in (0, shift):
        moved = np.full(trials * _COORDINATES, z, dtype=np.int64)
        tallies = np.zeros(trials * _COORDINATES)
        if randomized:
            for site in range(sites_seen(phase, view)):
                own = moved if site == 0 else np.zeros_like(moved)
                tallies += phase.response.encode(own, phase.step, coins)
        else:
            tallies += phase.response.numerators(moved, phase.step)
        worlds.append(tallies.reshape(trials, _COORDINATES).sum(axis=1))
    return told_apart(worlds[0], worlds[1], delta)
