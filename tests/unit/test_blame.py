"""The fewest sites that meet all pairs of which one lied, and masked reports on disk."""

from itertools import combinations
from pathlib import Path
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from server.securesum.blame import Blame
from server.securesum.round_checkpoint import MaskedReports, RoundCheckpoint
from tests.support.mutations import twin


def blame_of(pairs: list[tuple[int, int]]) -> Blame:
    blame = Blame()
    for first, second in pairs:
        blame.add_pair(first, second, f"{second} says so of {first}")
    return blame


@twin(
    "the accused of every pair is left out, though one site complains of all",
    "server.securesum.blame:_meets",
    lambda _: lambda pairs, most: tuple(dict.fromkeys(a for a, _ in pairs)),
)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)).filter(lambda p: p[0] != p[1])))
def test_the_fewest_sites_that_meet_all_pairs(pairs: list[tuple[int, int]]) -> None:
    found = blame_of(pairs).left_out().keys()
    assert all(found & set(pair) for pair in pairs)
    for fewer in combinations(range(7), max(0, len(found) - 1)):
        assert not found or any(not set(fewer) & set(pair) for pair in pairs)


@twin(
    "of two possible liars the one that complains is left out",
    "server.securesum.blame:Blame.add_pair",
    lambda old: lambda self, first, second, why: old(self, second, first, why),
)
def test_of_two_the_first_is_left_out_and_told_why() -> None:
    assert blame_of([(2, 1)]).left_out() == {2: "1 says so of 2"}
    assert blame_of([(2, 1), (1, 2)]).left_out() == {2: "1 says so of 2"}
    assert blame_of([(2, 1), (3, 1)]).left_out().keys() == {1}  # it complains of many
    assert blame_of([(2, 1), (2, 3)]).left_out().keys() == {2}  # of whom many complain


def test_who_is_left_out_anyway_needs_no_other() -> None:
    blame = blame_of([(2, 1)])
    assert blame.left_out([1]) == {}
    blame.add(1, "found out")
    blame.add(1, "again")
    assert blame.left_out() == {1: "found out"}
    assert blame.lines == ["found out", "1 says so of 2"] and len(blame) == 2
    blame.forget()
    assert blame.left_out() == {} and len(blame) == 0


def test_liars_spoil_no_more_tries_than_there_can_be() -> None:
    """Three liars of twelve accuse, and are accused, as they like: 3 · 4 pairs are the most."""
    for seed in range(20):
        draw, blame, tries = Random(seed), Blame(), 0
        while True:
            here = [i for i in range(12) if i not in blame.left_out()]
            liars = [i for i in here if i < 3]
            assert len(here) >= 9
            if not liars:
                break
            a = draw.choice(liars)
            b = draw.choice([i for i in here if i != a])
            blame.add_pair(*draw.sample([a, b], 2), "one lied")
            tries += 1
        assert tries <= 12


def test_reports_are_found_again_by_their_site(tmp_path: Path) -> None:
    path = tmp_path / "state" / "reports.bin"
    reports = MaskedReports(path, 3)
    for site in (4, 1):
        reports.add(site, bytes([site] * 3))
    reports.sync()
    assert MaskedReports(path, 3, [4, 1]).of(1) == bytes([1] * 3) and reports.of(4) == bytes(
        [4] * 3
    )
    assert MaskedReports(path, 3) and path.read_bytes() == b""  # another try begins empty


def test_a_checkpoint_of_hundreds_of_sites_can_be_written(tmp_path: Path) -> None:
    """Their shares take more than the 100 MB that safetensors gives to a header."""
    blame = Blame()
    blame.certain[3] = "é" * 120_000_000
    RoundCheckpoint("plan", 5, blame).write(tmp_path / "checkpoint")
    again = RoundCheckpoint.read(tmp_path / "checkpoint", "plan")
    assert again and again.number == 5 and again.blame.certain == blame.certain
