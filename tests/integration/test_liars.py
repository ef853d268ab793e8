"""One site of five lies or fails, in every way: runs end, with the right sums of the others."""

import random
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deploy import simulate as simulation
from dppm_model.errors import TooFewSites
from dppm_model.fault_points import FaultPoint, watched
from dppm_model.privacy.ledger import Ledger
from dppm_model.run import Run
from server.securesum.aggregation import Aggregate, SecureSum
from tests.conftest import TINY
from tests.support.few_rounds import FOUR_ROUNDS
from tests.support.flaky_grid import Killed, assert_same_model, dies, play, twin_of
from tests.support.lying_sites import LIES, WITH_A_DROP_OUT, Liar, edits
from tests.support.mutations import nothing, twin

NODE = 3
LIAR = f"site-{NODE:04d}"
Prepared = Callable[[int], Run]  # by the number of sites


def prepare(folder: Path, sites: int) -> Run:
    settings = [*FOUR_ROUNDS, "server.max_retries=0", "server.wait_seconds=0.01"]
    settings += [f"sites={sites}", "privacy.min_survivors=4"]
    return simulation.prepare(folder, [*TINY, *settings])[0]


@pytest.fixture(scope="module")
def prepared(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Run folders of a number of sites, of which four must survive."""
    folder, made = tmp_path_factory.mktemp("liars"), dict[int, Run]()

    def run(sites: int) -> Run:
        if sites not in made:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("DPPM_DATA", str(tiny_store))
                made[sites] = prepare(folder / str(sites), sites)
        return made[sites]

    return run


@contextmanager
def watched_sums(run: Run) -> Iterator[list[Aggregate]]:
    """Every sum of a run, found to be exactly that of the stored reports that are in it."""
    found: list[Aggregate] = []
    ask = SecureSum.aggregate

    def checked(self: SecureSum, phase: int, round_: int, model: bytes) -> Aggregate:
        answer = ask(self, phase, round_, model)
        names = {f"site-{i:04d}" for i in range(self.plan.sites)} - answer.left_out.keys()
        name = f"{self.plan.phases[phase].name}-{round_:06d}.npy"
        stored = [run.sites / n[5:] / "reports" / self.plan.run / name for n in sorted(names)]
        expected = sum(np.load(path).astype(np.int64) for path in stored)
        np.testing.assert_array_equal(answer.total, expected)
        assert answer.sites == len(names) >= 4
        found.append(answer)
        return answer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SecureSum, "aggregate", checked)
        yield found


def played(
    run: Run, caplog: pytest.LogCaptureFixture, *, innocent: Collection[int] = (), **faults: Any
) -> str:
    """Play a run in which site `NODE` lies, and check it.

    The run ends, nobody has paid twice, and nobody is blamed without the liar.

    Returns
    -------
    All that is said of who lied, in the log and in the metrics.
    """
    plan = run.plan()
    with watched_sums(run) as sums:
        play(run, **faults)
    assert run.model.exists() and len(sums) == plan.rounds
    for folder in sorted(run.sites.iterdir()):
        debits = [(d.phase, d.round) for d in Ledger(folder / "ledger.jsonl").debits]
        assert len(debits) == len(set(debits))
    for answer, line in zip(sums, run.rounds(), strict=True):
        assert line["left_out"] == answer.left_out and line["blamed"] == answer.blamed
        assert all(LIAR in line for line in answer.blamed)
        for name, why in answer.left_out.items():
            named = name == LIAR or LIAR in why
            assert named or name in {f"site-{i:04d}" for i in innocent}, (name, why)
    return caplog.text + repr(sums)


# What these deal is not opened unless they drop out.
UNHEARD = {"another mask key is dealt", "mask key on no polynomial"}


@twin(
    "a server that has heard a site join can join in its place",
    "dppm_model.securesum.keys:joined",
    lambda old: lambda group, _, channel: old(group, bytes(32), channel),
    only="[joins as another]",
)
@twin(
    "the server passes on whatever a site deals",
    "server.securesum.key_collection:check_round_keys",
    nothing,
    only="[digests missing]",
)
@twin(
    "a sum is opened although it contradicts its sites' check numbers",
    "dppm_model.securesum.opening:Opening.fits",
    lambda _: lambda self: True,
    only="[garbage]",
)
@twin(
    "a complaint names nobody",
    "client.app:_refused",
    lambda old: lambda error: {"error": old(error)["error"]},
    only="[shares wrong]",
)
@pytest.mark.parametrize("lie", LIES)
def test_a_lie_of_one_site_costs_one_report_at_most(
    prepared: Prepared, tmp_path: Path, caplog: pytest.LogCaptureFixture, lie: str
) -> None:
    run = twin_of(prepared(5), tmp_path / "run")
    edit, seen = edits(Liar(run, NODE), LIES[lie])
    text = played(run, caplog, edit=edit, seen=seen)
    assert LIAR in text or lie in UNHEARD


@pytest.mark.parametrize("lie", [*LIES, *WITH_A_DROP_OUT])
def test_a_lie_beside_a_drop_out(
    prepared: Prepared, tmp_path: Path, caplog: pytest.LogCaptureFixture, lie: str
) -> None:
    """An honest site misses every other question, and the liar one of them."""
    run = twin_of(prepared(6), tmp_path / "run")
    edit, seen = edits(Liar(run, NODE), (LIES | WITH_A_DROP_OUT)[lie])
    asked = Counter[int]()

    def lost(site: int, kind: str, replied: bool) -> bool:
        if kind != "train" or replied:
            return False
        asked[site] += 1
        return (site == NODE + 1 and asked[site] % 2 == 1) or (site, asked[site]) == (NODE, 3)

    text = played(run, caplog, edit=edit, seen=seen, lost=lost, innocent=[NODE + 1])
    assert LIAR in text


KINDS = ["query.join", "train", "query.open", "query.checks"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["silent", "dies"])
def test_a_site_that_fails_at_a_stage_for_good(
    prepared: Prepared, tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str, how: str
) -> None:
    run = twin_of(prepared(6), tmp_path / "run")

    def lost(site: int, now: str, replied: bool) -> bool:
        if (site, now) == (NODE + 1, "train"):  # somebody has to be missing for "query.checks"
            return len(run.rounds()) == 1
        return (site, now) == (NODE, kind) and replied is (how == "dies")

    played(run, caplog, lost=lost, innocent=[NODE + 1])


@pytest.mark.parametrize("seed", range(6))
def test_a_site_that_lies_in_many_ways(
    prepared: Prepared, tmp_path: Path, caplog: pytest.LogCaptureFixture, seed: int
) -> None:
    """Each answer holds a random lie or none, and some never come."""
    run = twin_of(prepared(6), tmp_path / "run")
    draw, lies = random.Random(seed), [*LIES.values(), *WITH_A_DROP_OUT.values()]
    liar = Liar(run, NODE)

    def turns(liar: Liar, asked: Any, reply: Any) -> None:
        if draw.random() < 0.7:
            draw.choice(lies)(liar, asked, reply)

    def lost(site: int, now: str, replied: bool) -> bool:
        if site == NODE:
            return draw.random() < 0.1
        return site == NODE + 1 and now == "train" and draw.random() < 0.2

    edit, seen = edits(liar, turns)
    played(run, caplog, edit=edit, seen=seen, lost=lost, innocent=[NODE + 1])


@pytest.fixture(scope="module")
def spoilt(
    prepared: Prepared, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[Run, Run]]:
    """A run folder, and the same run to its end with this lie and without any kill."""
    folder, made = tmp_path_factory.mktemp("spoilt"), dict[str, tuple[Run, Run]]()

    def run(lie: str) -> tuple[Run, Run]:
        if lie not in made:
            whole = twin_of(prepared(5), folder / str(len(made)))
            edit, seen = edits(Liar(whole, NODE), LIES[lie])
            play(whole, edit=edit, seen=seen)
            made[lie] = prepared(5), whole
        return made[lie]

    return run


# In the first round: a try that is given up, the next one, and a site taken out of a sum.
KILLS = [
    ("one pair is masked wrongly", FaultPoint.SERVER_BLAMED, 1),
    ("one pair is masked wrongly", FaultPoint.SITE_PREPARED, 7),
    ("one pair is masked wrongly", FaultPoint.SERVER_BEGUN, 2),
    ("one pair is masked wrongly", FaultPoint.SITE_ADMITTED, 7),
    ("one pair is masked wrongly", FaultPoint.SITE_MASKED, 7),
    ("one pair is masked wrongly", FaultPoint.SERVER_SUMMED, 1),
    ("one pair is masked wrongly", FaultPoint.SERVER_CLOSED, 1),
    ("one pair is masked wrongly", FaultPoint.SITE_REVEALED, 2),
    ("shares wrong", FaultPoint.SERVER_BLAMED, 1),
    ("shares wrong", FaultPoint.SITE_MASKED, 3),
    ("another self-mask is dealt", FaultPoint.SERVER_CLOSED, 1),
    ("another self-mask is dealt", FaultPoint.SERVER_JUDGED, 1),
    ("another self-mask is dealt", FaultPoint.SITE_REMOVED, 1),
    ("another self-mask is dealt", FaultPoint.SITE_REMOVED, 3),
    ("another self-mask is dealt", FaultPoint.SERVER_OPENED, 1),
    ("another self-mask is dealt", FaultPoint.SERVER_LEARNED, 1),
]


def _removed_in_place(old: Any) -> Any:
    def remove(self: Any, guilty: Any, report: Any) -> None:
        total = self.total
        old(self, guilty, report)
        total[:] = self.total

    return remove


@twin(
    "a report is removed from the saved sum of a killed server",
    "dppm_model.securesum.opening:Opening.remove",
    _removed_in_place,
    only="[another self-mask is dealt-FaultPoint.SERVER_OPENED-1]",
)
@pytest.mark.parametrize(("lie", "step", "nth"), KILLS, ids=str)
def test_killed_in_a_round_that_is_spoilt_and_started_again(
    spoilt: Callable[[str], tuple[Run, Run]], tmp_path: Path, lie: str, step: FaultPoint, nth: int
) -> None:
    """The same command goes on: with the same sums, the same blame, and nothing paid twice."""
    unspoilt, whole = spoilt(lie)
    run = twin_of(unspoilt, tmp_path / "run")
    edit, seen = edits(Liar(run, NODE), LIES[lie])
    with watched(dies(step, nth)), pytest.raises(Killed):
        play(run, edit=edit, seen=seen)
    play(run, edit=edit, seen=seen)
    assert_same_model(run, whole)
    for mine, theirs in zip(run.rounds(), whole.rounds(), strict=True):
        assert mine["sites"] == theirs["sites"]
        assert mine["left_out"].keys() == theirs["left_out"].keys()
    for folder in sorted(run.sites.iterdir()):
        other = whole.sites / folder.name / "ledger.jsonl"
        mine_, theirs_ = (len(Ledger(p).debits) for p in (folder / "ledger.jsonl", other))
        assert mine_ == theirs_


def test_where_nobody_can_be_spared_the_pair_is_named_and_the_command_resumes(
    tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three of three must survive: a lie ends the run, until it is mended."""
    monkeypatch.setenv("DPPM_DATA", str(tiny_store))
    settings = [*TINY, *FOUR_ROUNDS, "server.max_retries=0"]
    run = simulation.prepare(tmp_path / "run", settings)[0]
    edit, seen = edits(Liar(run, 1), LIES["shares wrong"])
    for _ in range(2):
        with pytest.raises(TooFewSites, match="site-0000 says that keys or shares of site-0001"):
            play(run, edit=edit, seen=seen)
    play(run)
    assert [line["sites"] for line in run.rounds()] == [3] * run.plan().rounds


@twin(
    "a node takes the place of a connected one",
    "server.securesum.membership:Membership._take",
    lambda _: (
        lambda self, site, node, channel: (
            self.nodes.update({site: node}),
            self.channels.update({site: channel}),
        )
    ),
)
def test_a_second_node_for_a_site_is_refused_by_name(
    prepared: Prepared, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The last node has the folder, hence the identity, of the first, which stays."""
    run = twin_of(prepared(5), tmp_path / "run")
    shutil.rmtree(run.sites / "0004")
    shutil.copytree(run.sites / "0000", run.sites / "0004")
    play(run)
    assert "which another node has joined as" in caplog.text and "site-0000" in caplog.text
    assert [line["sites"] for line in run.rounds()] == [4] * run.plan().rounds


def test_a_report_larger_than_any_spoils_a_sum_and_ends_no_run(
    prepared: Prepared, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With the check numbers that fit it: nobody can see whose it was. The sum stays in range.

    One site is missing, and the sums of four fill four fifths of the numbers that five could reach.
    """
    run = twin_of(prepared(5), tmp_path / "run")

    def lie(liar: Liar, asked: Any, reply: Any) -> None:
        if "report" in reply:
            sum_ = liar.sum(asked)
            more = np.random.default_rng(0).integers(0, 1 << sum_.bits, sum_.dimension)
            extra, _ = sum_.masked(liar.member.group, more, sum_.ring.zeros())
            liar.masked(asked, reply, lambda vector: vector + extra)

    edit, seen = edits(Liar(run, NODE), lie)
    play(run, edit=edit, seen=seen, lost=lambda site, now, _: (site, now) == (NODE + 1, "train"))
    assert caplog.text.count("the sum exceeds what its sites can report") == run.plan().rounds
    assert [line["sites"] for line in run.rounds()] == [4] * run.plan().rounds
