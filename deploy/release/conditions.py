"""The conditions of a release: each a figure of the run beside a limit of the policy."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from scipy.stats import beta

from deploy.ledger import open_ledger, summary
from deploy.release.policy import Policy
from deploy.sampling import subject
from deploy.show import epsilon_text
from dppm_model.config import Config, read_config
from dppm_model.errors import RunFolderError
from dppm_model.folders import there
from dppm_model.plan import Plan
from dppm_model.planner import epsilons
from dppm_model.reading import reason
from dppm_model.run import Run

_CONFIDENCE = 0.95  # that a share, or an area, is not above the upper end that is shown
_NORMAL = 1.645  # standard errors to that end


@dataclass(frozen=True)
class Condition:
    """A figure beside its limit.

    Attributes
    ----------
    name
        The key of the policy.
    title
        What the figure is.
    measured
        The figure in words, or that there is none.
    limit
        The limit in words.
    cure
        What to do if it is not met.
    """

    name: str
    title: str
    measured: str
    limit: str
    met: bool
    cure: str


@dataclass(frozen=True)
class Figures:
    """What is known of a run: the plan, the ε spent by its ledger, evaluation and audit.

    ``evaluation`` and ``audit`` are None where nothing was measured, or other images or another
    model were; ``missing`` says why, by the command that measures.
    """

    run: Run
    plan: Plan
    config: Config
    epsilon: float
    evaluation: Mapping[str, Any] | None
    audit: Mapping[str, Any] | None
    missing: Mapping[str, str]

    @classmethod
    def of(cls, run: Run) -> Figures:
        """Read a trained and sampled run.

        Raises LedgerError if its ledger is missing or was edited, and RunFolderError if its promise
        is not that of its plan, or its ledger holds rounds of another.
        """
        plan = run.plan()
        view = plan.views[0]
        planned = epsilons(plan)[view]
        promised = run.read_json(run.privacy)[f"epsilon_{view}"]
        if not _equal(planned, promised):
            raise RunFolderError(
                f"{run.privacy} promises ε = {epsilon_text(promised)}, the plan "
                f"{epsilon_text(planned)}.",
                "Restore it from a backup: it was edited.",
            )
        ledger = open_ledger(run.folder)
        if any(debit.plan != plan.digest for debit in ledger.debits):
            raise RunFolderError(f"{run.ledger} is of another plan.", "Restore it from a backup.")
        spent = summary(ledger, plan.delta)[f"epsilon_{view}"]
        now = subject(run)
        found: dict[str, dict[str, Any] | None] = {}
        missing: dict[str, str] = {}
        for command, path in (("evaluate", run.evaluation), ("audit", run.audit)):
            found[command] = measured = run.read_json(path) if there(path) else None
            if measured is None:
                missing[command] = "not measured"
            elif measured.get("of") != now:
                found[command] = None
                missing[command] = "measured on other images, or on another model"
        epsilon = max(planned, math.inf if spent is None else spent)
        config = read_config(run.config)
        return cls(run, plan, config, epsilon, found["evaluate"], found["audit"], missing)


def _equal(planned: float, promised: float | None) -> bool:
    if promised is None:
        return math.isinf(planned)
    return math.isclose(planned, promised, rel_tol=1e-6)


def conditions(policy: Policy, figures: Figures) -> list[Condition]:
    """Return all conditions.

    Raises RunFolderError if evaluation or audit is damaged.
    """
    try:
        return [
            *_promise(policy, figures),
            *_of_records(policy, figures),
            *_of_images(policy, figures),
            *_of_attacks(policy, figures),
        ]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise RunFolderError(
            f"evaluation.json or audit.json of {figures.run.folder} is damaged: {reason(error)}.",
            "Evaluate and audit the run again with this version.",
        ) from None


def _promise(policy: Policy, figures: Figures) -> list[Condition]:
    plan = figures.plan
    return [
        Condition(
            "max_epsilon",
            "ε for anyone who has the images",
            epsilon_text(figures.epsilon),
            f"at most {policy.max_epsilon:g}",
            figures.epsilon <= policy.max_epsilon,
            f"Train another run with privacy.epsilon={policy.max_epsilon:g} or less.",
        ),
        Condition(
            "max_delta",
            "δ of this ε",
            f"{plan.delta:g}",
            f"at most {policy.max_delta:g}",
            plan.delta <= policy.max_delta,
            f"Train another run with privacy.delta={policy.max_delta:g} or less.",
        ),
        Condition(
            "units",
            "what ε protects",
            f"a {plan.unit}",
            " or ".join(f"a {unit}" for unit in policy.units),
            plan.unit in policy.units,
            "Import the data with persons (--person COLUMN) and train another run; or, if nobody "
            "has two records, add `record` to `units` in the policy.",
        ),
        Condition(
            "views",
            "the view that ε holds in",
            f"{plan.views[0]}: the server is {'' if plan.trusts_server else 'not '}trusted",
            " or ".join(policy.views),
            plan.views[0] in policy.views,
            f"Train another run with privacy.view={policy.views[0] if policy.views else '…'}.",
        ),
    ]


class _Found(NamedTuple):
    """A measured figure in words, whether it meets its limit, and what to do if not."""

    measured: str
    met: bool
    cure: str


def _of_records(policy: Policy, figures: Figures) -> Iterator[Condition]:
    unit, found = figures.plan.unit, figures.evaluation
    size = repeated = None
    if found is not None:
        sizes: list[int] = found["cohort"][f"{unit}s_per_class"]
        smallest = min(range(len(sizes)), key=sizes.__getitem__)
        name = figures.config.class_names[smallest]
        size = _Found(
            f"{sizes[smallest]} ({name})",
            sizes[smallest] >= policy.min_class_size,
            f"Join {name} with another class, leave it out or gather more, and train another run.",
        )
        share = found["copies"]["among_records"] / found["copies"]["records"]
        repeated = _Found(
            f"{100 * share:.2f} %",
            share <= policy.max_repeated_records,
            "Import the data with --drop-duplicates and train another run: ε protects each copy "
            "singly.",
        )
    least = f"at least {policy.min_class_size}"
    title = f"{unit}s of the smallest class"
    yield _condition("min_class_size", title, least, size, figures, "evaluate")
    most = f"at most {100 * policy.max_repeated_records:g} %"
    title = "training records that repeat another"
    yield _condition("max_repeated_records", title, most, repeated, figures, "evaluate")


def _of_images(policy: Policy, figures: Figures) -> Iterator[Condition]:
    found = figures.evaluation
    for name, title, key, most, cure in (
        (
            "max_copies_of_records",
            "images that equal a training record",
            "of_records",
            policy.max_copies_of_records,
            "Release none of these images, and train another run at a smaller ε.",
        ),
        (
            "max_repeated_images",
            "images that equal another image",
            "among_images",
            policy.max_repeated_images,
            "Look at `dppm diagnose`: the sampler returns to the same images.",
        ),
    ):
        count = None
        if found is not None:
            copies = found["copies"]
            count = _Found(f"{copies[key]} of {copies['images']}", copies[key] <= most, cure)
        yield _condition(name, title, f"at most {most}", count, figures, "evaluate")
    nearer = None
    if found is not None:
        nearest = found["nearest"]
        nearer = _share(
            round(nearest["closer_than_test"] * nearest["images"]),
            nearest["images"],
            policy.max_nearer_than_real,
            "Draw more images (up to 1000 are compared) and evaluate again; if it stays, train "
            "another run at a smaller ε.",
        )
    title = "images nearer to a record than all but 1 % of real test images are"
    limit = f"at most {100 * policy.max_nearer_than_real:g} %"
    yield _condition("max_nearer_than_real", title, limit, nearer, figures, "evaluate")


def _of_attacks(policy: Policy, figures: Figures) -> Iterator[Condition]:
    found, command = figures.audit, _command("audit", figures)
    size = strongest = area = caught = None
    if found is not None:
        games, members = found["games"], found["membership"]
        fewest = min(game["canaries"] for game in games)
        size = _Found(
            str(fewest),
            fewest >= policy.min_audit_canaries,
            f"Run `{command}`, with more canaries and images.",
        )
        worst = max(games, key=lambda game: float(game["epsilon"] / game["claim"]))
        share = worst["epsilon"] / worst["claim"]
        strongest = _Found(
            f"{share:.2f} ({worst['epsilon']:.2f} of {worst['claim']:.2f}: {worst['game']})",
            share <= policy.max_audit_share,
            "Audit again; if it stays above 1, claim or code is wrong: release nothing.",
        )
        attacks, records = members["attacks"].values(), members["records"]
        more = (
            f"`{command} --members {max(2000, 2 * records)}` attacks more records, if there are "
            "more; if it stays, train another run at a smaller ε."
        )
        middle, upper = max(
            ((a["area"], a["area"] + _NORMAL * a["standard_error"]) for a in attacks),
            key=lambda pair: float(pair[1]),
        )
        area = _Found(
            f"{middle:.3f}, at 95 % up to {upper:.3f}", upper <= policy.max_membership_area, more
        )
        rate = max(a["true_positives_at_1_percent"] for a in attacks)
        caught = _share(round(rate * records), records, policy.max_membership_found, more)
    title = "canaries, or trials, of the smallest attack on the mechanism"
    limit = f"at least {policy.min_audit_canaries}"
    yield _condition("min_audit_canaries", title, limit, size, figures, "audit")
    title = "ε that the strongest attack demonstrated, as a share of the ε claimed"
    limit = f"at most {policy.max_audit_share:g}"
    yield _condition("max_audit_share", title, limit, strongest, figures, "audit")
    title = "guessing who was in the data: area under the curve (0.5 is chance)"
    limit = f"at most {policy.max_membership_area:g}"
    yield _condition("max_membership_area", title, limit, area, figures, "audit")
    title = "training records found at 1 % false alarms"
    limit = f"at most {100 * policy.max_membership_found:g} %"
    yield _condition("max_membership_found", title, limit, caught, figures, "audit")


def _share(count: int, of: int, most: float, cure: str) -> _Found:
    """Compare the upper end of the interval of a share (Clopper and Pearson) with its limit."""
    upper = 1.0 if count >= of else float(beta.ppf(_CONFIDENCE, count + 1, of - count))
    shown = f"{100 * count / of:.1f} % of {of}, at 95 % up to {100 * upper:.1f} %"
    return _Found(shown, upper <= most, cure)


def _condition(
    name: str, title: str, limit: str, found: _Found | None, figures: Figures, command: str
) -> Condition:
    if found is None:
        cure = f"Run `{_command(command, figures)}`."
        return Condition(name, title, figures.missing[command], limit, met=False, cure=cure)
    return Condition(name, title, found.measured, limit, found.met, found.cure)


def _command(name: str, figures: Figures) -> str:
    return f"dppm {name} {shlex.quote(str(figures.run.folder))}"
