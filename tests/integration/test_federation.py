"""Whole trainings: in one process, resumed after a crash, and through real Flower and Ray."""

import json
from pathlib import Path

import numpy as np
import pytest

from client.app import create_app
from deploy import simulate as simulation
from deploy.flower import run_flower, stage_app
from dppm_model.errors import FederationError, RunFolderError
from dppm_model.run import Run
from dppm_model.score.model import ScoreModel
from server import rounds
from server.app import app as server_app
from tests.coins import SeededCoins
from tests.conftest import TINY
from tests.grids import FlakyGrid

SCORE = [
    "model=residual",
    "model.phases.score.rounds=3",
    "model.phases.score.sampling_rate=0.2",
    "model.residual.channels=4",
    "model.residual.blocks=1",
]


def prepare(folder: Path, extra: list[str] | None = None) -> tuple[Run, simulation.Config]:
    run, config, _ = simulation.prepare(folder, [*(extra or []), *TINY])
    return run, config


def train(run: Run, config: simulation.Config, dropped: tuple[int, ...] = ()) -> None:
    """Train in one process, without the sites that have dropped out."""
    settings = {"run": str(run.folder), "sites": str(run.sites)}
    app = create_app(SeededCoins)
    FlakyGrid(app, config.sites, settings, lost=lambda site, *_: site in dropped).play(server_app)


def same_model(a: Run, b: Run) -> bool:
    one, two = ScoreModel.load(a.model).arrays, ScoreModel.load(b.model).arrays
    return one.keys() == two.keys() and all(np.array_equal(one[k], two[k]) for k in one)


def twin_of(run: Run, folder: Path) -> Run:
    """Copy a prepared run: the same plan and the same split, in another folder."""
    import shutil

    shutil.copytree(run.folder, folder)
    return Run(folder)


def test_training_learns_and_accounts_for_every_round(tmp_path: Path, tiny: Path) -> None:
    run, config = prepare(tmp_path / "run", SCORE)
    train(run, config)
    plan, lines = run.plan(), run.rounds()
    assert [line["phase"] for line in lines] == [
        p.name for p in plan.phases for _ in range(p.rounds)
    ]
    privacy = json.loads(run.privacy.read_text())
    assert lines[-1]["epsilon_secure_sum"] == privacy["epsilon_secure_sum"] <= 8
    assert lines[-1]["epsilon_site"] == privacy["epsilon_site"]
    spent = [line["epsilon_secure_sum"] for line in lines]
    assert spent == sorted(spent)
    for site in run.sites.iterdir():
        assert len((site / "ledger.jsonl").read_text().splitlines()) == len(lines)
    # The class means that came out of the noise look like the classes.
    model = ScoreModel.load(run.model)
    means = model.mixture.basis.inverse(model.mixture.mean.float())
    assert means[0, 0, 4:, :4].mean() > means[0, 0, 4:, 4:].mean() + 0.3
    assert means[1, 0, :4, 4:].mean() > means[1, 0, 4:, 4:].mean() + 0.3


@pytest.mark.parametrize("round_", [1, 12])
def test_a_killed_run_goes_on_to_the_same_model(
    tmp_path: Path, tiny: Path, round_: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the sites have answered and before the snapshot: nothing is spent twice."""
    whole, config = prepare(tmp_path / "whole", SCORE)
    broken = twin_of(whole, tmp_path / "broken")
    train(whole, config)
    count, write = 0, rounds.Snapshot.write

    def crash(self: rounds.Snapshot, path: Path) -> None:
        nonlocal count
        if count == round_:
            raise KeyboardInterrupt
        count += 1
        write(self, path)

    monkeypatch.setattr(rounds.Snapshot, "write", crash)
    with pytest.raises(KeyboardInterrupt):
        train(broken, config)
    monkeypatch.undo()
    assert not broken.model.exists()
    train(broken, config)
    assert same_model(whole, broken)
    assert len(broken.rounds()) == len(whole.rounds())
    for site in broken.sites.iterdir():
        assert len((site / "ledger.jsonl").read_text().splitlines()) == len(whole.rounds())


def test_too_few_sites_void_the_round_with_a_reason(tmp_path: Path, tiny: Path) -> None:
    run, config = prepare(tmp_path / "run", ["server.max_retries=0"])
    with pytest.raises(FederationError, match=r"3 must join .1 × Flower error 5"):
        train(run, config, dropped=(1,))
    assert json.loads((run.folder / "status.json").read_text())["state"] == "failed"


def test_enough_sites_go_on_without_the_dropped_one(tmp_path: Path, tiny: Path) -> None:
    run, config = prepare(tmp_path / "run", ["privacy.min_survivors=2"])
    train(run, config, dropped=(1,))
    assert {line["sites"] for line in run.rounds()} == {2}
    assert json.loads(run.privacy.read_text())["honest_sites"] == 2


def test_a_run_folder_of_other_settings_is_refused_and_named(tmp_path: Path, tiny: Path) -> None:
    prepare(tmp_path / "run")
    with pytest.raises(RunFolderError, match=r"privacy\.epsilon was 8, now 3"):
        simulation.prepare(tmp_path / "run", [*TINY, "privacy.epsilon=3"])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("do not touch")
    with pytest.raises(RunFolderError, match="not a run folder"):
        prepare(tmp_path / "other")


@pytest.mark.flower
def test_real_flower_gives_the_same_model_as_one_process(tmp_path: Path, tiny: Path) -> None:
    """SuperLink, ServerApp and ClientApps in Ray actors; only the coins are replayable."""
    local, config = prepare(tmp_path / "local")
    remote = twin_of(local, tmp_path / "remote")
    train(local, config)
    app = stage_app(tmp_path / "app")
    (app / "client" / "seeded.py").write_text(
        "import hashlib\n"
        "from client.app import create_app\n"
        "from dppm_model.mechanism.coins import Coins\n\n\n"
        "class SeededCoins(Coins):\n"
        "    def __init__(self, seed):\n"
        "        super().__init__()\n"
        "        self._seed = seed\n\n"
        "    def _key(self):\n"
        "        return hashlib.sha256(repr(self._seed).encode()).digest()\n\n\n"
        "app = create_app(SeededCoins)\n"
    )
    project = app / "pyproject.toml"
    project.write_text(project.read_text().replace('"client.app:app"', '"client.seeded:app"'))
    run_flower(
        app,
        nodes=config.sites,
        run_config={"run": str(remote.folder), "sites": str(remote.sites)},
        log=tmp_path / "flower.log",
    )
    assert same_model(local, remote)
