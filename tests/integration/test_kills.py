"""Killed at random moments, and two at once: the same command ends the work, and leaves nothing.

What a kill leaves may hold a round's seed or an unmasked report: after the next message to a site
nothing of it is there, and in the end a site's folder holds what that of an unkilled run holds.
"""

import contextlib
import json
import random
import time
from pathlib import Path

import pytest

from client.app import create_app
from deploy import simulate as simulation
from deploy.pages.run_summary import RunSummary
from dppm_model.errors import RunFolderError, TooFewSites
from dppm_model.privacy.ledger import Ledger
from dppm_model.run import Run
from tests.conftest import SMALL, TINY
from tests.conftest import run as typed
from tests.support.fault_injection import POINTS, dying, ended, forked, killed, left_over
from tests.support.few_rounds import FOUR_ROUNDS
from tests.support.flaky_grid import assert_same_model, play, twin_of
from tests.support.mutations import nothing, twin
from tests.support.seeded_rng import SeededRNG

SHORT = [*TINY, *FOUR_ROUNDS, "server.retry_seconds=0.001"]


def secrets_of(run: Run) -> dict[str, object]:
    """Tell which secrets a run folder holds: rounds with seeds, reports, and what is left over."""
    found: dict[str, object] = {"left over": left_over(run.folder)}
    for site in sorted(run.sites.iterdir()):
        (memory,) = (site / "sums").glob("*.json")
        reports = sorted(p.name for p in (site / "reports").rglob("*") if p.is_file())
        found[site.name] = (sorted(json.loads(memory.read_text())["rounds"]), reports)
        found[f"{site.name} spent"] = len(Ledger(site / "ledger.jsonl").debits)
    return found


@pytest.fixture(scope="module")
def whole(tiny_store: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    """A prepared run folder, and the same run without a kill, by coins that can be replayed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DPPM_DATA", str(tiny_store))
        folder = tmp_path_factory.mktemp("kills")
        run = simulation.prepare(folder / "prepared", SHORT)[0]
        reference = twin_of(run, folder / "whole")
        play(reference)
    return run, reference


def assert_same(run: Run, whole: Run) -> None:
    assert_same_model(run, whole)
    assert secrets_of(run) == secrets_of(whole)


@pytest.mark.parametrize("nth", [1, 4, 7])
@pytest.mark.parametrize("suffix", [".json", ".npy", ".mark", ".safetensors"])
@pytest.mark.parametrize("point", POINTS)
def test_killed_in_a_write_nothing_is_left(
    whole: tuple[Run, Run], tmp_path: Path, point: str, suffix: str, nth: int
) -> None:
    prepared, reference = whole
    run = twin_of(prepared, tmp_path / "run")

    def work() -> None:
        with dying(point, nth, suffix):
            play(run)

    assert ended(forked(work)) == -9
    assert len(left_over(run.folder)) == (point != "renamed")
    play(run)
    with run.alone():  # as the next command on the folder begins
        assert_same(run, reference)


def test_killed_at_its_last_word_a_run_is_whole(whole: tuple[Run, Run], tmp_path: Path) -> None:
    """The model is there, and the status still says that it runs."""
    run = twin_of(whole[1], tmp_path / "run")
    run.status.write_text('{"state": "running"}')
    (run.folder / ".status.json.new").write_text('{"state": "fini')
    assert RunSummary.of(run).state == "finished" and typed("simulate", run.folder) == 0
    assert not left_over(run.folder)
    run.model.unlink()
    assert RunSummary.of(run).state == "stopped"


@twin("leftovers of a killed writer are never removed", "dppm_model.files:sweep", nothing)
def test_a_site_forgets_at_the_next_message_even_if_it_is_refused(
    whole: tuple[Run, Run], tmp_path: Path
) -> None:
    """The killed site is asked no round any more: a plan that it has not approved will do."""
    prepared, _ = whole
    run = twin_of(prepared, tmp_path / "run")

    def work() -> None:
        with dying("synced", 8, ".json"):
            play(run)

    assert ended(forked(work)) == -9
    (left,) = left_over(run.sites)
    assert "seed" in left.read_text()
    site = left.parents[1]
    for approval in (site / "approvals").iterdir():
        approval.unlink()
    with pytest.raises(TooFewSites):
        play(run)
    assert not left_over(site)


@twin(
    "two commands write into one run folder at once",
    "dppm_model.run:Run.alone",
    lambda _: lambda self: contextlib.nullcontext(),
)
def test_a_command_that_writes_is_alone_in_a_run_folder(finished: Path) -> None:
    """Another process works in it, so every such command is refused, and then is not."""
    run = Run(finished)
    few = ["--canaries", "10", "--images", "10", "--trials", "1000", "--members", "100"]
    commands: list[list[object]] = [
        ["sample", finished, *SMALL],
        ["diagnose", finished, "sampler.num_levels=3"],
        ["evaluate", finished],
        ["audit", finished, *few],
    ]
    before = {p: p.read_bytes() for p in finished.rglob("*") if p.is_file()}
    with run.alone():
        for command in commands:
            assert typed(*command) == RunFolderError.exit_code, command
        assert {p: p.read_bytes() for p in before} == before
    assert typed("sample", finished, *SMALL) == 0


def test_a_run_that_was_begun_by_nobody_is_left_alone(tmp_path: Path, tiny: Path) -> None:
    """A folder of somebody else's; a run without its plan; and what a maker that failed leaves."""
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "cat.png").write_text("cat")
    assert typed("simulate", folder, *SHORT) == RunFolderError.exit_code
    assert [p.name for p in folder.iterdir()] == ["cat.png"]
    run = tmp_path / "run"
    assert typed("simulate", run, *SHORT) == 0
    (run / "plan.json").unlink()
    before = sorted(run.rglob("*"))
    assert typed("simulate", run, *SHORT) == RunFolderError.exit_code
    assert sorted(run.rglob("*")) == before
    assert typed("simulate", tmp_path / "failed", *SHORT, "privacy.epsilom=1") != 0
    assert typed("simulate", tmp_path / "too" / "many", *SHORT, "sites=601") != 0
    assert not (tmp_path / "failed").exists() and not (tmp_path / "too" / "many").exists()


