"""A site: its records, its ledger, its limits, and the one thing it ever answers.

The order of `Site.answer` is the privacy of the project: check the plan, check the budget, debit on
disk, only then read data, store the report, release it. Whatever goes wrong in between, a report
that was released has been debited, and the same round is never answered with fresh coins.
"""

from __future__ import annotations

import fcntl
import io
import math
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dppm_model.errors import BudgetExhausted, ConfigError, PlanError
from dppm_model.files import write_bytes
from dppm_model.mechanism.coins import Coins
from dppm_model.plan import Plan, View
from dppm_model.privacy.accountant import RoundCost, epsilon
from dppm_model.privacy.ledger import Ledger, costs_of
from dppm_model.records.shards import Records, open_records
from dppm_model.round import report
from dppm_model.score.model import ScoreModel
from dppm_model.score.phases import build_query


@dataclass(frozen=True)
class Policy:
    """The site's own file ``site.toml``. The server never sees it and cannot raise a limit in it.

    Attributes
    ----------
    records
        Shard folder.
    index
        File with the indices of this site's records (simulation), or empty for all records.
    max_epsilon_secure_sum, max_epsilon_site, delta
        What the site is willing to spend over all runs, in either view. Infinity is written `inf`.
    """

    records: str
    index: str
    max_epsilon_secure_sum: float
    max_epsilon_site: float
    delta: float

    @classmethod
    def read(cls, path: Path) -> Policy:
        """Read the file; a missing limit or an unknown key refuses.

        Raises
        ------
        ConfigError
            If the file is missing or not exactly of these keys.
        """
        try:
            raw = tomllib.loads(path.read_text())
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"{path}: {error}.", "Write a site.toml for this site.") from None
        known = {f.name for f in fields(cls)}
        if wrong := known ^ raw.keys():
            raise ConfigError(
                f"{path}: {', '.join(sorted(wrong))} missing or unknown.",
                f"site.toml has exactly these keys: {', '.join(sorted(known))}.",
            )
        policy = cls(**raw)
        for name in ("max_epsilon_secure_sum", "max_epsilon_site", "delta"):
            value = getattr(policy, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise ConfigError(f"{path}: {name} is {value!r}.", "Give a number above zero.")
        return policy

    def write(self, path: Path) -> None:
        """Write the file that `read` reads."""
        lines = []
        for field in fields(self):
            value = getattr(self, field.name)
            text = f'"{value}"' if isinstance(value, str) else repr(float(value))
            lines.append(f"{field.name} = {text}\n")
        write_bytes(path, "".join(lines).encode())


class Site:
    """One site's folder: ``site.toml``, ``ledger.jsonl`` and the last report.

    Parameters
    ----------
    folder
        The site's own folder.
    coins
        The source of the site's randomness.
    """

    def __init__(self, folder: Path, coins: Coins) -> None:
        self.folder, self.coins = folder, coins
        self.policy = Policy.read(folder / "site.toml")
        self.ledger = Ledger(folder / "ledger.jsonl")

    def records(self) -> Records:
        """Open the site's records, memory-mapped."""
        records = open_records(Path(self.policy.records))
        if self.policy.index:
            records = records.select(np.load(self.folder / self.policy.index))
        return records

    def answer(
        self, plan: Plan, phase: int, round_: int, model: ScoreModel
    ) -> NDArray[np.unsignedinteger]:
        """Answer one round of a plan, or repeat the answer that was given.

        Returns
        -------
        Tallies (D,), in the smallest unsigned type that holds m.

        Raises
        ------
        PlanError
            If the round is not one of the plan's, or the run was begun under another plan.
        BudgetExhausted
            If the round would pass the site's limit. No data have been read then.
        """
        if not (0 <= phase < len(plan.phases) and 0 <= round_ < plan.phases[phase].rounds):
            raise PlanError(
                f"round {round_} of phase {phase} is not in the plan.", "Ask for a planned round."
            )
        with self._alone():
            return self._answer(plan, phase, round_, model)

    def _answer(
        self, plan: Plan, phase: int, round_: int, model: ScoreModel
    ) -> NDArray[np.unsignedinteger]:
        name = plan.phases[phase].name
        stored = self.folder / "reports" / plan.run / f"{name}-{round_:06d}.npy"
        self._check_plan(plan)
        if stored.exists():
            released: NDArray[np.unsignedinteger] = np.load(stored)
            return released
        self._check_budget(plan, phase, round_)
        entry = plan.debit(phase, round_)
        own = [d for d in self.ledger.debits if d.run == plan.run]
        if entry in own[:-1]:
            # Its report was released and given up for a later round's. Only the last debit can be
            # without a report because of a crash before the release.
            raise PlanError(
                f"round {round_} of phase {name} was answered before.",
                "A round is answered once; ask for the next one.",
            )
        self.ledger.debit(entry)
        query = build_query(name, model)
        if query.dimension != plan.phases[phase].dimension:
            raise PlanError(
                f"the model asks {query.dimension} coordinates, phase {name} of the plan "
                f"{plan.phases[phase].dimension}.",
                "Plan and model must come from the same configuration.",
            )
        tallies = report(
            self.records(),
            query,
            plan.phases[phase],
            plan.signs_seed(phase, round_),
            self.coins,
        ).astype(np.min_scalar_type(plan.phases[phase].responses))
        self._store(stored, tallies)
        return tallies

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep a second process from answering the same round with other coins meanwhile."""
        with (self.folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _check_plan(self, plan: Plan) -> None:
        """A run is answered under one plan only: the one of its first debit."""
        for debit in self.ledger.debits:
            if debit.run == plan.run and debit.plan != plan.digest:
                raise PlanError(
                    f"run {plan.run} was begun under plan {debit.plan[:12]}, now asked under "
                    f"{plan.digest[:12]}.",
                    "A plan cannot change in mid run; start a new run.",
                )

    def _check_budget(self, plan: Plan, phase: int, round_: int) -> None:
        wanted = sum(p.rounds for p in plan.phases[:phase]) + round_ + 1
        others = tuple(d for d in self.ledger.debits if d.run != plan.run)
        limits: list[tuple[View, float]] = [
            ("secure_sum", self.policy.max_epsilon_secure_sum),
            ("site", self.policy.max_epsilon_site),
        ]
        for view, limit in limits:
            affordable = affordable_rounds(
                plan, view, costs_of(others, view), limit, self.policy.delta
            )
            if wanted > affordable:
                raise BudgetExhausted(
                    f"round {wanted} of run {plan.run} would pass the site's {view} limit of "
                    f"epsilon = {limit}.",
                    "The site's operator may raise the limit in site.toml; the server cannot.",
                )

    def _store(self, path: Path, tallies: NDArray[np.unsignedinteger]) -> None:
        """Keep the report until the run's next one: it may have to be sent again."""
        buffer = io.BytesIO()
        np.save(buffer, tallies)
        old = list(path.parent.glob("*.npy"))
        write_bytes(path, buffer.getvalue())
        for other in old:
            other.unlink(missing_ok=True)


@lru_cache(maxsize=64)
def affordable_rounds(
    plan: Plan, view: View, spent: tuple[RoundCost, ...], limit: float, delta: float
) -> int:
    """Return how many rounds of ``plan``, in order, fit into ``limit`` after what was spent."""
    high = sum(p.rounds for p in plan.phases)
    if math.isinf(limit) or epsilon((*spent, *plan.costs(view)), delta) <= limit:
        return high
    low = 0
    while high - low > 1:
        middle = (low + high) // 2
        if epsilon((*spent, *plan.costs(view, middle)), delta) <= limit:
            low = middle
        else:
            high = middle
    return low
