"""The words and tables of reports and pages, made from a `RunSummary`."""

from __future__ import annotations

import hashlib
import math
import platform
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import yaml

from deploy.pages.run_summary import Evaluation, RunSummary
from deploy.show import epsilon_text
from deploy.table import figure, with_spread
from dppm_model.planner import epsilon_if_colluding
from dppm_model.score.phases import kind_of
from dppm_model.securesum.masks import Sum

Row = tuple[str, ...]

_PEERS = Path(__file__).parent / "peers.yaml"
_NEAR = 1.05  # epsilons are equal when they differ by no more than this factor


@dataclass(frozen=True)
class Card:
    """A large figure: its element's id, its name, the figure, and a note."""

    key: str
    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Peer:
    """Another method's accuracy: whom one must trust with the records, and who measured it."""

    method: str
    trust: str
    measured_by: str
    epsilon: float
    accuracy: float


def report_cards(summary: RunSummary, evaluation: Evaluation | None) -> list[Card]:
    """Return the large figures of a report."""
    privacy, plan = summary.privacy, summary.plan
    cards = [
        Card(
            "epsilon-secure-sum",
            "ε for anyone who sees the sum, the model or the images",
            epsilon_text(privacy["epsilon_secure_sum"]),
            f"δ = {plan.delta:g}, {privacy['honest_sites']} honest sites",
        ),
        Card(
            "epsilon-site",
            "ε for anyone who sees a site's own reports",
            epsilon_text(privacy["epsilon_site"]),
            "holds whatever the server and other sites do",
        ),
        Card("unit", "protects", f"one {plan.unit}", plan.adjacency),
    ]
    if evaluation is not None:
        score = evaluation.scores["accuracy"]
        cards.append(
            Card(
                "accuracy",
                "accuracy of a classifier trained on the images",
                with_spread(score.value, score.std, 3),
                f"{figure(score.real, 3)} if trained on real ones",
            )
        )
    return [
        *cards,
        Card("sites", "sites", str(plan.sites), f"at least {plan.min_survivors} in every sum"),
        Card(
            "minutes",
            "training",
            f"{summary.seconds / 60:.1f} min",
            f"{len(summary.rounds)} of {plan.rounds} rounds",
        ),
    ]


def live_cards(summary: RunSummary, online: int | None) -> list[Card]:
    """Return the large figures of the live page."""
    plan = summary.plan
    last = summary.rounds[-1] if summary.rounds else None
    cards = [
        Card(
            f"epsilon-{view}",
            f"ε spent, for anyone who sees {seen}",
            epsilon_text(spent),
            f"of {epsilon_text(planned)} planned, {epsilon_text(max(0.0, planned - spent))} left; "
            f"δ = {plan.delta:g}",
        )
        for view, seen, spent, planned in zip(
            ("secure-sum", "site"),
            ("the sum", "a site's reports"),
            summary.spent,
            summary.planned[-1][1:],
            strict=True,
        )
    ]
    connected = "not known" if online is None else str(online)
    took = "no sum so far" if last is None else f"{last['sites']} in the last sum"
    return [
        *cards,
        Card(
            "sites",
            f"sites connected, of {plan.sites}",
            str(plan.sites) if summary.simulated else connected,
            f"{took}; at least {plan.min_survivors}; {summary.missing} reports missing so far",
        ),
        Card(
            "seconds",
            "last round",
            "–" if last is None else f"{last['seconds']:.1f} s",
            f"{summary.seconds / 60:.1f} min in all",
        ),
    ]


def status_text(summary: RunSummary) -> str:
    """Say in a sentence or two where the run stands."""
    done, total = len(summary.rounds), summary.plan.rounds
    return {
        "not begun": "Not begun.",
        "running": f"Round {min(done + 1, total)} of {total} ({summary.phase}): {summary.stage}.",
        "stopped": f"Stopped after round {done} of {total}: no process trains this run now. Run "
        "the same command again to continue; nothing is spent twice.",
        "failed": f"Stopped by an error after round {done} of {total}.",
        "finished": f"Finished: {done} rounds in {summary.seconds / 60:.1f} minutes.",
    }[summary.state]


