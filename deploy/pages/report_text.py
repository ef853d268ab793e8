"""What a report says in words and tables: who sees what, what was asked, how to make it again."""

from __future__ import annotations

import hashlib
import platform
import shlex
from collections.abc import Iterator
from importlib.metadata import version

from deploy.pages.run_summary import RunSummary
from deploy.show import epsilon_text
from dppm_model.planner import epsilon_if_colluding
from dppm_model.score.phases import kind_of
from dppm_model.securesum.masks import Sum

Row = tuple[str, ...]


def sights(facts: RunSummary) -> list[Row]:
    """Say who could see what of this run, and what is promised for it: (who, what, promise)."""
    plan, privacy = facts.plan, facts.privacy
    whole, alone = (epsilon_text(privacy[f"epsilon_{view}"]) for view in ("secure_sum", "site"))
    network = (
        "Nothing: all sites were virtual ones of one machine."
        if facts.simulated
        else "When each site speaks, and how much; what it says is under TLS."
    )
    return [
        (
            "A reader of the images or of the model",
            "Functions of the sums.",
            f"ε = {whole}",
        ),
        (
            "The server",
            f"Masked reports, and one sum a round over at least {plan.min_survivors} of "
            f"{plan.sites} sites.",
            f"ε = {whole}",
        ),
        *(
            (
                f"The server and {more} more {'site' if more == 1 else 'sites'} together",
                "The same sums less their own part.",
                f"ε = {epsilon_text(epsilon)}",
            )
            for more, epsilon in epsilon_if_colluding(plan)
        ),
        (
            "Whoever could lift all masks of a site",
            "That site's randomized answers.",
            f"ε = {alone}",
        ),
        ("The network", network, "–"),
        ("A site", "Its own records, and the model of each round.", f"ε = {whole} for the others'"),
        (
            "This page",
            "The run's folder: no record, and nothing of a single site but whether it took part; "
            "and where it says so, figures that were measured against real data.",
            f"ε = {whole}, but for those figures",
        ),
    ]


def phases(facts: RunSummary) -> Iterator[Row]:
    """Describe each phase: name, question, T, q, D, kB up, noise of a coordinate, mu in both views.

    The noise is that of the mean over all units, in units of the clip norm.
    """
    for p in facts.plan.phases:
        yield (
            p.name,
            kind_of(p.name).text,
            str(p.rounds),
            f"{p.sampling_rate:.3g}",
            f"{p.dimension}",
            f"{Sum(0, p.bits, p.cells).ring.packed_bytes / 1000:.0f}",
            f"{p.noise_std(p.sites) / p.clip_norm:.2g}",
            f"{p.cost('secure_sum', 1).mu:.3f}",
            f"{p.cost('site', 1).mu:.3f}",
        )


def federation(facts: RunSummary) -> list[Row]:
    """Sum up sites, drop-outs, bytes and minutes."""
    lines = facts.rounds
    up, down = (sum(line[f"{way}link_bytes"] for line in lines) for way in ("up", "down"))
    kind = "virtual sites of one machine" if facts.simulated else "sites of their own"
    return [
        ("sites", f"{facts.plan.sites}, {kind}; {facts.plan.min_survivors} at least in every sum"),
        ("reports that were missing", f"{facts.missing} of {facts.plan.sites * len(lines)}"),
        ("bytes up", f"{up / 1e6:.1f} MB, {up / facts.plan.sites / 1e6:.2f} MB a site"),
        ("bytes down", f"{down / 1e6:.1f} MB, {down / facts.plan.sites / 1e6:.2f} MB a site"),
        ("minutes", f"{facts.seconds / 60:.1f}, in {len(lines)} rounds"),
        ("times the server was started", str(len(facts.sessions) or "not known")),
    ]


def commands(facts: RunSummary) -> list[str]:
    """Return the commands that make such a run again (answers are random, so never the same)."""
    name = facts.run.folder.name
    changed = shlex.join(facts.run.read_json(facts.run.overrides)["overrides"])
    if facts.simulated:
        lines = [f"dppm simulate runs/{name} {changed}".rstrip()]
    else:
        lines = [
            f"dppm server announce FED {name} {changed}".rstrip(),
            f"dppm server run FED {name}",
        ]
    lines.append(f"dppm sample runs/{name}")
    if facts.evaluation is not None:
        seeds = ",".join(map(str, facts.evaluation["seeds"]))
        recipe = facts.evaluation["recipe"]
        lines.append(
            f"dppm evaluate runs/{name}"
            + ("" if recipe == "quick" else f" evaluation={recipe}")
            + ("" if seeds == "0" else f" evaluation.seeds=[{seeds}]")
        )
    if facts.audit is not None:
        lines.append(f"dppm audit runs/{name}")
    return [*lines, f"dppm report runs/{name}"]


def digests(facts: RunSummary) -> list[Row]:
    """Return the SHA-256 of the files that a run is known by."""
    run = facts.run
    rows: list[Row] = [("plan", facts.plan.digest)]
    for name, path in (("model", run.model), ("ledger", run.ledger), ("configuration", run.config)):
        if path.is_file():
            rows.append((name, hashlib.sha256(path.read_bytes()).hexdigest()))
    return rows


def versions(facts: RunSummary) -> list[Row]:
    """Return what ran the rounds, and what wrote this page: (what, versions)."""
    own = {"python": platform.python_version()} | {
        name: version(name) for name in ("dppm", "torch", "numpy", "flwr", "ray")
    }
    rows: list[Row] = [
        (f"rounds, begun {s['begun']}", ", ".join(f"{k} {v}" for k, v in s.items() if k != "begun"))
        for s in facts.sessions
    ]
    return [*rows, ("this page", ", ".join(f"{k} {v}" for k, v in own.items()))]
