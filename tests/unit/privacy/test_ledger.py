"""The ledger: durable before release, chained, locked, and it never goes down."""

import multiprocessing
import os
from dataclasses import replace
from pathlib import Path

import pytest

from dppm_model.errors import LedgerError
from dppm_model.files import sweep, write_bytes
from dppm_model.privacy.accountant import RoundCost
from dppm_model.privacy.ledger import Debit, Ledger, costs_of
from tests.support.fault_injection import (
    POINTS,
    TORN,
    dying,
    ended,
    forked,
    killed,
    left_over,
    short_writes,
)
from tests.support.mutations import nothing, twin

SITE = RoundCost(2.0, 0.1, 1)
DEBIT = Debit("run", "plan", "score", 0, RoundCost(0.5, 0.1, 1, 1e-20), SITE, SITE)


def _fill(path: Path, rounds: int = 4) -> Ledger:
    ledger = Ledger(path)
    for r in range(rounds):
        ledger.debit(replace(DEBIT, round=r))
    return ledger


def test_equal_rounds_are_gathered_in_both_views(tmp_path: Path) -> None:
    ledger = _fill(tmp_path / "ledger.jsonl")
    assert costs_of(ledger.debits, "site") == (RoundCost(2.0, 0.1, 4),)
    assert costs_of(ledger.debits, "secure_sum") == (RoundCost(0.5, 0.1, 4, 4e-20),)


@twin(
    "the ledger takes a round of another plan for the same",
    "dppm_model.privacy.ledger:Debit.__eq__",
    lambda old: lambda self, other: old(self, replace(other, plan=self.plan)),
)
def test_the_same_round_costs_once_and_another_plan_is_refused(tmp_path: Path) -> None:
    ledger = _fill(tmp_path / "ledger.jsonl")
    assert not ledger.debit(replace(DEBIT, round=2))
    assert len(ledger.debits) == 4
    with pytest.raises(LedgerError, match="another plan"):
        ledger.debit(replace(DEBIT, round=2, plan="other"))


@twin("lines may be edited", "dppm_model.privacy.ledger:_digest", lambda _: lambda line: 64 * "0")
def test_an_edited_line_is_noticed(tmp_path: Path) -> None:
    """As is a line that was removed from the middle."""
    path = tmp_path / "ledger.jsonl"
    _fill(path)
    whole = path.read_text()
    lines = whole.splitlines(keepends=True)
    for text in (whole.replace('"mu": 2.0', '"mu": 0.1', 1), "".join(lines[:1] + lines[2:])):
        path.write_text(text)
        with pytest.raises(LedgerError, match="line 2"):
            _ = Ledger(path).debits


@twin("lines may be cut off the ledger", "dppm_model.privacy.ledger:Ledger._check_mark", nothing)
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


def _as_bytes(path: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in path.parent.iterdir()}


