"""`dppm ledger show|verify`: the spending of a site or a server, from its own ledger."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from rich.table import Table

from deploy.show import console, empty_table, epsilon_text, print_json
from dppm_model.errors import LedgerError
from dppm_model.mechanism.base import VIEWS
from dppm_model.privacy.accountant import check_delta, epsilon, finite
from dppm_model.privacy.ledger import Ledger, costs_of


def show(path: Path, delta: float, *, as_json: bool) -> None:
    """Verify a ledger and show it; `LedgerError` if it is missing, edited, cut or replaced."""
    found = summary(open_ledger(path), delta)
    if as_json:
        print_json(found)
        return
    console.print(_table(found))
    console.print(
        f"spent in all: ε = {epsilon_text(found['epsilon_release'])} (releases), "
        f"{epsilon_text(found['epsilon_secure_sum'])} (secure sum), "
        f"{epsilon_text(found['epsilon_site'])} (site); δ = {found['delta']:g}"
    )


def verify(path: Path, delta: float, *, as_json: bool) -> None:
    """Verify a ledger; raises as `show` does."""
    found = summary(open_ledger(path), delta)
    if as_json:
        print_json(found)
    else:
        console.print(
            f"{found['path']}: {found['debits']} debits, unbroken; head {found['head']}",
            markup=False,
        )


def open_ledger(path: Path) -> Ledger:
    """Open the ledger of a run folder or a site folder, or a ledger file."""
    file = path / "ledger.jsonl" if path.is_dir() else path
    if not file.is_file() and not file.with_suffix(".mark").exists():
        raise LedgerError(f"{file} does not exist.", "Name a run folder, a site folder or a file.")
    return Ledger(file)


def summary(ledger: Ledger, delta: float) -> dict[str, Any]:
    """Group rounds by run and phase, and compose all of them in each view (None: infinite)."""
    check_delta(delta)
    debits = ledger.debits
    rounds = Counter(
        (d.run, d.phase, d.site.sampling_rate, *(finite(getattr(d, view).mu) for view in VIEWS))
        for d in debits
    )
    names = ("run", "phase", "sampling_rate", *(f"mu_{view}" for view in VIEWS))
    return {
        "path": str(ledger.path),
        "debits": len(debits),
        "head": ledger.head,
        "delta": delta,
        **{f"epsilon_{v}": finite(epsilon(costs_of(debits, v), delta)) for v in VIEWS},
        "phases": [
            {**dict(zip(names, key, strict=True)), "rounds": n} for key, n in rounds.items()
        ],
    }


def _table(found: dict[str, Any]) -> Table:
    numbers = ["rounds", "q", *(f"µ {view.replace('_', ' ')}" for view in VIEWS)]
    table = empty_table(found["path"], ["run", "phase"], numbers)
    for p in found["phases"]:
        table.add_row(
            p["run"],
            p["phase"],
            str(p["rounds"]),
            f"{p['sampling_rate']:.3g}",
            *("∞" if (mu := p[f"mu_{view}"]) is None else f"{mu:.3f}" for view in VIEWS),
        )
    return table