@twin("a run is built on a killed preparation", "deploy.making:_empty", nothing, only="[17]")
@pytest.mark.parametrize("nth", [1, 2, 4, 5, 9, 16, 17])
def test_a_preparation_that_was_killed_is_begun_again(tmp_path: Path, tiny: Path, nth: int) -> None:
    """In each of its files: by the same command, with the same settings or others."""
    run = tmp_path / "run"

    def work() -> None:
        with dying("written", nth):
            typed("simulate", run, *SHORT, "sites=5")

    assert ended(forked(work)) == -9
    assert (run / ".making").exists()
    assert typed("simulate", run, *SHORT) == 0
    assert len(list((run / "sites").iterdir())) == 3 and not left_over(run)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_hundred_kills_of_a_simulation_change_nothing(
    whole: tuple[Run, Run], tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By coins that can be replayed, the model is that of the run without a kill, bit for bit."""
    prepared, reference = whole
    monkeypatch.setattr("deploy.simulate.client_app", create_app(SeededRNG))
    draw, kills, folders = random.Random(0), 0, iter(range(1000))

    def begin() -> Path:
        return twin_of(prepared, tmp_path / f"run-{next(folders)}").folder

    assert typed("simulate", begin()) == 0  # warms caches
    begun = time.monotonic()
    assert typed("simulate", begin()) == 0
    longest, folder = time.monotonic() - begun, begin()
    while kills < 100:
        code = killed(lambda: typed("simulate", folder), draw.uniform(0.01, longest))  # noqa: B023
        assert code in (0, -9)
        kills += code == -9
        if code == 0 or kills == 100 or draw.random() < 0.1:  # now and then to the end
            assert ended(forked(lambda: typed("simulate", folder))) == 0  # noqa: B023
            assert_same(Run(folder), reference)
            folder = begin()