def training(summary: RunSummary) -> list[Row]:
    """Say what was trained, on what, and from what."""
    config, plan = summary.config, summary.plan
    shape = " × ".join(map(str, config.shape[1:]))
    public = ", ".join(summary.privacy["public_data"])
    return [
        ("data", f"{config.data}, {config.records} {plan.unit}s (a public number)"),
        ("images", f"{shape} pixels, {('grey', 'RGB')[config.shape[0] == 3]}"),
        ("classes", ", ".join(config.class_names)),
        ("model", " → ".join(p.name for p in plan.phases)),
        ("public data", public or "none: training started from public constants"),
        ("mechanism", f"{plan.phases[0].mechanism.title}, secure sum"),
        ("run", plan.run),
    ]


def sights(summary: RunSummary) -> list[Row]:
    """Say who could see what of this run, and what is promised: (who, what, promise)."""
    plan, privacy = summary.plan, summary.privacy
    whole, alone = (epsilon_text(privacy[f"epsilon_{view}"]) for view in ("secure_sum", "site"))
    network = (
        "Nothing: all sites were virtual, on one machine."
        if summary.simulated
        else "When each site sends, and how much; the content is under TLS."
    )
    return [
        ("A reader of the images or of the model", "Functions of the sums.", f"ε = {whole}"),
        (
            "The server",
            f"Masked reports, and one sum per round over at least {plan.min_survivors} of "
            f"{plan.sites} sites.",
            f"ε = {whole}",
        ),
        *(
            (
                f"The server and {more} more {'site' if more == 1 else 'sites'} together",
                "The same sums, minus their own part.",
                f"ε = {epsilon_text(epsilon)}",
            )
            for more, epsilon in epsilon_if_colluding(plan)
        ),
        (
            "Anyone who could remove all masks of a site",
            "That site's randomized answers.",
            f"ε = {alone}",
        ),
        ("The network", network, "–"),
        ("A site", "Its own records, and the model of each round.", f"ε = {whole} for the others'"),
        (
            "This page",
            "The run's folder: no record, nothing of a single site except whether it took part, "
            "and, where it says so, figures measured on real data.",
            f"ε = {whole}, except for those figures",
        ),
    ]


def phases(summary: RunSummary) -> Iterator[Row]:
    """Describe each phase: name, question, T, q, D, kB up, noise of a coordinate, mu in both views.

    The noise is that of the mean over all units, in units of the clip norm.
    """
    for p in summary.plan.phases:
        yield (
            p.name,
            kind_of(p.name).text,
            str(p.rounds),
            f"{p.sampling_rate:.3g}",
            f"{p.dimension}",
            f"{Sum(0, p.bits, p.report_length).ring.packed_bytes / 1000:.0f}",
            f"{p.noise_std(p.sites) / p.clip_norm:.2g}",
            f"{p.cost('secure_sum', 1).mu:.3f}",
            f"{p.cost('site', 1).mu:.3f}",
        )


def federation(summary: RunSummary) -> list[Row]:
    """Sum up sites, drop-outs, bytes and minutes."""
    plan, rounds = summary.plan, len(summary.rounds)
    kind = "virtual, on one machine" if summary.simulated else "each on its own machine"
    return [
        ("sites", f"{plan.sites}, {kind}; at least {plan.min_survivors} in every sum"),
        ("missing reports", f"{summary.missing} of {plan.sites * rounds}"),
        *(
            (f"bytes {way}", f"{n / 1e6:.1f} MB, {n / plan.sites / 1e6:.2f} MB per site")
            for way, n in zip(("up", "down"), summary.traffic, strict=True)
        ),
        ("minutes", f"{summary.seconds / 60:.1f}, in {rounds} rounds"),
        ("starts of the server", str(len(summary.sessions) or "not known")),
    ]


