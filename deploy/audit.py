"""`dppm audit RUN`: attacks on a run's releases, beside the claimed ε."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from deploy.sampling import subject, trained
from deploy.show import console, empty_table, print_json, progress
from dppm_model.audit.bounds import CONFIDENCE, Guesses
from dppm_model.audit.games import canary_images, canary_vectors, two_worlds
from dppm_model.config import read_config
from dppm_model.errors import ClaimRefuted
from dppm_model.files import write_json
from dppm_model.mechanism.base import View
from dppm_model.mechanism.secure_rng import SecureRNG
from dppm_model.plan import Plan
from dppm_model.privacy.accountant import RoundCost, epsilon
from dppm_model.records import sources
from dppm_model.run import Run
from dppm_model.score.model import ScoreModel
from sampler.evaluation.membership import membership
from sampler.images import load_images

Game = tuple[str, View, float, Callable[[], Guesses]]  # name, view, claim, play


def audit_run(
    run: Path, *, without_randomization: bool, as_json: bool, members: int, **sizes: int
) -> None:
    """`dppm audit RUN`: attack it and print the table; raises as `refuse_refuted`."""
    found = attack(trained(run, "audit"), members, randomized=not without_randomization, **sizes)
    if as_json:
        print_json(found)
    else:
        _show(found)
    refuse_refuted(found)


def attack(run: Run, members: int, *, randomized: bool = True, **sizes: int) -> dict[str, Any]:
    """Play all games; write ``audit.json`` if answers were random.

    Attacks on the model and its images guess ``members`` records; ``sizes`` are the ``canaries``,
    ``images`` and ``trials`` of the games.
    """
    plan = run.plan()
    found: dict[str, Any] = {"confidence": CONFIDENCE, "delta": plan.delta}
    found["randomized"] = randomized
    with run.alone():
        games = list(_games(plan, ScoreModel.load(run.model), randomized, **sizes))
        found["games"] = []
        with progress("auditing") as bar:
            for done, (name, view, claim, play) in enumerate(games):
                bar(name, done / len(games))
                game = {"game": name, "view": view, **asdict(play()), "claim": claim}
                found["games"].append(game)
        if randomized:
            found["membership"] = _membership(run, members)
            found["of"] = subject(run)
            write_json(run.audit, found)
    return found


def refuse_refuted(found: Mapping[str, Any]) -> None:
    """Raise `ClaimRefuted` if a game with random answers demonstrated more than was claimed."""
    refuted = [g for g in found["games"] if g["epsilon"] > g["claim"]]
    if refuted and found["randomized"]:
        worst = max(refuted, key=lambda g: float(g["epsilon"]) / float(g["claim"]))
        raise ClaimRefuted(
            f"{worst['game']} ({worst['view']}) shows epsilon of at least {worst['epsilon']:.2f}, "
            f"but {worst['claim']:.2f} was claimed.",
            "The bound has 95 % confidence: audit again, and report the issue if it repeats.",
        )


def _games(
    plan: Plan, model: ScoreModel, randomized: bool, *, canaries: int, images: int, trials: int
) -> Iterator[Game]:
    coins, delta = SecureRNG(), plan.delta
    for view in plan.views:
        whole = epsilon(plan.costs(view), delta)
        play = partial(canary_vectors, plan, view, canaries, delta, coins, randomized=randomized)
        yield f"whole run, {canaries} canary vectors", view, whole, play
        if all(p.mechanism.adds_up for p in plan.phases):
            play = partial(
                canary_images, plan, model, view, images, delta, coins, randomized=randomized
            )
            yield f"whole run, {images} canary images", view, whole, play
        phase = max(plan.phases, key=lambda p: p.cost(view, 1).mu)
        cost = phase.cost(view, 1)
        one = epsilon([RoundCost(cost.mu, 1.0, 1, cost.total_variation)], delta)
        play = partial(two_worlds, phase, view, trials, delta, coins, randomized=randomized)
        yield f"one round of {phase.name}, {plan.unit} in or out", view, one, play


def _membership(run: Run, members: int) -> dict[str, Any]:
    """Attack the model and its images with training records and with others."""
    config = read_config(run.config)
    if not run.samples.exists():
        console.print(
            f"{run.folder} has no images yet: skipping the attacks on them.", markup=False
        )
        return {}
    train, test = (
        sources.load(config.data, split, digest=config.facts.digest_of(split))
        for split in sources.SPLITS
    )
    n = min(members, len(train.images), len(test.images))
    rng = np.random.default_rng(0)
    some, others = (np.sort(rng.permutation(len(r.images))[:n]) for r in (train, test))
    with progress("guessing members"):
        return membership(
            ScoreModel.load(run.model),
            load_images(run.samples)[0],
            (train.images[some], train.labels[some]),
            (test.images[others], test.labels[others]),
        )


def _show(found: dict[str, Any]) -> None:
    title = "Lower bounds on ε"
    if not found["randomized"]:
        title += " WITHOUT randomization (as for a mechanism without privacy)"
    numbers = ["guesses", "right", "ε at least", "claimed"]
    table = empty_table(title, ["game", "view"], numbers)
    for g in found["games"]:
        bold = "[bold red]" if g["epsilon"] > g["claim"] else ""
        table.add_row(
            g["game"],
            g["view"],
            str(g["made"]),
            f"{100 * g['right'] / g['made']:.1f}%" if g["made"] else "–",
            f"{bold}{g['epsilon']:.2f}",
            f"{g['claim']:.2f}",
        )
    console.print(table)
    console.print(f"at {found['confidence']:.0%} confidence each; δ = {found['delta']:g}")
    attacks = found.get("membership", {}).get("attacks", {})
    if not attacks:
        return
    title = f"Membership of {found['membership']['records']} training records and as many others"
    numbers = ["area (½ is chance)", "error", "found at 1 % false alarms"]
    table = empty_table(title, ["attack"], numbers)
    for name, a in attacks.items():
        table.add_row(
            name,
            f"{a['area']:.4f}",
            f"{a['standard_error']:.4f}",
            f"{100 * a['true_positives_at_1_percent']:.1f}%",
        )
    console.print(table)
