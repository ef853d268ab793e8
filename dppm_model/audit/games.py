"""Games against the mechanism, through the code that really answers.

- `canary_vectors`: one run of the whole plan, with thousands of worst-case vectors in or out.
- `canary_images`: the same with images, through the phases' own questions.
- `two_worlds`: one round many times over, with and without one unit.

A canary is a unit of the plan: a record, or a person.

``randomized=False`` shows the exact sum in place of what is made of random answers: an auditor that
does not find a large epsilon then is no auditor.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from dppm_model.audit.bounds import Guesses, guessed_epsilon, told_apart
from dppm_model.mechanism.base import View
from dppm_model.mechanism.secure_rng import SecureRNG
from dppm_model.mechanism.units import clipped_units
from dppm_model.phase import PhasePlan
from dppm_model.plan import Plan
from dppm_model.planning.base import observe
from dppm_model.planning.registry import audit_of
from dppm_model.score.model import ScoreModel
from dppm_model.score.phases import build_query

_ALMOST_NO_NOISE = 1e-2  # rounding is left, and clamped coordinates


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

    In each round a canary that is in, and sampled, takes one place (`Audit.places`);
    several share one where there are fewer.

    Epsilon is bounded at ``delta``; the least p-value is some tens of canaries times delta.
    ``seed`` makes the auditor's choices of who is in and where; the answers are drawn from
    ``coins``.
    """
    rng = np.random.default_rng(seed)
    canaries = int(min(canaries, *(p.mechanism.most_units for p in plan.phases)))
    included = rng.random(canaries) < 0.5
    scores = np.zeros(canaries)
    for index, phase in enumerate(plan.phases):
        mechanism, game = phase.mechanism, audit_of(phase.mechanism)
        places = game.places(mechanism, phase)
        place = rng.permutation(canaries) % places
        sign = rng.choice([-1, 1], canaries) if mechanism.adds_up else np.ones(canaries, np.int64)
        crowd = (np.bincount(place, minlength=places)[place] - 1) / 4
        variance = game.variance(mechanism, phase, view) * randomized + crowd + 1e-3
        for round_ in range(phase.rounds):
            answering = included & coins.bernoulli(phase.sampling_numerator, canaries)
            where, moves = place[answering], sign[answering]
            if randomized:
                signs = plan.signs_seed(index, round_)
                seen = game.canaries(mechanism, where, moves, phase, view, signs, coins)
            else:
                seen = np.bincount(where, moves, minlength=places).astype(np.float64)
            scores += phase.sampling_rate / variance * seen[place] * sign
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
    (q^2 V V'/s^2 + 4)^-1 q V (sum - expected)/s^2, over all rounds. For mechanisms whose answers
    add up only.
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
        noise = math.sqrt(phase.mechanism.variance(phase.reports_in(view), phase))
        noise *= 1.0 if randomized else _ALMOST_NO_NOISE
        for round_ in range(phase.rounds):
            seeds = torch.from_numpy(coins.seeds(len(y)))
            answers = query.rows(query.view(pixels, seeds), y, seeds)
            clipped = clipped_units(answers, [each] * canaries, phase.grid)
            rows = np.concatenate([vector.to(torch.int64).numpy() for vector in clipped])
            answering = included & coins.bernoulli(phase.sampling_numerator, canaries)
            total = rows[answering].sum(axis=0)
            vectors = phase.grid.to_float(rows)
            seen = phase.grid.to_float(total)
            if randomized:
                signs = plan.signs_seed(index, round_)
                seen = observe(phase.mechanism, total, phase, view, signs, coins)
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

    See `Audit.one_round`.
    """
    game = audit_of(phase.mechanism)
    worlds = game.one_round(phase.mechanism, trials, phase, view, coins, randomized=randomized)
    return told_apart(*worlds, delta)