def images_text(summary: RunSummary) -> str:
    """Say how many images there are, and how they were drawn."""
    if summary.images is None:
        return ""
    settings = summary.images["settings"]
    return (
        f"{summary.images['per_class']} of each of {summary.images['classes']} classes, drawn by "
        f"{settings['method']}, seed {summary.images['seed']}. Below are the first of each class, "
        "not selected in any way. They cost no further privacy, however many are drawn."
    )


def evaluation_text(evaluation: Evaluation) -> str:
    """Say how the figures were measured."""
    raw = evaluation.raw
    seeds, nearest = ", ".join(map(str, raw["seeds"])), raw["nearest"]
    return (
        f"Measured with the {raw['recipe']} recipe, classifier seeds {seeds}, on "
        f"{raw['test_images']} real test images. Distances and coverage are in features of a "
        f"classifier of real images. {nearest['exact_copies']} exact copies of training records "
        f"among {nearest['images']} images."
    )


def peers_of(data: str, epsilon: float) -> list[Peer]:
    """Return other methods on a data set at an epsilon within 5 %, the best first."""
    table = yaml.safe_load(_PEERS.read_text())
    found = [
        Peer(entry["method"], entry["trust"], by, float(at), accuracy)
        for group, by in (("published", "DPImageBench"), ("ours", "this project"))
        for entry in table[group]
        for at, accuracy in entry.get(data, {}).items()
        if abs(math.log(at / epsilon)) <= math.log(_NEAR)
    ]
    return sorted(found, key=lambda p: -p.accuracy)


def attacks(summary: RunSummary) -> list[Row]:
    """Return what each attack of `dppm audit` showed."""
    games = [] if summary.audit is None else summary.audit["games"]
    return [
        (
            game["game"],
            game["view"].replace("_", " "),
            figure(game["epsilon"], 2),
            figure(game["claim"], 2),
        )
        for game in games
    ]


def commands(summary: RunSummary) -> list[str]:
    """Return the commands that make such a run again (answers are random, so never the same)."""
    name = summary.run.folder.name
    changed = shlex.join(summary.run.read_json(summary.run.overrides)["overrides"])
    if summary.simulated:
        lines = [f"dppm simulate runs/{name} {changed}".rstrip()]
    else:
        lines = [
            f"dppm server announce FED {name} {changed}".rstrip(),
            f"dppm server run FED {name}",
        ]
    lines.append(f"dppm sample runs/{name}")
    if summary.evaluation is not None:
        raw = summary.evaluation.raw
        seeds = ",".join(map(str, raw["seeds"]))
        lines.append(
            f"dppm evaluate runs/{name}"
            + ("" if raw["recipe"] == "quick" else f" evaluation={raw['recipe']}")
            + ("" if seeds == "0" else f" evaluation.seeds=[{seeds}]")
        )
    if summary.audit is not None:
        lines.append(f"dppm audit runs/{name}")
    return [*lines, f"dppm report runs/{name}"]


def digests(summary: RunSummary) -> list[Row]:
    """Return the SHA-256 of the files that identify a run."""
    run = summary.run
    files = {"model": run.model, "ledger": run.ledger, "configuration": run.config}
    return [
        ("plan", summary.plan.digest),
        *(
            (name, hashlib.sha256(path.read_bytes()).hexdigest())
            for name, path in files.items()
            if path.is_file()
        ),
    ]


def versions(summary: RunSummary) -> list[Row]:
    """Return what ran the rounds, and what wrote this page: (what, versions)."""
    own = {"python": platform.python_version()} | {
        name: version(name) for name in ("dppm", "torch", "numpy", "flwr", "ray")
    }
    return [
        *(
            (
                f"rounds, begun {session['begun']}",
                ", ".join(f"{k} {v}" for k, v in session.items() if k != "begun"),
            )
            for session in summary.sessions
        ),
        ("this page", ", ".join(f"{k} {v}" for k, v in own.items())),
    ]
