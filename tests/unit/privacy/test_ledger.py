"""The ledger: durable before release, chained, locked, and it never goes down."""

import multiprocessing
from dataclasses import replace
from pathlib import Path

import pytest

from dppm_model.errors import LedgerError
from dppm_model.privacy.accountant import RoundCost
from dppm_model.privacy.ledger import Debit, Ledger, costs_of

SITE = RoundCost(2.0, 0.1, 1)
DEBIT = Debit("run", "plan", "score", 0, RoundCost(0.5, 0.1, 1, 1e-20), SITE)


def _fill(path: Path, rounds: int = 4) -> Ledger:
    ledger = Ledger(path)
    for r in range(rounds):
        ledger.debit(replace(DEBIT, round=r))
    return ledger


def test_equal_rounds_are_gathered_in_both_views(tmp_path: Path) -> None:
    ledger = _fill(tmp_path / "ledger.jsonl")
    assert costs_of(ledger.debits, "site") == (RoundCost(2.0, 0.1, 4),)
    assert costs_of(ledger.debits, "secure_sum") == (RoundCost(0.5, 0.1, 4, 4e-20),)


def test_the_same_round_costs_once_and_another_plan_is_refused(tmp_path: Path) -> None:
    ledger = _fill(tmp_path / "ledger.jsonl")
    assert not ledger.debit(replace(DEBIT, round=2))
    assert len(ledger.debits) == 4
    with pytest.raises(LedgerError, match="another plan"):
        ledger.debit(replace(DEBIT, round=2, plan="other"))


def test_an_edited_line_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    _fill(path)
    path.write_text(path.read_text().replace('"mu": 2.0', '"mu": 0.1', 1))
    with pytest.raises(LedgerError, match="line 2"):
        _ = Ledger(path).debits


def test_a_removed_line_in_the_middle_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    _fill(path)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:1] + lines[2:]))
    with pytest.raises(LedgerError):
        _ = Ledger(path).debits


@pytest.mark.parametrize("fault", ["last line", "all lines", "file", "older copy", "rewritten"])
def test_cut_off_lines_and_a_replaced_file_are_noticed(tmp_path: Path, fault: str) -> None:
    path = tmp_path / "ledger.jsonl"
    _fill(path, 2)
    old = path.read_text()
    _fill(path, 4)
    if fault == "last line":
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    elif fault == "all lines":
        path.write_text("")
    elif fault == "file":
        path.unlink()
    elif fault == "older copy":
        path.write_text(old)
    else:  # a valid chain of the same length with cheaper rounds
        other = Ledger(tmp_path / "other.jsonl")
        for r in range(4):
            other.debit(replace(DEBIT, round=r, site=replace(SITE, mu=0.1)))
        path.write_text(other.path.read_text())
    with pytest.raises(LedgerError, match="cut off, or the file was replaced"):
        _ = Ledger(path).debits
    with pytest.raises(LedgerError):
        Ledger(path).debit(replace(DEBIT, round=9))


def test_a_crash_between_line_and_mark_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    _fill(path, 3)
    mark = path.with_suffix(".mark").read_text()
    _fill(path, 4)
    path.with_suffix(".mark").write_text(mark)
    assert len(Ledger(path).debits) == 4


def test_a_torn_tail_is_cut_and_the_chain_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    _fill(path)
    with path.open("a") as file:
        file.write('{"run": "run", "pl')
    ledger = Ledger(path)
    assert len(ledger.debits) == 4
    assert ledger.debit(replace(DEBIT, round=4))
    assert len(Ledger(path).debits) == 5


def _spend(path: Path, name: str) -> None:
    ledger = Ledger(path)
    for r in range(25):
        ledger.debit(replace(DEBIT, run=name, round=r))


def test_two_processes_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_spend, args=(path, n)) for n in ("a", "b")]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert len(Ledger(path).debits) == 50