@pytest.mark.parametrize("torn", TORN[1:])
def test_a_tail_of_any_bytes_is_cut(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "ledger.jsonl"
    Ledger(path).debit(DEBIT)
    with path.open("ab") as file:
        file.write(torn)
    torn_off = _as_bytes(path)
    assert len(Ledger(path).debits) == 1 and _as_bytes(path) == torn_off  # reading changes nothing
    assert Ledger(path).debit(replace(DEBIT, round=1))
    assert len(Ledger(path).debits) == 2


@pytest.mark.parametrize(
    "damage", [b"", b"\xff\xfe", b"\x00", b"[]", b"{}", b"[" * 100_000, b"9" * 5000, b"{}\r"]
)
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_damaged_line_that_is_not_the_tail_is_refused(
    tmp_path: Path, damage: bytes, number: int
) -> None:
    path = tmp_path / "ledger.jsonl"
    _fill(path, 3)
    lines = path.read_bytes().split(b"\n")
    lines[number - 1] = damage
    path.write_bytes(b"\n".join(lines))
    for use in (lambda: Ledger(path).debits, lambda: Ledger(path).debit(DEBIT)):
        with pytest.raises(LedgerError, match=f"line {number}"):
            use()


@twin(
    "a partial write counts as whole",
    "dppm_model.files:write_all",
    lambda _: lambda handle, content: os.write(handle, content),
)
def test_a_debit_is_written_whole_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few bytes a call and an error at each position, of lines and of marks."""
    path, entry = tmp_path / "ledger.jsonl", replace(DEBIT, round=2)
    _fill(path, 2)
    before = _as_bytes(path)
    ledger = Ledger(path)
    line = len(before["ledger.jsonl"]) // 2 + 8
    refused = 0
    for position in range(0, line + 80):
        with monkeypatch.context() as patch:
            short_writes(patch, position, step=200)
            try:
                ledger.debit(entry)
            except LedgerError:
                refused += 1
            else:
                break
        found = _as_bytes(path)
        assert found.keys() == before.keys()
        assert found["ledger.mark"] == before["ledger.mark"]  # at most one line behind
        if found["ledger.jsonl"] != before["ledger.jsonl"]:
            break  # the line is whole and durable, and the mark could not follow
    assert refused > 300
    assert len(Ledger(path).debits) in (2, 3)
    with monkeypatch.context() as patch:
        short_writes(patch, None)
        ledger.debit(entry)  # asked again, when there is room
    assert len(Ledger(path).debits) == 3
    assert (tmp_path / "ledger.mark").read_text().startswith("3 ")


def test_the_mark_is_a_line_behind_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ledger.jsonl"
    _fill(path, 2)
    old = (tmp_path / "ledger.mark").read_text()
    with monkeypatch.context() as patch:
        patch.setattr("dppm_model.privacy.ledger.write_bytes", _full)
        for number in (2, 3, 4):
            with pytest.raises(LedgerError, match="No space"):
                Ledger(path).debit(replace(DEBIT, round=number))
    assert len(Ledger(path).debits) == 3
    assert (tmp_path / "ledger.mark").read_text() == old
    _fill(path, 5)
    (tmp_path / "ledger.mark").write_text(old)
    with pytest.raises(LedgerError, match="cut off, or the file was replaced"):
        _ = Ledger(path).debits


def _full(*_: object) -> None:
    raise OSError(28, "No space left on device")


MARK = [
    "",
    "3",
    "x y",
    f"3 {'0' * 64}\n",
    "-1 x\n",
    f"3 {'g' * 64}\n",
    "\x00" * 70,
    "٣ " + "0" * 64,
]


@twin(
    "a ledger is accepted without its mark",
    "dppm_model.privacy.ledger:Ledger._check_mark",
    lambda old: lambda self, *args: old(self, *args) if self._mark.exists() else None,
    only="[None]",
)
@pytest.mark.parametrize("mark", [None, *MARK])
def test_a_missing_or_damaged_mark_is_refused(tmp_path: Path, mark: str | None) -> None:
    path = tmp_path / "ledger.jsonl"
    _fill(path, 3)
    if mark is None:
        path.with_suffix(".mark").unlink()
    else:
        path.with_suffix(".mark").write_text(mark)
    for use in (lambda: Ledger(path).debits, lambda: Ledger(path).debit(DEBIT)):
        with pytest.raises(LedgerError):
            use()


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_killed_writing_its_mark_a_ledger_goes_on(tmp_path: Path, point: str, nth: int) -> None:
    """Of the first mark too, which is there before the first line."""
    path = tmp_path / "ledger.jsonl"

    def work() -> None:
        with dying(point, nth, ".mark"):
            _fill(path, 3)

    assert ended(forked(work)) == -9
    assert len(Ledger(path).debits) in (nth - 2, nth - 1)
    sweep(tmp_path)
    assert not left_over(tmp_path)
    _fill(path, 3)
    assert len(Ledger(path).debits) == 3


def test_killed_at_any_moment_no_reported_debit_is_lost(tmp_path: Path) -> None:
    path, said = tmp_path / "ledger.jsonl", tmp_path / "said"

    def work() -> None:
        ledger = Ledger(path)
        write_bytes(said, str(len(ledger.debits)).encode())
        for number in range(len(ledger.debits), 10_000):
            ledger.debit(replace(DEBIT, round=number))
            write_bytes(said, str(number + 1).encode())

    for n in range(40):
        killed(work, 0.01 + n * 0.0007)
        least = int(said.read_text()) if said.exists() else 0
        assert least <= len(Ledger(path).debits) <= least + 1


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").mkdir()
    os.mkfifo(tmp_path / "b.jsonl")
    (tmp_path / "c.jsonl").symlink_to(tmp_path / "nowhere")
    for name in "abc":
        for use in (lambda ledger: ledger.debits, lambda ledger: ledger.debit(DEBIT)):
            with pytest.raises(LedgerError):
                use(Ledger(tmp_path / f"{name}.jsonl"))


def test_reading_makes_nothing(tmp_path: Path) -> None:
    assert Ledger(tmp_path / "deep" / "ledger.jsonl").debits == ()
    assert not any(tmp_path.iterdir())


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
